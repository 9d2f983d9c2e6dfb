"""The making of the shipped model: copies, training, threshold, test and card (``make model``).

1. IXI's heads in which no rater saw motion are still; all rated heads get folds by patient.
2. Moved and still copies of them are made, in a folder named by the code. A moved copy and the
   still one beside it go through the same simulator: the same order of lines, interpolation and
   filters, and a pose of the same kind, which in the still one does not change. Two thirds are made
   by a whole scanner (`motion.acquire`), one third by the image-based simulator.
3. For every fold and seed one member learns from the other folds' heads, pair by pair: the same
   plane of one head, moved and still. The loss asks for the right class and, above all, for more
   motion in the moved plane than in the still one (a ranking loss), so that what differs between
   heads, such as noise and contrast, is no way out. One of each seed, the folds in turn, stand side
   by side in the shipped network.
4. A head is judged by the members that never saw its fold: the rated heads as they are, and test
   copies of the still ones. Calibration, threshold and range of doubt rest on the test copies
   alone, so no verdict chooses anything. Other sites are judged by the shipped members.
5. The model folder is written (`ship`): weights, description, tables and card, and all members
   with the folds of the patients, so that others can judge a rated head by what never saw it.
"""

from __future__ import annotations

import argparse
import json
import os
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader
from safetensors.torch import load_file, save_file
from scipy.stats import rankdata, spearmanr
from sklearn.linear_model import LogisticRegression
from statsmodels.stats.proportion import proportion_confint
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, pad, softplus

from motionlib import __version__, compute
from motionlib.cohorts import read_cohort
from motionlib.compute.engines import configure_cpu
from motionlib.experiments.cohort import data_root
from motionlib.files import (
    PACKAGE,
    atomic,
    code_key,
    content_key,
    read_json,
    seed_from,
    sha256_file,
    write_json,
    write_table,
    write_text,
)
from motionlib.iqms.air import air_spread
from motionlib.metrics import auc
from motionlib.motion.acquisition import Acquisition, acquire
from motionlib.motion.image_based import image_motion
from motionlib.motion.recipes import CONTROLS, make_variant
from motionlib.motion.sampling import sample_realistic, sample_segments
from motionlib.motion.trajectory import Trajectory, displacement
from motionlib.networks.slices import PLANES, Cut, SliceNet, joined, padded, plane_range, scaled
from motionlib.preprocess.images import read_array
from motionlib.scoring.model import (
    DIGITS,
    DOUBT,
    DecisionRule,
    decision_rule,
    model_grid,
    model_input,
    rule_of_site,
)
from motionlib.scoring.real_motion import MEMBERS, rated_scans, read_member
from motionlib.stats.calibration import best_threshold, fit_calibrator
from motionlib.stats.intervals import draw_patients

HERE = Path(__file__).resolve().parent
# heads and what is judged
SEED, SEEDS, FOLDS = 20, 5, 3  # of folds and copies; members; parts of the patients
CODE = ("cohorts", "preprocess", "motion", "networks/slices.py", "scoring/model.py")
SITES = {"ds000011": "ds000011", "ds002748": "ds002748-1p5mm"}
HEADS = 12  # of another site that are tested, at most
RATED = "ixi"
NAME = "motionlib-t1w-2mm"
STILL_CALLED = 0.02  # of each kind of test copies without motion, at the threshold
CLEAN_DOUBTED = 0.05  # of the heads as they are, in doubt or called motion
RATERS = "raters"  # in place of a site: rated heads as they are, by their votes
MOVED_MM = ("_2-4", "_4-6")  # mm and degrees, that the threshold shall find
STILL, SEVERE = ("clean", "resampled"), "torchio_n4_4-6"
FIGURES = ("auc_5", "auc_3", "auc_3_0", "rank")  # of `real_figures`
DRAWS = 2000
GROUPS_OF_VOTES = ("none", "1 or 2", "3 and more")
LIMITS = ("_low", "_high")
GRADED, GRADE_DRAWS = (20, 50, 100), 500
# copies
FIELD = (2.0, None, (192.0, 240.0, 208.0))  # voxel, slab and field in mm; `model.model_input`
GROUPS = {"scanner": 6, "image": 3}  # moved copies of a head by simulator, and as many still ones
SIZE = (0.3, 4.0)  # mm and degrees, of motion and of poses
LEAST_MM = 0.2  # mean displacement of a moved copy
LADDER = ((4, "1-2"), (4, "2-4"), (4, "4-6"), (2, "4-6"))  # moves; mm and degrees
VARIANTS = (*CONTROLS, *(f"torchio_n{moves}_{size}" for moves, size in LADDER))
# training
STEPS, PAIRS = 400, 16
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 3e-3, 1e-2, 0.2
RANKING = 2.0  # weight of the ranking loss
AVERAGED = 0.98  # weights of the network are averaged over about the last fifty steps
CROP = (80, 96)  # pixels
NOISE = (0.002, 0.06)  # SD a channel, of the head's level; with less, noisy scans look moved


def rated_heads() -> pd.DataFrame:
    """List IXI's rated heads: a manifest with folds by patient, whole paths, and their rating.

    ``still`` tells which have no vote for motion. `FileNotFoundError` without the scans.
    """
    heads = rated_scans()
    if heads is None:
        raise FileNotFoundError("no rated scans of IXI; name their folder by MOTIONLIB_DATA")
    people = np.sort(heads["source_participant_id"].unique())
    order = np.random.default_rng(seed_from(SEED, "folds")).permutation(people)
    fold = {name: place % FOLDS for place, name in enumerate(order)}
    return heads.assign(
        fold=heads["source_participant_id"].map(fold),
        still=(heads["motion_votes"] == 0).to_numpy(bool),
    )


def train_members(heads: pd.DataFrame, work: Path, *, engine: str) -> dict[int, list[str]]:
    """Make the copies of still heads, train every member; their files by the fold left out."""
    heads = heads[heads["still"]]
    items = [(s, p, str(work / "copies"), SEED) for s, p in heads[["scan_id", "path"]].to_numpy()]
    made = compute.submit(make_training_copies, items, engine=engine, label="copies")
    heads = heads.assign(copies=compute.raise_failures(made))
    members = []
    for fold in range(FOLDS):
        files = heads.loc[heads["fold"] != fold, "copies"].tolist()
        for seed in range(SEEDS):
            out = work / "members" / f"without_{fold}_seed_{seed}.safetensors"
            members.append((files, GROUPS, seed_from(SEED, fold, seed), str(out)))
    done = compute.submit(train_member, members, engine=engine, label="train", progress=print)
    done = compute.raise_failures(done)
    return {fold: done[fold * SEEDS : (fold + 1) * SEEDS] for fold in range(FOLDS)}


def make_training_copies(item: tuple[str, str, str, int]) -> str:
    """Make the copies of one head (a task), unless they are there.

    `item` is scan id, path, folder and seed. ``{scan}.npy`` is float16, (1 + copies, I, J, K), of
    level one: the head as it is, then for each of `GROUPS` moved copies and still ones.
    ``{scan}_mm.npy`` has the mean displacements of the moved ones.
    """
    scan, path, folder, seed = item
    out, sizes = Path(folder) / f"{scan}.npy", []
    if out.exists():
        return str(out)
    volume, affine = read_array(path)
    still = torch.from_numpy(np.clip(volume, 0, None))
    made = [_levelled(still, affine)]
    for simulator, count in GROUPS.items():
        for number in range(2 * count):
            rng = np.random.default_rng(seed_from(seed, scan, simulator, number))
            copy, mm = make_copy(still, affine, simulator, number < count, rng)
            made.append(_levelled(copy, affine))
            sizes += [mm] * (number < count)
    with atomic(out.with_name(f"{scan}_mm.npy")) as aside:
        np.save(aside, np.array(sizes))
    with atomic(out) as aside:
        np.save(aside, np.stack(made))
    return str(out)


def make_copy(
    still: torch.Tensor, affine, simulator: str, moved: bool, rng
) -> tuple[torch.Tensor, float]:
    """Put a still head, (I, J, K) in RAS and not negative, into another pose, moving or not.

    With it comes the mean displacement in mm, 0 if still. The order of the draws is part of the
    shipped model. The image-based simulator interpolates linearly, which leaves its trace; so a
    still copy of it lies where such a motion would have ended, as far from the head's own voxels as
    a moved one.
    """
    course, mm = _pose(rng), 0.0
    while (moved or simulator == "image") and mm < LEAST_MM:
        motion = _positions(rng) if simulator == "image" else _course(rng)
        mm = float(displacement(motion, n_frames=40)["from_centre_mm"])
        if mm >= LEAST_MM:
            if not moved:
                last = motion.translation_mm[-1], motion.rotation_deg[-1]
                motion = Trajectory.constant(*last)
            course = replace(
                motion,
                translation_mm=motion.translation_mm + course.translation_mm,
                rotation_deg=motion.rotation_deg + course.rotation_deg,
            )
    mm = mm if moved else 0.0
    axis = int(rng.integers(3))
    if simulator == "image":
        return image_motion(still, course, affine=affine, axis=axis), mm
    order = str(rng.choice(["linear", "linear", "centric", "segmented"]))
    protocol = Acquisition(
        phase_axis=axis,
        order=order,
        n_segments=int(rng.integers(2, 7)) if order == "segmented" else 1,
        partial_fourier=7 / 8 if rng.random() < 0.15 else 1.0,
        phase=bool(rng.random() < 0.5),
    )
    return acquire(still, course, protocol, affine=affine, rng=rng), mm


def _levelled(copy: torch.Tensor, affine) -> np.ndarray:
    """Place a copy on the model's grid, its head of level one; float16."""
    placed = model_input(copy, affine, *FIELD).astype(np.float32)
    return scaled(torch.from_numpy(placed)).numpy().astype(np.float16)


def _course(rng) -> Trajectory:
    """Draw drifts, nods, steps and spikes."""
    return sample_realistic(translation_mm=SIZE, rotation_deg=SIZE, rng=rng)


def _positions(rng) -> Trajectory:
    """Draw one to six resting positions."""
    largest = float(rng.uniform(*SIZE))
    size = {"translation_mm": (largest / 2, largest), "rotation_deg": (largest / 2, largest)}
    return sample_segments(int(rng.integers(1, 7)), **size, signed=True, rng=rng)


def _pose(rng) -> Trajectory:
    """Draw a pose that does not change."""
    size = rng.uniform(*SIZE)
    return Trajectory.constant(rng.uniform(-size, size, 3), rng.uniform(-size, size, 3))


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


def train_member(item: tuple[list[str], dict[str, int], int, str]) -> str:
    """Train one network (a task), unless it is there, and return its file.

    `item` has the files of `make_training_copies` and their groups, the seed, and the
    file to write.
    """
    files, groups, seed, out = item
    if Path(out).exists():
        return out
    with configure_cpu(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(seed, "weights") % 2**31)
        net = train([Copies(path, list(groups.values())) for path in files], seed)
    with atomic(out) as aside:
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, aside)
    return out


class Copies:
    """Copies of one head, read plane by plane, and where its planes are."""

    def __init__(self, path: str, counts: list[int]):
        self.volumes = np.load(path, mmap_mode="r")
        self.square = np.load(Path(path).with_name(f"{Path(path).stem}_mm.npy")) ** 2
        self.counts = np.array(counts)
        head = torch.from_numpy(self.volumes[0].astype(np.float32))
        self.ranges = [plane_range(head, axis) for axis in range(3)]

    def pair(self, rng) -> torch.Tensor:
        """Draw a plane, moved and still, (2, *CROP); larger motion is drawn more often."""
        axis = int(rng.integers(3))
        first, last = self.ranges[axis]
        plane = int(rng.integers(first, last + 1))
        group = int(rng.choice(len(self.counts), p=self.counts / self.counts.sum()))
        before, count = int(self.counts[:group].sum()), int(self.counts[group])
        chance = self.square[before : before + count]
        moved = 1 + 2 * before + int(rng.choice(count, p=chance / chance.sum()))
        still = 1 + 2 * before + count + int(rng.integers(count))
        pair = [np.take(self.volumes[number], plane, axis) for number in (moved, still)]
        pair = padded(torch.from_numpy(np.stack(pair).astype(np.float32)))
        if axis == 0 and rng.random() < 0.5:
            pair = pair.mT
        corner = [int(rng.integers(n - c + 1)) for n, c in zip(pair.shape[1:], CROP, strict=True)]
        return pair[:, corner[0] : corner[0] + CROP[0], corner[1] : corner[1] + CROP[1]]


def train(heads: list[Copies], seed: int) -> SliceNet:
    """Train a network, whose weights torch's random state has drawn, on copies of heads."""
    rng = np.random.default_rng(seed_from(seed, "pairs"))
    draws = torch.Generator().manual_seed(seed_from(seed, "changes") % 2**31)
    net = SliceNet()
    mean = deepcopy(net)
    optimiser = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, STEPS, pct_start=WARM_UP
    )
    for step in range(STEPS):
        pairs = torch.stack([heads[int(rng.integers(len(heads)))].pair(rng) for _ in range(PAIRS)])
        logits = net(varied(pairs, draws).flatten(0, 1)[:, None]).view(PAIRS, 2)
        moved, still = logits.T
        loss = (softplus(-moved) + softplus(still)).mean() / 2
        loss = loss + RANKING * softplus(still - moved).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            share = 1 - AVERAGED if step > 20 else 1.0
            for kept, now in zip(
                mean.state_dict().values(), net.state_dict().values(), strict=True
            ):
                kept.copy_(kept.lerp(now, share) if now.is_floating_point() else now)
    return mean.eval()


def varied(x: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """Change flips, size, contrast, shading, sharpness, noise, grey levels and air of pairs.

    Both planes of a pair (P, 2, H, W) are changed by the same numbers, so that none tells them
    apart; the noise is of one strength and drawn for each.
    """
    one = torch.ones(len(x), 1, 1, 1)

    def within(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(one.shape, generator=draws)

    def some(share: float) -> torch.Tensor:
        return torch.rand(one.shape, generator=draws) < share

    def noise() -> torch.Tensor:
        return torch.randn(x.shape, generator=draws)

    for side in (2, 3):
        x = torch.where(some(0.5), x.flip(side), x)
    # 1. Size, as of other voxels and other heads.
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = torch.where(some(0.25), within(0.8, 1.25), one).flatten()
    x = grid_sample(x, affine_grid(theta, x.shape, align_corners=False), align_corners=False)
    # 2. Contrast, and shading by a quadratic field.
    x = x.clamp(min=0) ** torch.where(some(0.5), within(0.75, 1.3), one)
    rows = torch.linspace(-1, 1, x.shape[2]).view(1, 1, -1, 1)
    columns = torch.linspace(-1, 1, x.shape[3]).view(1, 1, 1, -1)
    field = within(-0.3, 0.3) * rows + within(-0.3, 0.3) * columns
    field = field + within(-0.3, 0.3) * (rows**2 + columns**2 - 0.7)
    x = x * torch.exp(field) * within(0.8, 1.25)
    # 3. Sharpness, and the noise of two channels in the magnitude.
    soft = avg_pool2d(pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = x + some(0.25) * within(0.0, 0.6) * (soft - x)
    sd = torch.exp(within(*np.log(NOISE))) * some(0.7)
    x = torch.hypot(x + sd * noise(), sd * noise())
    # 4. Few grey levels; air that was cut away.
    step = within(1 / 150, 1 / 50)
    x = torch.where(some(0.5), torch.round(x / step) * step, x)
    return torch.where(some(0.1), x * (x > within(0.05, 0.2)), x)


def keep_test_copies(item: tuple[dict, tuple[str, ...], str]) -> str:
    """Make the variants of one head (a task), unless they are there, as the network's input.

    `item` is a row with ``scan_id path``, the variants and a folder. The file is float16,
    (variants, I, J, K); ``{scan}_air.npy`` has the `air_spread` of the head.
    """
    head, variants, folder = item
    out = Path(folder) / f"{head['scan_id']}.npy"
    if not out.exists():
        volume, affine = read_array(head["path"])
        volume, made = np.clip(volume, 0, None), []
        for variant in variants:
            seed = seed_from(SEED, head["scan_id"], variant)
            copy = make_test_copy(torch.from_numpy(volume), affine, variant, seed)
            made.append(model_input(copy, affine, *FIELD))
        with atomic(out.with_name(f"{out.stem}_air.npy")) as aside:
            np.save(aside, air_spread(volume, affine))
        with atomic(out) as aside:
            np.save(aside, np.stack(made))
    return str(out)


def judge_head(item: tuple[dict, str, list[str], tuple[str, ...], str]) -> list[dict]:
    """Score a head and its test copies by every member (a task); a row a copy.

    `item` is a row with ``scan_id participant_id``, the file of `keep_test_copies`, the members'
    files, the variants, and the site. ``logit_0`` ... are the members' scores, ``air_spread`` is
    that of the head.
    """
    head, file, files, variants, site = item
    air = float(np.load(Path(file).with_name(f"{Path(file).stem}_air.npy")))
    cut, members, rows = Cut(PLANES), [read_member(path) for path in files], []
    for variant, copy in zip(variants, np.load(file, mmap_mode="r"), strict=True):
        with torch.inference_mode(), compute.configure_cpu(1):
            planes = cut(torch.from_numpy(copy.astype(np.float32))[None, None])
            logits = [torch.stack([net(c).mean() for c in planes]).mean() for net in members]
        rows.append(
            {name: head[name] for name in ("scan_id", "participant_id")}
            | {"site": site, "variant": variant, "y_true": int(variant.startswith("torchio"))}
            | {f"logit_{seed}": float(z) for seed, z in enumerate(logits)}
            | {"air_spread": air}
        )
    return rows


def judge_all(
    heads: pd.DataFrame, members: dict[int, list[str]], work: Path, *, engine: str
) -> pd.DataFrame:
    """Judge every rated head by the members that never saw its fold, other sites by the shipped."""
    jobs = [
        (head, members[head["fold"]], VARIANTS if head["still"] else VARIANTS[:1], RATED)
        for head in heads.to_dict("records")
    ]
    for site, place in SITES.items():
        others = read_cohort("bids", data_root() / place)
        for head in others.manifest.head(HEADS).to_dict("records"):
            head["path"] = str(others.root / head["path"])
            jobs.append((head, shipped_of(members), VARIANTS, site))
    items = [(head, names, str(work / "tests" / site)) for head, _, names, site in jobs]
    kept = compute.submit(keep_test_copies, items, engine=engine, label="tests", progress=print)
    items = [
        (head, file, files, names, site)
        for (head, files, names, site), file in zip(jobs, compute.raise_failures(kept), strict=True)
    ]
    done = compute.submit(judge_head, items, engine=engine, label="judge", progress=print)
    rows = pd.DataFrame(row for part in compute.raise_failures(done) for row in part)
    return rows.merge(
        heads[["scan_id", "fold", "motion_votes", "quality_rating"]], "left", "scan_id"
    )


def shipped_of(members: dict[int, list[str]]) -> list[str]:
    """Members that stand side by side in the shipped network: of each seed one, folds in turn."""
    return [members[seed % FOLDS][seed] for seed in range(SEEDS)]


def main(argv: list[str] | None = None) -> int:
    """Make copies, train, judge, choose, ship."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", default="runs/model", help="copies and members")
    parser.add_argument("--out", default=str(PACKAGE / "model"), help="the model")
    parser.add_argument("--engine", default=f"local:{os.cpu_count() or 1}")
    args = parser.parse_args(argv)
    heads = rated_heads()
    work = Path(args.work) / content_key(code_key(*CODE), sha256_file(__file__))
    members = train_members(heads, work, engine=args.engine)
    rows = judge_all(heads, members, work, engine=args.engine)
    rows = pd.read_csv(write_table(rows, work / "predictions.csv"))
    ship(shipped_of(members), rows, Path(args.out))
    keep_members(members, heads, Path(args.out))
    return 0


def ship(files: list[str], rows: pd.DataFrame, out: Path) -> Path:
    """Write the model folder: weights, ``model.json``, ``real_motion.csv``, ``accuracy.csv``, card.

    Beside them ``site_limits.csv`` and ``grades.csv`` (`limits_of_sites`, `what_grades_buy`).
    `files` are the members that are shipped, `rows` those of `judge_head` with ``motion_votes`` and
    ``quality_rating`` of the rated heads.
    """
    out.mkdir(parents=True, exist_ok=True)
    shape = model_grid(*FIELD).shape
    network = joined(shape, [read_member(path) for path in files])
    with atomic(out / "weights.safetensors") as aside:
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, aside)
    rows = rows.assign(logit=rows.filter(regex=r"^logit_\d+$").mean(axis=1))
    still = (rows["motion_votes"] == 0).to_numpy(bool)
    chosen = choose_decision(rows[(rows["site"] == RATED) & still])
    facts = {
        "name": NAME, "key": content_key(*(Path(path).name for path in files), len(rows)),
        "network": "Slices", "shape": list(shape), "n_classes": 2,
        "classes": ["no motion", "motion"], "dropout": 0.0,
        "options": {"members": len(files)}, "task": "synthetic", "voxel_mm": FIELD[0],
        "slab_mm": FIELD[1], "field_mm": list(FIELD[2]), "seed": SEED, "folds": FOLDS,
        "preprocessing": "z-score of the whole volume", "grade_thresholds": None,
        "cohort": f"IXI ({rows.loc[still, 'participant_id'].nunique()} patients without a vote)",
        "copies": sum(GROUPS.values()), "card": "card.md",
        "stripped_seen": False, "registered_seen": False,
        "versions": {"motionlib": __version__, "torch": torch.__version__},
    }  # fmt: skip
    write_json(out / "model.json", facts | chosen)
    real = rows[(rows["site"] == RATED) & (rows["variant"] == VARIANTS[0])]
    write_table(real_motion(real).round(4), out / "real_motion.csv")
    rule = decision_rule(facts | chosen, out.name)
    write_table(limits_of_sites(real, rule).round(4), out / "site_limits.csv")
    write_table(what_grades_buy(real).round(4), out / "grades.csv")
    groups = vote_groups(real["motion_votes"])
    judged = real.assign(site=RATERS, variant=groups, y_true=pd.NA)
    judged = pd.concat([judged.sort_values("motion_votes"), rows[(rows["site"] != RATED) | still]])
    write_table(shares_called_motion(judged, chosen).round(4), out / "accuracy.csv")
    write_text(out / "card.md", card(out))
    return out


def keep_members(members: dict[int, list[str]], heads: pd.DataFrame, out: Path) -> Path:
    """Write all members, in half precision, as ``fold/seed/parameter``, and the patients' folds."""
    tensors = {
        f"{fold}/{seed}/{name}": value.half() if value.is_floating_point() else value
        for fold, files in members.items()
        for seed, file in enumerate(files)
        for name, value in load_file(file).items()
    }
    folds = heads.groupby("source_participant_id")["fold"].first().astype(int).to_dict()
    with atomic(out / MEMBERS) as aside:
        save_file(tensors, aside, metadata={"folds": json.dumps(folds)})
    return out / MEMBERS


def real_figures(votes: np.ndarray, rating: np.ndarray, score: np.ndarray) -> np.ndarray:
    """`FIGURES`: AUC for 5 votes and more, for 3 and more, for 3 and more against none; Spearman's.

    The last is the rank correlation with the raters' mean quality rating, in which 4 is best.
    """
    clear = (votes >= 3) | (votes == 0)
    return np.array(
        [
            auc(votes >= 5, score),
            auc(votes >= 3, score),
            auc(votes[clear] >= 3, score[clear]),
            spearmanr(score, rating).statistic,
        ]
    )


def real_motion(rows: pd.DataFrame) -> pd.DataFrame:
    """Judge every seed, their mean and the one number by what raters saw, with patient intervals.

    `rows` has ``fold motion_votes quality_rating logit logit_0 ... air_spread``, one row a patient.
    The result has ``score``, ``n`` and the `FIGURES` with ``_low`` and ``_high``; rows whose score
    ends in ``- air_spread`` are paired differences.
    """
    votes, rating = (rows[name].to_numpy(float) for name in ("motion_votes", "quality_rating"))
    scores = by_fold(rows)
    scores["mean"] = scores.pop("logit")
    scores["air_spread"] = rows["air_spread"].to_numpy()
    scores["mean and air"] = rankdata(scores["mean"]) + rankdata(scores["air_spread"])
    weights = draw_patients(len(rows), DRAWS, SEED)
    picks = [np.repeat(np.arange(len(rows)), w.astype(int)) for w in weights]
    picks = [pick for pick in picks if (votes[pick] >= 5).any()]
    found = {}
    for name, score in scores.items():
        draws = [real_figures(votes[p], rating[p], score[p]) for p in picks]
        found[name] = real_figures(votes, rating, score), np.array(draws)
    for name in ("mean", "mean and air"):
        pairs = zip(found[name], found["air_spread"], strict=True)
        found[f"{name} - air_spread"] = tuple(a - b for a, b in pairs)
    table = []
    for name, (value, draws) in found.items():
        low, high = np.quantile(draws, [0.025, 0.975], axis=0)
        row = {"score": name, "n": len(rows)}
        for figure, *cells in zip(FIGURES, value, low, high, strict=True):
            names = (figure, f"{figure}_low", f"{figure}_high")
            row |= dict(zip(names, cells, strict=True))
        table.append(row)
    return pd.DataFrame(table)


def by_fold(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Log-odds of every seed and their mean, in units of the quartiles of each fold's scans.

    The members of different folds differ in level and spread: each fold's scans, whatever was said
    of them, set its zero and unit.
    """
    logits = rows.filter(regex=r"^logit")
    quarters = logits.groupby(rows["fold"]).quantile([0.25, 0.5, 0.75]).unstack()
    quarters = quarters.loc[rows["fold"]].set_axis(rows.index)
    scores = {}
    for name in logits:
        low, middle, high = (quarters[name, share] for share in (0.25, 0.5, 0.75))
        scores[name] = ((logits[name] - middle) / (high - low)).to_numpy()
    return scores


def limits_of_sites(rows: pd.DataFrame, rule: DecisionRule) -> pd.DataFrame:
    """Say of every rated scan whether a limit set by its fold's scans, ungraded, doubts it.

    The scans of a fold stand for a site (`model.rule_of_site`), since one set of members scored
    them. Returns ``votes``, which are in three groups, ``n``, the share ``doubted`` and its
    interval, then the balanced accuracy of three votes and more against none.
    """
    doubted = np.zeros(len(rows), dtype=bool)
    for fold in rows["fold"].unique():
        inside = (rows["fold"] == fold).to_numpy()
        logits = rows.loc[inside, "logit"]
        low = rule_of_site(rule, logits.tolist()).review[0]
        doubted[inside] = [rule.probability(z) >= low for z in logits]
    groups, table = vote_groups(rows["motion_votes"]).to_numpy(), []
    for name in GROUPS_OF_VOTES:
        inside = doubted[groups == name]
        low, high = proportion_confint(inside.sum(), len(inside), method="wilson")
        row = {"votes": name, "n": len(inside), "doubted": inside.mean()}
        table.append(row | {"low": low, "high": high})
    moved, still = groups == GROUPS_OF_VOTES[-1], groups == GROUPS_OF_VOTES[0]
    draws = [
        (w @ (doubted & moved) / max(w @ moved, 1) + 1 - w @ (doubted & still) / max(w @ still, 1))
        for w in draw_patients(len(rows), DRAWS, SEED)
    ]
    low, high = np.quantile(np.array(draws) / 2, [0.025, 0.975])
    value = (doubted[moved].mean() + 1 - doubted[still].mean()) / 2
    row = {"votes": "balanced accuracy", "n": int((moved | still).sum()), "doubted": value}
    return pd.DataFrame([*table, row | {"low": low, "high": high}])


def vote_groups(votes: pd.Series) -> pd.Series:
    """Group scans by their votes for motion: none, one or two, three and more."""
    return pd.cut(votes, [-1, 0, 2, 8], labels=GROUPS_OF_VOTES).astype(str)


def what_grades_buy(rows: pd.DataFrame) -> pd.DataFrame:
    """Judge what grades of some scans do for the others: three votes and more against fewer.

    Many times `GRADED` scans are drawn; on their votes a logistic regression weighs the networks'
    log-odds (`by_fold`) and the air, and sets the threshold; the other scans are judged. Without a
    grade the log-odds stand alone. Means over the draws, with the middle 90 % of them.
    """
    y = (rows["motion_votes"] >= 3).to_numpy(int)
    x = np.column_stack([by_fold(rows)["logit"], np.log(rows["air_spread"])])
    x[:, 1] = (x[:, 1] - np.median(x[:, 1])) / x[:, 1].std()
    table = [{"grades": 0, "auc": auc(y, x[:, 0])}]
    rng = np.random.default_rng(seed_from(SEED, "grades"))
    for count in (n for n in GRADED if 3 * n <= 2 * len(y)):
        found = []
        while len(found) < GRADE_DRAWS:
            seen = rng.permutation(len(y)) < count
            if y[seen].sum() < 2 or y[~seen].sum() < 2:
                continue
            model = LogisticRegression().fit(x[seen], y[seen])
            score = model.predict_proba(x)[:, 1]
            called = score[~seen] >= best_threshold(y[seen], score[seen])
            truth = y[~seen] == 1
            right = (called[truth].mean() + 1 - called[~truth].mean()) / 2
            found.append([auc(truth, score[~seen]), right])
        low, high = np.quantile(found, [0.05, 0.95], axis=0)
        row = {"grades": count}
        for name, *cells in zip(
            ("auc", "balanced_accuracy"), np.mean(found, 0), low, high, strict=True
        ):
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), cells, strict=True))
        table.append(row)
    return pd.DataFrame(table)


def shares_called_motion(rows: pd.DataFrame, chosen: dict) -> pd.DataFrame:
    """Share of each test copy called motion at the threshold, by site, with Wilson's interval.

    ``doubted`` is the share in doubt or called motion.
    """
    table = []
    for (site, variant), part in rows.groupby(["site", "variant"], sort=False):
        p = calibrate(part["logit"], chosen)
        called = int((p >= chosen["threshold"]).sum())
        low, high = proportion_confint(called, len(part), method="wilson")
        table.append(
            {"site": site, "variant": variant, "y_true": part["y_true"].iloc[0]}
            | {"doubted": float((p >= chosen["review"][0]).mean())}
            | {"called": called / len(part), "low": low, "high": high}
            | {"median_p": float(np.median(p)), "n": len(part)}
        )
    return pd.DataFrame(table)


def balanced_accuracy(table: pd.DataFrame, site: str, moves: int = 4) -> float:
    """Balanced accuracy of motion of 4-6 mm against clean and resampled scans of a site."""
    rows = table[table["site"] == site].set_index("variant")["called"]
    return float((rows[f"torchio_n{moves}_4-6"] + 1 - rows[list(STILL)].mean()) / 2)


def choose_decision(rows: pd.DataFrame) -> dict:
    """Choose calibration, threshold and range of doubt on test copies of heads that lay still.

    `rows` has ``variant y_true logit participant_id``, by members that never saw the patient. The
    result is part of ``model.json``: ``calibration`` (``p = sigmoid(logit / temperature + bias)``),
    ``threshold`` and ``review`` on the scale of p, and what the card says of them. `ValueError` if
    the scores do not rise with motion.
    """
    # 1. Every still copy, and those moved by 2 mm and more.
    rows = rows[(rows["y_true"] == 0) | rows["variant"].str.contains("|".join(MOVED_MM))]
    # 2. Platt's calibration.
    raw = 1 / (1 + np.exp(-rows["logit"].to_numpy()))
    calibrator = fit_calibrator("platt", rows["y_true"], raw)
    if calibrator.slope <= 0:
        raise ValueError("the validation scores fall with motion; the network has learnt nothing")
    p = calibrator(raw)
    # 3. The threshold of the best balanced accuracy, but at most `STILL_CALLED` of any kind of
    #    still copies, the noisy ones too, are called motion. In doubt is what lies between it and
    #    all but `CLEAN_DOUBTED` of the heads as they are: mild motion scores there.
    still = pd.Series(p, rows["variant"])[rows["y_true"].to_numpy() == 0]
    most = still.groupby(level=0).quantile(1 - STILL_CALLED).max()
    low = still.loc["clean"].quantile(1 - CLEAN_DOUBTED)
    cut = round(max(float(most), best_threshold(rows["y_true"], p)), DIGITS)
    return {
        "calibration": {
            "temperature": round(1 / calibrator.slope, 6),
            "bias": round(calibrator.bias, 6),
        },
        "threshold": cut,
        "review": [round(min(float(low), cut), DIGITS), cut],
        "still_called": float((still >= cut).mean()),
        "n_still": len(still),
        "n_held": int(rows["participant_id"].nunique()),
    }


def calibrate(logit, chosen: dict) -> np.ndarray:
    """Probabilities of motion by what `choose_decision` found."""
    z = np.asarray(logit) / chosen["calibration"]["temperature"]
    return 1 / (1 + np.exp(-(z + chosen["calibration"]["bias"])))


def card(folder: Path) -> str:
    """Fill the model card from what a model folder says of itself: description and tables."""
    facts, table = read_json(folder / "model.json"), pd.read_csv(folder / "accuracy.csv")
    by_votes, table = table[table["site"] == RATERS], table[table["site"] != RATERS]
    sizes = table.groupby("site", sort=False)["n"].min()
    copies = []
    for variant, rows in table.groupby("variant", sort=False):
        by_site = rows.set_index("site").loc[sizes.index].itertuples()
        copies.append([variant, *(f"{r.called:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in by_site)])
    real, people = [], pd.read_csv(folder / "real_motion.csv")
    for row in people.to_dict("records"):
        names = [(figure, f"{figure}_low", f"{figure}_high") for figure in FIGURES]
        cells = ("{:.2f} [{:.2f}, {:.2f}]".format(*(row[n] for n in three)) for three in names)
        real.append([row["score"].replace("logit_", "seed "), *cells])

    def within(row, name: str) -> str:
        if np.isnan(row.get(name, np.nan)):
            return "-"
        low, high = (row.get(name + end, row.get(end[1:], np.nan)) for end in LIMITS)
        return f"{row[name]:.2f}" if np.isnan(low) else f"{row[name]:.2f} [{low:.2f}, {high:.2f}]"

    limits = pd.read_csv(folder / "site_limits.csv").to_dict("records")
    grades = pd.read_csv(folder / "grades.csv").to_dict("records")

    def accuracies(moves: int) -> str:
        by_site = (f"{site} {balanced_accuracy(table, site, moves):.2f}" for site in sizes.index)
        return ", ".join(by_site)

    here = Environment(loader=FileSystemLoader(HERE), trim_blocks=True, lstrip_blocks=True)
    return here.get_template("model_card.md.j2").render(
        facts=facts,
        size_mb=(folder / "weights.safetensors").stat().st_size / 1e6,
        sites=[f"{site} (n = {n})" for site, n in sizes.items()],
        copies=copies,
        real=real,
        n_rated=int(people["n"].iloc[0]),
        votes=[
            [
                row.variant,
                row.n,
                f"{row.doubted:.2f}",
                f"{row.called:.2f} [{row.low:.2f}, {row.high:.2f}]",
            ]
            for row in by_votes.itertuples()
        ],
        limits=[[row["votes"], row["n"], within(row, "doubted")] for row in limits[:-1]],
        right=within(limits[-1], "doubted"),
        doubt=DOUBT,
        grades=[
            [row["grades"], within(row, "auc"), within(row, "balanced_accuracy")] for row in grades
        ],
        accuracy=accuracies(4),
        two_moves=accuracies(2),
    )


if __name__ == "__main__":
    raise SystemExit(main())
