"""A head and a target in MNI space come in; the affine between them, and how sure it is, go out."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from motionlib.preprocess.grid import BOX_CENTRE_MM, MNI_BRAIN_TOP_MM, MNI_CENTRE_MM, SCALP_MM
from motionlib.preprocess.head import find_head
from motionlib.preprocess.targets import TARGET_SPACING_MM, Target

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SMOOTHING_MM = 2.0  # of the finest step; see `register`


@dataclass(frozen=True)
class Registration:
    """An affine from MNI space to the scan.

    Attributes
    ----------
    matrix : ndarray, shape (4, 4)
        MNI mm to the scan's mm (RAS both).
    iterations : int
        Of the last stage.
    """

    matrix: np.ndarray
    iterations: int


def to_itk(array: np.ndarray, affine: np.ndarray):
    """Wrap an array (I, J, K) with a RAS affine as a SimpleITK image (LPS)."""
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def itk_affine(matrix: np.ndarray):
    """Turn a RAS matrix into the SimpleITK transform with the same effect."""
    import SimpleITK as sitk  # noqa: N813

    lps = LPS @ matrix @ LPS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def ras_matrix(transform) -> np.ndarray:
    """Turn a SimpleITK affine into the RAS matrix with the same effect."""
    points = np.vstack([np.zeros(3), np.eye(3)])
    moved = np.array([transform.TransformPoint(point.tolist()) for point in points])
    lps = np.eye(4)
    lps[:3, 3] = moved[0]
    lps[:3, :3] = (moved[1:] - moved[0]).T
    return LPS @ lps @ LPS


def first_guess(array: np.ndarray, affine: np.ndarray, target: Target | None = None):
    """Place the head by its top, centre and size.

    Parameters
    ----------
    array, affine
        The scan.
    target : Target, optional
        What its size is compared with; without it only shifts are guessed.

    Returns
    -------
    matrix : ndarray, shape (4, 4)
        MNI mm to the scan's mm, no rotation relative to the array's axes.
    stripped : bool
        Whether the scan shows a brain without skull.
    """
    found = find_head(array, affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    top = MNI_BRAIN_TOP_MM + (0.0 if found.stripped else SCALP_MM)
    size = np.ones(3)
    if target is not None:
        own = find_head(target.head.astype(np.float32), target.affine).spread_mm
        size[:2] = np.clip(np.array(found.spread_mm) / own, 0.75, 1.2)
        size[2] = size[:2].mean()
    place = np.array([*found.centre_mm, found.top_mm]) - size * np.array([*MNI_CENTRE_MM, top])
    to_voxel = np.diag([*(size / spacing), 1.0])
    to_voxel[:3, 3] = place / spacing
    return affine @ to_voxel, found.stripped


def register(array: np.ndarray, affine: np.ndarray, target: Target) -> Registration:
    """Find the affine from a target to a scan by mutual information, rigid first.

    Parameters
    ----------
    array : ndarray, shape (I, J, K)
        The scan, corrected for bias.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm (RAS).
    target : Target
        From `load_target`.

    Returns
    -------
    Registration

    Notes
    -----
    Source: Clinica t1-linear (rigid then affine, Mattes mutual information with 32 bins, a quarter
    of the samples on a regular lattice). Departs from Clinica: SimpleITK's optimiser, no step at
    full resolution, a search over starting angles, 2 mm of smoothing to the end, and only the brain
    compared once the start is found. With 1 mm and the scalp compared too, the scalp could slide
    onto the edge of the target's brain, heads ending a sixth too small: sub-IXI013 of IXI was 10 mm
    off, with *more* information than where it belongs. The rigid step is taken from three starting
    sizes and the end with the most information kept: from the best start alone, sub-IXI034 ended
    there too (0.23 against 0.32 from the two others).
    """
    import SimpleITK as sitk  # noqa: N813

    guess, _ = first_guess(array, affine, target)
    fixed = to_itk(target.array, target.affine)
    region = to_itk(target.region.astype(np.uint8), target.affine)
    moving = _coarser(to_itk(array.astype(np.float32), affine))
    centre = [-BOX_CENTRE_MM[0], -BOX_CENTRE_MM[1], BOX_CENTRE_MM[2]]  # LPS
    start = itk_affine(guess)
    core = to_itk(target.core.astype(np.uint8), target.affine)
    followed = []
    for trial in _starts(fixed, region, moving, start, centre):
        try:
            value, _ = _optimise(
                fixed, core, moving, start, trial, shrink=(4, 2), sigma_mm=(4, SMOOTHING_MM)
            )
        except RuntimeError:  # this start has led out of the image; the others may not
            continue
        if np.isfinite(value):
            followed.append((value, trial))
    if not followed:
        raise ValueError("The registration failed: from every start the head left the image.")
    rigid = min(followed, key=lambda pair: pair[0])[1]
    full = sitk.AffineTransform(3)
    full.SetCenter(centre)
    full.SetMatrix(rigid.GetMatrix())
    full.SetTranslation(rigid.GetTranslation())
    _, iterations = _optimise(
        fixed, core, moving, start, full, shrink=(2, 1), sigma_mm=(SMOOTHING_MM, SMOOTHING_MM)
    )
    return Registration(ras_matrix(sitk.CompositeTransform([start, full])), iterations)


def information(array: np.ndarray, affine: np.ndarray, target: Target, matrix: np.ndarray) -> float:
    """Mattes mutual information of a scan and a target under an affine, whoever found it.

    Parameters
    ----------
    array : ndarray, shape (I, J, K)
        The scan, corrected for bias.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm (RAS).
    target : Target
        Compared within its core.
    matrix : ndarray, shape (4, 4)
        MNI mm to the scan's mm.

    Returns
    -------
    float
        Positive; larger is better. Both images are smoothed by 2 mm.
    """
    import SimpleITK as sitk  # noqa: N813

    fixed = to_itk(target.array, target.affine)
    moving = _coarser(to_itk(array.astype(np.float32), affine))
    fixed, moving = (sitk.SmoothingRecursiveGaussian(i, SMOOTHING_MM) for i in (fixed, moving))
    core = to_itk(target.core.astype(np.uint8), target.affine)
    method = _method(core, itk_affine(matrix), 1.0)
    method.SetInitialTransform(sitk.AffineTransform(3))
    return -method.MetricEvaluate(fixed, moving)


def _coarser(image):
    """Average voxels smaller than the target's, axis by axis."""
    import SimpleITK as sitk  # noqa: N813

    factor = [max(1, int(TARGET_SPACING_MM / side + 1e-6)) for side in image.GetSpacing()]
    return sitk.BinShrink(image, factor) if max(factor) > 1 else image


def _method(fixed_region, start, share: float):
    """Mattes mutual information within the region, starting from the guess."""
    import SimpleITK as sitk  # noqa: N813

    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # several scans side by side; the same bits every time
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricFixedMask(fixed_region)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(share, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetMovingInitialTransform(start)
    return method


def _starts(fixed, region, moving, start, centre) -> list:
    """Try nods, tilts and turns at 8 mm; of every size, what shares most information."""
    import SimpleITK as sitk  # noqa: N813

    small, smooth = (sitk.SmoothingRecursiveGaussian(image, 4.0) for image in (fixed, moving))
    small = sitk.Shrink(small, [4] * 3)
    smooth = sitk.Shrink(smooth, [max(1, int(6 / side)) for side in smooth.GetSpacing()])
    method = _method(region, start, 1.0)
    angles = [(nod, tilt, 0) for nod in (-24, -12, 0, 12, 24) for tilt in (-12, 0, 12)]
    angles += [(nod, 0, turn) for nod in (-12, 0, 12) for turn in (-12, 12)]
    starts = []
    for size in (0.94, 1.0, 1.06):
        best = (np.inf, None)
        for nod, tilt, turn in angles:
            trial = sitk.Similarity3DTransform()
            trial.SetCenter(centre)
            euler = sitk.Euler3DTransform()
            euler.SetRotation(*np.deg2rad([nod, tilt, turn]).tolist())
            trial.SetMatrix((size * np.array(euler.GetMatrix())).tolist())
            method.SetInitialTransform(trial, inPlace=False)
            value = method.MetricEvaluate(small, smooth)
            best = min(best, (value, trial), key=lambda pair: pair[0])
        starts.append(best[1])
    return starts


def _optimise(fixed, region, moving, start, transform, *, shrink, sigma_mm) -> tuple[float, int]:
    """Follow the gradient through two resolutions, changing the transform.

    Returns the negative information at the end, and the iterations of the last resolution.
    """
    method = _method(region, start, 0.25)
    method.SetInitialTransform(transform, inPlace=True)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0,
        minStep=0.005,
        numberOfIterations=150,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(list(shrink))
    method.SetSmoothingSigmasPerLevel(list(sigma_mm))
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.Execute(fixed, moving)
    return method.GetMetricValue(), method.GetOptimizerIteration()


def write_transform(matrix: np.ndarray, path: str | os.PathLike) -> None:
    """Write MNI-to-scan as ITK's binary ``.mat``, the form Clinica and ANTs keep it in."""
    import SimpleITK as sitk  # noqa: N813

    sitk.WriteTransform(itk_affine(matrix), str(path))
