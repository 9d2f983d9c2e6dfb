"""Scans in memory: prepared manifests, their split, and batches for training and prediction.

A prepared manifest lists volumes on the study grid with their label. Batches are z-scored; those
that train may be augmented.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
import torch

from motionlib.files import seed_from
from motionlib.preprocess.images import mean_and_sd

READERS = 8  # threads; numpy reads and sums without the interpreter's lock
COLUMNS = ("scan_id", "participant_id", "path", "y_true")  # what a prepared manifest must have
AUGMENTATIONS = ("none", "flip", "nuisance")
GAMMA = 0.2  # exponent of the contrast change: exp(U(-0.2, 0.2))
BLUR = 0.12  # largest weight of either neighbour in the three-point blur
NOISE = 0.05  # largest noise standard deviation, as a fraction of the foreground mean


def load_prepared(manifest: str | os.PathLike | pd.DataFrame) -> pd.DataFrame:
    """Read a prepared manifest, rows numbered from 0, and make its paths absolute.

    It has one row per array: `scan_id`, `participant_id`, `path` (``.npy``, relative to the
    manifest's folder), `y_true` (0, 1 or empty), and usually `source_participant_id`, `role`,
    `fold`, `cohort`, `variant`, and `original`, the still array that the variant was made of. A
    DataFrame is checked and returned; `y_true` and `fold` become ``Int64``. FileNotFoundError if it
    is not there; ValueError if a column is missing, or a scan stands in two rows.
    """
    if isinstance(manifest, pd.DataFrame):
        table, folder = manifest.copy(), Path()
    else:
        path = Path(manifest)
        if not path.is_file():
            raise FileNotFoundError(f"Prepared manifest {path} is not there; prepare it first.")
        separator = "\t" if path.suffix == ".tsv" else ","
        text = {name: str for name in ("scan_id", "participant_id", "source_participant_id")}
        table, folder = pd.read_csv(path, sep=separator, dtype=text), path.resolve().parent
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ValueError(
            f"The prepared manifest lacks the columns {missing}; it needs {list(COLUMNS)}."
        )
    table = table.reset_index(drop=True)
    for name in {"path", "original"} & set(table):
        table[name] = [str(folder / path) for path in table[name]]
    for name in ("y_true", "fold"):
        if name in table:
            table[name] = table[name].astype("Int64")
    twice = table["scan_id"].duplicated()
    if twice.any():
        raise ValueError(
            f"Scan {table['scan_id'][twice.idxmax()]} stands in more than one row of the prepared "
            "manifest; give every variant its own scan_id."
        )
    return table


def split_rows(
    table: pd.DataFrame, fold: int | None, test_fold: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the rows of a prepared manifest that train and those that validate, by position.

    Only rows of role ``train`` (all rows where there is no `role`) that have a `y_true` are used,
    and none of `test_fold`. The rows of the fold validate; with None, the fifth of the patients
    whose hashed ids come last. ValueError, if either part lacks a class, or a patient is in both.
    """
    usable = table["y_true"].notna().to_numpy()
    if "role" in table:
        usable = usable & (table["role"] == "train").fillna(False).to_numpy(bool)
    if test_fold is not None:
        usable = usable & (table["fold"] != test_fold).fillna(True).to_numpy(bool)
    patient = table["participant_id"].astype(str)
    if "source_participant_id" in table:
        source = table["source_participant_id"]
        patient = patient.where(source.isna() | (source == ""), source.astype(str))
    if fold is None:
        names = sorted(set(patient[usable]), key=lambda name: seed_from("validation", name))
        last = set(names[len(names) - max(1, len(names) // 5) :])
        held = patient.isin(last).to_numpy()
    elif "fold" not in table:
        raise ValueError("The prepared manifest has no column fold; assign folds or give fold=None")
    else:
        held = (table["fold"] == fold).fillna(False).to_numpy(bool)
    train, validation = np.flatnonzero(usable & ~held), np.flatnonzero(usable & held)
    for name, rows in (("training", train), ("validation", validation)):
        counts = [int((table["y_true"].iloc[rows] == c).sum()) for c in (0, 1)]
        if min(counts) == 0:
            raise ValueError(
                f"The {name} part of fold {fold} has {counts[0]} scans without and {counts[1]} "
                "with motion; both classes are needed, so check y_true, role and fold."
            )
    shared = set(patient.iloc[train]) & set(patient.iloc[validation])
    if shared:
        raise ValueError(
            f"{len(shared)} patients train and validate at once in fold {fold}; "
            "assign folds by source_participant_id."
        )
    return train, validation


class VolumeStore:
    """All volumes of a prepared manifest in one float16 array, z-scored as they are asked for.

    `table` comes from `load_prepared`; its arrays are float16 or float32, shape (I, J, K), all
    alike. On ``cuda`` the store is kept on the GPU where it takes at most 60 % of the free memory,
    else in page-locked memory. `augment` (``none``, ``flip`` or ``nuisance``) and `seed` say what
    `batch` does to volumes when it is given an epoch (see `augmented`).
    FileNotFoundError if an array is missing, naming the scan; ValueError if shapes differ, or a
    volume is constant or not finite.
    """

    def __init__(
        self, table: pd.DataFrame, *, device: str = "cpu", augment: str = "none", seed: int = 0
    ):
        if augment not in AUGMENTATIONS:
            raise ValueError(f"Augmentation {augment!r} is not one of {', '.join(AUGMENTATIONS)}.")
        if table.empty:
            raise ValueError("The prepared manifest has no rows to load; check role and y_true.")
        gone = [row for row in table.itertuples() if not Path(row.path).is_file()]
        if gone:
            raise FileNotFoundError(
                f"{len(gone)} of {len(table)} prepared volumes are not there, the first is scan "
                f"{gone[0].scan_id} ({Path(gone[0].path).name}); prepare the manifest again."
            )
        self.scan_ids = [str(name) for name in table["scan_id"]]
        self.augment, self.seed = augment, seed
        first = np.load(table["path"].iloc[0], mmap_mode="r")
        self.shape = tuple(first.shape)
        volumes = np.empty((len(table), *self.shape), np.float16)
        statistics = np.empty((len(table), 2), np.float32)
        header_lock = Lock()  # numpy parses it as Python, which before 3.11.9 fails in two threads

        def read(i: int, path: str) -> None:
            with header_lock:
                volume = np.load(path, mmap_mode="r")
            name = self.scan_ids[i]
            if volume.shape != self.shape:
                raise ValueError(
                    f"Scan {name} has shape {volume.shape} where the first has {self.shape}; "
                    "prepare all on one grid."
                )
            volumes[i] = volume
            statistics[i] = mean_and_sd(torch.from_numpy(volumes[i]).float().numpy())
            if not (np.isfinite(statistics[i]).all() and statistics[i, 1] > 0):
                raise ValueError(
                    f"Scan {name} is constant or not finite as float16 and cannot be z-scored; "
                    "exclude it or scale it before preparing."
                )

        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(read, range(len(table)), table["path"]))
        self.volumes, self.statistics = torch.from_numpy(volumes), torch.from_numpy(statistics)
        if torch.device(device).type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            resident = volumes.nbytes <= 0.6 * free
            self.volumes = self.volumes.to(device) if resident else self.volumes.pin_memory()
            self.statistics = self.statistics.to(self.volumes.device)

    def __len__(self) -> int:
        return len(self.scan_ids)

    def batch(
        self, indices: Sequence[int], device: str = "cpu", epoch: int | None = None
    ) -> torch.Tensor:
        """Gather the z-scored volumes of some rows: (B, 1, I, J, K), float32, on a device.

        With an epoch they are augmented first; the same seed, epoch and scan give the same volume,
        whatever else is in the batch.
        """
        rows = torch.as_tensor(np.asarray(indices), device=self.volumes.device)
        volumes = self.volumes[rows].to(device, non_blocking=True).float()[:, None]
        if epoch is not None and self.augment != "none":
            seeds = [seed_from(self.seed, "augment", epoch, self.scan_ids[i]) for i in indices]
            return _zscored(augmented(volumes, self.augment, seeds))
        mean, sd = self.statistics[rows].to(device)[:, :, None, None, None, None].unbind(1)
        return volumes.sub_(mean).div_(sd)


class FeatureStore:
    """Features (N, ...) of a frozen prefix, computed once of all N scans of a store."""

    def __init__(self, features: torch.Tensor, store: VolumeStore):
        self.features, self.scan_ids, self.shape = features, store.scan_ids, store.shape

    def __len__(self) -> int:
        return len(self.scan_ids)

    def batch(
        self, indices: Sequence[int], device: str = "cpu", epoch: int | None = None
    ) -> torch.Tensor:
        """Gather features ``(B, ...)``; `epoch` has no effect."""
        rows = torch.as_tensor(np.asarray(indices), device=self.features.device)
        return self.features[rows].to(device)


def augmented(volumes: torch.Tensor, kind: str, seeds: Sequence[int]) -> torch.Tensor:
    """Change what motion is not, alike in both classes: volumes (B, 1, I, J, K), not z-scored.

    ``flip`` mirrors left and right in half of the scans. ``nuisance`` also divides by the
    foreground's mean and changes contrast (gamma), sharpness (a three-point blur in half of the
    scans) and noise (Rician, in half of them). Each volume has its seed: the same one gives the
    same change. The result has another scale than the input; z-score it afterwards.

    The scale is removed first: noise of a fixed size on scans of different scale would become a
    cue of its own. Changes are small, because careless ones move the threshold on a new site.
    """
    changed = []
    for volume, seed in zip(volumes, seeds, strict=True):
        rng = torch.Generator(volumes.device).manual_seed(int(seed))
        flip, gamma, blur, blurred, noise, noisy = torch.rand(
            6, generator=rng, device=volumes.device
        ).tolist()
        if flip < 0.5:
            volume = volume.flip(1)
        if kind == "nuisance":
            volume = volume / volume[volume > volume.mean()].mean()
            volume = volume.sign() * volume.abs().pow(float(np.exp(GAMMA * (2 * gamma - 1))))
            if blurred < 0.5:
                volume = _blurred(volume, BLUR * blur)
            if noisy < 0.5:
                real, imaginary = torch.randn(
                    (2, *volume.shape), generator=rng, device=volumes.device
                ).mul_(NOISE * noise)
                volume = torch.hypot(volume + real, imaginary)
        changed.append(volume)
    return torch.stack(changed)


def _blurred(volume: torch.Tensor, weight: float) -> torch.Tensor:
    """Average each voxel of (1, I, J, K) with its neighbours, axis by axis, edges repeated."""
    for axis in (1, 2, 3):
        n = volume.shape[axis]
        wide = volume.narrow(axis, 0, 1), volume, volume.narrow(axis, n - 1, 1)
        wide = torch.cat(wide, axis)
        sides = wide.narrow(axis, 0, n) + wide.narrow(axis, 2, n)
        volume = (1 - 2 * weight) * volume + weight * sides
    return volume


def _zscored(volumes: torch.Tensor) -> torch.Tensor:
    """Z-score each volume of (B, 1, I, J, K) on its own device, in single precision."""
    mean = volumes.mean(dim=(1, 2, 3, 4), keepdim=True)
    sd = volumes.std(dim=(1, 2, 3, 4), keepdim=True, correction=0)
    return (volumes - mean) / sd
