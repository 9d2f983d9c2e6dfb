"""Paths of image files come in; arrays, headers, or one sentence why not, come out."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path

import numpy as np

from motionlib.files import atomic, gzipped
from motionlib.preprocess.head import array3

MAX_VOXELS = 2**28  # 1 GiB as float32; the largest published 7 T T1w has 1.7e8 voxels


def read_array(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read one scan, its axes turned to right, anterior, superior.

    Parameters
    ----------
    path : path-like
        NIfTI (``.nii``, ``.nii.gz``) or another format of nibabel (MINC, MGH).

    Returns
    -------
    array : ndarray, shape (I, J, K), float32
        Contiguous.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no usable three-dimensional scan; the sentence says why.
    """
    import nibabel as nib

    path = Path(path)
    _check_file(path)
    image = _open_image(path)
    _check_header(path.name, image)
    image = nib.as_closest_canonical(image)
    array = _scaled(path.name, image)
    if array.ndim == 4:
        array = array[..., 0]
    if not np.isfinite(array).all():
        share = 1 - np.isfinite(array).mean()
        raise ValueError(f"{path.name} has {share:.2%} values that are not finite; expected none.")
    if array.min() == array.max():
        raise ValueError(f"{path.name} is constant ({array.flat[0]:g}); expected a head.")
    return np.ascontiguousarray(array), image.affine.astype(np.float64)


def check_header(path: str | os.PathLike) -> None:
    """Refuse a file whose header is no scan's; the voxels are not read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the header cannot be read or is no scan's; the sentence says why.
    """
    path = Path(path)
    _check_file(path)
    _check_header(path.name, _open_image(path, header_only=True))


def _check_file(path: Path) -> None:
    """Refuse what is no readable regular file, before anything could block on it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        kind = "a link to nothing" if path.is_symlink() else "no file"
        raise FileNotFoundError(f"{path.name} is {kind}; expected an image.") from None
    except OSError as error:
        raise ValueError(f"{path.name} cannot be reached: {error.strerror}.") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path.name} is no regular file; expected an image.")
    if status.st_size == 0:
        raise ValueError(f"{path.name} is empty (0 bytes); expected an image.")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path.name} may not be read; change its permissions.")


def _open_image(path: Path, *, header_only: bool = False):
    """Open with nibabel; compressed NIfTI is unpacked at once by isal, its header first."""
    import nibabel as nib
    from isal import igzip, isal_zlib

    broken = (
        *(OSError, EOFError, ValueError, isal_zlib.error, nib.spatialimages.HeaderDataError),
        *(nib.filebasedimages.ImageFileError, nib.wrapstruct.WrapStructError, MemoryError),
    )
    try:
        if not path.name.endswith(".nii.gz"):
            return nib.load(path)
        with igzip.open(path, "rb") as stream:
            head = stream.read(nib.Nifti2Header.sizeof_hdr)
        kind = _nifti_kind(head)
        header = kind.header_class(head[: kind.header_class.sizeof_hdr])
        _check_shape(header.get_data_shape())
        if header_only:
            empty = np.broadcast_to(np.int8(0), header.get_data_shape())
            return kind(empty, header.get_best_affine(), header, dtype=header.get_data_dtype())
        return kind.from_bytes(igzip.decompress(path.read_bytes()))
    except broken as error:
        said = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ValueError(f"{path.name} cannot be read as an image: {said}.") from error


def _nifti_kind(head: bytes):
    """Class for the header's bytes: NIfTI-1 or NIfTI-2, either byte order."""
    import nibabel as nib

    for order in ("little", "big"):
        size = int.from_bytes(head[:4], order)
        if size == nib.Nifti1Header.sizeof_hdr:
            return nib.Nifti1Image
        if size == nib.Nifti2Header.sizeof_hdr:
            return nib.Nifti2Image
    raise ValueError("its header does not begin with the size 348 or 540 of NIfTI")


def _check_shape(shape: tuple[int, ...]) -> None:
    """Refuse shapes that are no three-dimensional scan or would fill the memory."""
    said = "x".join(map(str, shape))
    if len(shape) < 3 or min(shape, default=0) < 1 or any(size != 1 for size in shape[3:]):
        raise ValueError(f"its shape is {said}, expected three dimensions")
    if min(shape[:3]) < 8:
        raise ValueError(f"its shape is {said}, expected at least 8 voxels along every axis")
    if math.prod(shape) > MAX_VOXELS:
        raise ValueError(f"its shape is {said}, more than {MAX_VOXELS} voxels")


def _check_header(name: str, image) -> None:
    """Refuse voxel types, shapes and affines that are no scan's."""
    try:
        _check_shape(image.shape)
    except ValueError as error:
        raise ValueError(f"{name} is no scan: {error}.") from None
    kind = np.dtype(image.get_data_dtype()) if hasattr(image, "get_data_dtype") else None
    if kind is not None and kind.kind not in "iuf":
        raise ValueError(f"{name} has voxels of type {kind}; expected one real number each.")
    affine = image.affine
    sides = np.linalg.norm(affine[:3, :3], axis=0) if np.isfinite(affine).all() else np.zeros(3)
    if sides.min() < 0.05 or sides.max() > 20:
        said = " x ".join(f"{side:.3g}" for side in sides)
        raise ValueError(f"{name} has voxels of {said} mm; expected 0.05 to 20 mm.")
    if abs(np.linalg.det(affine[:3, :3] / sides)) < 0.1:
        raise ValueError(f"{name} has a singular affine; expected three independent axes.")
    if "pixdim" in image.header and (image.header["pixdim"][1:4] <= 0).any():
        said = " x ".join(f"{side:.3g}" for side in image.header["pixdim"][1:4])
        raise ValueError(f"{name} states voxels of {said} mm; expected positive sizes.")


def _scaled(name: str, image) -> np.ndarray:
    """Voxels as float32, with the file's slope and intercept."""
    try:
        data = image.dataobj
        if not hasattr(data, "get_unscaled"):
            return np.asarray(data, dtype=np.float32)
        array = data.get_unscaled().astype(np.float32)
        if (data.slope, data.inter) != (1, 0):
            array *= np.float32(data.slope)
            array += np.float32(data.inter)
        return array
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{name} ends too early or is damaged: {error}.") from error


def load_volume(path: str | os.PathLike):
    """Read one scan as a torch tensor.

    Parameters
    ----------
    path : path-like
        NIfTI (``.nii``, ``.nii.gz``) or another format of nibabel (MINC, MGH).

    Returns
    -------
    volume : Tensor, shape (1, I, J, K), float32
        Axes point to right, anterior, superior as closely as they can without resampling.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no usable three-dimensional scan; the sentence says why.
    """
    import torch

    array, affine = read_array(path)
    return torch.from_numpy(array)[None], affine


def save_volume(volume, affine, path: str | os.PathLike, *, dtype: str = "float32") -> Path:
    """Write a volume as NIfTI, atomically and with the same bytes every time.

    Parameters
    ----------
    volume : Tensor or ndarray, shape (1, I, J, K) or (I, J, K)
        Intensities.
    affine : array-like, shape (4, 4)
        Voxel indices to mm.
    path : path-like
        Ends in ``.nii`` or ``.nii.gz`` (compressed).
    dtype : {"float32", "int16", "uint8"}, default="float32"
        On disk; whole numbers carry a slope that uses their range.

    Returns
    -------
    Path
        The path written.
    """
    import nibabel as nib

    if not str(path).endswith((".nii", ".nii.gz")):
        raise ValueError(f"{Path(path).name} has another suffix; expected .nii or .nii.gz.")
    array = array3(volume)
    if not np.isfinite(array).all():
        raise ValueError(f"The volume for {Path(path).name} has values that are not finite.")
    image = nib.Nifti1Image(array.astype(np.float32), np.asarray(affine, dtype=np.float64))
    image.set_data_dtype(dtype)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    if str(path).endswith(".gz"):
        content = gzipped(content)
    with atomic(path) as aside:
        aside.write_bytes(content)
    return Path(path)


def zscore(volume):
    """Subtract the mean of the whole image and divide by its standard deviation.

    Parameters
    ----------
    volume : Tensor or ndarray
        Any shape; not modified.

    Returns
    -------
    Tensor or ndarray
        Mean 0, standard deviation 1 (population), same shape and type.

    Raises
    ------
    ValueError
        If the volume is constant.

    Notes
    -----
    Source: paper §III-B ("the entire image"). It comes after simulation: the magnitude of a
    z-scored image is wrong.
    """
    centred = volume - volume.mean()
    spread = float((centred * centred).mean()) ** 0.5
    if not spread > 0:
        raise ValueError("The volume is constant and has no z-score; expected a head.")
    return centred / spread


def phantom(shape: tuple[int, int, int] = (24, 28, 24), seed: int = 0):
    """Draw a small head for tests: skin, skull, grey and white matter, ventricles, texture.

    Parameters
    ----------
    shape : tuple of 3 int, default=(24, 28, 24)
        Number of voxels; the head fills most of the field.
    seed : int, default=0
        Small differences in size and texture.

    Returns
    -------
    Tensor, shape (1, I, J, K), float32
        Non-negative, exactly zero outside the head.
    """
    import torch
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, size) for size in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    size = rng.uniform(0.95, 1.05, 3)
    radius = np.sqrt((x / 0.78 / size[0]) ** 2 + (y / 0.85 / size[1]) ** 2 + (z / 0.8) ** 2)
    volume = np.select(
        [radius < 0.62, radius < 0.78, radius < 0.88, radius < 1.0], [1, 0.7, 0.1, 0.9]
    )
    for side in (-1, 1):
        ventricle = ((x - side * 0.16) / 0.1) ** 2 + (y / 0.3) ** 2 + ((z - 0.05) / 0.18) ** 2
        volume[ventricle < 1] = 0.25
    texture = gaussian_filter(rng.standard_normal(shape), 1.0)
    volume = volume * (1 + 0.15 * texture / texture.std()).clip(0.5, 1.5)
    return torch.from_numpy(volume.astype(np.float32))[None]
