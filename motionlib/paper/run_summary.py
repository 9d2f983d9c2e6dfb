"""What a run has measured: its predictions, scans and durations, and their summaries.

Only ``predictions.csv``, ``splits.csv`` (or ``cohort/manifest.tsv``) and ``durations.csv`` are
read, so that every table can be made again from them, anywhere, without the scans.
"""

import os
from functools import cached_property
from pathlib import Path

import pandas as pd

from motionlib.manifest import is_warehouse
from motionlib.metrics import METRICS, fold_summary, per_fold
from motionlib.predictions import (
    PREDICTION_COLUMNS,
    check_predictions,
    combine_folds,
    load_predictions,
)
from motionlib.stats.intervals import rate_called, summary_intervals

RATERS = ["rater_1", "rater_2"]
IDS = ("scan_id", "participant_id", "source_participant_id", "cohort", "role", "sex")


class RunSummary:
    """Summary of what a run has measured so far.

    Parameters
    ----------
    folder : path-like
        ``runs/<profile>`` or a copy of its tables' inputs; FileNotFoundError if it holds neither
        predictions nor scans.
    n_boot, seed : int
        Draws of patients for every interval, and their seed.
    """

    def __init__(self, folder: str | os.PathLike, *, n_boot: int = 2000, seed: int = 0):
        self.folder, self.n_boot, self.seed = Path(folder), n_boot, seed
        self._summaries: dict = {}
        names = ("predictions.csv", "splits.csv", "cohort/manifest.tsv")
        if not any((self.folder / name).is_file() for name in names):
            raise FileNotFoundError(
                f"Found none of {', '.join(names)} in {self.folder.name}, expected a run's folder: "
                "run notebook 01 first."
            )

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Rows of ``predictions.csv``; empty before any notebook has written it."""
        if not (self.folder / "predictions.csv").is_file():
            return pd.DataFrame(columns=list(PREDICTION_COLUMNS))
        return check_predictions(load_predictions(self.folder))

    @cached_property
    def scans(self) -> pd.DataFrame:
        """One row a scan of the cohort; empty if the run holds none."""
        for name, separator in (("splits.csv", ","), ("cohort/manifest.tsv", "\t")):
            if (self.folder / name).is_file():
                kinds = dict.fromkeys(IDS, "string")
                table = pd.read_csv(self.folder / name, sep=separator, dtype=kinds)
                return table.reindex(columns=[*IDS, *[c for c in table if c not in IDS]])
        return pd.DataFrame(columns=list(IDS), dtype="string")

    @cached_property
    def warehouse(self) -> pd.DataFrame:
        """Scans of the warehouse, rejected ones included, the real-motion test left out."""
        real = self.scans["role"].eq("real_motion").fillna(False)
        return self.scans[is_warehouse(self.scans["cohort"]) & ~real]

    @cached_property
    def graded(self) -> pd.DataFrame:
        """Warehouse scans that both raters graded; empty where there are no raters."""
        scans = self.warehouse
        if not set(RATERS) <= set(scans):
            return scans.iloc[:0].assign(rater_1=[], rater_2=[])
        return scans.dropna(subset=RATERS).astype(dict.fromkeys(RATERS, int))

    @cached_property
    def durations(self) -> pd.DataFrame:
        """``key seconds n`` (seconds for n things), empty if none were recorded."""
        path = self.folder / "durations.csv"
        if not path.is_file():
            return pd.DataFrame({"key": [], "seconds": [], "n": [], "device": []})
        table = pd.read_csv(path).rename(columns={"step": "key"})
        named = [name for name in ("key", "model", "fold") if name in table]
        table = table.drop_duplicates(named, keep="last")  # notebooks share their trainings
        return table.assign(n=table.get("n", 1), device=table.get("device", ""))

    def rows(self, experiment: str, *, task: str | None = None, model: str | None = None):
        """Rows of one experiment; a single model among several is chosen by `model`."""
        rows = self.predictions[self.predictions["experiment"] == experiment]
        if task is not None:
            rows = rows[rows["task"] == task]
        if model is not None:
            rows = rows[rows["model"] == model]
        return rows

    def cohort_of(self, rows: pd.DataFrame) -> str:
        """Name the cohorts of some rows, joined by plus signs."""
        known = self.scans.dropna(subset=["participant_id"])
        by_patient = known.drop_duplicates("participant_id").set_index("participant_id")["cohort"]
        names = rows["participant_id"].map(by_patient).dropna().unique()
        return " + ".join(sorted(names)) or "not in splits.csv"

    def summary(
        self, experiment: str, *, task: str | None = None, model: str | None = None
    ) -> dict | None:
        """Summarise one experiment: ``<metric>_mean _sd _low _high``, counts, cohort.

        The arguments are keys of ``predictions.csv``; None where there are no such rows.
        """
        key = (experiment, task, model)
        if key not in self._summaries:
            self._summaries[key] = self._summarise(self.rows(experiment, task=task, model=model))
        return self._summaries[key]

    def _summarise(self, rows: pd.DataFrame) -> dict | None:
        if rows.empty:
            return None
        one_class = rows["y_true"].nunique() < 2
        summary = fold_summary(rows, allow_one_class=one_class)
        intervals = summary_intervals(rows, n_boot=self.n_boot, seed=self.seed)
        for name in METRICS:
            summary[f"{name}_low"] = intervals[name].low
            summary[f"{name}_high"] = intervals[name].high
        return summary | {"cohort": self.cohort_of(rows)}

    def best_fold(self, experiment: str, *, model: str | None = None) -> int | None:
        """Fold whose model has the highest balanced accuracy on its own validation scans."""
        rows = self.rows(f"{experiment}/cv", model=model)
        if rows.empty:
            return None
        folds = per_fold(rows, allow_one_class=True).dropna(subset=["balanced_accuracy"])
        if folds.empty:
            return None
        return int(folds.loc[folds["balanced_accuracy"].idxmax(), "fold"])

    def called(self, rows: pd.DataFrame):
        """Fraction of scans called motion, with its interval."""
        return rate_called(rows, n_boot=self.n_boot, seed=self.seed)

    def one_a_scan(self, experiment: str, *, task: str, model: str | None = None) -> pd.DataFrame:
        """One prediction a scan: the mean over the folds' models."""
        rows = self.rows(experiment, task=task, model=model)
        return rows if rows.empty else combine_folds(rows)

    def synthetic_labels(self) -> pd.Series:
        """Which research scans were corrupted (1) or left clean (0), by ``scan_id``.

        From the column ``y_true`` of the scans where there is one, else from the predictions of the
        paper's recipe; a corrupted copy's name begins with its original's.
        """
        if "y_true" in self.scans and self.scans["y_true"].notna().any():
            return self.scans.set_index("scan_id")["y_true"].dropna().astype(int)
        rows = self.predictions
        rows = rows[
            rows["experiment"].isin(["pretrain/image/2-4/paper", "pretrain/image/2-4/paper/cv"])
        ]
        rows = rows.drop_duplicates("scan_id")
        originals = set(self.scans["scan_id"].dropna())
        names = []
        for name in rows["scan_id"]:
            while name not in originals and "_" in name:
                name = name.rpartition("_")[0]
            names.append(name)
        labels = pd.Series(rows["y_true"].to_numpy(dtype=int), index=names)
        return labels[~labels.index.duplicated()]
