"""Scans on disk: the one module that reads them, and says in a sentence why one is no scan.

A file passes these steps before its voxels are believed:

1. it is a regular, readable file (a pipe would block, a folder is no image);
2. its header has three axes (further ones of length one are dropped), a plausible number and size
   of voxels, and real intensities; micrometres and metres become millimetres, and a quaternion
   longer than one by rounding is shortened; no more is unpacked than it declares;
3. it states how the axes lie in the body, or the caller does: nothing is guessed;
4. the whole file is there, undamaged, its values finite and not all the same.
"""

import io
import logging
import math
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from motionlib.files import atomic, check_file, gzipped

FEWEST_VOXELS = 8  # along an axis
MAX_VOXELS = 2**28  # 1 GiB as float32; the largest published 7 T T1w has 1.7e8 voxels
MOST_BESIDE = 2**20  # bytes before the voxels (header and extensions), and behind them
MOST_PACKED = 1032  # bytes that one byte of a gzip file can stand for
SIDE_MM = (0.05, 20)  # of a voxel
LEAST_DETERMINANT = 0.1  # of the axes' directions; below it two of them nearly coincide
UNITS_MM = {1: 1000.0, 3: 0.001}  # NIfTI's codes of metre and micrometre; others are millimetres
QUATERNION_ROUNDING = 1e-3  # by which its square may exceed one


def read_array(
    path: str | os.PathLike, *, orientation: str | None = None, planes: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Read one scan, its axes turned to right, anterior, superior.

    Parameters
    ----------
    path : path-like
        NIfTI (``.nii``, ``.nii.gz``) or another format of nibabel (MINC, MGH). FileNotFoundError
        if it is not there, ValueError if it is no usable three-dimensional scan, and why.
    orientation : str, optional
        Where the axes of a file lead that does not state it, such as ``RAS`` or ``LPI``.
    planes : bool, default=False
        Take few planes too, or a single one.

    Returns
    -------
    array, affine : ndarray, shape (I, J, K), float32, contiguous; ndarray, shape (4, 4)
        Voxels, and the matrix from their indices to mm.
    """
    import nibabel as nib  # slow to import, and not needed to train or to score arrays

    path = Path(path)
    image = read_image(path, orientation=orientation, planes=planes)
    need_orientation(path, image)
    image = nib.as_closest_canonical(image)
    array = scaled(path.name, image)
    if not np.isfinite(array).all():
        share = 1 - np.isfinite(array).mean()
        raise ValueError(f"{path.name} has {share:.2%} values that are not finite; expected none.")
    if array.min() == array.max():
        raise ValueError(f"{path.name} is constant ({array.flat[0]:g}); expected a head.")
    return np.ascontiguousarray(array), image.affine.astype(np.float64)


def load_volume(path: str | os.PathLike):
    """Read one scan as a torch tensor: `read_array` for networks and simulators, errors as there.

    Returns
    -------
    volume, affine : Tensor, shape (1, I, J, K), float32; ndarray, shape (4, 4)
        Axes point to right, anterior, superior as closely as they can without resampling; the
        matrix leads from voxel indices to mm.
    """
    import torch

    array, affine = read_array(path)
    return torch.from_numpy(array)[None], affine


def read_image(
    path: str | os.PathLike,
    *,
    header_only: bool = False,
    orientation: str | None = None,
    planes: bool = False,
):
    """Read one scan as nibabel holds it: its own axes, its header, its scaling not yet applied.

    The header is a scan's, in millimetres, or the same errors as of `read_array` say why not; the
    values are not looked at, and with `header_only` not even read: the image then holds none. The
    affine is None where neither the file nor `orientation` says how the axes lie in the body.
    """
    path = Path(path)
    check_file(path)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # what it mends is no news
    try:
        is_nifti = path.name.endswith((".nii", ".nii.gz"))
        image = (_open_nifti if is_nifti else _open_other)(path, header_only)
        if not is_nifti and math.prod(map(int, image.shape)) > MOST_PACKED * path.stat().st_size:
            raise ValueError("it is too short for its voxels")
    except Exception as error:  # whatever the libraries raise at a damaged file
        raise ValueError(f"{path.name} cannot be read as an image: {_reason(error)}.") from error
    _check_header(path.name, image)
    if min(image.shape[:3]) < FEWEST_VOXELS and not planes:
        raise ValueError(
            f"{path.name} is no scan: its shape is {'x'.join(map(str, image.shape))}, expected at "
            f"least {FEWEST_VOXELS} voxels along every axis."
        )
    if image.affine is None and orientation is not None:
        affine = _assumed_affine(image, orientation)
        return type(image)(image.dataobj, affine, image.header)
    return image


def need_orientation(path: Path, image) -> None:
    """Raise if an image of `read_image` does not say how its axes lie in the body."""
    if image.affine is None:
        raise ValueError(
            f"{path.name} states no orientation (sform and qform code 0, or Analyze): which way "
            "is right, front and up is not known; tell it with --assume-orientation, such as RAS."
        )


def scaled(name: str, image) -> np.ndarray:
    """Voxels (I, J, K) of what `read_image` gives, float32, with the file's slope and intercept."""
    try:
        data = image.dataobj
        if hasattr(data, "get_unscaled"):
            with np.errstate(all="ignore"):  # values beyond float32 are found by `read_array`
                array = data.get_unscaled().astype(np.float32)
                if (data.slope, data.inter) != (1, 0):
                    array *= np.float32(data.slope)
                    array += np.float32(data.inter)
        else:
            array = np.asarray(data, dtype=np.float32)
    except Exception as error:  # whatever the libraries raise at a damaged file
        raise ValueError(f"{name} ends too early or is damaged.") from error
    return array.reshape(array.shape[:3])


def read_mni_map(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a map of the MNI152 2009a brain, as `read_array`: ``t1``, ``gm`` or ``wm``.

    Source: nilearn's wheel, found without importing it: that takes longer than all else.
    """
    package = find_spec("nilearn")
    folder = Path(package.submodule_search_locations[0] if package else ".") / "datasets" / "data"
    path = folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} is not in the installed nilearn: install nilearn>=0.12."
        )
    return read_array(path)


def _reason(error: Exception) -> str:
    """Say in a clause what a library said of a damaged file, if more than its class."""
    lines = str(error).splitlines()
    if isinstance(error, MemoryError) or not lines:
        return "it asks for more memory than there is, or is damaged"
    return lines[0].strip("'\" .")


def _open_other(path: Path, header_only: bool):
    """Open MINC, MGH, Analyze and the like; Analyze knows no orientation."""
    import nibabel as nib

    image = nib.load(path)
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise ValueError(f"it holds a {type(image).__name__}, expected a volume")
    if isinstance(image, nib.AnalyzeImage) and not _states_orientation(image.header):
        return type(image)(image.dataobj, None, image.header)
    return image


def _open_nifti(path: Path, header_only: bool):
    """Open NIfTI, mending its header before nibabel judges it; what it declares bounds memory."""
    import nibabel as nib
    from isal import igzip

    is_packed = path.name.endswith(".gz")
    with (igzip.open if is_packed else open)(path, "rb") as stream:
        start = stream.read(4)
        kind = _nifti_kind(start)
        start += stream.read(kind.header_class.sizeof_hdr)  # and the four bytes behind it
        offset = kind.header_class(start[:-4], check=False)["vox_offset"]
        if not len(start) <= offset <= MOST_BESIDE:
            raise ValueError(
                f"its voxels begin at byte {offset:g}, expected {len(start)} to {MOST_BESIDE}"
            )
        start += stream.read(int(offset) - len(start))
    header = kind.header_class.from_fileobj(io.BytesIO(start))
    _check_shape(header.get_data_shape())  # before a hundred GiB may be unpacked
    _to_millimetres(header)
    _mend_orientation(header)
    affine = header.get_best_affine() if _states_orientation(header) else None
    if header_only:
        voxels = np.broadcast_to(np.int8(0), header.get_data_shape())
        return kind(voxels, affine, header, dtype=header.get_data_dtype())
    place = str(path)
    if is_packed:
        n_bytes = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
        with igzip.open(path) as stream:
            content = stream.read(int(offset) + n_bytes)
            rest = len(stream.read(MOST_BESIDE))  # at the end the checksum is looked at
        if len(content) < offset + n_bytes or rest == MOST_BESIDE:
            raise ValueError(f"it holds {'more' if rest else 'fewer'} voxels than its header says")
        place = io.BytesIO(content)
    return kind(nib.arrayproxy.ArrayProxy(place, header), affine, header)


def _to_millimetres(header) -> None:
    """Put sizes and places that are in micrometres or metres into millimetres, in place."""
    factor = UNITS_MM.get(int(header["xyzt_units"]) % 8, 1.0)  # above it is the unit of time
    if factor != 1.0:
        header["pixdim"][1:4] *= factor
        for name in ("srow_x", "srow_y", "srow_z", "qoffset_x", "qoffset_y", "qoffset_z"):
            header[name] = header[name] * factor
        header["xyzt_units"] = int(header["xyzt_units"]) // 8 * 8 + 2


def _mend_orientation(header) -> None:
    """Shorten a quaternion that rounding made longer than one; leave out a matrix of zeros."""
    if header["sform_code"] > 0 and not header.get_sform()[:3, :3].any():
        header["sform_code"] = 0
    names = ("quatern_b", "quatern_c", "quatern_d")
    square = sum(float(header[name]) ** 2 for name in names)
    if header["qform_code"] > 0 and not square <= 1:
        if header["sform_code"] == 0 and not square <= 1 + QUATERNION_ROUNDING:
            raise ValueError(f"its quaternion has the length {square**0.5:.4g}, expected up to 1")
        for name in names:
            header[name] = header[name] / square**0.5


def _states_orientation(header) -> bool:
    """Whether a header says how the axes lie in the body."""
    return any(header[name] > 0 for name in ("sform_code", "qform_code") if name in header)


def _assumed_affine(image, orientation: str) -> np.ndarray:
    """Affine of an image whose axes lead where the letters say, its centre at the origin."""
    axes = ["RLAPSI".find(letter) // 2 for letter in orientation]
    if sorted(axes) != [0, 1, 2]:
        raise ValueError(f"The orientation is {orientation!r}; expected three letters such as RAS.")
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (way, letter) in enumerate(zip(axes, orientation, strict=True)):
        affine[way, axis] = image.header.get_zooms()[axis] * (1 if letter in "RAS" else -1)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(image.shape[:3]) - 1) / 2)
    return affine


def _nifti_kind(start: bytes):
    """Class for the first four bytes, the header's size: NIfTI-1 or NIfTI-2, either byte order."""
    import nibabel as nib

    sizes = {int.from_bytes(start, order) for order in ("little", "big")}
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if kind.header_class.sizeof_hdr in sizes:
            return kind
    raise ValueError("its header does not begin with the size 348 or 540 of NIfTI")


def _check_shape(shape: tuple[int, ...]) -> None:
    """Refuse shapes that are no three-dimensional scan or would fill the memory."""
    sizes = "x".join(map(str, shape))
    if len(shape) < 3 or min(shape, default=0) < 1 or any(size != 1 for size in shape[3:]):
        raise ValueError(f"its shape is {sizes}, expected three dimensions")
    if math.prod(map(int, shape)) > MAX_VOXELS:  # MGH's are 32-bit integers, which overflow
        raise ValueError(f"its shape is {sizes}, more than {MAX_VOXELS} voxels")


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
    if affine is None:
        affine = np.diag([*np.abs(image.header.get_zooms()[:3]), 1.0])
    sides = np.linalg.norm(affine[:3, :3], axis=0) if np.isfinite(affine).all() else np.zeros(3)
    if sides.min() < SIDE_MM[0] or sides.max() > SIDE_MM[1]:
        raise ValueError(f"{name} has voxels of {_times(sides)} mm; expected 0.05 to 20 mm.")
    if abs(np.linalg.det(affine[:3, :3] / sides)) < LEAST_DETERMINANT:
        raise ValueError(f"{name} has a singular affine; expected three independent axes.")
    if "pixdim" in image.header and (image.header["pixdim"][1:4] <= 0).any():
        sides = image.header["pixdim"][1:4]
        raise ValueError(f"{name} states voxels of {_times(sides)} mm; expected positive sizes.")


def _times(sides) -> str:
    """Voxel edges in words."""
    return " x ".join(f"{side:.3g}" for side in sides)


def save_volume(volume, affine, path: str | os.PathLike, *, dtype: str = "float32") -> Path:
    """Write a volume as NIfTI, atomically and with the same bytes every time; return its path.

    Parameters
    ----------
    volume, affine : Tensor or ndarray, (1, I, J, K) or (I, J, K); array-like, shape (4, 4)
        Intensities, finite, and the matrix from voxel indices to mm.
    path, dtype : path-like, {"float32", "int16", "uint8"}
        Ends in ``.nii`` or ``.nii.gz`` (compressed); whole numbers use the range by a slope.
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


def array3(volume) -> np.ndarray:
    """Turn a volume (1, I, J, K) or (I, J, K), tensor or array, into an array (I, J, K)."""
    array = volume.detach().cpu().numpy() if hasattr(volume, "detach") else np.asarray(volume)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise ValueError(f"The volume has shape {array.shape}; expected (I, J, K) or (1, I, J, K).")
    return array


def zscore(volume):
    """Subtract the image's mean and divide by its standard deviation. Source: paper §III-B.

    Parameters
    ----------
    volume : Tensor or ndarray, any shape
        Not modified; the result has the same shape and type. A constant one is a ValueError. It
        comes after simulation: the magnitude of a z-scored image is wrong.
    """
    array = volume.detach().cpu().numpy() if hasattr(volume, "detach") else volume
    mean, sd = mean_and_sd(array)
    if not (np.isfinite(sd) and sd > 0):
        raise ValueError("The volume is constant and has no z-score; expected a head.")
    return (volume - mean) / sd


def mean_and_sd(array: np.ndarray) -> tuple[np.float32, np.float32]:
    """Mean and population standard deviation, summed in double precision, as float32."""
    return np.float32(array.mean(dtype=np.float64)), np.float32(array.std(dtype=np.float64))


def phantom(shape: tuple[int, int, int] = (24, 28, 24), seed: int = 0):
    """Draw a small head for tests: skin, skull, grey and white matter, ventricles, texture.

    Tensor (1, I, J, K), float32, zero outside the head, whose size and texture `seed` varies.
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
