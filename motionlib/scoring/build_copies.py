"""Copies of still heads on the model's grid: those it learns from, and those it is tested on.

A training copy is drawn by a `CopyRecipe`: the head is scanned with larger voxels or not, moved or
resampled without motion, and placed as a scan to be scored is. Both classes pass through the same
interpolation; one step is the moved copies' own: a third of them are real parts, as TorchIO stores
them. Test copies are the study's controls and TorchIO's own ``RandomMotion``, not ours.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter

from motionlib import compute
from motionlib.files import atomic, content_key, seed_from, write_table
from motionlib.motion.image_based import image_motion, resample_once
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.recipes import CONTROLS, make_variant
from motionlib.motion.sampling import sample_realistic, sample_segments
from motionlib.motion.trajectory import Trajectory, displacement
from motionlib.preprocess.grid import Grid, centre_on_grid, resample_to_grid, study_grid
from motionlib.preprocess.images import read_array
from motionlib.scoring.model import model_input

LEAST_MOTION_MM = 0.6  # mean displacement; less leaves no trace at 4 mm
LADDER = ((0.5, 1), (1, 2), (2, 4), (4, 6), (6, 8))  # mm and degrees
MOVES = ((2, "native"), (4, "native"), (4, "4mm"))  # TorchIO's default, and the paper's four
COARSE_MM = 4.0


@dataclass(frozen=True)
class CopyRecipe:
    """How the training copies of a still head are made."""

    matched: bool = True  # still copies are resampled as moved ones are; False, the paper's: left
    realistic: bool = True  # 0.5 to 8 mm, signed, any axis; False, the paper's: 2-4 mm, positive
    coarser: float = 0.4  # share of the copies, of either class, scanned with larger voxels
    nuisance: bool = False  # contrast, sharpness, noise, bias and field of view vary in both


def make_training_copies(
    heads: pd.DataFrame,
    recipe: CopyRecipe,
    folder: Path,
    *,
    copies: int,
    seed: int,
    shape: tuple[float, float | None],
    engine: str = "inline",
) -> Path:
    """Make `copies` still and as many moved copies of every head, and their prepared manifest.

    `heads` are those of `build.still_heads`; `shape` is voxel size and slab of `model_input`, in
    mm. Copies that are in `folder` already are kept. Returns ``folder/{key}.tsv``.
    """
    key = content_key("copies", asdict(recipe), copies, seed, *shape)
    names = [f"{kind}{k}" for kind in ("still", "moved") for k in range(copies)]
    items, rows = [], []
    for head in heads.to_dict("records"):
        done = folder / key / f"{head['scan_id']}.npy"
        if not done.exists():
            items.append(
                {"path": head["path"], "scan_id": head["scan_id"], "out": str(done), "seed": seed}
                | {"names": names, "recipe": asdict(recipe), "shape": shape}
            )
        for name in names:
            rows.append(
                head
                | {"scan_id": f"{head['scan_id']}_{name}", "variant": name}
                | {"path": str(Path(key) / head["scan_id"] / f"{name}.npy")}
                | {"y_true": int(name.startswith("moved"))}
            )
    compute.raise_failures(compute.submit(_training_copies, items, engine=engine, label="copies"))
    return write_table(pd.DataFrame(rows), folder / f"{key}.tsv")


def _training_copies(item: dict) -> str:
    """Make all training copies of one head (a task); the last file tells that all are there."""
    volume, affine = read_array(item["path"])
    recipe, out = CopyRecipe(**item["recipe"]), Path(item["out"])
    volume = np.clip(volume, 0, None)
    for name in item["names"]:
        rng = np.random.default_rng(seed_from(item["seed"], item["scan_id"], name))
        copy, matrix = make_copy(volume, affine, name.startswith("moved"), recipe, rng)
        with atomic(out.parent / item["scan_id"] / f"{name}.npy") as aside:
            np.save(aside, model_input(copy, matrix, *item["shape"]))
    with atomic(out) as aside:
        np.save(aside, np.zeros(1))
    return str(out)


def make_copy(
    volume: np.ndarray, affine: np.ndarray, moved: bool, recipe: CopyRecipe, rng
) -> tuple[np.ndarray, np.ndarray]:
    """Make one training copy of a still head, (I, J, K) in RAS and not negative; with its affine.

    The order of the draws is part of the shipped model: a copy is its seed's.
    """
    if rng.random() < recipe.coarser:
        volume, affine = _coarser(volume, affine, rng)
    still = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))
    copy = (_moved if moved else _still)(still, affine, recipe, rng).numpy()
    if recipe.nuisance:
        copy = _nuisances(copy, affine, rng)
    return copy, affine


def _coarser(volume: np.ndarray, affine: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    """Scan with voxels of up to 4.5 mm, along one axis or all."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    wanted = np.maximum(spacing, rng.uniform(2.0, 4.5))
    if rng.random() < 0.3:  # thick slices
        wanted = np.where(np.arange(3) == rng.integers(3), wanted, spacing)
    shape = tuple(
        max(8, int(n * d / w)) for n, d, w in zip(volume.shape, spacing, wanted, strict=True)
    )
    coarse = affine @ np.diag([*(wanted / spacing), 1.0])
    return resample_to_grid(volume, affine, Grid(shape, tuple(map(tuple, coarse.tolist())))), coarse


def _moved(still: torch.Tensor, affine, recipe: CopyRecipe, rng) -> torch.Tensor:
    """Move the head: three in ten by the k-space method, the others between resting positions."""
    if not recipe.realistic:
        return make_variant(still, affine, "image_2-4_paper", rng)
    kind = rng.random()
    axis = int(rng.integers(3))
    if kind < 0.30:
        return kspace_motion(still, _course(rng), affine=affine, axis=axis)
    return image_motion(
        still,
        _positions(rng),
        affine=affine,
        axis=axis,
        center=str(rng.choice(["image", "world"])),
        output=str(rng.choice(["magnitude", "real"], p=[2 / 3, 1 / 3])),
    )


def _positions(rng) -> Trajectory:
    """Draw one to six resting positions: 2 to 8 mm and degrees, in a quarter 0.5 to 2."""
    while True:
        low, high = (2.0, 8.0) if rng.random() < 0.75 else (0.5, 2.0)
        largest = float(rng.uniform(low, high))
        positions = sample_segments(
            int(rng.integers(1, 7)),
            translation_mm=(largest / 2, largest),
            rotation_deg=(largest / 2, largest),
            signed=bool(rng.random() < 0.7),
            rng=rng,
        )
        if _leaves_a_trace(positions):
            return positions


def _course(rng) -> Trajectory:
    """Draw drifts, nods, steps and spikes of up to 8 mm and degrees."""
    while True:
        course = sample_realistic(translation_mm=(1.0, 8.0), rotation_deg=(1.0, 8.0), rng=rng)
        if _leaves_a_trace(course):
            return course


def _leaves_a_trace(trajectory: Trajectory) -> bool:
    return displacement(trajectory, n_frames=40)["from_centre_mm"] >= LEAST_MOTION_MM


def _still(still: torch.Tensor, affine, recipe: CopyRecipe, rng) -> torch.Tensor:
    """Leave a quarter as it is, and let the others lie elsewhere, by either method's resampling."""
    kind = rng.random()
    if not recipe.matched or kind < 0.25:
        return still.clone()
    size = rng.uniform(0.5, 6.0)
    turn = rng.uniform(-size, size, 3) * (rng.random() > 1 / 3)
    shift = rng.uniform(-size, size, 3)
    if kind < 0.50:
        rest = Trajectory.constant(shift, turn)
        return kspace_motion(still, rest, affine=affine, axis=int(rng.integers(3)))
    return resample_once(still, shift, turn, affine=affine)


def _nuisances(copy: np.ndarray, affine: np.ndarray, rng) -> np.ndarray:
    """Change contrast, sharpness, brightness, noise, field of view; a third each."""
    wanted = rng.random(5) < 1 / 3
    gamma, sharp_mm, slope, noise, cut = rng.uniform(size=5)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    head = copy[copy > copy.mean()].mean()
    copy = copy / head
    if wanted[0]:
        copy = np.sign(copy) * np.abs(copy) ** (0.7 + 0.7 * gamma)
    if wanted[1]:
        copy = gaussian_filter(copy, 2.2 * sharp_mm / spacing)
    if wanted[2]:
        ramp = sum(
            w * np.linspace(-1, 1, n).reshape([-1 if a == d else 1 for d in range(3)])
            for a, (n, w) in enumerate(zip(copy.shape, rng.normal(size=3), strict=True))
        )
        copy = copy * np.exp(0.25 * slope * ramp)
    if wanted[3]:
        noise_sd = 0.04 * noise
        real = copy + rng.normal(0, noise_sd, copy.shape)
        copy = np.hypot(real, rng.normal(0, noise_sd, copy.shape))
    if wanted[4] and cut < 0.5:  # a lower edge of the field of view, up to 4 cm above the last one
        copy[:, :, : int(rng.uniform(0, 40) / spacing[2])] = 0
    return copy.astype(np.float32)


def make_test_copies(
    heads: pd.DataFrame,
    out: Path,
    *,
    shape: tuple[float, float | None],
    seed: int = 7,
    engine: str = "inline",
) -> Path:
    """Make the controls of every head, and TorchIO's own ``RandomMotion`` at every severity.

    `heads`, `shape` as for `make_training_copies`; `seed` is not the training's. `out` is the
    prepared manifest to write, its copies lie in a folder of the same name. ``variant`` is a
    control or ``torchio_n{moves}_{low}-{high}``, ``@native`` where it was made at the scan's own
    voxel size, ``@4mm`` where at 4 mm.
    """
    items = [
        head | {"folder": str(out.with_suffix("")), "seed": seed, "shape": shape}
        for head in heads.to_dict("records")
    ]
    done = compute.submit(_test_copies, items, engine=engine, label=f"test copies {out.stem}")
    rows = [row for rows in compute.raise_failures(done) for row in rows]
    return write_table(pd.DataFrame(rows), out)


def _test_copies(item: dict) -> list[dict]:
    """Make all test copies of one head that are not there yet (a task); return their rows."""
    head = {name: item[name] for name in item if name not in ("folder", "seed", "shape")}
    scan = head["scan_id"]
    volume, affine = read_array(head["path"])
    volume, coarse = np.clip(volume, 0, None), study_grid(COARSE_MM)
    frames = {
        "native": (torch.from_numpy(volume), affine),
        "4mm": (torch.from_numpy(centre_on_grid(volume, affine, coarse)), coarse.matrix),
    }
    names = [(name, place) for name in CONTROLS for place in frames]
    names += [(f"torchio_n{n}_{lo}-{hi}", place) for lo, hi in LADDER for n, place in MOVES]
    rows = []
    for name, place in names:
        variant = f"{name}@{place}"
        path = Path(item["folder"]) / scan / f"{variant}.npy"
        if not path.exists():
            still, matrix = frames[place]
            copy = make_test_copy(still, matrix, name, seed_from(item["seed"], scan, variant))
            with atomic(path) as aside:
                np.save(aside, model_input(copy, matrix, *item["shape"]))
        rows.append(
            head
            | {"scan_id": f"{scan}_{variant}", "path": str(path.resolve()), "variant": variant}
            | {"y_true": int(name.startswith("torchio"))}
        )
    return rows


def make_test_copy(still: torch.Tensor, affine: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Make a control, or move a head by TorchIO 1.2.1's ``RandomMotion``, which keeps real parts.

    `name` is a control's, or ``torchio_n{moves}_{low}-{high}`` in mm and degrees.
    """
    if not name.startswith("torchio"):
        return make_variant(still, affine, name, np.random.default_rng(seed)).numpy()
    import torchio as tio  # slow to import, and needed by no other copy

    _, moves, limits = name.split("_")
    low, high = (float(word) for word in limits.split("-"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**31)
        motion = tio.RandomMotion(
            degrees=(low, high), translation=(low, high), num_transforms=int(moves[1:])
        )
        return motion(tio.ScalarImage(tensor=still[None], affine=affine)).data[0].numpy()
