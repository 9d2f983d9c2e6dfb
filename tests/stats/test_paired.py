"""Paired tests and power against hand cases, statsmodels and brute force."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar

from motionlib.stats.paired import (
    auc_difference_p,
    delong,
    hanley_mcneil_se,
    holm,
    mcnemar,
    mcnemar_by_class,
    mcnemar_by_patient,
    mcnemar_counts,
    power_mcnemar,
    scans_needed,
)

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


class TestMcnemarByPatient:
    @given(BITS)
    def test_with_one_scan_a_patient_it_is_the_exact_test(self, triples):
        calls = np.array(triples).T
        together = mcnemar_by_patient(*calls, np.arange(calls.shape[1]))
        assert together == pytest.approx(mcnemar(*calls).p_value, abs=1e-12)

    def test_against_every_sign_of_every_patient(self):
        rng = np.random.default_rng(3)
        calls, patients = rng.integers(0, 2, (3, 30)), rng.integers(0, 8, 30)
        net = [
            ((calls[1] == calls[0]).astype(int) - (calls[2] == calls[0]))[patients == one].sum()
            for one in range(8)
        ]
        sums = [np.dot(signs, net) for signs in itertools.product((-1, 1), repeat=8)]
        expected = np.mean(np.abs(sums) >= abs(sum(net)))
        assert mcnemar_by_patient(*calls, patients) == pytest.approx(expected, abs=1e-12)

    def test_copies_of_a_scan_are_no_evidence(self):
        truth, first, second = np.ones((3, 12), int)
        second[:7] = 0
        alone = mcnemar_by_patient(truth, first, second, np.arange(12))
        copied = (np.tile(each, 10) for each in (truth, first, second, np.arange(12)))
        assert mcnemar_by_patient(*copied) == pytest.approx(alone, abs=1e-12)


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
        assert (found.difference, found.p_value) == (0.0, 1.0)

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
