"""Paired tests, intervals, agreement and power against hand cases, statsmodels and brute force."""

from __future__ import annotations

from itertools import permutations
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import t as student
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar

from motionlib.stats.agreement import (
    kappa_from_table,
    raters_against_consensus,
    raters_against_others,
    weighted_kappa,
)
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
from motionlib.stats.paired import (
    auc_difference_p,
    delong,
    hanley_mcneil_se,
    holm,
    mcnemar,
    mcnemar_by_class,
    mcnemar_counts,
    power_mcnemar,
    scans_needed,
)
from motionlib.tasks import grade_to_task

BITS = st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=1, max_size=40)


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


class TestMcnemar:
    def test_hand_computed_case(self):
        truth = np.ones(10, dtype=int)
        first = np.array([1] * 6 + [0] * 4)
        second = np.array([0] * 5 + [1] * 2 + [0] * 3)
        found = mcnemar(truth, first, second)
        assert (found.both_right, found.b, found.c, found.both_wrong) == (1, 5, 1, 3)
        assert found.p_value == pytest.approx(2 * (1 + 6) / 2**6, abs=1e-15)
        assert found.chi2 == pytest.approx(9 / 6, abs=1e-15)
        assert found.difference == pytest.approx(0.4, abs=1e-15)

    @pytest.mark.parametrize(("b", "c"), [(1, 0), (10, 3), (25, 24), (144, 35), (7, 7)])
    def test_agrees_with_statsmodels(self, b, c):
        counts = [[50, b], [c, 20]]
        p_exact, chi2, p_corrected = mcnemar_counts(b, c)
        assert p_exact == pytest.approx(sm_mcnemar(counts, exact=True).pvalue, abs=1e-12)
        if b != c:  # statsmodels does not clip |b - c| - 1 at zero
            expected = sm_mcnemar(counts, exact=False, correction=True)
            assert chi2 == pytest.approx(expected.statistic, abs=1e-12)
            assert p_corrected == pytest.approx(expected.pvalue, abs=1e-12)

    def test_exact_form_is_the_binomial_tail(self):
        b, c = 14, 5
        tail = sum(comb(b + c, k) for k in range(c + 1)) / 2 ** (b + c)
        assert mcnemar_counts(b, c)[0] == pytest.approx(2 * tail, abs=1e-15)

    @given(BITS)
    def test_identical_predictions_give_one(self, rows):
        truth, first, _ = np.array(rows).T
        found = mcnemar(truth, first, first)
        assert (found.p_value, found.chi2, found.p_corrected) == (1.0, 0.0, 1.0)

    @given(BITS)
    def test_exchanging_the_models_changes_the_sign_only(self, rows):
        truth, first, second = np.array(rows).T
        found, back = mcnemar(truth, first, second), mcnemar(truth, second, first)
        assert found.p_value == back.p_value
        assert (found.b, found.c, found.difference) == (back.c, back.b, -back.difference)

    def test_classes_are_corrected_for_each_other(self):
        rows = study(1)
        table = mcnemar_by_class(rows["y_true"], rows["y_pred"], 1 - rows["y_pred"])
        assert table["scans"].tolist() == ["all", "positives", "negatives"]
        whole, positives, negatives = table["n"]
        assert whole == positives + negatives
        smaller = table["p_value"].iloc[1:].idxmin()
        assert table.loc[smaller, "p_holm"] == min(1.0, 2 * table.loc[smaller, "p_value"])
        assert table.loc[0, "p_holm"] == table.loc[0, "p_value"]

    def test_unequal_lengths_are_refused(self):
        with pytest.raises(ValueError, match="3 and 3 and 2"):
            mcnemar([0, 1, 1], [0, 1, 1], [0, 1])


class TestHolm:
    def test_hand_computed_case_with_a_missing_value(self):
        found = holm([0.01, np.nan, 0.04, 0.03])
        np.testing.assert_allclose(found, [0.03, np.nan, 0.06, 0.06], atol=1e-12)


class TestDelong:
    def test_areas_agree_with_scikit_learn(self):
        rows, other = study(1), study(2)
        found = delong(rows["y_true"], rows["score"], other["score"])
        assert found.auc_a == pytest.approx(roc_auc_score(rows["y_true"], rows["score"]), abs=1e-12)
        assert found.auc_b == pytest.approx(
            roc_auc_score(rows["y_true"], other["score"]), abs=1e-12
        )

    def test_variance_equals_the_definition_by_double_loops(self):
        rows, other = study(3, n=24), study(4, n=24)
        y = rows["y_true"].to_numpy()
        scores = [rows["score"].to_numpy().round(1), other["score"].to_numpy().round(1)]
        v10, v01 = [], []
        for score in scores:
            wins = np.array(
                [[(p > q) + 0.5 * (p == q) for q in score[y == 0]] for p in score[y == 1]]
            )
            v10.append(wins.mean(axis=1))
            v01.append(wins.mean(axis=0))
        covariance = np.cov(v10) / (y == 1).sum() + np.cov(v01) / (y == 0).sum()
        expected = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        found = delong(y, *scores)
        assert found.se**2 == pytest.approx(expected, abs=1e-12)
        assert found.se_a**2 == pytest.approx(covariance[0, 0], abs=1e-12)

    def test_p_agrees_with_a_permutation_of_the_two_models(self):
        rows = study(5, n=60, apart=0.3)
        weaker = study(6, n=60, apart=0.12)["score"].to_numpy()
        y, strong = rows["y_true"].to_numpy(), rows["score"].to_numpy()
        ranks = [np.argsort(np.argsort(score)) for score in (strong, weaker)]
        seen = roc_auc_score(y, strong) - roc_auc_score(y, weaker)
        rng, beyond = np.random.default_rng(0), 0
        for _ in range(2000):  # the exchange of a scan's two ranks leaves the hypothesis untouched
            swap = rng.random(60) < 0.5
            first = np.where(swap, ranks[1], ranks[0])
            second = np.where(swap, ranks[0], ranks[1])
            beyond += abs(roc_quick(y, first) - roc_quick(y, second)) >= abs(seen) - 1e-12
        assert delong(y, strong, weaker).p_value == pytest.approx(beyond / 2000, abs=0.02)

    def test_equal_rankings_give_one(self):
        rows = study(7)
        found = delong(rows["y_true"], rows["score"], rows["score"] ** 2)
        assert (found.difference, found.z, found.p_value) == (0.0, 0.0, 1.0)

    def test_singletons_as_patients_change_nothing(self):
        rows, other = study(1), study(2)
        plain = delong(rows["y_true"], rows["score"], other["score"])
        grouped = delong(rows["y_true"], rows["score"], other["score"], rows["scan_id"])
        assert grouped.se == pytest.approx(plain.se, abs=1e-12)

    def test_copies_of_a_patient_add_no_information(self):
        rows, other = study(1), study(2)
        triple = pd.concat([rows] * 3)
        plain = delong(rows["y_true"], rows["score"], other["score"], rows["scan_id"])
        grouped = delong(
            triple["y_true"], triple["score"], [*other["score"]] * 3, triple["scan_id"]
        )
        naive = delong(triple["y_true"], triple["score"], [*other["score"]] * 3)
        assert grouped.se == pytest.approx(plain.se, rel=1e-12)
        assert naive.se < 0.6 * plain.se

    def test_a_single_positive_is_refused(self):
        with pytest.raises(ValueError, match="1 positives and 2 negatives"):
            delong([0, 0, 1], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3])


def roc_quick(y, ranks) -> float:
    """AUC of untied scores by their ranks."""
    n_positive = y.sum()
    order = np.argsort(np.argsort(ranks, kind="stable"), kind="stable") + 1
    return (order[y == 1].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * (y == 0).sum())


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
        from motionlib.metrics import classification_metrics

        for _ in range(600):
            drawn = pd.concat([parts[i] for i in rng.integers(0, len(parts), len(parts))])
            slow.append(classification_metrics(drawn["y_true"], drawn["score"])[metric])
        for level in (0.025, 0.5, 0.975):
            assert np.quantile(fast, level) == pytest.approx(np.quantile(slow, level), abs=0.025)

    def test_limits_without_skew_are_percentiles_at_student_s_quantile(self):
        draws = np.random.default_rng(0).normal(size=200_001)
        low, high = bca_limits(draws, float(np.median(draws)), np.array([1.0, -1.0]), 0.95, 30)
        reach = student.ppf(0.975, 29) * np.sqrt(30 / 29)
        np.testing.assert_allclose([low, high], [-reach, reach], atol=0.02)

    def test_limits_agree_with_scipy_but_for_the_widening(self):
        sample = np.random.default_rng(1).exponential(size=60)
        found = scipy_bootstrap((sample,), np.mean, n_resamples=20_000, rng=2)
        left = (sample.sum() - sample) / 59
        draws = np.random.default_rng(3).choice(sample, (20_000, 60)).mean(axis=1)
        low, high = bca_limits(draws, sample.mean(), left, 0.95, 10**9)
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


class TestWeightedKappa:
    @pytest.mark.parametrize("weights", ["linear", "quadratic"])
    @pytest.mark.parametrize("seed", range(4))
    def test_agrees_with_scikit_learn(self, weights, seed):
        rng = np.random.default_rng(seed)
        first = rng.integers(0, 3, 90)
        second = np.clip(first + rng.integers(-1, 2, 90), 0, 2)
        found = weighted_kappa(first, second, weights=weights)
        expected = cohen_kappa_score(first, second, weights=weights, labels=[0, 1, 2])
        assert found.estimate == pytest.approx(expected, abs=1e-12)
        assert found.low < found.estimate < found.high

    def test_is_symmetric_and_one_for_equal_grades(self):
        rng = np.random.default_rng(0)
        first, second = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
        assert weighted_kappa(first, first).estimate == 1.0
        back = weighted_kappa(second, first).estimate
        assert weighted_kappa(first, second).estimate == pytest.approx(back, abs=1e-12)

    def test_scans_graded_once_are_left_out(self):
        found = weighted_kappa(pd.array([0, 1, 2, None]), pd.array([0, 1, 2, 2]))
        assert (found.estimate, found.n) == (1.0, 3)

    def test_interval_by_patients_holds_the_estimate(self):
        rng = np.random.default_rng(1)
        first = rng.integers(0, 3, 90)
        second = np.where(rng.random(90) < 0.7, first, rng.integers(0, 3, 90))
        found = weighted_kappa(first, second, groups=np.arange(90) // 3, n_boot=300)
        plain = weighted_kappa(first, second)
        assert found.estimate == plain.estimate
        assert found.low < found.estimate < found.high
        assert abs((found.high - found.low) - (plain.high - plain.low)) < 0.1

    def test_one_grade_only_is_undefined(self):
        assert np.isnan(kappa_from_table([[9, 0], [0, 0]]).estimate)

    def test_wrong_calls_are_refused(self):
        with pytest.raises(ValueError, match="grade 3"):
            weighted_kappa([0, 3], [0, 1])
        with pytest.raises(ValueError, match="weights 'cubic'"):
            weighted_kappa([0, 1], [0, 1], weights="cubic")
        with pytest.raises(ValueError, match="2 and 3 grades"):
            weighted_kappa([0, 1], [0, 1, 2])


class TestRaters:
    grades = pd.DataFrame({"a": [0, 1, 2, 2, 0, 1], "b": [0, 0, 2, 1, 1, 1]})

    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=6, max_size=40))
    def test_consensus_by_maximum_flatters_every_pair_of_raters(self, pairs):
        grades = pd.DataFrame(pairs, columns=["a", "b"])
        for task in ("mov01vs2", "mov0vs1"):
            table = raters_against_consensus(grades, task)
            if len(table) == 2:
                assert table["balanced_accuracy"].mean() >= 0.75 - 1e-12
            assert (table["specificity"] == 1).all() if len(table) else True

    def test_hand_computed_case(self):
        table = raters_against_consensus(self.grades, "mov01vs2").set_index("rater")
        assert table.loc["a", "sensitivity"] == 1.0
        assert table.loc["b", "sensitivity"] == 0.5

    def test_leaving_the_rater_out_judges_by_the_other(self):
        table = raters_against_others(self.grades, "mov01vs2").set_index("rater")
        assert table.loc["a", "sensitivity"] == 1.0
        assert table.loc["a", "specificity"] == pytest.approx(4 / 5, abs=1e-12)

    def test_one_rater_cannot_be_left_out(self):
        with pytest.raises(ValueError, match="Found 1 rater"):
            raters_against_others(self.grades[["a"]], "mov0vs1")

    def test_grades_outside_a_task_are_missing(self):
        found = grade_to_task([0, 1, 2, None], "mov0vs1")
        assert found.isna().tolist() == [False, False, True, True]
        assert grade_to_task([0, 1, 2], "mov01vs2").tolist() == [0, 0, 1]


class TestPower:
    def test_exact_power_equals_enumeration(self):
        rate_b, rate_c, n = 0.3, 0.1, 12
        expected = 0.0
        for b in range(n + 1):
            for c in range(n + 1 - b):
                if mcnemar_counts(b, c)[0] <= 0.05:
                    ways = comb(n, b) * comb(n - b, c)
                    expected += ways * rate_b**b * rate_c**c * (1 - rate_b - rate_c) ** (n - b - c)
        assert power_mcnemar(rate_b, rate_c, n) == pytest.approx(expected, abs=1e-8)

    def test_scans_needed_reach_the_power(self):
        n = scans_needed(0.15, 0.05)
        assert power_mcnemar(0.15, 0.05, n) >= 0.8
        assert power_mcnemar(0.15, 0.05, n // 2) < 0.8

    @settings(max_examples=20)
    @given(st.floats(0.05, 0.3), st.floats(0.01, 0.04))
    def test_power_is_symmetric(self, rate_b, rate_c):
        forth, back = power_mcnemar(rate_b, rate_c, 80), power_mcnemar(rate_c, rate_b, 80)
        assert forth == pytest.approx(back, abs=1e-9)

    def test_no_difference_needs_no_study(self):
        with pytest.raises(ValueError, match="equal rates"):
            scans_needed(0.1, 0.1)
        with pytest.raises(ValueError, match="larger difference"):
            scans_needed(0.1, 0.0999, limit=1000)
        assert power_mcnemar(0, 0, 10) == 0.0

    def test_hanley_mcneil_is_close_to_delong(self):
        rows = study(8, n=400)
        found = delong(rows["y_true"], rows["score"], 1 - rows["score"])
        assert hanley_mcneil_se(found.auc_a, 200, 200) == pytest.approx(found.se_a, rel=0.1)

    def test_correlated_scores_make_a_gain_visible(self):
        ps = [auc_difference_p(0.85, 0.80, 57, 328, r) for r in (0, 0.5, 0.7, 0.9)]
        np.testing.assert_allclose(ps, [0.31, 0.15, 0.065, 0.002], rtol=0.2)
        assert ps == sorted(ps, reverse=True)


def test_every_order_of_four_scans_gives_a_multiple_of_a_quarter():
    """AUC of two positives and two negatives counts pairs."""
    from motionlib.metrics import auc

    values = {round(4 * auc([0, 0, 1, 1], order), 9) for order in permutations(range(4))}
    assert values == {0, 1, 2, 3, 4}
