"""Abstention with a promised coverage."""

import numpy as np
import pytest
from scipy.stats import norm

from motionlib.stats import conformal


def scans(rng, n, prior=0.3, apart=2.0):
    """Labels and scores: the normal law of a shifted normal, so that quantiles are known."""
    y_true = (rng.random(n) < prior).astype(int)
    return y_true, norm.cdf(rng.normal(size=n) + apart * (y_true - 0.5))


class TestCoverage:
    @pytest.mark.parametrize("by_class", [True, False])
    @pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
    def test_it_is_the_one_asked_for_over_200_resplits(self, level, by_class, rng):
        y_true, score = scans(rng, 400)
        found = conformal.resplit_coverage(y_true, score, levels=[level], by_class=by_class).iloc[0]
        assert found["n_splits"] == 200
        assert found["coverage"] == pytest.approx(level, abs=0.02)

    def test_with_few_scans_it_is_at_least_the_level_and_little_more(self, rng):
        covered = []
        for _ in range(400):
            y_true, score = scans(rng, 129, prior=0.5)
            limits = conformal.prediction_limits(y_true[:29], score[:29], by_class=False)
            kept = conformal.prediction_set(limits, score[29:])
            covered.append(kept[np.arange(100), y_true[29:]].mean())
        assert 0.9 - 0.01 < np.mean(covered) < 0.9 + 1 / 30 + 0.01

    def test_a_rare_class_is_kept_only_when_asked(self, rng):
        y_true, score = scans(rng, 1200, prior=0.06)
        score = norm.cdf(norm.ppf(score) - 1.5)  # low for all, as probabilities of a rare class are
        shares = [
            conformal.resplit_coverage(y_true, score, levels=[0.9], by_class=by_class).iloc[0]
            for by_class in (True, False)
        ]
        assert shares[0]["coverage_motion"] == pytest.approx(0.9, abs=0.04)
        assert shares[1]["coverage_motion"] < 0.8

    def test_patients_are_never_on_both_sides(self, rng):
        y_true, score = (np.repeat(part, 5) for part in scans(rng, 30, prior=0.5))
        # every scan five times: a copy on the other side would be covered more often than promised
        by_patient = conformal.resplit_coverage(
            y_true, score, np.repeat(np.arange(30), 5), by_class=False
        )
        by_scan = conformal.resplit_coverage(y_true, score, by_class=False)
        assert (by_patient["coverage_sd"] > 1.5 * by_scan["coverage_sd"]).all()

    def test_same_seed_same_table(self, rng):
        y_true, score = scans(rng, 100)
        first, second = (conformal.resplit_coverage(y_true, score, n_splits=5) for _ in range(2))
        assert first.equals(second)


class TestPredictionSet:
    def test_limits_are_the_known_quantiles(self, rng):
        y_true, score = scans(rng, 40_000, prior=0.5, apart=1.0)
        still, moved = conformal.prediction_limits(y_true, score, level=0.9)
        assert still == pytest.approx(norm.cdf(norm.ppf(0.9) - 0.5), abs=0.01)
        assert 1 - moved == pytest.approx(norm.cdf(0.5 - norm.ppf(0.9)), abs=0.01)

    def test_limit_is_the_ceil_of_level_times_n_plus_one_smallest(self):
        y_true, score = np.repeat([0, 1], 9), np.tile(np.arange(1, 10) / 10, 2)
        limits = conformal.prediction_limits(y_true, score, level=0.5)  # the 5th of 9
        assert limits == pytest.approx([0.5, 0.5])
        assert conformal.prediction_limits(y_true, score, level=0.9)[0] == pytest.approx(0.9)

    def test_between_separated_classes_no_label_is_left(self):
        limits = conformal.prediction_limits(np.repeat([0, 1], 20), np.repeat([0.1, 0.9], 20))
        sets = conformal.prediction_set(limits, [0.05, 0.5, 0.95]).tolist()
        assert sets == [[True, False], [False, False], [False, True]]

    def test_a_rising_map_of_the_scores_changes_no_set(self, rng):
        y_true, score = scans(rng, 200)
        plain, bent = (
            conformal.prediction_set(conformal.prediction_limits(y_true, s), s)
            for s in (score, score**3)
        )
        assert (plain == bent).all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("y_true", "level", "said"),
        [
            ([0] * 30, 0.9, "one class only"),
            ([0] * 30 + [1] * 8, 0.9, "Found 8 graded scans in the smaller class, .* at least 9"),
            ([0] * 30 + [1] * 18, 0.95, "at least 19"),
            ([0, 1] * 20, 1.0, "Found level 1"),
        ],
    )
    def test_a_promise_that_cannot_be_kept_is_refused(self, y_true, level, said):
        with pytest.raises(ValueError, match=said) as caught:
            conformal.prediction_limits(y_true, np.linspace(0, 1, len(y_true)), level=level)
        assert "\n" not in str(caught.value)

    def test_among_several_levels_it_becomes_a_row_with_a_reason(self, rng):
        y_true, score = scans(rng, 60, prior=0.5)
        table = conformal.resplit_coverage(y_true, score, levels=(0.8, 0.99), n_splits=20)
        assert table["n_splits"].tolist() == [20, 0]
        assert "at least 99" in table["reason"][1]
        assert np.isnan(table["coverage"][1])

    def test_one_patient_cannot_be_split(self):
        with pytest.raises(ValueError, match="Found 1 patients for 4 scans"):
            conformal.resplit_coverage([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], ["a"] * 4)


class TestCoverageRisk:
    def test_leaving_out_the_doubtful_helps_when_doubt_is_honest(self, rng):
        y_true, score = scans(rng, 2000, prior=0.5)
        table = conformal.coverage_risk(y_true, score)
        half = table[table["decided"] <= 0.5].iloc[-1]
        assert half["error"] < 0.35 * half["error_at_random"]
        assert table["error"].iloc[-1] == pytest.approx(table["error_at_random"].iloc[-1])

    def test_the_threshold_is_where_doubt_sits(self):
        table = conformal.coverage_risk([0, 0, 1, 1], [0.01, 0.19, 0.25, 0.9], threshold=0.2)
        assert table["error"].tolist() == [0, 0, 0, 0]
        moved = conformal.coverage_risk([0, 1, 0, 1], [0.01, 0.19, 0.25, 0.9], threshold=0.2)
        assert moved["error"].tolist() == [0, 0, 1 / 3, 0.5]
