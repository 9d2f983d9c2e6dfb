"""Tables of image-quality measures (MRQy's fifteen), a row a scan, kept by its file's content."""

import os
from pathlib import Path

import numpy as np

from motionlib.compute.engines import Failure, submit
from motionlib.files import anonymous, check_file, content_key, read_json, sha256_file, write_json
from motionlib.iqms.measures import MEASURES, Quality, measure
from motionlib.preprocess.finder import faults_of

# Section III-C.3 counts 13 measures and names their families: noise ratios, variation, entropy,
# energy. Our reading: all but the mean and the range. The paper does not list them.
PAPER_MEASURES = tuple(name for name in MEASURES if name not in ("MEAN", "RNG"))
COLUMNS = (*MEASURES, "slices", "slices_used", "reason")
VERSION = 3  # of the rows; part of the cache's keys (until 2 reasons named files)
STORED = 1000  # as which a scanner stores the brightness one of the study's float16 heads
CHUNK = 256  # scans between two writes of the cache


def image_quality(volume, *, compat: bool = True, affine=None, threads: int = 1) -> dict:
    """Measure a volume: 15 numbers under MRQy's names.

    Source: MRQy 0.0.3 (Sadri et al., Medical Physics 2020); paper §III-C.3.

    Parameters
    ----------
    volume : ndarray or Tensor, shape (I, J, K) or (1, I, J, K)
        Intensities as stored; integers stay integers (MRQy's arithmetic depends on it).
    compat, affine : bool, default=True; ndarray, shape (4, 4), optional
        True: MRQy 0.0.3's numbers. False: corrected definitions on a standardised volume, which use
        the affine (voxel to world, RAS) to find axial slices and millimetres.
    threads : int, default=1
        Slices measured at a time; no effect on the numbers.

    Returns
    -------
    dict of str to float
        NaN for a measure undefined in every slice. ValueError if the volume is not 3-D, holds NaN
        or infinity, or has no foreground.
    """
    return measure(volume, compat=compat, affine=affine, threads=threads).values


def add_measures(scans, **options):
    """Join to each scan of a table its measures, ``slices``, ``slices_used`` and ``reason``.

    `scans` has ``scan_id path``, absolute or from the working folder; options as `measure_files`.
    """
    import pandas as pd  # the command works without it, and starts sooner

    scans = scans.reset_index(drop=True)
    rows = measure_files(zip(scans["scan_id"], scans["path"], strict=True), **options)
    return scans.join(pd.DataFrame(rows, columns=list(COLUMNS)))


def measure_files(
    scans, *, engine="inline", cache=None, compat=True, orientation=None, progress=None
) -> list[dict]:
    """Measure many scans, given as pairs of id and file: one row each, whatever happens to it.

    A row has ``scan_id``, the 15 measures, ``slices`` (with a varying foreground), ``slices_used``
    (the fewest that entered any defined measure) and ``reason`` (empty when all is well). The cache
    is a JSON file of what was measured before, found again by the files' content; a killed call
    resumes from it. `orientation`, such as RAS, is for files that do not state theirs, which the
    corrected measures need. For `engine` and `progress` see `compute.engines.submit`.
    """
    scans = [(scan_id, str(path)) for scan_id, path in scans]
    known = read_json(cache) if cache is not None and Path(cache).is_file() else {}
    kept = known.values() if isinstance(known, dict) else [None]
    if not all(isinstance(row, dict) and set(COLUMNS) <= set(row) for row in kept):
        raise ValueError(f"{Path(cache).name} is no cache of measures; name another file")
    keys, rows, todo = [], {}, {}
    for (_, path), fault in zip(scans, faults_of(scans), strict=True):
        if fault:
            keys.append(fault)
            rows[fault] = _undefined(fault)
        else:
            readable = Path(path).is_file() and os.access(path, os.R_OK)
            content = sha256_file(path) if cache is not None and readable else path
            assumed = [orientation] if orientation and not compat else []
            kind = Path(path).suffix  # by which it is read
            keys.append(content_key(content, kind, bool(compat), VERSION, *assumed))
            if keys[-1] not in known:
                todo.setdefault(keys[-1], (path, compat, orientation))
    todo, options = list(todo.items()), {"engine": engine, "label": "iqms", "progress": progress}
    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        measured = submit(_measure_file, [item for _, item in chunk], **options)
        for (key, _), row in zip(chunk, measured, strict=True):
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


def _measure_file(item: tuple[str, bool, str | None]) -> dict:
    """Measure one file; a fault becomes a row with a reason."""
    path, compat, orientation = item
    try:
        volume, affine = read_stored(path, needs_axes=not compat, orientation=orientation)
        return quality_row(measure(volume, compat=compat, affine=affine))
    except (ValueError, FileNotFoundError, MemoryError) as error:
        return _undefined(anonymous(" ".join(str(error).split()), path))


def read_stored(
    path, *, needs_axes: bool = False, orientation: str | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a scan as it is stored: its own axes, and integers unless a slope scales them.

    Gives the volume (I, J, K), float32 where the header has a slope (as MRQy's reader does), and
    its affine (4, 4), None for ``.npy``. The study keeps its heads as float16 scaled to about one;
    MRQy's FBER takes their air for empty, so they are given the unit of stored scans. Refused are
    files that are no scan and, with `needs_axes`, those for which nothing states the axes.
    """
    from motionlib.preprocess import images  # imports nibabel; arrays need none

    path = Path(path)
    check_file(path)
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
            if array.dtype == np.float16:
                array = array.astype(np.float32) * STORED
            return array, None
        image = images.read_image(path, orientation=orientation)
        if needs_axes:
            images.need_orientation(path, image)
        voxels = image.dataobj
        if not hasattr(voxels, "get_unscaled"):  # formats without a slope of their own
            return np.asarray(voxels), image.affine
        stored = voxels.get_unscaled()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path.name} ends too early or is damaged.") from error
    if (voxels.slope, voxels.inter) != (1, 0):
        stored = (stored * np.float64(voxels.slope) + np.float64(voxels.inter)).astype(np.float32)
    return stored.reshape(stored.shape[:3]), image.affine


def quality_row(quality: Quality) -> dict:
    """Make a row of what was measured: see :func:`measure_files` for the columns."""
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
