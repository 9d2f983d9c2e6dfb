"""Coverage of the study's intervals: how often simulated studies hold a known truth.

Scores are normal, with a shift for motion and a part that all scans of a patient share, so the
true balanced accuracy and AUC of two models are known exactly.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import norm

from motionlib.compute.engines import raise_failures, submit
from motionlib.files import seed_from, write_table
from motionlib.stats.intervals import bootstrap_ci, bootstrap_difference
from motionlib.stats.paired import delong


@dataclass(frozen=True)
class StudyDesign:
    """What a simulated study looks like.

    Attributes
    ----------
    n_patients, n_scans : int, int or None
        Patients, and scans of each; None: one to three (1.5 on average).
    prevalence : float
        Fraction of scans with motion; a patient's scans agree in two cases of three.
    apart : tuple of float
        Distance of the classes, in standard deviations, for the two models.
    shared, alike : float
        Fraction of the score's variance that a patient's scans share, and correlation of the two
        models' noise.
    n_boot, seed : int
        Draws of every interval, and master seed.
    """

    n_patients: int = 250
    n_scans: int | None = None
    prevalence: float = 0.25
    apart: tuple[float, float] = (1.6, 1.0)
    shared: float = 0.4
    alike: float = 0.5
    n_boot: int = 1000
    seed: int = 20

    @property
    def truth(self) -> dict[str, float]:
        """True value of every metric and difference."""
        rates, areas = (norm.cdf(np.array(self.apart) / width) for width in (2, 2**0.5))
        values = {"balanced_accuracy": rates[0], "sensitivity": rates[0], "auc": areas[0]}
        values["difference_balanced_accuracy"] = rates[0] - rates[1]
        values["difference_auc"] = values["difference_auc_delong"] = areas[0] - areas[1]
        return values


def coverage(design: StudyDesign, n_studies: int, *, engine: str = "inline") -> pd.DataFrame:
    """Count how often the intervals of simulated studies hold the truth.

    Parameters
    ----------
    design : StudyDesign
        Sizes, true effects and the master seed.
    n_studies, engine : int, str
        How many studies are drawn, and where, as for `motionlib.compute.submit`.

    Returns
    -------
    DataFrame
        ``interval truth coverage missed_below missed_above width n_studies``. Intervals called
        ``naive_...`` draw scans instead of patients.
    """
    one_study = partial(_study_intervals, design)
    options = {"engine": engine, "label": "simulated studies", "batch": 25}  # one takes some ms
    studies = raise_failures(submit(one_study, range(n_studies), **options))
    rows = []
    for name in studies[0]:
        truth = float(design.truth[name.removeprefix("naive_")])
        ends = np.array([study[name] for study in studies])
        below, above = ends[:, 1] < truth, ends[:, 0] > truth
        rows.append(
            {
                "interval": name,
                "truth": truth,
                "coverage": 1 - (below | above).mean(),
                "missed_below": below.mean(),
                "missed_above": above.mean(),
                "width": (ends[:, 1] - ends[:, 0]).mean(),
                "n_studies": len(studies),
            }
        )
    return pd.DataFrame(rows)


def _study_intervals(design: StudyDesign, number: int) -> dict[str, tuple[float, float]]:
    """Every interval of one study: metrics of the first model, and paired differences."""
    first, second = _simulate(design, number)
    seed = seed_from(design.seed, number, "draws")
    draws = {"n_boot": design.n_boot, "seed": seed}
    patients = first["participant_id"]
    sets = {name: (name, patients) for name in ("balanced_accuracy", "sensitivity", "auc")}
    sets["naive_balanced_accuracy"] = ("balanced_accuracy", None)
    intervals = {
        name: bootstrap_ci(first["y_true"], first["score"], groups, metric=metric, **draws)
        for name, (metric, groups) in sets.items()
    }
    for metric in ("balanced_accuracy", "auc"):
        difference = bootstrap_difference(first, second, metric=metric, **draws)
        intervals[f"difference_{metric}"] = difference
    areas = delong(first["y_true"], first["score"], second["score"], patients)
    intervals["difference_auc_delong"] = areas
    return {name: (ends.low, ends.high) for name, ends in intervals.items()}


def _simulate(design: StudyDesign, number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of two models on the same scans; the same number gives the same study."""
    rng = np.random.default_rng(seed_from(design.seed, number))
    scans = rng.choice([1, 2, 3], size=design.n_patients, p=[0.6, 0.3, 0.1])
    scans = scans if design.n_scans is None else np.full(design.n_patients, design.n_scans)
    patient = np.repeat(np.arange(design.n_patients), scans)
    n = len(patient)
    # labels: two scans in three take their patient's draw, the third its own
    of_patient, of_scan = rng.random(design.n_patients)[patient], rng.random(n)
    draw = np.where(rng.random(n) < 2 / 3, of_patient, of_scan)
    y_true = (draw < design.prevalence).astype(int)
    # noise of the patient and of the scan, (2 models, n); the second model's is mixed with the
    # first's, so that they correlate by `alike`
    common = rng.normal(size=(2, design.n_patients))[:, patient]
    single = rng.normal(size=(2, n))
    for each in (common, single):
        each[1] = design.alike * each[0] + np.sqrt(1 - design.alike**2) * each[1]
    noise = np.sqrt(design.shared) * common + np.sqrt(1 - design.shared) * single
    tables = []
    for model, apart in enumerate(design.apart):
        score = norm.cdf(noise[model] + apart * (y_true - 0.5))
        rows = {"scan_id": np.arange(n), "participant_id": patient, "y_true": y_true}
        rows |= {"score": score, "y_pred": (score >= 0.5).astype(int)}
        tables.append(pd.DataFrame(rows))
    return tables[0], tables[1]


DESIGNS = {  # patients, prevalence: our demo, the paper's severe and mild sets, many scans of few
    "demo": StudyDesign(n_patients=100, prevalence=0.3),
    "severe": StudyDesign(n_patients=255, prevalence=0.15),
    "mild": StudyDesign(n_patients=215, prevalence=0.36, apart=(0.6, 0.4)),
    "10 x 10": StudyDesign(n_patients=10, n_scans=10, prevalence=0.3),
}


def main() -> None:
    """Simulate, count and write ``benchmarks/results/coverage.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--engine", default="inline")
    parser.add_argument("--out", default="benchmarks/results/coverage.csv")
    args = parser.parse_args()
    parts = []
    for name, design in DESIGNS.items():
        start = time.process_time()
        table = coverage(design, args.studies, engine=args.engine)
        table.insert(0, "design", name)
        parts.append(table.assign(n_patients=design.n_patients, prevalence=design.prevalence))
        print(f"{name}: {time.process_time() - start:.1f} CPU-s", flush=True)
    table = pd.concat(parts, ignore_index=True).round(4)
    write_table(table, args.out)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
