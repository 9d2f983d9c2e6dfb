"""Still heads and a recipe go in; moved and still copies on the model's grid come out.

Both classes pass through the same interpolation, the same nuisances and the same placing. One
step is the moved copies' own: a third of them are real parts, as TorchIO stores them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from motionlib import compute
from motionlib.files import atomic, content_key, seed_from, write_table
from motionlib.motion import sampling, trajectory
from motionlib.motion.image_based import image_motion, resample_once
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.recipes import CONTROLS, make_variant
from motionlib.preprocess.grid import Grid, centre_on_grid, resample_to_grid, study_grid
from motionlib.preprocess.head import head_mask
from motionlib.preprocess.images import read_array
from motionlib.scoring.model import model_input

LEAST_MOTION_MM = 0.6  # mean displacement; less leaves no trace at 4 mm
SCALP_DEPTH_MM = (12.0, 20.0)  # below the skin lies the brain, for heads that shall look stripped
LADDER = ((0.5, 1), (1, 2), (2, 4), (4, 6), (6, 8))  # mm and degrees
MOVES = ((2, "native"), (4, "native"), (4, "4mm"))  # TorchIO's default, and the paper's four
COARSE_MM = 4.0


@dataclass(frozen=True)
class CopyRecipe:
    """How the copies of a still head are made.

    Attributes
    ----------
    matched : bool
        Still copies are resampled as moved ones are; False leaves them untouched, the paper's way.
    realistic : bool
        Motion from below a millimetre up, signed, one to many moves, along any axis; False is the
        paper's 2-4 mm and degrees, always positive.
    coarser : float
        Share of the copies, of either class, that are scanned with larger voxels.
    nuisance : bool
        Contrast, sharpness, noise, bias and field of view vary, alike in both classes.
    stripped : float
        Share of the copies, of either class, whose skull is taken away.
    """

    matched: bool = True
    realistic: bool = True
    coarser: float = 0.4
    nuisance: bool = False
    stripped: float = 0.0


def make_copy(
    volume: np.ndarray,
    affine: np.ndarray,
    moved: bool,
    recipe: CopyRecipe,
    rng: np.random.Generator,
    place: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Make one copy of a still head.

    Parameters
    ----------
    volume : ndarray, shape (I, J, K), float32
        RAS, not negative.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm.
    moved : bool
        With motion, or without.
    recipe : CopyRecipe
        How.
    rng : numpy.random.Generator
        Source of everything random.
    place : callable
        Takes volume and affine and returns the model's input: what happens to a scan that is to
        be scored happens to its copies.

    Returns
    -------
    ndarray
        The model's input.
    """
    if rng.random() < recipe.coarser:
        volume, affine = _coarser(volume, affine, rng)
    still = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))
    copy = (_moved if moved else _still)(still, affine, recipe, rng).numpy()
    if recipe.nuisance:
        copy = _nuisances(copy, affine, rng)
    if rng.random() < recipe.stripped:
        copy = np.where(_brain(still.numpy(), affine, rng), copy, 0)
    return place(copy, affine)


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


def _positions(rng) -> trajectory.Trajectory:
    """Draw one to six resting positions: 2 to 8 mm and degrees, in a quarter 0.5 to 2."""
    while True:
        low, high = (2.0, 8.0) if rng.random() < 0.75 else (0.5, 2.0)
        largest = float(rng.uniform(low, high))
        course = sampling.sample_segments(
            int(rng.integers(1, 7)),
            translation_mm=(largest / 2, largest),
            rotation_deg=(largest / 2, largest),
            signed=bool(rng.random() < 0.7),
            rng=rng,
        )
        if _travel(course) >= LEAST_MOTION_MM:
            return course


def _course(rng) -> trajectory.Trajectory:
    """Draw drifts, nods, steps and spikes of up to 8 mm and degrees."""
    while True:
        course = sampling.sample_realistic(
            translation_mm=(1.0, 8.0), rotation_deg=(1.0, 8.0), rng=rng
        )
        if _travel(course) >= LEAST_MOTION_MM:
            return course


def _travel(course) -> float:
    return trajectory.displacement(course, n_frames=40)["from_centre_mm"]


def _still(still: torch.Tensor, affine, recipe: CopyRecipe, rng) -> torch.Tensor:
    kind = rng.random()
    if not recipe.matched or kind < 0.25:
        return still.clone()
    size = rng.uniform(0.5, 6.0)
    turn = rng.uniform(-size, size, 3) * (rng.random() > 1 / 3)
    shift = rng.uniform(-size, size, 3)
    if kind < 0.50:
        rest = trajectory.Trajectory.constant(shift, turn)
        return kspace_motion(still, rest, affine=affine, axis=int(rng.integers(3)))
    return resample_once(still, shift, turn, affine=affine)


def _nuisances(copy: np.ndarray, affine: np.ndarray, rng) -> np.ndarray:
    """Change contrast, sharpness, brightness, noise, field of view; a third each."""
    from scipy.ndimage import gaussian_filter

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


def _brain(still: np.ndarray, affine: np.ndarray, rng) -> np.ndarray:
    """Mark what lies deep enough below the skin: a brain, roughly."""
    from scipy.ndimage import distance_transform_edt

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    step = max(1, int(4 // spacing.min()))
    coarse = head_mask(still[::step, ::step, ::step], spacing * step)
    depth = distance_transform_edt(np.pad(coarse, 1), sampling=spacing * step)[1:-1, 1:-1, 1:-1]
    deep = depth > rng.uniform(*SCALP_DEPTH_MM)
    whole = np.repeat(np.repeat(np.repeat(deep, step, 0), step, 1), step, 2)
    return whole[tuple(slice(0, n) for n in still.shape)]


def make_copies(
    heads: pd.DataFrame,
    recipe: CopyRecipe,
    folder: Path,
    *,
    copies: int,
    seed: int,
    spacing_mm: float,
    slab_mm: float | None,
    engine: str = "inline",
) -> Path:
    """Make copies of every head, half of them moved, and their prepared manifest.

    Parameters
    ----------
    heads : DataFrame
        Columns `scan_id participant_id source_participant_id cohort path role fold`; absolute
        paths of still scans.
    recipe : CopyRecipe
        How.
    folder : Path
        Where; copies that are there already are kept.
    copies, seed : int
        Number of each class and head, and what they are drawn from.
    spacing_mm, slab_mm : float
        Of the model's input (see `modelinput.model_input`).
    engine : str
        Where the work is done.

    Returns
    -------
    Path
        ``folder/{key}.tsv``.
    """
    key = content_key("copies", asdict(recipe), copies, seed, spacing_mm, slab_mm)
    items, rows = [], []
    for head in heads.to_dict("records"):
        done = folder / key / f"{head['scan_id']}.npy"
        names = [f"{kind}{k}" for kind in ("still", "moved") for k in range(copies)]
        if not done.exists():
            items.append(
                {"path": head["path"], "scan_id": head["scan_id"], "out": str(done), "seed": seed}
                | {"names": names, "recipe": asdict(recipe), "input": (spacing_mm, slab_mm)}
            )
        for name in names:
            rows.append(
                head
                | {"scan_id": f"{head['scan_id']}_{name}", "variant": name}
                | {"path": str(Path(key) / head["scan_id"] / f"{name}.npy")}
                | {"y_true": int(name.startswith("moved"))}
            )
    compute.raise_failures(compute.submit(_copies_of_one, items, engine=engine, label="copies"))
    return write_table(pd.DataFrame(rows), folder / f"{key}.tsv")


def _copies_of_one(item: dict) -> str:
    """Make all copies of one head; the last file tells that they are complete."""
    volume, affine = read_array(item["path"])
    recipe, out = CopyRecipe(**item["recipe"]), Path(item["out"])
    volume = np.clip(volume, 0, None)
    place = partial(model_input, spacing_mm=item["input"][0], slab_mm=item["input"][1])
    for name in item["names"]:
        rng = np.random.default_rng(seed_from(item["seed"], item["scan_id"], name))
        moved = name.startswith("moved")
        copy = make_copy(volume, affine, moved, recipe, rng, place)
        with atomic(out.parent / item["scan_id"] / f"{name}.npy") as aside:
            np.save(aside, copy)
    with atomic(out) as aside:
        np.save(aside, np.zeros(1))
    return str(out)


def judged_copies(
    heads: pd.DataFrame, out: Path, *, shape: tuple, seed: int = 7, engine: str = "inline"
) -> Path:
    """Make the controls of every head, and TorchIO's own `RandomMotion` at every severity.

    Parameters
    ----------
    heads : DataFrame
        Columns of `modelbuild.still_heads`.
    out : Path
        Prepared manifest to write; the copies lie in a folder of the same name.
    shape : (float, float or None)
        `spacing_mm` and `slab_mm` of `modelinput.model_input`.
    seed : int
        Of the copies; not that of the training.
    engine : str
        Where the work is done.

    Returns
    -------
    Path
        `out`; ``variant`` is a control or ``torchio_n{moves}_{low}-{high}``, ``@native`` where it
        was made at the scan's own voxel size, ``@4mm`` where at 4 mm.

    Notes
    -----
    Source: TorchIO 1.2.1 ``RandomMotion(degrees, translation, num_transforms)``, real part.
    """
    folder = out.with_suffix("")
    items = [
        head | {"folder": str(folder), "seed": seed, "shape": shape}
        for head in heads.to_dict(orient="records")
    ]
    made = compute.submit(
        _judged_copies_of_one, items, engine=engine, label=f"test copies {out.stem}"
    )
    rows = [row for rows in compute.raise_failures(made) for row in rows]
    return write_table(pd.DataFrame(rows), out)


def _judged_copies_of_one(head: dict) -> list[dict]:
    """Make all copies of one head that are not there yet; return their rows."""
    folder, seed, scan = Path(head.pop("folder")), head.pop("seed"), head["scan_id"]
    spacing_mm, slab_mm = head.pop("shape")
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
        path = folder / scan / f"{variant}.npy"
        if not path.exists():
            still, matrix = frames[place]
            copy = _copy(still, matrix, name, seed_from(seed, scan, variant))
            with atomic(path) as aside:
                np.save(aside, model_input(copy, matrix, spacing_mm, slab_mm))
        rows.append(
            head
            | {"scan_id": f"{scan}_{variant}", "path": str(path.resolve()), "variant": variant}
            | {"y_true": int(name.startswith("torchio"))}
        )
    return rows


def _copy(still: torch.Tensor, affine: np.ndarray, name: str, seed: int) -> np.ndarray:
    if not name.startswith("torchio"):
        return make_variant(still, affine, name, np.random.default_rng(seed)).numpy()
    import torchio as tio

    _, moves, limits = name.split("_")
    low, high = (float(word) for word in limits.split("-"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**31)
        motion = tio.RandomMotion(
            degrees=(low, high), translation=(low, high), num_transforms=int(moves[1:])
        )
        return motion(tio.ScalarImage(tensor=still[None], affine=affine)).data[0].numpy()
