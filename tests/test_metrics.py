"""Metrics against hand-computed cases and scikit-learn."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from motionlib.metrics import auc, classification_metrics, fold_summary, per_fold, roc


def labels_and_scores(seed: int, n: int = 60, decimals: int = 2):
    rng = np.random.default_rng(seed)
    y_true = rng.permutation(np.arange(n) % 3 == 0).astype(int)
    return y_true, np.clip(rng.normal(0.4 + 0.2 * y_true, 0.25), 0, 1).round(decimals)


def table(seed: int, fold: int = 0, n: int = 30) -> pd.DataFrame:
    score = labels_and_scores(seed, n)[1]
    names = [f"s{i:02d}" for i in range(n)]
    rows = {"experiment": "e", "task": "t", "model": "m", "fold": fold, "scan_id": names}
    rows |= {"participant_id": names, "y_true": np.arange(n) % 3 == 0, "score": score}
    rows = pd.DataFrame(rows).astype({"y_true": int})
    return rows.assign(y_pred=(rows["score"] >= 0.5).astype(int))


class TestClassificationMetrics:
    def test_hand_computed_case(self):
        found = classification_metrics([0, 0, 0, 1, 1], [0.1, 0.6, 0.2, 0.5, 0.4])
        assert found["specificity"] == pytest.approx(2 / 3, abs=1e-15)
        assert found["sensitivity"] == 0.5
        assert found["balanced_accuracy"] == pytest.approx(7 / 12, abs=1e-15)
        assert found["auc"] == pytest.approx(4 / 6, abs=1e-15)
        assert (found["n"], found["n_positive"]) == (5, 2)

    @pytest.mark.parametrize("seed", range(5))
    def test_agrees_with_scikit_learn(self, seed):
        y_true, score = labels_and_scores(seed)
        found = classification_metrics(y_true, score)
        called = score >= 0.5
        expected = {
            "balanced_accuracy": sk.balanced_accuracy_score(y_true, called),
            "sensitivity": sk.recall_score(y_true, called),
            "specificity": sk.recall_score(y_true, called, pos_label=0),
            "auc": sk.roc_auc_score(y_true, score),
        }
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-12)

    @given(st.floats(0, 1))
    def test_constant_predictor_gives_one_half(self, constant):
        found = classification_metrics([0, 1, 1, 0, 1], [constant] * 5)
        assert found["balanced_accuracy"] == 0.5
        assert found["auc"] == 0.5

    def test_decisions_made_elsewhere_replace_the_threshold(self):
        found = classification_metrics([0, 1], [0.9, 0.1], y_pred=[0, 1])
        assert found["balanced_accuracy"] == 1.0
        assert found["auc"] == 0.0

    def test_threshold_itself_counts_as_motion(self):
        assert classification_metrics([0, 1], [0.2, 0.5])["sensitivity"] == 1.0

    def test_one_class_is_refused_unless_asked_for(self):
        with pytest.raises(ValueError, match=r"one class only \(all 2 labels are 1\)"):
            classification_metrics([1, 1], [0.2, 0.7])
        found = classification_metrics([1, 1], [0.2, 0.7], allow_one_class=True)
        assert found["sensitivity"] == 0.5
        assert np.isnan(found["balanced_accuracy"])

    @pytest.mark.parametrize(
        ("y_true", "score", "said"),
        [
            ([0, 1, 1], [0.1, 1.5, -2], "scores outside .* positions 1, 2"),
            ([0, 1], [0.1, float("nan")], "scores outside .* positions 1"),
            ([0, 2, 1], [0.1, 0.2, 0.3], "labels other than 0 and 1 at positions 1"),
            ([0, None, 1], [0.1, 0.2, 0.3], "labels other than 0 and 1 at positions 1"),
            ([0, 1], [0.1], "2 labels and 1 scores"),
            ([], [], "no labels"),
        ],
    )
    def test_bad_input_is_refused_in_one_sentence(self, y_true, score, said):
        with pytest.raises(ValueError, match=said):
            classification_metrics(y_true, score)

    def test_decisions_of_another_length_are_refused(self):
        with pytest.raises(ValueError, match="2 labels and 3 decisions"):
            classification_metrics([0, 1], [0.1, 0.9], y_pred=[0, 1, 1])


class TestAuc:
    @settings(max_examples=50)
    @given(st.integers(0, 10_000), st.floats(0.2, 5))
    def test_monotone_maps_leave_it_unchanged(self, seed, power):
        y_true, score = labels_and_scores(seed)
        grid = np.round(score, 2)
        assert auc(y_true, grid) == pytest.approx(auc(y_true, grid**power + 3), abs=1e-12)

    def test_exchanging_the_classes_mirrors_it(self):
        y_true, score = labels_and_scores(1)
        assert auc(1 - y_true, score) == pytest.approx(1 - auc(y_true, score), abs=1e-12)

    def test_every_order_of_four_scans_gives_a_multiple_of_a_quarter(self):
        values = {round(4 * auc([0, 0, 1, 1], order), 9) for order in permutations(range(4))}
        assert values == {0, 1, 2, 3, 4}


class TestRoc:
    def test_area_by_trapezoids_equals_the_auc(self):
        y_true, score = labels_and_scores(2, decimals=1)
        curve = roc(y_true, score)
        area = np.trapezoid(curve["sensitivity"], curve["false_positive_rate"])
        assert area == pytest.approx(auc(y_true, score), abs=1e-12)

    def test_corners_equal_those_of_scikit_learn(self):
        y_true, score = labels_and_scores(3, decimals=1)
        alarms, hits, thresholds = sk.roc_curve(y_true, score, drop_intermediate=False)
        curve = roc(y_true, score)
        np.testing.assert_allclose(curve["false_positive_rate"], alarms, atol=1e-15)
        np.testing.assert_allclose(curve["sensitivity"], hits, atol=1e-15)
        np.testing.assert_allclose(curve["threshold"], thresholds)


class TestFolds:
    def test_mean_and_sd_are_over_the_models(self):
        rows = pd.concat([table(1, 0), table(2, 1), table(3, 2)])
        found = fold_summary(rows)
        each = [
            classification_metrics(p["y_true"], p["score"])["auc"] for _, p in rows.groupby("fold")
        ]
        assert found["auc_mean"] == pytest.approx(np.mean(each), abs=1e-12)
        assert found["auc_sd"] == pytest.approx(np.std(each, ddof=1), abs=1e-12)
        assert (found["n_folds"], found["n"], found["n_positive"]) == (3, 30, 10)

    def test_the_ensemble_is_left_out_beside_single_models(self):
        rows = pd.concat([table(1, 0), table(2, -1)])
        assert per_fold(rows)["fold"].tolist() == [0]

    def test_one_fold_has_no_sd(self):
        assert np.isnan(fold_summary(table(1))["auc_sd"])

    def test_two_raters_are_two_models(self):
        rows = pd.concat([table(1, -1).assign(model="a"), table(2, -1).assign(model="b")])
        assert per_fold(rows)["model"].tolist() == ["a", "b"]
