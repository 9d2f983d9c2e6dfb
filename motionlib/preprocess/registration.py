"""Affine registration of a head to MNI space by mutual information (SimpleITK), and its targets.

1. `first_guess` places the head by its top, centre and size;
2. nods, tilts and turns are tried at 8 mm, from three sizes (`_starts`);
3. each of the three best is followed to a rigid end; the one with most information is kept;
4. from there all twelve parameters of the affine are optimised (`register`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from motionlib.preprocess.grid import (
    BOX_CENTRE_MM,
    MNI_BRAIN_TOP_MM,
    MNI_CENTRE_MM,
    SCALP_MM,
    Grid,
    resample_to_grid,
)
from motionlib.preprocess.head import find_head
from motionlib.preprocess.images import read_array, read_mni_map

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SMOOTHING_MM = 2.0  # of the finest step; see `register`
TARGET_SPACING_MM = 2.0
# Shells around the brain: outer edge in mm, intensity in units of the map's white matter.
SHELLS = ((2.5, 0.25), (7.5, 0.08), (12.0, 0.75))
CORE_MM = 2.0  # beyond it scalps differ too much to guide the affine; see `register`
SKULL_BASE_MM = -45.0  # below it the shells would run through the face and the neck


def to_itk(array: np.ndarray, affine: np.ndarray):
    """Wrap an array (I, J, K) with a RAS affine as a SimpleITK image (LPS)."""
    import SimpleITK as sitk  # noqa: N813

    # one thread in whatever follows: several scans go side by side, and several threads add in
    # another order every time
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
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
    """Place the head by its top, centre and size; by shifts alone where no `target` tells its size.

    Returns the matrix (4, 4) from MNI mm to the scan's mm, without rotation relative to the array's
    axes, and whether the scan shows a brain without skull.
    """
    place = find_head(array, affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    top = MNI_BRAIN_TOP_MM + (0.0 if place.stripped else SCALP_MM)
    size = np.ones(3)
    if target is not None:
        own = find_head(target.head.astype(np.float32), target.affine).spread_mm
        size[:2] = np.clip(np.array(place.spread_mm) / own, 0.75, 1.2)
        size[2] = size[:2].mean()
    start = np.array([*place.centre_mm, place.top_mm]) - size * np.array([*MNI_CENTRE_MM, top])
    to_voxel = np.diag([*(size / spacing), 1.0])
    to_voxel[:3, 3] = start / spacing
    return affine @ to_voxel, place.stripped


def register(array: np.ndarray, affine: np.ndarray, target: Target) -> np.ndarray:
    """Find the affine from a target to a scan by mutual information, rigid first.

    The scan is `array` (I, J, K), corrected for bias, with its `affine` (RAS). Returns the matrix
    (4, 4) from MNI mm to the scan's mm.
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
            value = _optimise(
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
    _optimise(
        fixed, core, moving, start, full, shrink=(2, 1), sigma_mm=(SMOOTHING_MM, SMOOTHING_MM)
    )
    return ras_matrix(sitk.CompositeTransform([start, full]))


def information(array: np.ndarray, affine: np.ndarray, target: Target, matrix: np.ndarray) -> float:
    """Mattes mutual information of a scan and a target under an affine, whoever found it.

    Positive, larger is better; both are smoothed by 2 mm and compared within the target's core.
    `matrix` leads from MNI mm to the scan's mm.
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
    method.SetNumberOfThreads(1)
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


def _optimise(fixed, region, moving, start, transform, *, shrink, sigma_mm) -> float:
    """Follow the gradient through two resolutions, changing the transform; -information."""
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
    return method.GetMetricValue()


def write_transform(matrix: np.ndarray, path: str | os.PathLike) -> None:
    """Write MNI-to-scan as ITK's binary ``.mat``, the form Clinica and ANTs keep it in."""
    import SimpleITK as sitk  # noqa: N813

    sitk.WriteTransform(itk_affine(matrix), str(path))


@dataclass(frozen=True)
class Target:
    """What heads are registered to: intensities and masks, all (I, J, K) at 2 mm."""

    name: str  # "whole-head", "stripped" or the file's name
    array: np.ndarray  # float32
    affine: np.ndarray  # (4, 4) voxel indices to MNI mm (RAS)
    region: np.ndarray  # where starting angles and sizes are compared: the brain and around it
    # where the two are compared from then on: of a whole head the brain and 2 mm around it, of a
    # stripped one `region`
    core: np.ndarray
    brain: np.ndarray  # the MNI152 brain
    head: np.ndarray  # all that stands out from the air: the brain, or the head to the skull base


@lru_cache(maxsize=4)
def load_target(kind: str) -> Target:
    """Build the target ``whole-head`` or ``stripped``, or read a template file in MNI152 space.

    Source: the MNI152 2009a map in nilearn's wheel, which is skull-stripped. The whole head adds
    shells of fluid, skull and scalp around it; measured (`preprocessing`), whole heads registered
    to the stripped map can be 12 mm off, to a whole head 0.3 mm.
    """
    shape = (97, 117, 105)
    affine = np.diag([TARGET_SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = (-96.0, -134.0, -100.0)
    grid = Grid(shape, tuple(map(tuple, affine.tolist())))
    brain_map = resample_to_grid(*read_mni_map("t1"), grid)
    brain = ndimage.binary_fill_holes(
        ndimage.binary_closing(brain_map > 0.15 * brain_map.max(), iterations=4)
    )
    outside = ndimage.distance_transform_edt(~brain, sampling=TARGET_SPACING_MM)
    region = outside <= SHELLS[-1][0] + 4
    white = float(np.percentile(brain_map[brain], 90))
    height = affine[2, 3] + TARGET_SPACING_MM * np.arange(shape[2])
    if kind == "stripped":
        return Target(kind, brain_map, affine, outside <= 8, outside <= 8, brain, brain)
    skull = (outside <= SHELLS[-1][0]) & (height[None, None] > SKULL_BASE_MM) | brain
    if kind != "whole-head":
        other = resample_to_grid(*read_array(kind), grid)
        return Target(Path(kind).name, other, affine, region, outside <= CORE_MM, brain, skull)
    head, inner = brain_map.copy(), 0.0
    for outer, level in SHELLS:
        shell = (outside > inner) & (outside <= outer) & (height > SKULL_BASE_MM)
        head[shell] = level * white
        inner = outer
    head = ndimage.gaussian_filter(head, 0.5)
    region &= height > SKULL_BASE_MM - 15
    return Target(kind, head, affine, region, outside <= CORE_MM, brain, skull)
