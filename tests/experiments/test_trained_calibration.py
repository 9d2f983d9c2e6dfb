"""From validation and test scores to tables that say how far the score can be trusted."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from motionlib.experiments import calibration
from motionlib.figures import results
from motionlib.stats.calibration import fit_calibrator

APART, SHARE, FOLDS = 2.0, 0.2, 3


def scored(rng, n, share=SHARE, prefix="scan"):
    """Scores of three folds' models trained with balanced classes; exact but for that."""
    y_true = (rng.random(n) < share).astype(int)
    x = rng.normal(size=n) + APART * (y_true - 0.5)
    names = [f"{prefix}{number:04d}" for number in range(n)]
    table = pd.DataFrame({"scan_id": names, "participant_id": names, "y_true": y_true})
    score = expit(APART * x)
    return table.assign(score=score, y_pred=(score >= 0.5).astype(int))


@pytest.fixture
def validation(rng):
    """Validation scans, each scored once."""
    rows = scored(rng, 900, prefix="held")
    return rows.assign(fold=np.arange(len(rows)) % FOLDS)


@pytest.fixture
def tested(rng):
    """Test scans scored by every fold's model and by their mean."""
    rows = scored(rng, 600)
    return pd.concat([rows.assign(fold=fold) for fold in (0, 1, 2, -1)], ignore_index=True)


class TestCompareCalibrators:
    def test_only_a_map_with_a_bias_reaches_an_error_below_a_twentieth(self, validation, tested):
        table = calibration.compare_calibrators(validation, tested).set_index("kind")
        error = table[table["fold"] == -1]["calibration_error"]
        assert error["none"] > 0.1
        assert error["temperature"] > 0.1
        assert error["platt"] < 0.05
        assert error["isotonic"] < 0.05
        chance = table[table["fold"] == -1]["expected_by_chance"]
        assert error["none"] > 3 * chance["none"]
        assert error["platt"] < 2 * chance["platt"]
        assert table["reason"].eq("").all()
        assert len(table) == 4 * (FOLDS + 1)

    def test_threshold_is_the_validation_s_whatever_the_test_holds(self, validation, tested):
        flipped = tested.assign(y_true=1 - tested["y_true"])
        one, two = (calibration.compare_calibrators(validation, t, kinds=["platt"])
                    for t in (tested, flipped))  # fmt: skip
        assert one["threshold"].tolist() == two["threshold"].tolist()
        assert one["threshold"][0] == pytest.approx(SHARE, abs=0.06)  # prior of the best rates

    def test_too_few_scans_become_rows_with_a_reason(self, validation, tested):
        few = pd.concat([validation[validation["y_true"] == 0].head(30),
                         validation[validation["y_true"] == 1].head(3)])  # fmt: skip
        table = calibration.compare_calibrators(few, tested)
        fitted = table[table["kind"] != "none"]
        assert len(fitted) == 3
        assert fitted["reason"].str.contains("Found 3 validation scans with motion").all()
        assert table[table["kind"] == "none"]["calibration_error"].notna().all()


class TestCalibrated:
    def test_mean_of_the_folds_is_the_mean_of_mapped_scores(self, validation, tested):
        mapped = calibration.calibrated(validation, tested, "platt")
        single, whole = mapped[mapped["fold"] >= 0], mapped[mapped["fold"] == -1]
        mean = single.groupby("scan_id")["score"].mean()
        assert whole["score"].to_numpy() == pytest.approx(mean[whole["scan_id"]].to_numpy())
        fitted = fit_calibrator("platt", validation["y_true"], validation["score"])
        first = tested[tested["fold"] == 0]
        assert single[single["fold"] == 0]["score"].to_numpy() == pytest.approx(
            fitted(first["score"])
        )

    def test_a_map_that_cannot_be_fitted_is_left_out_of_the_figure(self, validation, tested):
        both = calibration.before_and_after(validation, tested)
        assert both["experiment"].unique().tolist() == ["score as it is", "calibrated (platt)"]
        assert calibration.before_and_after(validation.head(8), tested)["experiment"].nunique() == 1
        assert results.plot_calibration(both.assign(task="mov01vs2", model="Conv5FC3"))


class TestPromisedCoverage:
    def test_it_holds_within_two_points_by_class_and_over_all(self, tested):
        table = calibration.promised_coverage(tested)
        assert (table["coverage"] - table["level"]).abs().max() < 0.02
        assert table.groupby("by_class")["level"].count().tolist() == [3, 3]


class TestRiskCurve:
    def test_it_falls_as_doubtful_scans_are_left_and_can_be_drawn(self, validation, tested):
        curve = calibration.risk_curve(validation, tested)
        assert curve["error"].iloc[len(curve) // 3] < curve["error"].iloc[-1] / 2
        assert results.plot_coverage_risk(curve).axes[0].get_ylabel()
