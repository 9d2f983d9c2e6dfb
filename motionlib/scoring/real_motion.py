"""Real motion: what four raters saw in scans of IXI, and what detectors make of the same scans.

A *vote* is a verdict that says head motion, of at most eight a scan (`cohorts.ratings`). Every
detector answers three questions (`VOTE_TASKS`): its rows of ``predictions.csv`` are named
``votes/{detector}``, their ``fold`` is a seed (-1 where there is none), and whatever learns from
votes has seen no scan of the patient. Thresholds for motion are chosen on other patients.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from motionlib import compute
from motionlib.cohorts import read_cohort
from motionlib.cohorts.ratings import find_ixi_ratings, read_ixi_ratings
from motionlib.files import atomic, code_key, content_key, seed_from, sha256_file
from motionlib.iqms.air import air_by_direction, air_spread
from motionlib.iqms.forest import grouped_folds, make_model
from motionlib.metrics import auc
from motionlib.networks.slices import PLANES, Cut, SliceNet, padded, plane_range, scaled
from motionlib.predictions import PREDICTION_COLUMNS, average_scores
from motionlib.preprocess.images import read_array
from motionlib.scoring.model import default_model, model_input, read_rule
from motionlib.stats.agreement import weighted_kappa
from motionlib.stats.calibration import best_threshold
from motionlib.stats.intervals import Interval, bootstrap_ci, bootstrap_difference

VOTE_TASKS = {"votes5": (5, 4), "votes3": (3, 2), "votes3vs0": (3, 0)}  # at least, at most
OTHERS = {"others5": 5 / 8, "others3": 3 / 8}  # share of the other raters' verdicts
N_FOLDS, N_MODEL_FOLDS = 5, 3  # of what is learnt here, and of the shipped model
ON_VOTES = {"fine_tuned": (100, 1e-3), "from_scratch": (200, 3e-3)}  # steps and largest step size
SEED, BATCH = 20, 32  # of what votes teach; planes a step
MEMBERS = "members.safetensors"  # in the shipped model's folder
CODE = ("preprocess", "networks/slices.py", "scoring/model.py", "scoring/real_motion.py")
COLUMNS = list(PREDICTION_COLUMNS)
ABSENT = (
    "no rated scans here: motionlib fetch ixi-ratings DIR/ixi-ratings and fetch ixi DIR/ixi, then "
    "MOTIONLIB_DATA=DIR and the profile real or open"
)


def rated_scans() -> pd.DataFrame | None:
    """List the rated scans of IXI under MOTIONLIB_DATA, or give None where there are none.

    They have the columns of a manifest, whole paths, and ``quality_rating``.
    """
    ratings = find_ixi_ratings()
    roots = [ratings.with_name(name) for name in ("ixi-2mm", "ixi")] if ratings else []
    root = next((place for place in roots if place.is_dir()), None)
    if root is None:
        return None
    selection = read_cohort("ixi", root)
    scans = selection.manifest.dropna(subset="n_verdicts").reset_index(drop=True)
    grade = read_ixi_ratings(ratings).set_index("participant_id")["quality_rating"]
    return scans.assign(
        path=[str((selection.root / path).resolve()) for path in scans["path"]],
        quality_rating=scans["participant_id"].map(grade),
        motion_votes=scans["motion_votes"].astype(int),
    )


def rater_agreement(looks: pd.DataFrame | None, *, n_boot: int = 1000, seed: int = 0):
    """Kappa of every two raters on motion, and of each with himself: again, and without the face.

    From `ratings.read_ixi_verdicts`; ``looks kappa low high n``, intervals that draw patients.
    """
    if looks is None:
        return pd.DataFrame({"reason": [ABSENT]})
    scan, first = ["participant_id", "defaced"], looks[looks["repeat"] == 1]
    wide = first.pivot(index=scan, columns="rater_id", values="vote")
    pairs = [(f"{a} and {b}", wide[a], wide[b]) for a, b in combinations(wide, 2)]
    for rater, rows in looks.groupby("rater_id"):
        again = rows.pivot(index=scan, columns="repeat", values="vote")
        pairs.append((f"{rater}, the same version again", again[1], again[2]))
        faces = wide[rater].unstack("defaced")
        pairs.append((f"{rater}, with and without the face", faces["0"], faces["1"]))
    table = []
    for name, one, two in pairs:
        people = one.index.get_level_values("participant_id")
        kappa = weighted_kappa(one, two, groups=people, n_boot=n_boot, seed=seed)
        row = {"looks": name, "kappa": kappa.estimate, "low": kappa.low, "high": kappa.high}
        table.append(row | {"n": kappa.n})
    return pd.DataFrame(table)


def against_others(looks: pd.DataFrame | None, scored: pd.DataFrame) -> pd.DataFrame:
    """Judge each rater by the votes of the others (`OTHERS`): what a person reaches at this task.

    Beside him stand the detectors of `scored`, rows of the task ``votes3``, judged by the same
    votes. Returns rows of ``predictions.csv`` whose ``model`` is the rater that the truth leaves
    out. A person's score is the grade he gave, his call whether he ticked motion at all.
    """
    if looks is None:
        return pd.DataFrame(columns=COLUMNS)
    pair = ["participant_id", "rater_id", "defaced"]
    each = looks.groupby(pair, as_index=False).agg(vote=("vote", "max"), rating=("rating", "mean"))
    parts = []
    for (task, share), rater in product(OTHERS.items(), sorted(each["rater_id"].unique())):
        own = each["rater_id"] == rater
        truth = each[~own].groupby("participant_id")["vote"].mean() >= share
        person = each[own].groupby("participant_id").agg({"vote": "max", "rating": "mean"})
        person = person.reset_index().rename(columns={"vote": "y_pred"})
        person["scan_id"] = person["participant_id"] + "_T1w"
        sides = [person.assign(score=(4 - person["rating"]) / 3, experiment="votes/rater")]
        sides += [average_scores(rows) for _, rows in scored.groupby("experiment")]
        for place, rows in enumerate(sides):
            rows = rows.assign(y_true=rows["participant_id"].map(truth).astype(int), task=task)
            rows = _call(rows) if place else rows
            parts.append(rows.assign(model=rater, fold=-1)[COLUMNS])
    return pd.concat(parts, ignore_index=True)


def measure_air(scans: pd.DataFrame | None, *, engine: str = "inline") -> pd.DataFrame | None:
    """Join to every scan its `air_spread`, and the air in each direction (`air_by_direction`)."""
    if scans is None:
        return None
    rows = compute.submit(_air_of, list(scans["path"]), engine=engine, label="air")
    return scans.join(pd.DataFrame(compute.raise_failures(rows), index=scans.index))


def _air_of(path: str) -> dict[str, float]:
    """Measure the air of one scan."""
    volume, affine = read_array(path)
    return {"air_spread": air_spread(volume, affine)} | air_by_direction(volume, affine)


def vote_rows(
    scans: pd.DataFrame | None,
    detector: str,
    score_of: Callable[[pd.DataFrame, int], Sequence[float]],
    *,
    model: str,
    seeds: Sequence[int] = (-1,),
) -> pd.DataFrame:
    """Score the scans of every task by every seed: rows of ``predictions.csv``.

    `score_of(scans, seed)` gives scores within 0 and 1; it must leave out the patient it scores.
    """
    parts = [pd.DataFrame(columns=COLUMNS)]
    for (task, (least, most)), seed in product(VOTE_TASKS.items(), seeds):
        if scans is None:
            continue
        votes = scans["motion_votes"]
        rows = scans.assign(y_true=(votes >= least).astype(int))
        rows = rows[(votes >= least) | (votes <= most)].reset_index(drop=True)
        rows = _call(rows.assign(score=np.asarray(score_of(rows, seed), dtype=float)))
        names = {"experiment": f"votes/{detector}", "task": task, "model": model, "fold": seed}
        parts.append(rows.assign(**names)[COLUMNS])
    return pd.concat(parts[1:] or parts, ignore_index=True)


def forest_rows(scans, measures: pd.DataFrame, detector: str, *, seeds, tested=None):
    """Cross-fit a forest (`iqms.forest.make_model`) on measures, indexed by ``participant_id``.

    Patients left out are scored on those of `tested`, another version of the scans, or the same.
    """
    score_of = partial(_cross_fit, measures, measures if tested is None else tested)
    return vote_rows(scans, detector, score_of, model="forest", seeds=seeds)


def _cross_fit(measures, tested, scans: pd.DataFrame, seed: int) -> np.ndarray:
    """Score every scan by a forest that has not seen its patient."""
    y, people = scans["y_true"].to_numpy(), scans["participant_id"]
    learnt, tested = (table.loc[people].to_numpy(float) for table in (measures, tested))
    folds, score = grouped_folds(y, people, n_folds=N_FOLDS, seed=seed), np.empty(len(y))
    for fold in np.unique(folds):
        seen = folds != fold
        forest = make_model("forest", seed=seed, n_rows=len(y)).fit(learnt[seen], y[seen])
        score[~seen] = forest.predict_proba(tested[~seen])[:, 1]
    return score.round(12)  # sums of votes, lest their order decide ties


def vote_networks(
    scans: pd.DataFrame, work: Path, *, seeds: int, engine: str = "inline"
) -> dict[str, pd.DataFrame]:
    """Score the rated scans by networks that never saw the patient: Table IV on real grades.

    The members of the shipped model have learnt from synthetic motion of still heads, those of each
    fold left out in turn (``research_only``). Each goes on with the votes of the other folds'
    raters (``fine_tuned``); a fresh network has these votes alone (``from_scratch``). The numbers
    of steps are fixed, and nothing is chosen by what comes out. `work` keeps heads and networks.

    Returns for each kind of network the scores by ``scan_id``, a column a seed: the sigmoid of the
    log-odds less the median of the fold's scans, in units of their interquartile range, since folds
    differ in level. ValueError for more seeds than the model has.
    """
    shipped = default_model()
    work = Path(work) / content_key(sha256_file(shipped / MEMBERS), code_key(*CODE))
    members, folds = unpack_members(shipped, work / "members")
    if seeds > len(members) // N_MODEL_FOLDS:
        n_members = len(members) // N_MODEL_FOLDS
        raise ValueError(f"Found {seeds} seeds, expected at most {n_members}, one a member.")
    known = scans["source_participant_id"].map(folds)  # of a stranger no member has seen a scan
    heads = scans.assign(fold=known.fillna(0).astype(int))
    rule = read_rule(shipped)
    grid = rule.spacing_mm, rule.slab_mm, rule.field_mm
    items = [(s, p, grid, str(work / "heads")) for s, p in heads[["scan_id", "path"]].to_numpy()]
    files = compute.raise_failures(compute.submit(_store, items, engine=engine, label="heads"))
    share = (heads["motion_votes"] / heads["n_verdicts"]).to_numpy(float)
    # 1. Networks of every fold and seed; none is given a head of the fold that it will judge.
    made, items = {}, []
    for fold, seed in product(sorted(heads["fold"].unique()), range(seeds)):
        made[fold, seed, "research_only"] = start = members[fold, seed]
        seen = np.flatnonzero(heads["fold"] != fold)
        for name in ON_VOTES:
            made[fold, seed, name] = str(work / "members" / f"{name}_{fold}_{seed}.safetensors")
            learnt = [files[k] for k in seen], share[seen].tolist()
            item = name, start, *learnt, seed_from(SEED, name, int(fold), seed)
            items.append((*item, made[fold, seed, name]))
    done = compute.submit(_learn_votes, items, engine=engine, label="votes")
    compute.raise_failures(done)
    # 2. Each head by the networks that never saw it, and each fold on its own scale.
    names = list(product(("research_only", *ON_VOTES), range(seeds)))
    items = [
        (file, [made[fold, seed, name] for name, seed in names])
        for file, fold in zip(files, heads["fold"], strict=True)
    ]
    done = compute.submit(_judge, items, engine=engine, label="judge")
    logits = pd.DataFrame(compute.raise_failures(done), index=pd.Index(heads["scan_id"]))
    by_fold = logits.groupby(heads["fold"].to_numpy())
    low, middle, high = (by_fold.transform("quantile", q) for q in (0.25, 0.5, 0.75))
    score = 1 / (1 + np.exp(-(logits - middle) / (high - low)))
    starts = {name: k * seeds for k, name in enumerate(("research_only", *ON_VOTES))}
    parts = {name: score.iloc[:, k : k + seeds] for name, k in starts.items()}
    return {name: part.set_axis(range(seeds), axis=1) for name, part in parts.items()}


def unpack_members(
    shipped: Path, folder: Path
) -> tuple[dict[tuple[int, int], str], dict[str, int]]:
    """Write each member of the shipped model to a file of its own.

    Returns the files by the fold that a member has not seen and its seed, and the fold of every
    patient of whom members have seen scans.
    """
    parts: dict[tuple[int, int], dict] = {}
    with safe_open(shipped / MEMBERS, "pt") as stream:
        folds = json.loads(stream.metadata()["folds"])
        for key in stream.keys():  # noqa: SIM118  (it is no dictionary)
            fold, seed, name = key.split("/")
            parts.setdefault((int(fold), int(seed)), {})[name] = stream.get_tensor(key).float()
    files = {}
    for (fold, seed), state in parts.items():
        files[fold, seed] = str(folder / f"without_{fold}_{seed}.safetensors")
        with atomic(files[fold, seed]) as aside:
            save_file(state, aside)
    return files, folds


def read_member(path: str) -> SliceNet:
    """Read a network on planes, in evaluation mode."""
    net = SliceNet()
    net.load_state_dict(load_file(path))
    return net.eval()


def _judge(item: tuple[str, list[str]]) -> list[float]:
    """Log-odds of motion of one head (a task), by its file of `_store`, and those of networks."""
    file, networks = item
    head = torch.from_numpy(np.load(file)).float()
    with torch.inference_mode(), compute.configure_cpu(1):
        planes = Cut(PLANES)(head[None, None])
        nets = map(read_member, networks)
        return [float(torch.stack([net(cut).mean() for cut in planes]).mean()) for net in nets]


def _store(item: tuple[str, str, tuple, str]) -> str:
    """Place a head on the model's grid, of level one (a task); `item` is id, path, grid, folder."""
    scan, path, grid, folder = item
    out = Path(folder) / f"{scan}.npy"
    if not out.exists():
        volume, affine = read_array(path)
        volume = torch.from_numpy(np.clip(volume, 0, None))
        placed = model_input(volume, affine, *grid).astype(np.float32)
        with atomic(out) as aside:
            np.save(aside, scaled(torch.from_numpy(placed)).numpy().astype(np.float16))
    return str(out)


def _learn_votes(item: tuple[str, str, list[str], list[float], int, str]) -> str:
    """Teach one network what raters saw (a task), unless it is there, and return its file.

    `item` is a name of `ON_VOTES`, the member that fine-tuning goes on from, the files of
    `_store`, the share of each head's verdicts that are votes, the seed, the file to write.
    """
    name, start, files, share, seed, out = item
    if Path(out).exists():
        return out
    steps, rate = ON_VOTES[name]
    rng, target = np.random.default_rng(seed_from(seed, "planes")), torch.tensor(share)
    with compute.configure_cpu(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(seed, "weights") % 2**31)
        net = read_member(start).train() if name == "fine_tuned" else SliceNet()
        heads = [torch.from_numpy(np.load(path)) for path in files]
        ranges = [[plane_range(head.float(), axis) for axis in range(3)] for head in heads]
        optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.2)
        mean = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.97), use_buffers=True)
        for _ in range(steps):
            # planes across one axis of many heads, flipped, a little brighter or darker
            axis, chosen = int(rng.integers(3)), rng.integers(len(heads), size=BATCH)
            planes = [heads[k].select(axis, int(rng.integers(*ranges[k][axis]))) for k in chosen]
            x = padded(torch.stack(planes)[:, None].float()) * float(rng.uniform(0.9, 1.1))
            x = x.flip([side for side in (2, 3) if rng.random() < 0.5])
            loss = binary_cross_entropy_with_logits(net(x), target[chosen].float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            mean.update_parameters(net)
    with atomic(out) as aside:
        state = mean.module.state_dict()
        save_file({key: value.contiguous() for key, value in state.items()}, aside)
    return out


def _call(rows: pd.DataFrame) -> pd.DataFrame:
    """Call motion by the threshold that is best on the patients of the other folds."""
    folds = np.array([seed_from("votes", name) % N_FOLDS for name in rows["participant_id"]])
    y_true, score = rows["y_true"].to_numpy(), rows["score"].to_numpy()
    called = np.zeros(len(rows), dtype=int)
    for fold in np.unique(folds):
        inside = folds == fold
        called[inside] = score[inside] >= best_threshold(y_true[~inside], score[~inside])
    return rows.assign(y_pred=called)


def judge_votes(
    rows: pd.DataFrame, *, ratings=None, against: str = "air_spread", n_boot=1000, seed=0
) -> pd.DataFrame:
    """Judge detectors of real motion by rows of ``predictions.csv``; without rows, give the reason.

    Scores of several seeds are averaged scan by scan; ``each_seed`` lists the AUC of each alone.
    ``difference`` is the AUC less that of the detector `against`, in pairs. `ratings` are the
    raters' mean grades by ``scan_id``, for the rank correlation of ``votes3``. Intervals draw
    patients.
    """
    if rows.empty:
        return pd.DataFrame({"reason": [ABSENT]})
    draws, table = {"n_boot": n_boot, "seed": seed}, []
    rows = rows.assign(detector=rows["experiment"].str.removeprefix("votes/"))
    for (task, name, model), part in rows.groupby(["task", "detector", "model"], sort=False):
        one = _one_a_scan(part)
        judged = {"task": task, "detector": name, "model": model, "n": len(one)}
        judged["n_positive"] = int(one["y_true"].sum())
        for metric in ("auc", "balanced_accuracy"):
            facts = {"metric": metric, "y_pred": one["y_pred"]} | draws
            found = bootstrap_ci(one["y_true"], one["score"], one["participant_id"], **facts)
            judged |= _with_limits(metric, found)
        other = rows[(rows["detector"] == against) & (rows["task"] == task)]
        other = other[other["model"] == model] if model in set(other["model"]) else other
        if name != against and len(other):
            gap = bootstrap_difference(one, _one_a_scan(other), metric="auc", **draws)
            judged |= _with_limits("difference", gap)
        if task == "votes3" and ratings is not None:
            judged |= _rank_correlation(one["score"], one["scan_id"].map(ratings), **draws)
        seeds = [auc(p["y_true"], p["score"]) for _, p in part.groupby("fold")]
        judged["each_seed"] = " ".join(f"{v:.3f}" for v in seeds) if len(seeds) > 1 else ""
        table.append(judged)
    return pd.DataFrame(table)


def _one_a_scan(rows: pd.DataFrame) -> pd.DataFrame:
    """Average the scores of several seeds and call motion anew."""
    return _call(average_scores(rows)) if rows["fold"].nunique() > 1 else rows


def _with_limits(name: str, found: Interval) -> dict:
    """Columns of an estimate and its limits."""
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _rank_correlation(score: pd.Series, rating: pd.Series, *, n_boot: int, seed: int) -> dict:
    """Spearman's correlation with the raters' mean grade; percentiles of draws of scans."""
    score, rating = score.to_numpy(), rating.to_numpy()
    draws = np.random.default_rng(seed).integers(len(score), size=(n_boot, len(score)))
    values = [spearmanr(score[draw], rating[draw])[0] for draw in draws]
    low, high = np.nanquantile(values, (0.025, 0.975))
    return {"rank": spearmanr(score, rating)[0], "rank_low": low, "rank_high": high}
