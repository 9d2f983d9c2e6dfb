"""A head of few numbers on frozen features: what a network pre-trained once gives a small hospital.

Every block of the pre-trained network stays as it is; mean, standard deviation and maximum of each
of its channels describe a scan, a logistic regression decides (regularised by inner folds), and
features of a network that was never trained say how much the pre-training did.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from motionlib.compute.engines import configure_cpu, default_device, raise_failures, submit
from motionlib.experiments.cohort import Cohort
from motionlib.experiments.copies import read_prepared, warehouse_set
from motionlib.experiments.evaluation import prediction_rows
from motionlib.files import code_key, content_key, sha256_file, write_table
from motionlib.predictions import TEXT_COLUMNS, THRESHOLD, average_scores
from motionlib.tasks import TASK_GRADES
from motionlib.training.checkpoints import load_model
from motionlib.training.data import VolumeStore
from motionlib.training.fitting import fresh_network
from motionlib.training.spec import TrainSpec

CODE = ("networks", "training", "experiments")  # what the rows depend on
BATCH = 16  # scans a forward pass
STRENGTHS = np.logspace(-5, 0, 6)  # C of the regression, from which the inner folds choose
INNER_FOLDS = 3
KINDS = {"pooled_head": True, "untrained_features": False}  # whether the network was pre-trained


def pooled_heads(
    cohort: Cohort, sources: Sequence[Path], n_patients: Iterable[int] = ()
) -> pd.DataFrame:
    """Train and judge the head on pre-trained and on untrained features, for both tasks.

    Fold i is judged on features of the i-th of the pre-trained folds in `sources`, or of the first
    again where there are fewer. Gives rows ``warehouse/pooled_head`` and
    ``warehouse/untrained_features``, folds and their mean; of severe motion also
    ``labels/{kind of features}/{n}``, trained on those numbers of graded patients.
    Departs from the paper: it fine-tunes the fully connected layers.
    """
    device, n_patients = default_device(), list(n_patients)
    weights = [sha256_file(Path(folder) / "weights.safetensors") for folder in sources]
    facts = cohort.key, cohort.seed, weights, n_patients, device, sklearn.__version__
    kept = cohort.cache / f"pooled_heads_{content_key(*facts, code_key(*CODE))}.csv"
    if kept.is_file():
        kinds = dict.fromkeys(TEXT_COLUMNS, str) | {"y_true": "Int64"}
        read = {"dtype": kinds, "keep_default_na": False, "float_precision": "round_trip"}
        return pd.read_csv(kept, **read)
    scans = {task: read_prepared(cohort, warehouse_set(cohort, task)) for task in TASK_GRADES}
    found = submit(
        partial(_one_kind, cohort, sources, n_patients, device=device),
        [(task, name, scans[task]) for task, name in product(TASK_GRADES, KINDS)],
        engine=cohort.engine,
        label="pooled heads",
        resources={"GPU": 1} if device.startswith("cuda") else None,
    )
    rows = pd.concat(raise_failures(found), ignore_index=True)
    write_table(rows, kept)
    return rows


def _one_kind(cohort, sources, n_patients, asked: tuple, *, device: str) -> pd.DataFrame:
    """Train and judge the heads of a task, `asked`, on one kind of features of its scans."""
    task, name, scans = asked
    described = [_features(folder, scans, KINDS[name], device) for folder in sources]
    parts = [_judge(cohort, scans, described, f"warehouse/{name}", task)]
    for n in n_patients if task == "mov01vs2" else ():
        named = (f"labels/{name}/{n}", task)
        parts.append(_judge(cohort, scans, described, *named, n_patients=n))
    return pd.concat(parts, ignore_index=True)


def _judge(
    cohort: Cohort,
    scans: pd.DataFrame,
    described: list[np.ndarray],
    experiment: str,
    task: str,
    *,
    n_patients: int | None = None,
) -> pd.DataFrame:
    """Train and judge the head in every fold: rows of the folds and of their mean."""
    fold, y_true = scans["fold"].to_numpy(float, na_value=-1), scans["y_true"].to_numpy(int)
    train = (scans["role"] == "train").to_numpy()
    patients = scans["source_participant_id"].to_numpy(str)
    logistic = LogisticRegression(class_weight="balanced", max_iter=1000)
    head = make_pipeline(StandardScaler(), logistic)
    choices = {
        "param_grid": {"logisticregression__C": STRENGTHS},
        "cv": StratifiedGroupKFold(INNER_FOLDS, shuffle=True, random_state=cohort.seed),
        "scoring": "roc_auc",
    }
    rows = []
    for k in range(cohort.n_outer or len(described)):
        X = described[k % len(described)]
        inside, outside = train, ~train
        if cohort.n_outer:
            inside, outside = train & (fold != k), fold == k
        if n_patients is not None:
            inside = inside & _some(patients, y_true, inside, n_patients, cohort.seed)
        few = min(len(set(patients[inside & (y_true == grade)])) for grade in (0, 1))
        if few < INNER_FOLDS:  # too few patients with motion to choose by: the middle of the range
            search = head.set_params(logisticregression__C=STRENGTHS[len(STRENGTHS) // 2])
            search.fit(X[inside], y_true[inside])
        else:
            search = GridSearchCV(head, **choices)
            search.fit(X[inside], y_true[inside], groups=patients[inside])
        score = search.predict_proba(X[outside])[:, 1]
        judged = scans[outside].assign(score=score, y_pred=(score >= THRESHOLD).astype(int))
        rows.append(prediction_rows(judged, experiment, task, "LogisticRegression", k))
    folds = pd.concat(rows, ignore_index=True)
    mean = prediction_rows(average_scores(folds), experiment, task, "LogisticRegression", -1)
    return pd.concat([folds, mean], ignore_index=True)


def _some(patients, y_true, inside, n_patients: int, seed: int) -> np.ndarray:
    """Choose so many random patients of those inside; some with motion, for the inner folds."""
    people = pd.Series(y_true[inside]).groupby(patients[inside]).max()
    people = people.loc[np.random.default_rng(seed).permutation(people.index.to_numpy())]
    needed = people[people == 1].index[: 2 * INNER_FOLDS]
    rest = people.index.difference(needed, sort=False)
    return np.isin(patients, [*needed, *rest[: max(0, n_patients - len(needed))]])


@torch.inference_mode()
def _features(folder: Path, scans: pd.DataFrame, trained: bool, device: str) -> np.ndarray:
    """Describe scans by a network's blocks: mean, SD and maximum of every channel, (N, 3 C)."""
    model = load_model(folder, device=device)
    network = model.network
    if not trained:
        facts = model.facts
        spec = TrainSpec(facts["network"], "none", "none", seed=facts["seed"])
        network = fresh_network(spec, model.shape).eval()
        network.to(device, memory_format=torch.channels_last_3d)
    store, parts = VolumeStore(scans, device=device), []
    with configure_cpu():
        for first in range(0, len(store), BATCH):
            x = store.batch(np.arange(first, min(first + BATCH, len(store))), device)
            x, described = x.contiguous(memory_format=torch.channels_last_3d), []
            for name, block in network.named_children():
                if name.startswith("fc"):
                    break
                x = block(x)
                flat = x.flatten(2)
                described += [flat.mean(2), flat.std(2, correction=0), flat.amax(2)]
            parts.append(torch.cat(described, 1).cpu().numpy())
    return np.concatenate(parts).astype(float)
