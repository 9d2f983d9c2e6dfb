"""Motion-free scans go in; scans as a hospital's archive would hold them, with grades, come out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from motionlib.cohorts.flow import count_scans
from motionlib.cohorts.virtual.console import reformat, tilt_size_deg
from motionlib.cohorts.virtual.heads import bias_field
from motionlib.cohorts.virtual.moving import (
    acquisition_of,
    foreground_mean,
    reconstruct,
    sample_motion,
)
from motionlib.cohorts.virtual.plans import SCANS_PER_PATIENT, assign_fates, spread_scans
from motionlib.cohorts.virtual.raters import rate
from motionlib.cohorts.virtual.rejects import reject_scan
from motionlib.cohorts.virtual.scanners import Scanner, sample_scanner
from motionlib.cohorts.virtual.store import Progress, collect, make_all, write_scan
from motionlib.files import seed_from, write_table
from motionlib.motion.acquisition import acquire

__all__ = ["Scanner", "emulate_scan", "make_warehouse", "rate", "sample_scanner"]

CAPTION = (
    "Warehouse emulated from motion-free scans: motion, contrast, resolution and grades come from "
    "an acquisition simulator; not the paper's images."
)


def make_warehouse(
    clean: pd.DataFrame,
    root: str | Path,
    *,
    n: int | None = None,
    scans_per_patient: float = SCANS_PER_PATIENT,
    seed: int = 20,
    engine: str = "inline",
    spacing_mm: float | None = None,
    cohort: str = "ixi-warehouse",
    progress: Progress = None,
) -> pd.DataFrame:
    """Emulate a warehouse from any motion-free heads.

    Parameters
    ----------
    clean : DataFrame
        A manifest of motion-free scans; ``path`` absolute or relative to the working folder.
    root : path-like
        Receives NIfTI files, ``manifest.tsv``, ``truth.tsv``, ``flow.tsv`` and ``cohort.json``.
    n : int, optional
        Number of scans. Default: `scans_per_patient` for every patient.
    scans_per_patient : float
        The paper has 5500 / 4177; used when `n` is not given.
    seed : int, default=20
        Of everything drawn.
    engine : str, default="inline"
        Where the work is done (`motionlib.compute.engines.submit`).
    spacing_mm : float, optional
        Finest voxel edge. Default: that of each clean scan.
    cohort : str
        Name in the manifest.
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    DataFrame
        Manifest with absolute paths; ``role`` is ``warehouse``, or ``excluded`` for the straight
        rejects; ``source_participant_id`` is the patient of the clean scan.

    Raises
    ------
    ValueError
        If there is no clean scan, or not one could be emulated.

    Notes
    -----
    Source: paper §III-A.2 for vendors, shares and grades. Departs from the paper: everything is
    emulated, and grades follow the severity of the motion, not a look at the image.
    """
    if clean.empty:
        raise ValueError("There is no clean scan to emulate a warehouse from: give a manifest.")
    root = Path(root)
    clean = clean.reset_index(drop=True)
    patients = clean["source_participant_id"].drop_duplicates().tolist()
    n = round(len(patients) * scans_per_patient) if n is None else n
    items = []
    for patient, count in zip(patients, spread_scans(len(patients), n, seed), strict=True):
        rows = clean[clean["source_participant_id"] == patient]
        for visit in range(count):
            row = rows.iloc[visit % len(rows)]
            items.append(
                {
                    "cohort": cohort,
                    "participant_id": f"{row['participant_id']}w",
                    "source_participant_id": str(patient),
                    "session": f"ses-{visit + 1:02d}",
                    "source": str(row["path"]),
                    "age": None if pd.isna(row["age"]) else float(row["age"]),
                    "sex": None if pd.isna(row["sex"]) else str(row["sex"]),
                    "spacing_mm": spacing_mm,
                    "seed": seed,
                    "root": str(root),
                }
            )
    assign_fates(items, seed)
    rows, failed = make_all(_emulate_item, items, engine=engine, label=cohort, progress=progress)
    manifest = collect(root, rows, kind="emulated", caption=CAPTION)
    flow = count_scans(manifest, "emulated", "from motion-free heads", failed)
    write_table(flow, root / "flow.tsv")
    return manifest.assign(path=[str((root / path).resolve()) for path in manifest["path"]])


def _emulate_item(item: dict) -> dict:
    """Make one scan of an emulated warehouse: read, emulate, grade, write."""
    from motionlib.preprocess.images import read_array

    rng = np.random.default_rng(seed_from(item["seed"], item["participant_id"], item["session"]))
    volume, affine = read_array(item["source"])
    scanner = replace(sample_scanner(rng), gadolinium=0.0)  # cannot be added to a finished image
    volume, affine = to_native(volume, affine, scanner, item["spacing_mm"])
    if item["reject"]:
        volume, affine = reject_scan(volume, affine, item["reject"], scanner, rng)
        return write_scan(item, volume, affine, describe(as_acquired(scanner)), None, {})
    volume = volume * bias_field(volume.shape, affine, scanner.bias, rng)
    volume, info = emulate_scan(volume, affine, scanner, severity=item["severity_mm"], rng=rng)
    grades = rate(info["severity_mm"], rng)
    volume, affine = reformat(volume, affine, scanner.tilt_deg)
    return write_scan(item, volume, affine, describe(scanner), grades, info)


def describe(scanner: Scanner) -> dict:
    """Tell what the manifest and ``truth.tsv`` say about a scanner, a flat dictionary."""
    return {
        "manufacturer": scanner.protocol.manufacturer,
        "field_strength": scanner.protocol.field_strength,
        "contrast_agent": int(scanner.gadolinium > 0),
        "hospital": scanner.hospital,
        "model": scanner.protocol.model,
        "sequence": scanner.protocol.sequence,
        "order": scanner.order,
        "phase_axis": scanner.phase_axis,
        "blur_mm": round(scanner.blur_mm, 3),
        "gamma": round(scanner.gamma, 3),
        "bias": round(scanner.bias, 3),
        "noise_sd": round(scanner.noise_sd, 4),
        "tilt_deg": round(tilt_size_deg(scanner.tilt_deg), 2),
    }


def as_acquired(scanner: Scanner) -> Scanner:
    """Give the same scanner without a reformat; straight rejects have none."""
    return replace(scanner, tilt_deg=(0.0, 0.0, 0.0))


def to_native(volume, affine, scanner: Scanner, spacing_mm: float | None = None):
    """Average a clean scan onto a scanner's voxels.

    Parameters
    ----------
    volume : ndarray, shape (I, J, K)
        Finer than, or as fine as, the scanner's voxels; an axis that is coarser is kept.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm.
    scanner : Scanner
        Its protocol's ``voxel_ratio`` multiplies `spacing_mm`.
    spacing_mm : float, optional
        Default: the finest edge of the clean scan.

    Returns
    -------
    volume : ndarray, shape (I', J', K'), float32
    affine : ndarray, shape (4, 4)
    """
    from scipy import ndimage

    volume = np.asarray(volume, np.float32)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    base = edges.min() if spacing_mm is None else spacing_mm
    step = np.maximum(1.0, base * np.array(scanner.protocol.voxel_ratio) / edges)
    if (step < 1.02).all():
        return volume, affine
    shape = np.floor((np.array(volume.shape) - 1) / step).astype(int) + 1
    offset = (np.array(volume.shape) - 1 - (shape - 1) * step) / 2
    blurred = ndimage.gaussian_filter(volume, 0.4 * np.sqrt(step**2 - 1), truncate=3)
    native = ndimage.affine_transform(
        blurred, step, offset=offset, output_shape=tuple(int(n) for n in shape), order=1
    )
    moved = affine.copy()
    moved[:3, :3] = affine[:3, :3] * step
    moved[:3, 3] = affine[:3, 3] + affine[:3, :3] @ offset
    return native, moved


def emulate_scan(
    volume: np.ndarray,
    affine: np.ndarray,
    scanner: Scanner,
    *,
    severity: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, dict]:
    """Acquire a motion-free volume on a hospital's scanner while the patient moves.

    Parameters
    ----------
    volume : ndarray, shape (I, J, K)
        Motion-free signal on the scanner's own voxels, bias field included. Not modified.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm.
    scanner : Scanner
        From `sample_scanner`.
    severity : float
        Wanted severity in mm (`moving.severity_mm`); 0 means perfectly still.
    rng : numpy.random.Generator
        The scan's own.

    Returns
    -------
    volume : ndarray, shape (I, J, K), float32
        Non-negative, foreground mean near 1.
    info : dict
        ``severity_mm`` as realised, ``translation_mm`` and ``rotation_deg`` at most.

    Notes
    -----
    Motion and complex noise enter k-space (`acquisition.acquire`, a richer model than
    the two simulators that make training data); the magnitude is then smoothed, given its grey
    scale and a noise floor.
    """
    volume = np.asarray(volume, np.float32)
    volume = volume / foreground_mean(volume)
    acquisition = acquisition_of(scanner)
    trajectory, info = sample_motion(severity, acquisition, rng)
    acquired = acquire(torch.from_numpy(volume), trajectory, acquisition, affine=affine, rng=rng)
    return reconstruct(acquired.numpy(), affine, scanner, rng), info
