"""Tables of comparisons: raters with each other, models in pairs, printed cells with ours."""

from itertools import combinations

import numpy as np
import pandas as pd

from motionlib.paper.beside import KEYS, METRICS_OF, same_order
from motionlib.paper.run_summary import RATERS, RunSummary
from motionlib.paper.transcription import ARCHITECTURES, TASKS, in_text, published
from motionlib.predictions import pair_predictions
from motionlib.stats.agreement import weighted_kappa
from motionlib.stats.intervals import bootstrap_difference, summary_intervals
from motionlib.stats.paired import delong, holm, mcnemar_by_class, mcnemar_by_patient, scans_needed
from motionlib.tasks import grade_to_task, rater_calls

AGREEMENT_COLUMNS = ["quantity", "task", "paper", "ours", "difference", "low", "high", "n"]
AGREEMENT_COLUMNS += ["cohort", "reason"]
PAIRS = [
    ("fine_tuned", "from_scratch"),
    ("fine_tuned", "research_only"),
    ("fine_tuned", "forest_clinical"),
    ("fine_tuned", "forest_research"),
    ("fine_tuned_recommended", "from_scratch"),
    ("fine_tuned_recommended", "research_only_recommended"),
    ("fine_tuned_recommended", "fine_tuned"),
    ("fine_tuned_recommended", "forest_clinical"),
    ("fine_tuned_chosen", "from_scratch"),
    ("pooled_head", "untrained_features"),
    ("pooled_head", "research_only_recommended"),
]
COLUMNS = ["table", "row", "metric", "paper", "ours", "low", "high", "difference", "n"]
COLUMNS += ["same_order", "cohort", "reason"]
GRADE_COUNTS = {"consensus mov0": 0, "consensus mov1": 1, "consensus mov2": 2}
MAKERS = {"Siemens": "siemens", "GE": "ge", "Philips": "philips", "Toshiba": "toshiba|canon"}


def agreement(run: RunSummary) -> pd.DataFrame:
    """Agreement of the two raters with each other, with the consensus, and left out of it.

    Returns ``quantity task paper ours difference low high n cohort reason``, fractions. The rows
    "against the other rater" have no printed counterpart: they are what the consensus hides.
    Source: paper §III-A.2 (kappa 0.68, weights not stated) and Table IV (annotators).
    """
    scans = run.graded
    rows = []
    for weights in ("linear", "quadratic"):
        row: dict = {"quantity": f"weighted kappa, {weights}"}
        row["paper"] = in_text("weighted Cohen kappa between annotators")
        if scans.empty:
            rows.append(row | {"reason": "no scans graded by two raters in this run"})
            continue
        kappa = weighted_kappa(
            *(scans[name] for name in RATERS),
            weights=weights,
            groups=scans["participant_id"],
            n_boot=run.n_boot,
            seed=run.seed,
        )
        row |= {"ours": kappa.estimate, "low": kappa.low, "high": kappa.high, "n": kappa.n}
        row["cohort"] = " + ".join(sorted(scans["cohort"].unique()))
        rows.append(row | {"reason": "the paper does not state the weights"})
    printed_ba = published("table_4").query("method == 'annotators'").set_index("task")
    for task in TASKS:
        row = {"quantity": "balanced accuracy against the consensus", "task": task}
        row["paper"] = printed_ba.loc[task, "balanced_accuracy"]
        summary = run.summary("warehouse/annotators", task=task)
        if summary is None:
            rows.append(row | {"reason": "no rows warehouse/annotators in this run"})
            continue
        parts = {"ours": "mean", "low": "low", "high": "high"}
        row |= {name: summary[f"balanced_accuracy_{part}"] for name, part in parts.items()}
        rows.append(row | {name: summary[name] for name in ("n", "cohort")})
    for task in TASKS:
        row = {"quantity": "balanced accuracy against the other rater", "task": task}
        rows.append(row | _left_out(run, task))
    table = pd.DataFrame(rows)
    table = table.assign(difference=table.get("ours", np.nan) - table["paper"])
    return table.reindex(columns=AGREEMENT_COLUMNS)


def _left_out(run: RunSummary, task: str) -> dict:
    """Cells of each rater judged by the other on the judged scans, mean of the two."""
    scans, tested, parts = run.graded, run.graded["role"].eq("test").fillna(False), []
    scans = scans[tested] if tested.any() else scans  # without a test set each is judged once
    for rater, other in (RATERS, RATERS[::-1]):
        truth = grade_to_task(scans[other], task).dropna().astype(int)
        part = scans.loc[truth.index]
        if truth.nunique() < 2:
            return {"reason": "no such scans in this run"}
        called = rater_calls(part[rater], task)
        decisions = {"y_true": truth, "score": called.astype(float), "y_pred": called}
        parts.append(part.assign(model=rater, fold=-1, **decisions))
    rows = pd.concat(parts)
    intervals = summary_intervals(rows, n_boot=run.n_boot, seed=run.seed)
    accuracy = intervals["balanced_accuracy"]
    cells = {"ours": accuracy.estimate, "low": accuracy.low, "high": accuracy.high}
    cohort = " + ".join(rows["cohort"].unique())
    return cells | {"n": rows["scan_id"].nunique(), "cohort": cohort}


def mcnemar_table(run: RunSummary) -> pd.DataFrame:
    """Compare models on the same scans: McNemar, differences of BA and AUC, DeLong.

    One row a comparison: ``task first second p_paper p_by_patient p_holm`` (McNemar's question with
    a patient's scans taken together, Holm over the comparisons of a task), counts ``b c n
    n_patients``, ``p_exact p_corrected`` (as the paper: scans taken for independent),
    ``p_positives p_negatives`` (Holm over the two),
    ``ba_difference _low _high``, ``auc_difference _low _high p_delong`` (by patient),
    ``scans_for_80`` (scans that would show the seen disagreement in four of five studies),
    ``same_verdict`` (both below 0.05, or neither), ``cohort reason``.
    Source: paper §V. Each scan counts once: the models of the folds are averaged by scan.
    """
    rows = []
    for task in TASKS:
        part = []
        for first, second in PAIRS:
            sides = [run.one_a_scan(f"warehouse/{name}", task=task) for name in (first, second)]
            row = {"task": task, "first": first, "second": second, "p_paper": np.nan}
            if (first, second) == ("fine_tuned", "from_scratch"):  # the pair that the paper tests
                row["p_paper"] = in_text(f"McNemar p proposed vs scratch {task}")
            part.append(row | _compare(run, *sides))
        rows += _with_holm(part)
    part = []
    for first, second in combinations(ARCHITECTURES.values(), 2):
        experiment = "benchmark/kspace/2-4/paper"
        sides = [run.one_a_scan(experiment, task="synthetic", model=m) for m in (first, second)]
        row = {"task": "synthetic", "first": first, "second": second, "p_paper": np.nan}
        part.append(row | {"p_paper_text": "> 0.05"} | _compare(run, *sides))
    table = pd.DataFrame(rows + _with_holm(part))
    if "reason" not in table:  # every comparison could be made
        table["reason"] = pd.NA
    significant = (table["p_paper"] < 0.05).astype("boolean")
    significant[table["p_paper"].isna() & (table["task"] != "synthetic")] = pd.NA
    if "p_by_patient" not in table:
        return table.assign(same_verdict=pd.NA)
    ours = (table["p_by_patient"] < 0.05).astype("boolean").where(table["p_by_patient"].notna())
    return table.assign(same_verdict=significant == ours)


def _compare(run: RunSummary, first: pd.DataFrame, second: pd.DataFrame) -> dict:
    """Every paired number of two models on the same scans, or why there is none."""
    if first.empty or second.empty:
        return {"reason": "one of the two was not run"}
    both = pair_predictions(first, second)
    calls = (both["y_true"], both["pred_a"], both["pred_b"])
    tests = mcnemar_by_class(*calls).set_index("scans")
    whole = tests.loc["all"]
    row = {"p_by_patient": mcnemar_by_patient(*calls, both["participant_id"])}
    row |= {"b": int(whole["b"]), "c": int(whole["c"]), "n": int(whole["n"])}
    row["n_patients"] = both["participant_id"].nunique()
    row |= {"p_exact": whole["p_value"], "p_corrected": whole["p_corrected"]}
    for name in ("positives", "negatives"):
        row[f"p_{name}"] = tests["p_holm"].get(name, np.nan)
    row["scans_for_80"] = _scans_needed(row)
    row["cohort"] = run.cohort_of(both)
    if both["y_true"].nunique() < 2:
        return row | {"reason": "one class only: no balanced accuracy, no AUC"}
    accuracies = bootstrap_difference(first, second, n_boot=run.n_boot, seed=run.seed)
    row |= accuracies.named("ba_difference")
    if min(both["y_true"].sum(), (1 - both["y_true"]).sum()) < 2:
        return row | {"reason": "fewer than two scans of a class: no DeLong"}
    areas = delong(both["y_true"], both["score_a"], both["score_b"], both["participant_id"])
    row |= {"auc_difference": areas.difference, "auc_difference_low": areas.low}
    return row | {"auc_difference_high": areas.high, "p_delong": areas.p_value}


def _scans_needed(row: dict):
    """Find how many scans would show the seen rates of disagreement; missing if none."""
    if row["b"] == row["c"]:
        return pd.NA
    try:
        return scans_needed(row["b"] / row["n"], row["c"] / row["n"], limit=50_000)
    except ValueError:
        return pd.NA


def _with_holm(rows: list[dict]) -> list[dict]:
    """Add Holm's correction over one family of comparisons."""
    corrected = holm([row.get("p_by_patient", np.nan) for row in rows])
    return [row | {"p_holm": value} for row, value in zip(rows, corrected, strict=True)]


def _cells(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Turn one comparison table into a row per printed cell."""
    rows = []
    recipe = table.get("recipe", pd.Series("paper", index=table.index))
    table = table[recipe.fillna("paper") == "paper"]
    for metric in METRICS_OF[name]:
        part = table[table[f"{metric}_paper"].notna()]
        tasks = part["task"] if "task" in part else pd.Series("", index=part.index)
        for _, place in part.groupby(tasks).groups.items():
            group = part.loc[place]
            order = same_order(group[f"{metric}_paper"], group[f"{metric}_ours"])
            for (_, row), agrees in zip(group.iterrows(), order, strict=True):
                cell = {part: row.get(f"{metric}_{part}", np.nan) for part in COLUMNS[3:8]}
                label = " ".join(str(row[key]) for key in KEYS[name])
                facts = {key: row.get(key) for key in ("n", "cohort", "reason")}
                cell |= {"table": name, "row": label, "metric": metric, "same_order": agrees}
                if pd.notna(cell["ours"]):
                    facts["reason"] = pd.NA
                elif pd.isna(facts["reason"]):
                    facts["reason"] = f"{metric.replace('_', ' ')} was not measured in this run"
                rows.append(cell | facts)
    return pd.DataFrame(rows)


def _counts(run: RunSummary) -> pd.DataFrame:
    """Rows for the warehouse's counts that stand in the text only."""
    scans = run.warehouse
    grade = pd.to_numeric(scans.get("motion_grade", pd.Series(dtype=float)))
    reject = pd.to_numeric(scans.get("straight_reject", pd.Series(dtype=float))).eq(1)
    ours: dict = {
        "images annotated in the warehouse": len(scans),
        "patients in the warehouse sample": scans["source_participant_id"].nunique(),
        "straight reject images (SR)": int(reject.sum()),
        "labelled images not SR": int(grade.notna().sum()),
    }
    ours |= {name: int((grade == value).sum()) for name, value in GRADE_COUNTS.items()}
    maker = scans.get("manufacturer", pd.Series(dtype="string")).astype("string").str.lower()
    for name, pattern in MAKERS.items():
        ours[f"scanners {name}"] = int(maker.str.match(pattern).fillna(False).sum())
    ours["hospitals"] = np.nan
    rows = []
    for name, value in ours.items():
        row = {"table": "in_text", "row": name, "metric": "count", "paper": in_text(name)}
        row["reason"] = "no warehouse scans in this run"
        if name == "hospitals":
            row["reason"] = "the manifest has no column for the hospital"
        elif len(scans):
            row |= {"ours": value, "difference": value - in_text(name), "reason": pd.NA}
            row |= {"n": len(scans), "cohort": " + ".join(sorted(scans["cohort"].unique()))}
        rows.append(row)
    return pd.DataFrame(rows)


def _others(agreement: pd.DataFrame, mcnemar: pd.DataFrame, timing: pd.DataFrame) -> pd.DataFrame:
    """Rows for kappa, p-values and seconds per scan; what other tables hold is not repeated."""
    kappa = agreement[agreement["quantity"].str.contains("kappa")]
    kappa = kappa.assign(table="agreement", row=kappa["quantity"], metric="weighted kappa")
    tests = mcnemar[mcnemar["p_paper"].notna()]
    tests = tests.assign(
        table="mcnemar",
        row=tests["task"] + " " + tests["first"] + " against " + tests["second"],
        metric="p of McNemar",
        paper=tests["p_paper"],
        ours=tests.get("p_by_patient", np.nan),
    ).drop(columns=["same_verdict"])
    seconds = timing[timing["key"].str.startswith("simulate")]
    seconds = seconds.assign(
        table="timing",
        row=seconds["quantity"],
        metric="seconds per scan",
        paper=seconds["seconds_paper"],
        ours=seconds["seconds_ours"],
        reason=seconds["reason"].where(seconds["seconds_ours"].isna()),
    )
    parts = [part.reindex(columns=COLUMNS) for part in (kappa, tests, seconds)]
    for part in parts:
        part["difference"] = pd.to_numeric(part["ours"]) - pd.to_numeric(part["paper"])
    return pd.concat([part.astype(object) for part in parts], ignore_index=True)


def scoreboard(run: RunSummary, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """List every printed value of the paper beside ours.

    `tables` are the comparison tables, ``agreement``, ``mcnemar`` and ``timing``. Returns ``table
    row metric paper ours low high difference n same_order cohort reason``: fractions for metrics,
    counts, minutes or seconds where the metric says so. ``same_order`` tells whether the cell ranks
    as printed among the cells of its column (and task).
    """
    parts = [_cells(name, tables[name]) for name in KEYS]
    parts += [_counts(run), _others(tables["agreement"], tables["mcnemar"], tables["timing"])]
    parts = [part.reindex(columns=COLUMNS).astype(object) for part in parts if len(part)]
    board = pd.concat(parts, ignore_index=True)
    for name in ("paper", "ours", "low", "high", "difference"):
        board[name] = pd.to_numeric(board[name])
    board["n"] = pd.to_numeric(board["n"]).astype("Int64")
    return board.assign(same_order=board["same_order"].astype("boolean"))
