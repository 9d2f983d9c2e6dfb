"""Kappa against scikit-learn and statsmodels; raters against each other by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from motionlib.stats.agreement import (
    grade_table,
    judge_raters,
    kappa_of,
    weighted_kappa,
)


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

    def test_interval_is_near_the_large_sample_one(self):
        rng = np.random.default_rng(2)
        first = rng.integers(0, 3, 300)
        second = np.where(rng.random(300) < 0.7, first, rng.integers(0, 3, 300))
        found = weighted_kappa(first, second)
        known = cohens_kappa(grade_table(first, second), weights=np.arange(3), wt="linear")
        assert found.estimate == pytest.approx(known.kappa, abs=1e-12)
        assert (found.low, found.high) == pytest.approx(
            (known.kappa_low, known.kappa_upp), abs=0.02
        )

    def test_one_grade_only_is_undefined(self):
        found = weighted_kappa([0] * 9, [0] * 9)
        assert np.isnan([found.estimate, found.low, found.high]).all()
        assert np.isnan(kappa_of(np.zeros((3, 3))))

    def test_many_tables_give_a_kappa_each(self):
        tables = np.random.default_rng(0).integers(0, 9, (4, 5, 3, 3))
        found = kappa_of(tables, "quadratic")
        assert found.shape == (4, 5)
        assert found[1, 2] == kappa_of(tables[1, 2], "quadratic")

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
            table = judge_raters(grades, task, against="all")
            if len(table) == 2:
                assert table["balanced_accuracy"].mean() >= 0.75 - 1e-12
            assert (table["specificity"] == 1).all() if len(table) else True

    def test_hand_computed_case(self):
        table = judge_raters(self.grades, "mov01vs2", against="all").set_index("rater")
        assert table.loc["a", "sensitivity"] == 1.0
        assert table.loc["b", "sensitivity"] == 0.5

    def test_leaving_the_rater_out_judges_by_the_other(self):
        table = judge_raters(self.grades, "mov01vs2").set_index("rater")
        assert table.loc["a", "sensitivity"] == 1.0
        assert table.loc["a", "specificity"] == pytest.approx(4 / 5, abs=1e-12)

    def test_one_rater_cannot_be_left_out(self):
        with pytest.raises(ValueError, match="Found 1 rater"):
            judge_raters(self.grades[["a"]], "mov0vs1")
