"""The random search: exact prefixes, folds by patient, honest nesting, reproducible by seed."""

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier

from motionlib.iqms import forest


@pytest.fixture
def table(rng):
    """60 patients, 2 scans each; column 0 tells the label, columns 1 and 2 do not."""
    y = np.repeat(np.arange(60) % 2, 2)
    X = rng.normal(size=(120, 3))
    X[:, 0] += 2.5 * y
    return X, y, np.repeat(np.arange(60), 2)


@pytest.fixture
def small_space(monkeypatch):
    """Twenty-four combinations of at most eight trees, to be quick."""
    space = {
        "n_estimators": (2, 5, 8),
        "max_depth": (2, None),
        "min_samples_split": (2, 10),
        "min_samples_leaf": (1, 5),
    }
    monkeypatch.setattr("motionlib.iqms.forest.SEARCH_SPACE", space)
    return space


class TestSearch:
    def test_the_space_has_384_combinations_and_300_are_different(self):
        drawn = forest.draw_combinations(seed=3)
        assert len(drawn) == 300
        assert not drawn.duplicated().any()
        assert len(forest.draw_combinations(384, seed=3)) == 384

    def test_a_forest_s_first_trees_are_the_smaller_forest(self, table, small_space):
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.metrics import balanced_accuracy_score

        X, y, groups = table
        found = forest.search_forest(X, y, groups, n_iter=8, seed=1)
        folds = forest.grouped_folds(y, groups, seed=1)
        X = X.astype(np.float32)
        for row in found.results.itertuples():
            scores = []
            for k in range(5):
                plain = RandomForestClassifier(
                    row.n_estimators, max_depth=row.max_depth or None, random_state=1,
                    min_samples_split=row.min_samples_split,
                    min_samples_leaf=row.min_samples_leaf,
                ).fit(X[folds != k], y[folds != k])  # fmt: skip
                called = forest.call_motion(plain.predict_proba(X[folds == k])[:, 1])
                scores.append(balanced_accuracy_score(y[folds == k], called))
            assert row.mean == pytest.approx(np.mean(scores), abs=1e-12)

    def test_predictions_come_from_forests_without_the_patient(self, table, small_space):
        X, y, groups = table
        found = forest.search_forest(X, y, groups, n_iter=6, seed=1)
        rows = found.predictions
        assert len(rows) == 120
        assert pd.Series(rows.fold).groupby(groups).nunique().max() == 1
        left_out = found.fold_estimators[2].predict_proba(X.astype(np.float32))[:, 1]
        inside = (rows.fold == 2).to_numpy()
        np.testing.assert_allclose(rows.score[inside], left_out[inside], atol=1e-12)

    def test_the_same_seed_gives_the_same_search_with_any_n_jobs(self, table, small_space):
        one = forest.search_forest(*table, n_iter=8, seed=5, n_jobs=1)
        two = forest.search_forest(*table, n_iter=8, seed=5, n_jobs=2)
        assert one.best_params == two.best_params
        pd.testing.assert_frame_equal(one.results, two.results)
        pd.testing.assert_frame_equal(one.predictions, two.predictions)
        other = forest.search_forest(*table, n_iter=8, seed=6)
        assert not one.predictions.score.equals(other.predictions.score)

    def test_an_equal_search_reads_how_its_combinations_were_judged(
        self, table, small_space, tmp_path, monkeypatch
    ):
        X, y, groups = table
        options = {"n_iter": 6, "seed": 5, "cache": tmp_path}
        one = forest.search_forest(*table, **options)
        grown = []
        honest = forest._judge_combinations
        monkeypatch.setattr(forest, "_judge_combinations", lambda *a: grown.append(a) or honest(*a))
        two = forest.search_forest(*table, **options)
        assert not grown
        pd.testing.assert_frame_equal(one.results, two.results)
        pd.testing.assert_frame_equal(one.predictions, two.predictions)
        changed = X.copy()
        changed[0, 0] += 1
        for asked, seed in (((changed, y, groups), 5), ((X, 1 - y, groups), 5), (table, 6)):
            forest.search_forest(*asked, **options | {"seed": seed})
        assert len(grown) == 3

    def test_it_learns_what_is_there_and_uses_the_folds_it_is_given(self, table, small_space):
        X, y, groups = table
        found = forest.search_forest(X, y, groups, n_iter=6, seed=1, folds=groups % 3)
        assert found.best_score > 0.75
        assert len(found.fold_estimators) == 3
        assert (found.predictions.fold == groups % 3).all()
        assert set(found.predict(X)) == {0, 1}

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            (lambda X, y, g: (X, y * 0, g), r"labels are \[0\]"),
            (lambda X, y, g: (X[:8], y[:8], g[:8]), "4 patients cannot fill 5 folds"),
            (lambda X, y, g: (X[1:], y, g), "one label and one patient per row"),
            (lambda X, y, g: (X * [1, np.nan, 1], y, g), r"columns \[1\] of X are NaN"),
            (lambda X, y, g: (X * [1, np.inf, 1], y, g), "infinite values"),
        ],
    )
    def test_bad_tables_are_refused_in_one_sentence(self, table, change, word):
        with pytest.raises(ValueError, match=word):
            forest.search_forest(*change(*table), n_iter=1, seed=0)

    def test_a_patient_in_two_folds_is_refused(self, table):
        X, y, groups = table
        with pytest.raises(ValueError, match="60 patients lie in more than one fold"):
            forest.search_forest(X, y, groups, n_iter=1, seed=0, folds=np.arange(120) % 2)

    def test_more_combinations_than_there_are_is_refused(self):
        with pytest.raises(ValueError, match="expected 1 to 384"):
            forest.draw_combinations(385, seed=0)


class TestCrossValidated:
    def test_on_noise_the_inner_score_is_optimistic_and_the_outer_is_not(self, rng, small_space):
        X, y, groups = rng.normal(size=(100, 6)), np.arange(100) % 2, np.arange(100)
        rows = forest.cross_validated(X, y, groups, "search", seed=2, n_iter=6)
        inner = []
        for k in range(5):
            train = (rows.fold != k).to_numpy()
            search = forest.search_forest(X[train], y[train], groups[train], n_iter=6, seed=3 + k)
            assert (search.predict(X[~train]) == rows.y_pred[~train]).all()
            inner.append(search.best_score)
        outer = (rows.y_pred == rows.y_true).mean()
        assert np.mean(inner) > outer
        assert 0.3 < outer < 0.7

    def test_every_model_predicts_every_row_once(self, table, small_space):
        X, y, groups = table
        X = X.copy()
        X[::7, 1] = np.nan
        for model in ("search", "logistic", "boosting"):
            rows = forest.cross_validated(X, y, groups, model, seed=0, n_iter=2)
            assert (rows.y_true == y).all()
            assert rows.groupby(groups).fold.nunique().max() == 1
            assert rows.score.between(0, 1).all()
            assert (rows.y_pred == y).mean() > 0.7

    @pytest.mark.parametrize("model", forest.MODELS)
    def test_untuned_models_take_undefined_measures(self, table, model):
        X, y, _ = table
        X = np.where(np.arange(360).reshape(X.shape) % 7 == 3, np.nan, X)
        fitted = forest.make_model(model, seed=0, n_rows=len(y)).fit(X, y)
        assert (fitted.predict(X) == y).mean() > 0.7

    def test_an_unknown_model_is_refused(self, table):
        with pytest.raises(ValueError, match="'svm' is not known"):
            forest.cross_validated(*table, "svm", seed=0)


class TestWarehouseRows:
    @pytest.fixture
    def scans(self, table):
        X, y, groups = table
        frame = pd.DataFrame(X, columns=["SNR1", "EFC", "CPP"]).assign(
            y_true=y, source_participant_id=groups, participant_id=groups, fold=groups % 3,
            scan_id=[f"scan{i}" for i in range(120)],
        )  # fmt: skip
        return frame[:100], frame[100:]

    def test_rows_have_the_columns_of_predictions_for_each_fold_and_their_mean(
        self, scans, small_space
    ):
        rows, _ = forest.warehouse_rows(
            *scans, ["SNR1", "EFC", "CPP"], kind="clinical", task="mov01vs2", seed=1, n_iter=4
        )
        columns = "experiment task model fold scan_id participant_id y_true score y_pred"
        assert rows.columns.tolist() == columns.split()
        assert set(rows.experiment) == {"warehouse/forest_clinical"}
        assert rows.groupby("fold").size().to_dict() == {-1: 20, 0: 20, 1: 20, 2: 20}
        mean = rows[rows.fold >= 0].groupby("scan_id").score.mean()
        ensemble = rows[rows.fold == -1].set_index("scan_id").score
        np.testing.assert_allclose(ensemble.sort_index(), mean.sort_index(), atol=1e-9)

    def test_out_of_fold_no_scan_is_predicted_by_a_search_that_knows_its_fold(
        self, scans, small_space
    ):
        train = scans[0]
        names = {"kind": "clinical", "task": "mov01vs2", "seed": 1, "n_iter": 2, "outer": True}
        columns = ["SNR1", "EFC", "CPP"]
        rows, _ = forest.warehouse_rows(train, train, columns, **names)
        single = rows[rows.fold >= 0].set_index("scan_id")
        assert single.index.is_unique
        assert single.fold.to_dict() == train.set_index("scan_id").fold.to_dict()
        # other labels in a fold change nothing of what is said about it
        flipped = train.assign(y_true=train.y_true.where(train.fold != 0, 1 - train.y_true))
        again, _ = forest.warehouse_rows(flipped, flipped, columns, **names)
        again = again[again.fold == 0].set_index("scan_id")
        pd.testing.assert_series_equal(again.score, single.score[single.fold == 0])

    @pytest.mark.parametrize("outer", [True, False])
    def test_a_set_is_judged_by_what_the_warehouse_s_rows_say(self, scans, small_space, outer):
        train, test = scans[0], scans[0] if outer else scans[1]
        options = {"columns": ["SNR1", "EFC"], "seed": 1, "n_iter": 2, "outer": outer}
        rows, _ = forest.warehouse_rows(train, test, kind="clinical", task="mov01vs2", **options)
        assert forest.judge_set(train, test, **options) == forest.judge_rows(rows)

    def test_a_measure_that_is_never_defined_is_left_out(self, scans, small_space):
        train, test = scans
        train, columns = train.assign(CPP=np.nan), ["SNR1", "EFC", "CPP"]
        _, search = forest.warehouse_rows(
            train, test, columns, kind="research", task="mov0vs1", seed=1, n_iter=2
        )
        assert search.estimator.n_features_in_ == 2
        lost = forest.importance(search, train, columns, seed=0, n_repeats=3)
        assert set(lost.measure) == {"SNR1", "EFC"}

    def test_losses_are_scikit_learn_s_to_the_last_bit(self, rng):
        from sklearn.inspection import permutation_importance

        X = rng.normal(size=(90, 4))
        y = (X[:, 0] + rng.normal(size=90) > 0).astype(int)
        grown = RandomForestClassifier(20, random_state=0).fit(X[:60], y[:60])
        options = {"scoring": "roc_auc", "n_repeats": 5, "random_state": 3}
        theirs = permutation_importance(grown, X[60:], y[60:], **options).importances
        assert np.array_equal(forest._losses(grown, X[60:], y[60:], 5, 3), theirs)

    def test_shuffling_the_telling_measure_costs_most_and_noise_spans_zero(
        self, scans, small_space
    ):
        columns = ["SNR1", "EFC", "CPP"]
        _, search = forest.warehouse_rows(
            *scans, columns, kind="clinical", task="mov01vs2", seed=1, n_iter=4
        )
        lost = forest.importance(search, scans[0], columns, seed=0, n_repeats=3)
        assert lost.measure[0] == "SNR1"
        assert lost.low[0] > 0
        assert (lost.low[1:] <= 0).all()

    def test_no_defined_measure_at_all_is_refused(self, scans):
        train = scans[0].assign(SNR1=np.nan)
        with pytest.raises(ValueError, match="none of the measures SNR1"):
            forest.warehouse_rows(
                train, scans[1], ["SNR1"], kind="research", task="mov0vs1", seed=1
            )


def test_ties_are_called_motion_whatever_the_order_of_votes():
    votes = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    forward, backward = sum(votes) / 9, sum(reversed(votes)) / 9
    assert forest.call_motion([forward, backward, 0.4999]).tolist() == [1, 1, 0]
