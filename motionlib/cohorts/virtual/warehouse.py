"""A hospital's archive emulated from motion-free scans: scanners, motion, rejects, grades.

Every scan goes through these steps (`emulate_scan`, `reject_scan`):

1. a scanner and a severity are drawn; the clean scan is averaged onto the scanner's voxels;
2. realistic motion is drawn and scaled to that severity;
3. motion and complex noise enter k-space under a receive coil that does not move
   (`motion.acquisition`, a richer model than the two simulators that make training data);
4. the console smooths the magnitude;
5. two raters grade the severity; the scan may be archived as a tilted reformat.

A straight reject is cut, or made another contrast, instead of steps 2 and 3.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from motionlib.cohorts.selection import count_scans
from motionlib.cohorts.virtual.heads import bias_field, lower_end
from motionlib.cohorts.virtual.plans import (
    REJECT_KINDS,
    SCANS_PER_PATIENT,
    assign_fates,
    spread_scans,
)
from motionlib.cohorts.virtual.raters import rate
from motionlib.cohorts.virtual.scanners import Scanner, reformat, sample_scanner
from motionlib.cohorts.virtual.store import collect, make_all, write_scan
from motionlib.files import seed_from, write_table
from motionlib.manifest import check_still
from motionlib.motion.acquisition import Acquisition, acquire
from motionlib.motion.sampling import sample_realistic
from motionlib.motion.trajectory import Trajectory, pose_distance_mm
from motionlib.preprocess.images import read_array

CAPTION = (
    "Warehouse emulated from motion-free scans: motion, contrast, resolution and grades come from "
    "an acquisition simulator; not the paper's images."
)
COHORT = "ixi-warehouse"  # in the manifest
MAX_TRANSLATION_MM, MAX_ROTATION_DEG = 18.0, 15.0
N_SEGMENTS = 6
MAX_DRAWS = 20  # of motions that hardly touch the centre of k-space
# Half-width of the weight of a moment against its distance from the centre of k-space, as a
# share of the lines; of 0.004 to 0.3 it follows the error of emulated scans best (rank correlation
# 0.97 over 90 motions, three orders and four pairs of axes).
ENERGY_WIDTH = 0.12
N_LINES = 72  # along the slow axis, for the severity
FWHM = 2.355  # standard deviations of a Gaussian


def make_warehouse(
    clean: pd.DataFrame,
    root: str | Path,
    *,
    n: int | None = None,
    seed: int = 20,
    engine: str = "inline",
    most_votes: int = 0,
) -> pd.DataFrame:
    """Emulate a warehouse from any motion-free heads.

    Parameters
    ----------
    clean : DataFrame
        A manifest of motion-free scans; ``path`` absolute or relative to the working folder.
    root : path-like
        Receives NIfTI files, ``manifest.tsv``, ``truth.tsv``, ``flow.tsv`` and ``cohort.json``.
    n : int, optional
        Number of scans, by default as many for every patient as the paper has, 5500 / 4177.
    most_votes : int, default=0
        Heads with so many votes for motion are still enough; the flow counts them.
    seed, engine
        As for `cohort.make_cohort`.

    Returns
    -------
    DataFrame
        Manifest with absolute paths; ``role`` is ``warehouse``, or ``excluded`` for the straight
        rejects; ``source_participant_id`` is the patient of the clean scan.

    Raises
    ------
    ValueError
        If there is no clean scan, somebody saw motion in one, or not one could be emulated.

    Notes
    -----
    Source: paper §III-A.2 for vendors, shares and grades. Departs from the paper: everything is
    emulated, and grades follow the severity of the motion, not a look at the image.
    """
    if clean.empty:
        raise ValueError("There is no clean scan to emulate a warehouse from: give a manifest.")
    check_still(clean, most_votes=most_votes)
    root = Path(root)
    clean = clean.reset_index(drop=True)
    patients = clean["source_participant_id"].drop_duplicates().tolist()
    n = round(len(patients) * SCANS_PER_PATIENT) if n is None else n
    items = []
    for patient, count in zip(patients, spread_scans(len(patients), n, seed), strict=True):
        rows = clean[clean["source_participant_id"] == patient]
        for visit in range(count):
            row = rows.iloc[visit % len(rows)]
            items.append(
                {
                    "cohort": COHORT,
                    "participant_id": f"{row['participant_id']}w",
                    "source_participant_id": str(patient),
                    "session": f"ses-{visit + 1:02d}",
                    "source": str(row["path"]),
                    "age": None if pd.isna(row["age"]) else float(row["age"]),
                    "sex": None if pd.isna(row["sex"]) else str(row["sex"]),
                    "seed": seed,
                    "root": str(root),
                }
            )
    assign_fates(items, seed)
    rows, failed = make_all(_emulate_item, items, engine=engine, label=COHORT)
    manifest = collect(root, rows, kind="emulated", caption=CAPTION)
    voted = clean["motion_votes"].gt(0).sum() if "motion_votes" in clean else 0
    source = f"from {len(clean)} heads" + f", {voted} with 1 to {most_votes} votes" * bool(voted)
    flow = count_scans(manifest, "emulated", source, failed)
    write_table(flow, root / "flow.tsv")
    return manifest.assign(path=[str((root / path).resolve()) for path in manifest["path"]])


def _emulate_item(item: dict) -> dict:
    """Make one scan of an emulated warehouse: read, emulate, grade, write."""
    rng = np.random.default_rng(seed_from(item["seed"], item["participant_id"], item["session"]))
    volume, affine = read_array(item["source"])
    scanner = replace(sample_scanner(rng), gadolinium=0.0)  # cannot be added to a finished image
    volume, affine = to_native(volume, affine, scanner)
    if item["reject"]:
        volume, affine = reject_scan(volume, affine, item["reject"], scanner, rng)
        return write_scan(item, volume, affine, as_acquired(scanner).facts(), None, {})
    volume = volume * lower_end(volume.shape, affine)
    volume, info = emulate_scan(volume, affine, scanner, severity=item["severity_mm"], rng=rng)
    grades = rate(info["severity_mm"], rng)
    volume, affine = reformat(volume, affine, scanner.tilt_deg)
    return write_scan(item, volume, affine, scanner.facts(), grades, info)


def as_acquired(scanner: Scanner) -> Scanner:
    """Give the same scanner without a reformat; straight rejects have none."""
    return replace(scanner, tilt_deg=(0.0, 0.0, 0.0))


def to_native(volume, affine, scanner: Scanner):
    """Average a clean scan (I, J, K) onto a scanner's voxels; an axis that is coarser is kept.

    The protocol's ``voxel_ratio`` multiplies the finest edge. Returns volume, float32, and affine.
    """
    volume = np.asarray(volume, np.float32)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    step = np.maximum(1.0, edges.min() * np.array(scanner.protocol.voxel_ratio) / edges)
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

    The volume (I, J, K) stands on the scanner's own voxels. `severity` is wanted in mm
    (`severity_mm`); 0 means perfectly still. Returns the scan, float32, non-negative,
    foreground mean near 1, and what `sample_motion` tells of the motion.
    """
    volume = np.asarray(volume, np.float32)
    volume = volume / foreground_mean(volume)
    acquisition = Acquisition(
        phase_axis=scanner.phase_axis,
        slow_axis=scanner.slow_axis,
        order=scanner.order,
        n_segments=N_SEGMENTS if scanner.order == "segmented" else 1,
        partial_fourier=scanner.partial_fourier,
        noise_sd=scanner.noise_sd,
        phase=scanner.partial_fourier < 1,
    )
    trajectory, info = sample_motion(severity, acquisition, rng)
    coil = bias_field(volume.shape, scanner.bias, rng)
    acquired = acquire(
        torch.from_numpy(volume), trajectory, acquisition, affine=affine, rng=rng, sensitivity=coil
    )
    return _reconstruct(acquired.numpy(), affine, scanner), info


def severity_mm(trajectory: Trajectory, acquisition: Acquisition) -> float:
    """Severity of a motion: distance from the mean pose, weighted by what k-space holds.

    Root mean square displacement in mm of a ball of 64 mm radius; the same motion matters more at
    the centre of k-space. Source: Afacan 2016 for the weight of the centre; Jenkinson 1999 for the
    distance. The weight is broader than the energy alone, since readers react to edges.
    """
    times = acquisition.line_times(N_LINES)
    lines = np.flatnonzero(~np.isnan(times))
    shifts, angles = trajectory.at(times[lines])
    weights = 1 / (1 + ((lines - N_LINES // 2) / N_LINES / ENERGY_WIDTH) ** 2)
    weights /= weights.sum()
    off = pose_distance_mm(shifts, angles, (weights @ shifts)[None], (weights @ angles)[None])
    return float(np.sqrt(weights @ off**2))


def sample_motion(
    severity: float, acquisition: Acquisition, rng: np.random.Generator
) -> tuple[Trajectory, dict]:
    """Draw realistic motion and scale it to a wanted severity in mm; 0 is perfectly still.

    Also tells ``severity_mm`` as realised (smaller than wanted only if 20 draws in a row would have
    to exceed 18 mm or 15 degrees), ``translation_mm`` and ``rotation_deg`` at most.
    """
    if severity <= 0:
        still = {"severity_mm": 0.0, "translation_mm": 0.0, "rotation_deg": 0.0}
        return Trajectory.identity(), still
    for _ in range(MAX_DRAWS):
        drawn = sample_realistic(
            translation_mm=(1, 3), rotation_deg=(0.7, 3), rng=rng, kind=_motion_kinds(rng)
        )
        factor = severity / max(severity_mm(drawn, acquisition), 1e-6)
        shift, turn = np.abs(drawn.translation_mm).max(), np.abs(drawn.rotation_deg).max()
        if factor * shift <= MAX_TRANSLATION_MM and factor * turn <= MAX_ROTATION_DEG:
            break
    else:
        limits = (MAX_TRANSLATION_MM / max(shift, 1e-6), MAX_ROTATION_DEG / max(turn, 1e-6))
        factor = min(factor, *limits)
    moved = Trajectory(
        drawn.times, drawn.translation_mm * factor, drawn.rotation_deg * factor, "linear"
    )
    return moved, {
        "severity_mm": severity_mm(moved, acquisition),
        "translation_mm": float(shift * factor),
        "rotation_deg": float(turn * factor),
    }


def _motion_kinds(rng) -> list[str]:
    """Kinds of one patient's motion: always something sudden, often a slow drift as well."""
    kinds = [str(rng.choice(["steps", "nod", "spikes"], p=[0.5, 0.3, 0.2]))]
    return kinds + [k for k, p in (("drift", 0.5), ("partial", 0.35)) if rng.random() < p]


def still_noise(volume: np.ndarray, noise_sd: float, rng: np.random.Generator) -> np.ndarray:
    """Add the noise of a magnitude image to a still head (I, J, K), as a share of its mean.

    Rician in the head, Rayleigh in air; float32, foreground mean near 1.
    """
    out = volume / foreground_mean(volume)
    noise = rng.standard_normal((2, *volume.shape), dtype=np.float32) * np.float32(noise_sd)
    return np.hypot(out + noise[0], noise[1])


def foreground_mean(volume: np.ndarray) -> float:
    """Mean above a quarter of the 99th percentile: the unit in which noise is given."""
    top = np.quantile(volume[::2, ::2, ::2], 0.99)
    return float(max(volume[volume > 0.25 * top].mean(), 1e-6)) if top > 0 else 1.0


def _reconstruct(volume: np.ndarray, affine: np.ndarray, scanner: Scanner) -> np.ndarray:
    """Smooth a magnitude as a scanner's console may do; foreground mean near 1."""
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    # the smoothing is given for 3 mm voxels and scales with the finest edge
    sigma = scanner.blur_mm / 3.0 * edges.min() / FWHM / edges
    out = ndimage.gaussian_filter(np.maximum(volume, 0), sigma, truncate=3)
    return (out / foreground_mean(out)).astype(np.float32)


def reject_scan(volume, affine, kind: str, scanner: Scanner, rng: np.random.Generator):
    """Turn a motion-free volume (I, J, K) into one that no one would grade, with its affine.

    `kind`, one of `plans.REJECT_KINDS`: a cut field of view, a thin slab, another contrast, or a
    map of tissue classes. The scanner's noise and smoothing apply.
    """
    if kind not in REJECT_KINDS:
        raise ValueError(f"Reject {kind!r} is unknown: give one of {', '.join(REJECT_KINDS)}.")
    volume = np.asarray(volume, np.float32)
    volume = volume / foreground_mean(volume)
    if kind == "segmented":
        cuts = np.quantile(volume[volume > 0.3], [0.3, 0.6, 0.9])
        return np.digitize(volume, [0.3, *cuts]).astype(np.float32) / 2, affine
    if kind == "not T1w":
        head = volume > 0.25
        top = float(np.quantile(volume[head], 0.97))
        volume = np.where(head, np.clip(1.15 * top - volume, 0.05, None), volume * 0.3)
    else:
        axis = int(rng.choice(3, p=(0.15, 0.25, 0.6)))
        n = volume.shape[axis]
        if kind == "slab":
            keep = max(8, int(n * rng.uniform(0.12, 0.25)))
            start = int(rng.integers(n // 6, n - keep))
        else:
            keep = max(8, int(n * rng.uniform(0.4, 0.6)))
            start = int(rng.integers(2)) * (n - keep)
        volume = np.take(volume, np.arange(start, start + keep), axis=axis)
        affine = affine.copy()
        affine[:3, 3] += affine[:3, axis] * start
    seen = volume * bias_field(volume.shape, scanner.bias, rng)
    noisy = still_noise(seen, scanner.noise_sd, rng)
    return _reconstruct(noisy, affine, scanner), affine
