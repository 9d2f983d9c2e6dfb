"""Intervals by drawing patients against brute force and scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from motionlib.metrics import classification_metrics
from motionlib.stats.intervals import (
    CodedSet,
    bca_limits,
    bootstrap_ci,
    bootstrap_difference,
    draw_patients,
    leave_out,
    metric_draws,
    rate_called,
    summary_intervals,
)


def study(seed: int, n: int = 80, apart: float = 0.25, fold: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y_true = (np.arange(n) % 2).astype(int)
    score = np.clip(rng.normal(0.4 + apart * y_true, 0.2), 0, 1)
    rows = {
        "scan_id": [f"s{i}" for i in range(n)],
        "participant_id": [f"p{i // 4}" for i in range(n)],
    }
    rows |= {"model": "m", "fold": fold, "y_true": y_true, "score": score}
    return pd.DataFrame(rows).assign(y_pred=(score >= 0.5).astype(int))


class TestBootstrap:
    def test_same_seed_same_interval(self):
        rows = study(1)
        args = (rows["y_true"], rows["score"], rows["participant_id"])
        assert bootstrap_ci(*args, metric="auc", seed=3) == bootstrap_ci(
            *args, metric="auc", seed=3
        )
        assert bootstrap_ci(*args, metric="auc", seed=3) != bootstrap_ci(
            *args, metric="auc", seed=4
        )

    @pytest.mark.parametrize("metric", ["balanced_accuracy", "auc"])
    def test_agrees_with_drawing_patients_one_by_one(self, metric):
        rows = study(2, n=40)
        code = pd.factorize(rows["participant_id"])[0]
        part = CodedSet(*(rows[n].to_numpy() for n in ("y_true", "score", "y_pred")), code)
        fast = metric_draws([part], draw_patients(10, 4000, 0), (metric,))[metric]
        rng, slow = np.random.default_rng(9), []
        parts = [part for _, part in rows.groupby("participant_id")]
        for _ in range(600):
            drawn = pd.concat([parts[i] for i in rng.integers(0, len(parts), len(parts))])
            slow.append(classification_metrics(drawn["y_true"], drawn["score"])[metric])
        for level in (0.025, 0.5, 0.975):
            assert np.quantile(fast, level) == pytest.approx(np.quantile(slow, level), abs=0.025)

    def test_limits_without_skew_are_percentiles_at_student_s_quantile(self):
        draws = np.random.default_rng(0).normal(size=200_001)
        low, high = bca_limits(draws, float(np.median(draws)), np.array([1.0, -1.0]), 30)
        reach = student.ppf(0.975, 29) * np.sqrt(30 / 29)
        np.testing.assert_allclose([low, high], [-reach, reach], atol=0.02)

    def test_limits_agree_with_scipy_but_for_the_widening(self):
        sample = np.random.default_rng(1).exponential(size=60)
        found = scipy_bootstrap((sample,), np.mean, n_resamples=20_000, rng=2)
        left = (sample.sum() - sample) / 59
        draws = np.random.default_rng(3).choice(sample, (20_000, 60)).mean(axis=1)
        low, high = bca_limits(draws, sample.mean(), left, 10**9)
        ends = found.confidence_interval
        np.testing.assert_allclose([low, high], [ends.low, ends.high], atol=0.02)

    def test_leaving_patients_out_one_by_one_or_in_blocks(self):
        assert leave_out(4).tolist() == (1 - np.eye(4)).tolist()
        assert leave_out(1000).shape == (400, 1000)
        assert (leave_out(1000).sum(axis=0) == 399).all()

    def test_interval_of_patients_is_wider_than_that_of_scans(self):
        rng = np.random.default_rng(0)
        patients = np.repeat(np.arange(30), 8)
        y_true = np.arange(240) % 2
        right = rng.random(30)[patients] < 0.7
        score = np.where(right, y_true, 1 - y_true).astype(float)
        by_scan = bootstrap_ci(y_true, score)
        by_patient = bootstrap_ci(y_true, score, patients)
        assert by_patient.high - by_patient.low > 2 * (by_scan.high - by_scan.low)

    def test_no_error_seen_is_not_certainty(self):
        y_true = np.arange(40) % 2
        found = bootstrap_ci(y_true, y_true.astype(float), metric="sensitivity")
        assert found.high == 1.0
        assert found.low == pytest.approx(0.025 ** (1 / 20), abs=1e-12)

    def test_a_constant_answer_has_an_open_interval(self):
        y_true = np.arange(40) % 2
        found = bootstrap_ci(y_true, np.zeros(40))
        gap = (1 - 0.025 ** (1 / 20)) / 2
        assert (found.low, found.high) == pytest.approx((0.5 - gap, 0.5 + gap), abs=1e-12)

    def test_perfect_ranking_is_at_least_the_product_of_the_rates(self):
        y_true = np.arange(40) % 2
        found = bootstrap_ci(y_true, y_true.astype(float), metric="auc")
        assert (found.low, found.high) == pytest.approx((0.025 ** (2 / 20), 1.0), abs=1e-12)

    def test_mean_over_folds_is_the_estimate(self):
        rows = pd.concat([study(1, fold=0), study(2, fold=1)])
        found = summary_intervals(rows, n_boot=200)["auc"]
        each = [roc_auc_score(part["y_true"], part["score"]) for _, part in rows.groupby("fold")]
        assert found.estimate == pytest.approx(np.mean(each), abs=1e-12)
        assert found.low < found.estimate < found.high
        assert (found.n, found.n_groups) == (80, 20)

    def test_difference_of_a_model_with_itself_is_zero(self):
        found = bootstrap_difference(study(1), study(1), n_boot=100)
        assert (found.estimate, found.low, found.high, found.p_value) == (0, 0, 0, 1)

    def test_difference_changes_sign_with_the_order(self):
        first, second = study(1, apart=0.4), study(2, apart=0.05)
        found = bootstrap_difference(first, second, metric="auc", n_boot=500)
        back = bootstrap_difference(second, first, metric="auc", n_boot=500)
        assert found.estimate == pytest.approx(-back.estimate, abs=1e-12)
        assert found.low == pytest.approx(-back.high, abs=1e-12)
        assert found.p_value == back.p_value <= 0.05

    def test_rate_called_does_not_look_at_labels(self):
        rows = study(1)
        found = rate_called(rows, n_boot=50)
        assert found == rate_called(rows.assign(y_true=0), n_boot=50)
        assert found.estimate == pytest.approx(rows["y_pred"].mean(), abs=1e-12)

    def test_wrong_calls_are_refused(self):
        rows = study(1)
        with pytest.raises(ValueError, match="metric 'f1'"):
            bootstrap_ci(rows["y_true"], rows["score"], metric="f1")
        with pytest.raises(ValueError, match="n_boot = 0"):
            bootstrap_ci(rows["y_true"], rows["score"], n_boot=0)
        with pytest.raises(ValueError, match="patients named"):
            bootstrap_ci(rows["y_true"], rows["score"], ["a", "b"])
