"""Temperature, calibration error and thresholds."""

import numpy as np
import pytest

from motionlib.stats import calibration


@pytest.fixture
def honest(rng):
    """Scores that are right as often as they say."""
    score = rng.uniform(0.02, 0.98, 4000)
    return (rng.uniform(size=4000) < score).astype(int), score


class TestTemperature:
    def test_honest_scores_need_none(self, honest):
        assert calibration.temperature(*honest) == pytest.approx(1, abs=0.1)

    def test_overconfident_scores_are_cooled_back(self, honest):
        y_true, score = honest
        too_sure = calibration.tempered(score, 1 / 3)
        t = calibration.temperature(y_true, too_sure)
        assert t == pytest.approx(3, rel=0.15)
        before = calibration.calibration_error(y_true, too_sure)
        after = calibration.calibration_error(y_true, calibration.tempered(too_sure, t))
        assert after < before / 2

    def test_order_and_the_decision_at_half_are_kept(self, honest):
        _, score = honest
        cooled = calibration.tempered(score, 2.5)
        assert (np.argsort(cooled) == np.argsort(score)).all()
        assert ((cooled > 0.5) == (score > 0.5)).all()


class TestCalibrationError:
    def test_certain_and_always_wrong_is_one(self):
        y_true = np.array([0, 1] * 20)
        assert calibration.calibration_error(y_true, 1.0 - y_true) == pytest.approx(1)

    def test_certain_and_always_right_is_zero(self):
        y_true = np.array([0, 1] * 20)
        assert calibration.calibration_error(y_true, y_true.astype(float)) == 0


class TestBestThreshold:
    def test_lies_in_the_gap_between_the_classes(self):
        cut = calibration.best_threshold([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
        assert cut == pytest.approx(0.5)

    def test_does_not_sit_at_half_when_the_scores_do_not(self):
        cut = calibration.best_threshold([0, 0, 1, 1], [0.01, 0.02, 0.10, 0.12])
        assert cut == pytest.approx(0.06)
