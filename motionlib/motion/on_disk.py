"""Scans on disk, moved: one NIfTI image or all of a manifest (command ``simulate``).

Beside each image lies a JSON file with its trajectory, which can be replayed, and what was done.
"""

import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch

from motionlib import compute
from motionlib.compute import engines
from motionlib.compute.engines import failed_row, outcome_name, outcome_row
from motionlib.files import (
    atomic,
    content_key,
    gzipped,
    identity,
    read_json,
    seed_from,
    sha256_file,
    sweep,
    write_json,
    write_table,
)
from motionlib.manifest import complete, locate, usable_rows
from motionlib.motion.image_based import image_motion
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.sampling import sample_realistic, sample_segments, sample_time_course
from motionlib.motion.trajectory import Trajectory, displacement
from motionlib.preprocess.images import need_orientation, read_image, scaled

VERSION = 1  # raise it when the same scan would come out differently
TEXTS = ("descrip", "aux_file", "db_name", "intent_name")  # of a header; may name a patient


@dataclass(frozen=True)
class Motion:
    """How scans are to be moved."""

    method: str = "image"  # the simulator, image or kspace
    translation_mm: tuple[float, float] = (2.0, 4.0)
    rotation_deg: tuple[float, float] = (2.0, 4.0)
    axis: int = 1  # anatomical, of phase encoding: 0 right, 1 anterior, 2 superior
    seed: int = 0  # of the trajectory; of a manifest each scan's own follows from it and its id
    positions: int = 4  # of method image
    points: int = 200  # of method kspace
    positive: bool = False  # positive components only
    realistic: bool = False  # drift, nods, steps and coughs instead of the paper's
    part: str = "magnitude"  # or real, of the complex image
    trajectory: str | None = None  # JSON file to replay
    orientation: str | None = None  # where the axes lead of files that do not state it, as RAS


def corrupt_file(
    source: str | os.PathLike, target: str | os.PathLike, motion: Motion, **facts: Any
) -> None:
    """Move a NIfTI image and write it, and what was done (with more `facts`) as JSON beside it.

    Header (but for its texts), type and scaling are kept. Raises `FileNotFoundError` or
    `ValueError` if the scan cannot be used, or names or ranges are wrong.
    """
    source, target = Path(source), Path(target)
    _check_names(source, target)
    image, values = _read(source, motion.orientation)
    trajectory = _trajectory(motion)
    axis = _array_axis(image.affine, motion.axis)
    simulate = image_motion if motion.method == "image" else kspace_motion
    moved = simulate(
        torch.from_numpy(values), trajectory, affine=image.affine, axis=axis, output=motion.part
    ).numpy()
    content = _like(image, moved).to_bytes()
    if target.name.endswith(".gz"):
        content = gzipped(content)
    with atomic(target) as aside:
        aside.write_bytes(content)
    drawn = motion.trajectory is None
    record: dict[str, Any] = {
        **trajectory.to_dict(),
        "method": motion.method,
        "seed": motion.seed if drawn else None,
        "translation_range_mm": list(motion.translation_mm) if drawn else None,
        "rotation_range_deg": list(motion.rotation_deg) if drawn else None,
        "phase_encoding_axis": "RAS"[motion.axis],
        "array_axis": axis,
        "part": motion.part,
        "severity": displacement(trajectory) if trajectory.frame == "ras" else None,
        "input": source.name,
        "input_sha256": sha256_file(source),
    }
    write_json(_beside(target), record | facts)


def corrupt_manifest(
    manifest: str | os.PathLike,
    out: str | os.PathLike,
    motion: Motion,
    *,
    engine: str = "inline",
    shard: str | None = None,
    progress=None,
) -> pd.DataFrame:
    """Move every scan of a manifest into a folder, each by a trajectory of its own.

    Rows whose id or path is faulty become failed rows; other faults refuse the call. What the
    folder already holds of the same scan and settings is kept. Copies have ids of their own
    (`moved_id`), so that they can be scored beside the clean scans. `shard` is ``"I/N"``, only
    every N-th scan from the I-th on; for `engine` and `progress` see `compute.engines.submit`.

    Returns a row per scan, ``scan_id status path reason`` with status ``done``, ``kept`` or
    ``failed``, also written as ``outcome.tsv`` (a shard's: ``outcome_I-of-N.tsv``), beside
    ``manifest.tsv`` of the scans that are there.
    """
    manifest, out = Path(manifest), Path(out)
    table, refused = usable_rows(manifest)
    items = [
        {
            "scan_id": row["scan_id"],
            "copy_id": moved_id(row["scan_id"], out),
            "source": str(locate(row["path"], manifest.parent)),
            "out": str(out),
            "motion": asdict(replace(motion, seed=seed_from(motion.seed, row["scan_id"]))),
        }
        for row in table[~table["refused"]].to_dict("records")
    ]
    mine = engines.shard(items, shard) if shard else items
    results = compute.submit(corrupt_one, mine, engine=engine, label="simulate", progress=progress)
    rows = [outcome_row(result) for result in results]
    rows += [failed_row(row["scan_id"], row["fault"]) for row in refused.to_dict("records")]
    outcome = pd.DataFrame(rows, columns=["scan_id", "status", "path", "reason"])
    write_table(outcome, out / outcome_name(shard))
    if shard:
        return outcome
    sweep(out / f"{item['copy_id']}{end}" for item in items for end in (".nii.gz", ".json"))
    there = outcome[outcome["status"] != "failed"].set_index("scan_id")["path"]
    kept = table[~table["refused"] & table["scan_id"].isin(there.index)]
    kept = kept.drop(columns="refused").assign(path=kept["scan_id"].map(there), sha256=pd.NA)
    kept["scan_id"] = [moved_id(scan, out) for scan in kept["scan_id"]]
    write_table(complete(kept), out / "manifest.tsv")
    return outcome


def moved_id(scan: str, out: Path) -> str:
    """Id of a scan's moved copy: BIDS's entity ``desc`` before the suffix names the folder."""
    label = re.sub("[^A-Za-z0-9]", "", out.resolve().name) or "moved"
    name = scan.removesuffix("_T1w")
    return f"{name}_desc-{label}{scan[len(name) :]}"


def corrupt_one(item: dict) -> dict:
    """Move one scan, or find it done; see `corrupt_manifest`."""
    scan, source = item["scan_id"], Path(item["source"])
    target = Path(item["out"]) / f"{item['copy_id']}.nii.gz"
    try:
        replayed = item["motion"]["trajectory"]
        made_of = [identity(path) for path in (source, replayed) if path]
        key = content_key(VERSION, item["motion"], made_of)
        record = _beside(target)
        status = "kept"
        if not (target.is_file() and record.is_file() and read_json(record).get("key") == key):
            status = "done"
            record.unlink(missing_ok=True)  # never beside an image that it does not describe
            motion = {k: tuple(v) if isinstance(v, list) else v for k, v in item["motion"].items()}
            corrupt_file(source, target, Motion(**motion), key=key)
    except (ValueError, FileNotFoundError) as error:
        return failed_row(scan, str(error))
    return {"scan_id": scan, "status": status, "path": target.name, "reason": ""}


def _check_names(source: Path, target: Path) -> None:
    """Refuse what cannot be read or written."""
    if not source.is_file():
        raise FileNotFoundError(f"There is no file {source}; give a NIfTI image.")
    if not target.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"OUT is {target.name}; its name must end in .nii or .nii.gz.")
    if target.resolve() == source.resolve():
        raise ValueError("IN and OUT are the same file; choose another name for OUT.")


def _beside(target: Path) -> Path:
    """Name of the JSON file beside an image."""
    return target.with_name(target.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def _read(source: Path, orientation: str | None):
    """Return the image and its values, float32 (I, J, K)."""
    image = read_image(source, orientation=orientation)
    if not isinstance(image, nib.Nifti1Image):
        raise ValueError(f"{source.name} is {type(image).__name__}; convert it to NIfTI first.")
    need_orientation(source, image)
    values = scaled(source.name, image)
    if not np.isfinite(values).all():
        raise ValueError(f"{source.name} has values that are not finite; expected none.")
    return image, np.ascontiguousarray(values)


def _like(image: Any, values: np.ndarray) -> Any:
    """Return an image with the header, but for texts, affine, type and scaling of `image`."""
    header = image.header.copy()
    dtype = header.get_data_dtype()
    slope, inter = (image.dataobj.slope, image.dataobj.inter)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        raw = np.clip(np.rint((values.astype(np.float64) - inter) / slope), limits.min, limits.max)
    else:
        raw = (values - inter) / slope
    for name in TEXTS:
        header[name] = b""
    header.extensions.clear()
    moved = type(image)(raw.astype(dtype).reshape(image.shape), image.affine, header)
    moved.header.set_slope_inter(slope, inter)
    return moved


def _array_axis(affine: np.ndarray, ras_axis: int) -> int:
    """Array axis that runs closest to an anatomical axis."""
    return int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == ras_axis)[0])


def _trajectory(motion: Motion):
    """Draw, or read, the motion."""
    if motion.trajectory:
        return Trajectory.from_dict(read_json(motion.trajectory))
    ranges = {"translation_mm": motion.translation_mm, "rotation_deg": motion.rotation_deg}
    if motion.realistic:
        return sample_realistic(**ranges, rng=motion.seed)
    if motion.method == "image":
        return sample_segments(
            motion.positions, **ranges, signed=not motion.positive, rng=motion.seed
        )
    return sample_time_course(motion.points, **ranges, rng=motion.seed)
