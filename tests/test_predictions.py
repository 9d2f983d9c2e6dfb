"""Rows of predictions: checked, averaged over folds, joined by scan."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from motionlib.predictions import average_scores, check_labels, combine_folds, pair_predictions


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


class TestAverageScores:
    def test_scores_are_averaged_by_scan(self):
        columns = ["scan_id", "participant_id", "y_true", "score", "y_pred", "fold"]
        one = pd.DataFrame([["b", "p", 1, 0.9, 1, 0], ["a", "p", 0, 0.2, 0, 0]], columns=columns)
        two = pd.DataFrame([["a", "p", 0, 0.9, 1, 1], ["b", "p", 1, 0.3, 0, 1]], columns=columns)
        mean = average_scores(pd.concat([one, two], ignore_index=True))
        assert mean["scan_id"].tolist() == ["b", "a"]
        assert mean["score"].tolist() == pytest.approx([0.6, 0.55])
        assert mean["y_pred"].tolist() == [1, 1]
        assert mean["fold"].tolist() == [-1, -1]


class TestCombineFolds:
    def test_scores_are_averaged_by_scan(self):
        first, second = table(1, 0), table(2, 1)
        found = combine_folds(pd.concat([first, second])).set_index("scan_id")
        mean = (first.set_index("scan_id")["score"] + second.set_index("scan_id")["score"]) / 2
        np.testing.assert_allclose(found["score"], mean.sort_index())
        assert (found["y_pred"] == (mean.sort_index() >= 0.5)).all()

    def test_an_ensemble_in_the_table_is_taken_as_it_is(self):
        ready = table(3, -1).assign(y_pred=1)
        found = combine_folds(pd.concat([table(1, 0), ready]))
        assert found["y_pred"].eq(1).all()
        assert len(found) == len(ready)

    def test_cross_validated_scans_are_pooled(self):
        rows = pd.concat([table(1, 0).iloc[:10], table(1, 1).iloc[10:]])
        assert combine_folds(rows)["scan_id"].tolist() == table(1)["scan_id"].tolist()


class TestPairPredictions:
    def test_rows_are_joined_by_scan_not_by_place(self):
        first = table(1)
        found = pair_predictions(first, first.sample(frac=1, random_state=0))
        assert (found["score_a"] == found["score_b"]).all()

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda rows: rows.iloc[3:], "3 scans predicted by one model only .s00, s01, s02."),
            (lambda rows: pd.concat([rows, rows.iloc[:1]]), "duplicate scans in the second .*s00"),
            (lambda rows: rows.assign(y_true=1), "two labels for the same scan .s01, s02, s04"),
        ],
    )
    def test_unlike_tables_are_refused_by_the_first_offenders(self, change, said):
        with pytest.raises(ValueError, match=said):
            pair_predictions(table(1), change(table(2)))


class TestCheckLabels:
    def test_nullable_integers_are_accepted(self):
        y_true, _ = check_labels(pd.array([0, 1], dtype="Int64"))
        assert y_true.tolist() == [0, 1]
