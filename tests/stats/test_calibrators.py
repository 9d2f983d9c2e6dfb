"""Maps from scores to probabilities, and the calibration error with its luck and interval."""

import json

import numpy as np
import pytest
from scipy.special import expit
from scipy.special import logit as log_odds

from motionlib.stats.calibration import (
    KINDS,
    Calibrator,
    calibration_error,
    calibration_interval,
    fit_calibrator,
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

    def test_temperature_is_the_one_of_the_calibration_room(self, rng):
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

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_survives_json(self, kind, rng):
        y_true, score = gaussian(rng, 200)
        fitted = fit_calibrator(kind, y_true, score)
        again = Calibrator(**json.loads(json.dumps(fitted.as_dict())))
        assert (again(score) == fitted(score)).all()

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


class TestCalibrationInterval:
    def test_honest_scores_are_not_accused(self, rng):
        found = [calibration_interval(*gaussian(rng, 200), n_boot=200) for _ in range(60)]
        assert sum(one.low == 0 for one in found) >= 54
        assert np.mean([one.estimate - one.by_luck for one in found]) == pytest.approx(0, abs=0.01)
        assert np.mean([one.debiased for one in found]) < np.mean([one.estimate for one in found])

    def test_a_known_error_lies_within_and_honesty_is_excluded(self, rng):
        y_true, score = gaussian(rng, 800)
        wrong = expit(log_odds(score) + 1.5)
        truth = np.mean(np.abs(wrong - score))
        found = calibration_interval(y_true, wrong, n_boot=500)
        assert 0.05 < found.low < truth < found.high
        assert found.p_honest < 0.01
        assert found.debiased == pytest.approx(truth, abs=0.04)

    def test_estimate_is_the_plain_error_whatever_the_order(self, rng):
        y_true, score = gaussian(rng, 300)
        score = np.round(score, 1)  # many equal scores
        other = rng.permutation(300)
        found = calibration_interval(y_true[other], score[other], n_boot=50)
        assert found.estimate == pytest.approx(calibration_error(y_true, score), abs=1e-12)

    def test_scans_of_one_patient_widen_the_interval(self, rng):
        y_true, score = gaussian(rng, 200)
        wrong = expit(log_odds(score) + 1)
        one = calibration_interval(y_true, wrong, n_boot=500)
        four = calibration_interval(*(np.tile(a, 4) for a in (y_true, wrong)),
                                    np.tile(np.arange(200), 4), n_boot=500)  # fmt: skip
        assert (four.n, four.n_groups) == (800, 200)
        assert four.high - four.low == pytest.approx(one.high - one.low, rel=0.15)

    @pytest.mark.parametrize(
        ("n", "groups", "said"),
        [(12, None, "Found 12 scans"), (40, ["a"] * 39 + [None], "Found 39 patients named")],
    )
    def test_what_says_nothing_is_refused(self, n, groups, said):
        with pytest.raises(ValueError, match=said):
            calibration_interval([0, 1] * (n // 2), [0.4] * n, groups)

    def test_one_class_is_refused(self):
        with pytest.raises(ValueError, match="one class only"):
            calibration_interval([0] * 40, [0.4] * 40)
