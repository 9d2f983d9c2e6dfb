"""Validation and test scores of fine-tuned networks go in; how far to trust them comes out.

Maps, thresholds and shares are fitted on validation scans, each scored by the fold's model that has
not trained on it. The test only judges. What too few scans forbid becomes a row with a reason.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd

from motionlib.files import seed_from
from motionlib.metrics import classification_metrics
from motionlib.stats import conformal
from motionlib.stats.calibration import (
    KINDS,
    best_threshold,
    calibration_error,
    calibration_interval,
    fit_calibrator,
)
from motionlib.stats.prior_shift import estimate_prior, match_quantiles

LEVELS = (0.8, 0.9, 0.95)
SHARES = (0.05, 0.15, 0.3, 0.5)


def validation_scores(run, experiment: str, task: str) -> pd.DataFrame:
    """Score every training scan by the one fold's model that has not trained on it.

    Parameters
    ----------
    run : motionlib.study.run.Run
        A run in which the experiment's networks are fine-tuned.
    experiment, task : str
        As in ``predictions.csv``.

    Returns
    -------
    DataFrame
        ``fold scan_id participant_id y_true score y_pred``, one row a scan.
    """
    from motionlib.experiments import copies
    from motionlib.experiments.pretraining import read_prepared
    from motionlib.experiments.trainings import folds_of
    from motionlib.training.prediction import predict

    folders = folds_of(run, f"{experiment.replace('/', '_')}_{task}", notebook="04")
    prepared = read_prepared(run, copies.warehouse_set(run, task))
    parts = [
        predict(folder, prepared[prepared["fold"] == fold]).assign(fold=fold)
        for fold, folder in enumerate(folders)
    ]
    return pd.concat(parts, ignore_index=True)


def calibrated(validation: pd.DataFrame, tested: pd.DataFrame, kind: str = "platt"):
    """Map test scores to probabilities by what all validation scans say.

    Parameters
    ----------
    validation : DataFrame
        From `validation_scores`.
    tested : DataFrame
        Rows of ``predictions.csv`` of the same experiment and task; those of single folds are
        mapped, and their mean becomes fold -1, since the map was fitted to single models.
    kind : str
        One of `calibrators.KINDS`.

    Returns
    -------
    DataFrame
        The rows with their scores mapped, ``y_pred`` at one half.

    Raises
    ------
    ValueError
        As `calibrators.fit_calibrator`.
    """
    fitted = fit_calibrator(kind, validation["y_true"], validation["score"])
    single = tested[tested["fold"] >= 0]
    single = single.assign(score=fitted(single["score"]))
    mean = single.groupby("scan_id", sort=False)["score"].mean()
    whole = single.drop_duplicates("scan_id").assign(fold=-1)
    whole = whole.assign(score=whole["scan_id"].map(mean))
    both = pd.concat([single, whole], ignore_index=True)
    return both.assign(y_pred=(both["score"] >= 0.5).astype(int))


def compare_calibrators(
    validation: pd.DataFrame, tested: pd.DataFrame, *, kinds=KINDS, n_boot=2000, seed=0
) -> pd.DataFrame:
    """Set the maps side by side on the test, fold by fold and for the folds' mean (fold -1).

    Returns
    -------
    DataFrame
        ``kind fold n_validation n_test``; the test's calibration error as `reliability` has it;
        ``brier`` (mean squared gap of score and label), ``threshold`` (the best on all mapped
        validation scores), balanced accuracy at it and at one half, ``auc``; ``reason``.
    """
    rows = []
    for kind in kinds:
        try:
            fitted = fit_calibrator(kind, validation["y_true"], validation["score"])
            mapped = calibrated(validation, tested, kind)
            cut = best_threshold(validation["y_true"], fitted(validation["score"]))
            for fold, part in mapped.groupby("fold"):
                sizes = {"kind": kind, "fold": fold, "n_validation": fitted.n, "n_test": len(part)}
                rows.append(sizes | _judge(part, cut, n_boot, seed) | {"reason": ""})
        except ValueError as error:
            rows.append({"kind": kind, "fold": -1, "reason": str(error)})
    return pd.DataFrame(rows)


def _judge(part: pd.DataFrame, cut: float, n_boot: int, seed: int) -> dict:
    """One model's test scores: calibration error with its luck, Brier score, both thresholds."""
    y, s = part["y_true"], part["score"]
    found = asdict(calibration_interval(y, s, part["participant_id"], n_boot=n_boot, seed=seed))
    at_half, at_cut = (classification_metrics(y, s, threshold=t) for t in (0.5, cut))
    return {
        "calibration_error": found["estimate"],
        "calibration_error_low": found["low"],
        "calibration_error_high": found["high"],
        **{name: found[name] for name in ("by_luck", "p_honest", "debiased")},
        "brier": float(np.mean((y - s) ** 2)),
        "threshold": cut,
        "balanced_accuracy_at_threshold": at_cut["balanced_accuracy"],
        "balanced_accuracy_at_half": at_half["balanced_accuracy"],
        "auc": at_half["auc"],
    }


def before_and_after(validation: pd.DataFrame, tested: pd.DataFrame, kinds=("platt",)):
    """Rows of the folds' mean score as it is and mapped, for `figures.plot_calibration`.

    A map that cannot be fitted is left out; `compare_calibrators` says why.
    """
    parts = [tested[tested["fold"] == -1].assign(experiment="score as it is")]
    for kind in kinds:
        try:
            mapped = calibrated(validation, tested, kind)
        except ValueError:
            continue
        parts.append(mapped[mapped["fold"] == -1].assign(experiment=f"calibrated ({kind})"))
    return pd.concat(parts, ignore_index=True)


def promised_coverage(
    tested: pd.DataFrame, *, levels=LEVELS, n_splits: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Keep, class by class and over all, what conformal abstention promises; see `resplit`.

    Half of the test patients stand for a site's graded scans, the other half for its next ones.
    """
    rows = tested[tested["fold"] == -1]
    y, s, patient = rows["y_true"], rows["score"], rows["participant_id"]
    return pd.concat(
        [
            conformal.resplit(
                y, s, patient, levels=levels, by_class=by_class, n_splits=n_splits, seed=seed
            )
            for by_class in (True, False)
        ],
        ignore_index=True,
    )


def other_shares(
    validation: pd.DataFrame,
    tested: pd.DataFrame,
    *,
    shares=SHARES,
    kind: str = "platt",
    n_draws: int = 50,
    seed: int = 0,
) -> pd.DataFrame:
    """Play sites with another share of motion, by drawing test scans, and adapt without grades.

    Returns
    -------
    DataFrame
        One row a share: scans a draw ``n``; the estimated share, its mean and the limits of the
        middle 95 % of draws; calibration error and errors at one half, before and after the
        adjustment; ``error_all_still``, of calling nothing motion; ``reason``.
    """
    rows = []
    for share in shares:
        try:
            fitted = fit_calibrator(kind, validation["y_true"], validation["score"])
            mapped = calibrated(validation, tested, kind).query("fold == -1")
            y, s = mapped["y_true"].to_numpy(), mapped["score"].to_numpy()
            draws = [
                _drawn(y, s, share, fitted.n_positive / fitted.n, seed_from(seed, share, number))
                for number in range(n_draws)
            ]
            mean = pd.DataFrame(draws).mean().to_dict()
            low, high = np.quantile([draw["estimated"] for draw in draws], [0.025, 0.975])
            limits = {"estimated_low": low, "estimated_high": high, "reason": ""}
            rows.append({"share": share} | mean | limits)
        except ValueError as error:
            rows.append({"share": share, "reason": str(error)})
    return pd.DataFrame(rows)


def _drawn(y, s, share: float, source: float, seed: int) -> dict[str, float]:
    """Draw one site with a share of motion from test scans, and adapt to it."""
    rng = np.random.default_rng(seed)
    size = int(min((y == 1).sum() / share, (y == 0).sum() / (1 - share)))
    counts = (size - round(size * share), round(size * share))
    picked = [rng.permutation(np.flatnonzero(y == label))[:n] for label, n in enumerate(counts)]
    chosen = np.concatenate(picked)
    y, s = y[chosen], s[chosen]
    found = estimate_prior(s, source)
    after = found.adjust(s)
    return {
        "n": size,
        "estimated": found.target,
        "calibration_error": calibration_error(y, s),
        "calibration_error_adjusted": calibration_error(y, after),
        "error": float(np.mean((s >= 0.5) != y)),
        "error_adjusted": float(np.mean((after >= 0.5) != y)),
        "error_all_still": float(y.mean()),
    }


def by_site(
    validation: pd.DataFrame, tested: pd.DataFrame, site: pd.Series, *, kind: str = "platt"
) -> pd.DataFrame:
    """Adapt to each site of the test without its grades, by both ways of `priorshift`.

    Parameters
    ----------
    validation, tested : DataFrame
        As for `calibrated`.
    site : Series
        Name of the site, by ``scan_id``.
    kind : str
        How scores are calibrated first.

    Returns
    -------
    DataFrame
        One row a site: ``n``, its true and its estimated share of motion, the shift that quantile
        matching finds in log-odds, and balanced accuracy at the validation's best threshold as it
        is and matched; ``reason``.
    """
    rows = []
    for name, part in tested[tested["fold"] >= 0].groupby(tested["scan_id"].map(site)):
        scans = part.drop_duplicates("scan_id")
        row = {"site": name, "n": len(scans), "share": float(scans["y_true"].mean())}
        try:
            rows.append(row | _adapted(validation, part, kind) | {"reason": ""})
        except ValueError as error:
            rows.append(row | {"reason": str(error)})
    return pd.DataFrame(rows)


def _adapted(validation, part, kind: str) -> dict[str, float]:
    """Both ways at one site."""
    fitted = fit_calibrator(kind, validation["y_true"], validation["score"])
    held, y = fitted(validation["score"]), validation["y_true"].to_numpy()
    here = calibrated(validation, part, kind).query("fold == -1")
    cut = best_threshold(y, held)
    moved = match_quantiles(here["score"], held[y == 0], float(np.mean(y == 0)))
    found = {
        "estimated": estimate_prior(here["score"], float(y.mean())).target,
        "shift": -moved.bias,
        "threshold": cut,
        "threshold_matched": moved.threshold(cut),
    }
    for end in ("", "_matched"):
        judged = classification_metrics(
            here["y_true"], here["score"], threshold=found["threshold" + end], allow_one_class=True
        )
        found["balanced_accuracy" + end] = judged["balanced_accuracy"]
    return found


def risk_curve(validation: pd.DataFrame, tested: pd.DataFrame) -> pd.DataFrame:
    """Errors among the scans that are decided when the most doubtful are left to a person.

    Returns
    -------
    DataFrame
        As `conformal.coverage_risk`, for the folds' mean score as it is, at the validation's best
        threshold.
    """
    rows = tested[tested["fold"] == -1]
    cut = best_threshold(validation["y_true"], validation["score"])
    return conformal.coverage_risk(rows["y_true"], rows["score"], threshold=cut)
