"""Maps from scores to probabilities, calibration error and thresholds."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.special import logit as log_odds

from motionlib.stats.calibration import (
    KINDS,
    best_threshold,
    calibration_error,
    expected_by_chance,
    fit_calibrator,
    temperature,
    tempered,
)

APART, PRIOR = 2.0, 0.2


def gaussian(rng, n, prior=PRIOR, apart=APART):
    """Labels, and the exact posterior of two normals of unit deviation."""
    y_true = (rng.random(n) < prior).astype(int)
    x = rng.normal(size=n) + apart * (y_true - 0.5)
    return y_true, expit(apart * x + log_odds(prior))


@pytest.fixture
def balanced(rng):
    """Scores of a network trained as if every second scan moved, and the true posterior."""
    y_true, posterior = gaussian(rng, 6000)
    return y_true, expit(log_odds(posterior) - log_odds(PRIOR)), posterior


class TestFitCalibrator:
    def test_platt_finds_the_known_posterior(self, balanced):
        y_true, score, posterior = balanced
        fitted = fit_calibrator("platt", y_true, score)
        assert fitted.slope == pytest.approx(1, abs=0.08)
        assert fitted.bias == pytest.approx(log_odds(PRIOR), abs=0.1)
        assert np.abs(fitted(score) - posterior).max() < 0.03

    def test_isotonic_finds_the_known_posterior(self, balanced):
        y_true, score, posterior = balanced
        fitted = fit_calibrator("isotonic", y_true, score)
        assert np.abs(fitted(score) - posterior).mean() < 0.02

    def test_a_temperature_cannot_shift(self, balanced):
        y_true, score, posterior = balanced
        fitted = fit_calibrator("temperature", y_true, score)
        assert fitted([0.5])[0] == 0.5
        assert np.abs(fitted(score) - posterior).mean() > 0.05
        left = calibration_error(y_true, fitted(score))
        assert left > 5 * calibration_error(y_true, fit_calibrator("platt", y_true, score)(score))

    def test_temperature_is_the_one_that_was_applied(self, rng):
        y_true, score = gaussian(rng, 3000)
        fitted = fit_calibrator("temperature", y_true, tempered(score, 1 / 2))
        assert 1 / fitted.slope == pytest.approx(2, rel=0.1)

    @pytest.mark.parametrize("kind", KINDS)
    def test_order_is_never_turned_round(self, kind, rng):
        y_true, score = gaussian(rng, 60)
        found = fit_calibrator(kind, 1 - y_true, score)(np.sort(score))  # labels the wrong way
        assert (np.diff(found) >= -1e-12).all()

    @pytest.mark.parametrize("kind", ["platt", "isotonic"])
    def test_separated_classes_give_no_certainty(self, kind):
        y_true, score = np.repeat([0, 1], 8), np.repeat([0.1, 0.9], 8)
        found = fit_calibrator(kind, y_true, score)([0.1, 0.9])
        edge = {"platt": 1 / 10, "isotonic": 1 / 18}[kind]
        assert found == pytest.approx([edge, 1 - edge], abs=1e-4)

    @pytest.mark.parametrize(
        ("y_true", "score", "said"),
        [
            ([1] * 20, [0.5] * 20, "one class only"),
            ([0] * 40 + [1] * 4, [0.5] * 44, "Found 4 validation scans with motion and 40 without"),
            ([0, 1] * 10, [1.5] * 20, "scores outside"),
        ],
    )
    def test_what_cannot_be_fitted_is_refused_in_a_sentence(self, y_true, score, said):
        with pytest.raises(ValueError, match=said) as caught:
            fit_calibrator("platt", y_true, score)
        assert "\n" not in str(caught.value)

    def test_unknown_kind_is_named(self):
        with pytest.raises(ValueError, match="'beta'"):
            fit_calibrator("beta", [0, 1], [0, 1])


@pytest.fixture
def honest(rng):
    """Scores that are right as often as they say."""
    score = rng.uniform(0.02, 0.98, 4000)
    return (rng.uniform(size=4000) < score).astype(int), score


class TestTemperature:
    def test_honest_scores_need_none(self, honest):
        assert temperature(*honest) == pytest.approx(1, abs=0.1)

    def test_overconfident_scores_are_cooled_back(self, honest):
        y_true, score = honest
        too_sure = tempered(score, 1 / 3)
        t = temperature(y_true, too_sure)
        assert t == pytest.approx(3, rel=0.15)
        before = calibration_error(y_true, too_sure)
        after = calibration_error(y_true, tempered(too_sure, t))
        assert after < before / 2

    def test_order_and_the_decision_at_half_are_kept(self, honest):
        _, score = honest
        cooled = tempered(score, 2.5)
        assert (np.argsort(cooled) == np.argsort(score)).all()
        assert ((cooled > 0.5) == (score > 0.5)).all()


class TestCalibrationError:
    def test_certain_and_always_wrong_is_one(self):
        y_true = np.array([0, 1] * 20)
        assert calibration_error(y_true, 1.0 - y_true) == pytest.approx(1)

    def test_certain_and_always_right_is_zero(self):
        y_true = np.array([0, 1] * 20)
        assert calibration_error(y_true, y_true.astype(float)) == 0

    def test_order_of_equal_scores_does_not_matter(self, rng):
        y_true, score = gaussian(rng, 300)
        score = np.round(score, 1)
        other = rng.permutation(300)
        again = calibration_error(y_true[other], score[other])
        assert again == pytest.approx(calibration_error(y_true, score), abs=1e-12)

    def test_honest_scores_have_the_error_that_chance_gives(self, rng):
        sets = [gaussian(rng, 200) for _ in range(60)]
        seen = np.mean([calibration_error(*one) for one in sets])
        expected = np.mean([expected_by_chance(score, n_draws=100) for _, score in sets])
        assert expected == pytest.approx(seen, abs=0.01)
        assert expected > 0.03

    def test_certain_scores_have_no_error_by_chance(self):
        assert expected_by_chance(np.repeat([0.0, 1.0], 20)) == 0


class TestBestThreshold:
    def test_lies_in_the_gap_between_the_classes(self):
        cut = best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
        assert cut == pytest.approx(0.5)

    def test_does_not_sit_at_half_when_the_scores_do_not(self):
        cut = best_threshold([0, 0, 1, 1], [0.01, 0.02, 0.10, 0.12])
        assert cut == pytest.approx(0.06)

    def test_of_several_as_good_ones_the_lowest_is_taken(self):
        assert best_threshold([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4]) == pytest.approx(0.15)
