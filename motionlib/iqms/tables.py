"""A volume goes in; MRQy's fifteen image-quality measures come out, as MRQy or as they are meant.

The measures compare the head with the air around it, slice by slice; a volume's value is the mean
over slices. ``compat=True`` gives MRQy 0.0.3's numbers, slips included; ``compat=False`` repairs
the definitions and the foreground (:func:`standardise`). Written from the formulas, not from code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from motionlib.iqms.measures import MEASURES, Quality, measure

__all__ = [
    "MEASURES",
    "PAPER_MEASURES",
    "Quality",
    "add_measures",
    "image_quality",
    "measure",
    "measure_files",
    "quality_row",
    "read_stored",
    "table",
]

# Section III-C.3 counts 13 measures and names their families: noise ratios, variation, entropy,
# energy. Our reading: all but the mean and the range. The paper does not list them.
PAPER_MEASURES = tuple(name for name in MEASURES if name not in ("MEAN", "RNG"))

COLUMNS = (*MEASURES, "slices", "slices_used", "reason")
VERSION = 1  # of the measures; part of the cache's keys
CHUNK = 256  # scans between two writes of the cache


def image_quality(volume, *, compat: bool = True, affine=None, threads: int = 1) -> dict:
    """Measure a volume: 15 numbers under MRQy's names.

    Parameters
    ----------
    volume : ndarray or Tensor, shape (I, J, K) or (1, I, J, K)
        Intensities as stored; integers stay integers (MRQy's arithmetic depends on it).
    compat : bool, default=True
        True: MRQy 0.0.3's numbers. False: corrected definitions on a standardised volume.
    affine : ndarray, shape (4, 4), optional
        Voxel to world, RAS; only ``compat=False`` uses it, to find axial slices and millimetres.
    threads : int, default=1
        Slices measured at a time; no effect on the numbers.

    Returns
    -------
    dict of str to float
        NaN for a measure that is undefined in every slice.

    Raises
    ------
    ValueError
        If the volume is not 3-D, holds NaN or infinity, or has no foreground in any slice.

    Notes
    -----
    Source: MRQy 0.0.3 (Sadri et al., Medical Physics 2020); paper §III-C.3.
    """
    return measure(volume, compat=compat, affine=affine, threads=threads).values


def read_stored(path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a scan as it is stored: its own axes, and integers unless a slope scales them.

    Parameters
    ----------
    path : path-like
        ``.nii``, ``.nii.gz`` (or another format of nibabel), or ``.npy``.

    Returns
    -------
    volume : ndarray, shape (I, J, K)
        Integers as stored; float32 where the header has a slope, as MRQy's reader gives them.
    affine : ndarray, shape (4, 4), or None
        Voxel to world; None for ``.npy``.

    Raises
    ------
    FileNotFoundError, ValueError
        One sentence, if there is no such file or it cannot be read as an image.
    """
    from isal import isal_zlib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path.name}: expected an image, check the path")
    broken = (OSError, EOFError, ValueError, ImageFileError, HeaderDataError, isal_zlib.error)
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False), None
        stored, affine, slope, shift = _read_image(path)
    except broken as error:
        said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        said = said.replace(str(path), path.name)
        raise ValueError(f"{path.name} cannot be read as an image: {said}") from error
    if (slope, shift) != (1, 0):
        stored = (stored * np.float64(slope) + np.float64(shift)).astype(np.float32)
    while stored.ndim > 3 and stored.shape[-1] == 1:
        stored = stored[..., 0]
    return stored, affine


def _read_image(path: Path) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Read array, affine, slope and intercept; NIfTI is unpacked straight into the array."""
    import nibabel as nib
    from isal import igzip

    if not path.name.endswith((".nii", ".nii.gz")):
        image = nib.load(path)
        return np.asanyarray(image.dataobj), image.affine, 1, 0
    opened = igzip.open if path.name.endswith(".gz") else open
    with opened(path, "rb") as stream:
        head = stream.read(nib.Nifti2Header.sizeof_hdr)
        sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
        kind = nib.Nifti2Header if nib.Nifti2Header.sizeof_hdr in sizes else nib.Nifti1Header
        header = kind(head[: kind.sizeof_hdr])
        rest = header.get_data_offset() - len(head)
        if rest < 0:  # a NIfTI-1 header without extensions is shorter than what was read
            stream.seek(header.get_data_offset())
        else:
            stream.read(rest)
        stored = np.empty(header.get_data_shape(), header.get_data_dtype(), order="F")
        room = memoryview(stored.T.reshape(-1).view(np.uint8))
        while room:
            filled = stream.readinto(room)
            if not filled:
                raise EOFError(f"{room.nbytes} of {stored.nbytes} bytes of voxels are missing")
            room = room[filled:]
    slope, shift = header.get_slope_inter()
    return stored, header.get_best_affine(), slope or 1, shift or 0


def measure_files(scans, *, engine="inline", cache=None, compat=True, progress=None) -> list[dict]:
    """Measure many scans: one row each, whatever happens to it.

    Parameters
    ----------
    scans : iterable of (str, path-like)
        Id and file of each scan.
    engine : str, default="inline"
        Where to compute; see :func:`motionlib.compute.engines.submit`.
    cache : path-like, optional
        A JSON file of what was measured before, found again by the files' content; a killed call
        resumes from it.
    compat : bool, default=True
        MRQy's numbers, or the corrected ones.
    progress : callable, optional
        Told one line now and then.

    Returns
    -------
    list of dict
        ``scan_id``, the 15 measures, ``slices`` (with a varying foreground), ``slices_used``
        (the fewest that entered any defined measure) and ``reason`` (empty when all is well).
    """
    from motionlib.compute.engines import Failure, submit
    from motionlib.files import content_key, read_json, sha256_file, write_json

    scans = [(scan_id, str(path)) for scan_id, path in scans]
    known = read_json(cache) if cache is not None and Path(cache).is_file() else {}
    keys, rows, todo = [], {}, {}
    for _, path in scans:
        if Path(path).is_file():
            content = path if cache is None else sha256_file(path)
            keys.append(content_key(content, bool(compat), VERSION))
            if keys[-1] not in known:
                todo.setdefault(keys[-1], (path, compat))
        else:
            keys.append(f"missing {path}")
            rows[keys[-1]] = _undefined(f"no file {Path(path).name}: expected an image")
    todo = list(todo.items())
    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        found = submit(
            _measure_file, [item for _, item in chunk], engine=engine, label="iqms",
            progress=progress,
        )  # fmt: skip
        for (key, _), row in zip(chunk, found, strict=True):
            if isinstance(row, Failure):  # a lost worker: not kept, so that it is tried again
                rows[key] = _undefined(row.error)
            else:
                known[key] = row
        if cache is not None:
            write_json(cache, known)
    return [
        {"scan_id": scan_id, **(rows.get(key) or known[key])}
        for (scan_id, _), key in zip(scans, keys, strict=True)
    ]


def table(scans, **options):
    """Measure the scans of a DataFrame with ``scan_id`` and ``path``.

    Parameters
    ----------
    scans : DataFrame
        Paths are absolute, or relative to the working folder.
    **options
        Of :func:`measure_files`.

    Returns
    -------
    DataFrame
        One row per scan: see :func:`measure_files`.
    """
    import pandas as pd

    rows = measure_files(zip(scans["scan_id"], scans["path"], strict=True), **options)
    return pd.DataFrame(rows, columns=["scan_id", *COLUMNS])


def add_measures(scans, **options):
    """Join each scan's measures to its row.

    Parameters
    ----------
    scans : DataFrame
        As for :func:`table`.
    **options
        Of :func:`measure_files`.

    Returns
    -------
    DataFrame
        The rows as given, with the measures, ``slices``, ``slices_used`` and ``reason``.
    """
    scans = scans.reset_index(drop=True)
    return scans.join(table(scans, **options).drop(columns="scan_id"))


def _measure_file(item: tuple[str, bool]) -> dict:
    """Measure one file; a fault becomes a row with a reason."""
    path, compat = item
    try:
        volume, affine = read_stored(path)
        return quality_row(measure(volume, compat=compat, affine=affine))
    except (ValueError, FileNotFoundError, MemoryError) as error:
        return _undefined(f"{Path(path).name}: {error}")


def quality_row(quality: Quality) -> dict:
    """Make a table's row of what was measured: see :func:`table` for the columns."""
    lost = [name for name, count in quality.slices_used.items() if count == 0]
    reason = f"undefined in every slice: {' '.join(lost)} (no air to measure)" if lost else ""
    return {
        **quality.values,
        "slices": len(quality.slice_index),
        "slices_used": min((c for c in quality.slices_used.values() if c), default=0),
        "reason": reason,
    }


def _undefined(reason: str) -> dict:
    """Row of a scan without measures."""
    return {**dict.fromkeys(MEASURES, np.nan), "slices": 0, "slices_used": 0, "reason": reason}
