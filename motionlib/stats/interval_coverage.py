"""A true effect goes in; simulated studies, and how often their intervals hold it, come out.

Scores are normal with a shift for motion and a part shared by all scans of a patient, so that the
true balanced accuracy and AUC are known exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.stats import norm

from motionlib.files import seed_from
from motionlib.stats.intervals import bootstrap_ci, bootstrap_difference
from motionlib.stats.paired import delong


@dataclass(frozen=True)
class StudyDesign:
    """What a simulated study looks like.

    Attributes
    ----------
    n_patients : int
        Patients; each has one to three scans (1.5 on average).
    prevalence : float
        Fraction of scans with motion; a patient's scans agree in two cases of three.
    apart : tuple of float
        Distance of the classes, in standard deviations, for the two models.
    shared : float
        Fraction of the score's variance that a patient's scans share.
    alike : float
        Correlation of the two models' noise.
    n_boot : int
        Draws of every interval.
    seed : int
        Master seed.
    """

    n_patients: int = 250
    prevalence: float = 0.25
    apart: tuple[float, float] = (1.6, 1.0)
    shared: float = 0.4
    alike: float = 0.5
    n_boot: int = 1000
    seed: int = 20
    truth: dict = field(init=False, default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Work out the true values."""
        rates, areas = norm.cdf(np.array(self.apart) / 2), norm.cdf(np.array(self.apart) / 2**0.5)
        self.truth.update(
            balanced_accuracy=rates[0],
            sensitivity=rates[0],
            auc=areas[0],
            difference_balanced_accuracy=rates[0] - rates[1],
            difference_auc=areas[0] - areas[1],
            difference_auc_delong=areas[0] - areas[1],
        )


def simulate_study(design: StudyDesign, number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw one study: the predictions of two models on the same scans.

    Parameters
    ----------
    design : StudyDesign
        Sizes and true effects.
    number : int
        Which study; the same number gives the same study.

    Returns
    -------
    tuple of DataFrame
        ``scan_id participant_id y_true score y_pred`` of both models.
    """
    rng = np.random.default_rng(seed_from(design.seed, number))
    patient = np.repeat(
        np.arange(design.n_patients),
        rng.choice([1, 2, 3], size=design.n_patients, p=[0.6, 0.3, 0.1]),
    )
    n = len(patient)
    usual = rng.random(design.n_patients)[patient]
    own = rng.random(n)
    y_true = (np.where(rng.random(n) < 2 / 3, usual, own) < design.prevalence).astype(int)
    common = rng.normal(size=(2, design.n_patients))[:, patient]
    single = rng.normal(size=(2, n))
    tables = []
    for model, apart in enumerate(design.apart):
        noises = [common[0], single[0]]
        if model:
            other = np.sqrt(1 - design.alike**2)
            noises = [design.alike * x[0] + other * x[1] for x in (common, single)]
        noise = np.sqrt(design.shared) * noises[0] + np.sqrt(1 - design.shared) * noises[1]
        score = norm.cdf(noise + apart * (y_true - 0.5))
        rows = {"scan_id": np.arange(n), "participant_id": patient, "y_true": y_true}
        rows |= {"score": score, "y_pred": (score >= 0.5).astype(int)}
        tables.append(pd.DataFrame(rows))
    return tables[0], tables[1]


def study_intervals(design: StudyDesign, number: int) -> dict[str, tuple[float, float]]:
    """Every interval that one study reports.

    Parameters
    ----------
    design : StudyDesign
        Sizes and true effects.
    number : int
        Which study.

    Returns
    -------
    dict
        Name to ``(low, high)``: metrics by drawing patients, ``naive_...`` by drawing scans, and
        paired differences, also by DeLong.
    """
    first, second = simulate_study(design, number)
    seed = seed_from(design.seed, number, "draws")
    found = {}
    patients = first["participant_id"]
    sets = {name: (name, patients) for name in ("balanced_accuracy", "sensitivity", "auc")}
    sets["naive_balanced_accuracy"] = ("balanced_accuracy", None)
    for name, (metric, groups) in sets.items():
        ends = bootstrap_ci(
            first["y_true"],
            first["score"],
            groups,
            metric=metric,
            n_boot=design.n_boot,
            seed=seed,
        )
        found[name] = (ends.low, ends.high)
    for metric in ("balanced_accuracy", "auc"):
        ends = bootstrap_difference(first, second, metric=metric, n_boot=design.n_boot, seed=seed)
        found[f"difference_{metric}"] = (ends.low, ends.high)
    ends = delong(first["y_true"], first["score"], second["score"], first["participant_id"])
    found["difference_auc_delong"] = (ends.low, ends.high)
    return found


def study_of(item: tuple[StudyDesign, int]) -> dict[str, tuple[float, float]]:
    """Give the intervals of one ``(design, number)``; one argument, as engines want it."""
    return study_intervals(*item)


def coverage(design: StudyDesign, studies: list[dict]) -> pd.DataFrame:
    """Count how often the intervals of many studies hold the truth.

    Parameters
    ----------
    design : StudyDesign
        The design they were drawn from.
    studies : list of dict
        Results of `study_intervals`.

    Returns
    -------
    DataFrame
        ``interval truth coverage missed_below missed_above width n_studies``.
    """
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
