"""Sites: label-free normalisation, leaving sites out, thresholds that travel or do not."""

import numpy as np
import pandas as pd
import pytest

from motionlib import sites, sitetransfer


@pytest.fixture
def rated(rng) -> pd.DataFrame:
    """Four sites of 40 scans; the measure tells the label within a site, its level the site."""
    site = np.repeat(list("abcd"), 40)
    y = rng.random(160) < 0.4
    level = np.repeat([0, 50, -30, 90], 40)
    scale = np.repeat([1, 5, 2, 0.5], 40)
    cjv = level + scale * (rng.normal(size=160) + 2.5 * y)
    return pd.DataFrame(
        {"scan_id": [f"s{i}" for i in range(160)], "participant_id": np.arange(160),
         "dataset": "demo", "site": site, "y_true": y.astype(int), "cjv": cjv,
         "efc": rng.normal(size=160)}
    )  # fmt: skip


NAMES = ["cjv", "efc"]


class TestFeatures:
    def test_a_site_s_level_and_unit_vanish(self, rated):
        within = sites.site_features(rated, NAMES, "within")
        other = rated.assign(cjv=np.where(rated.site == "b", 7 - 3 * -rated.cjv, rated.cjv))
        np.testing.assert_allclose(sites.site_features(other, NAMES, "within"), within, atol=1e-9)
        medians = pd.DataFrame(within).groupby(rated.site).median()
        np.testing.assert_allclose(medians, 0, atol=1e-12)

    def test_no_label_is_read(self, rated):
        blind = rated.drop(columns="y_true")
        for features in sites.FEATURES:
            ours = sites.site_features(blind, NAMES, features)
            assert (ours == sites.site_features(rated, NAMES, features)).all()

    def test_a_measure_without_spread_becomes_zero(self, rated):
        flat = rated.assign(efc=3.0)
        assert (sites.site_features(flat, NAMES, "within")[:, 1] == 0).all()

    def test_other_features_are_refused(self, rated):
        with pytest.raises(ValueError, match="'zscore'"):
            sites.site_features(rated, NAMES, "zscore")


class TestLeaveOneSiteOut:
    def test_a_site_s_scores_do_not_depend_on_its_labels(self, rated):
        first = sites.leave_one_site_out(rated, NAMES, "within", "logistic", seed=0)
        flipped = rated.assign(y_true=np.where(rated.site == "c", 1 - rated.y_true, rated.y_true))
        second = sites.leave_one_site_out(flipped, NAMES, "within", "logistic", seed=0)
        at = (rated.site == "c").to_numpy()
        assert (first.score[at] == second.score[at]).all()
        assert not (first.score[~at] == second.score[~at]).all()

    def test_within_beats_raw_where_levels_differ(self, rated):
        table, predictions = sites.compare_recipes(rated, NAMES, seed=0, models=("logistic",))
        best = table.set_index("features").auc_within
        assert best["within"] > 0.9
        chosen = sites.choose_recipe(table, ("logistic",))
        assert chosen.features == table.features[table.auc_within.idxmax()]
        assert len(predictions[chosen]) == 160

    def test_three_models_make_twenty_one_recipes(self):
        assert len(sites.recipes()) == 21

    def test_one_site_is_refused(self, rated):
        with pytest.raises(ValueError, match="found 1 site"):
            sites.leave_one_site_out(rated[:40], NAMES, "raw", "logistic", seed=0)


class TestSiteAuc:
    def test_knowing_the_site_alone_is_worth_nothing_within(self, rated):
        rate = rated.groupby("site").y_true.transform("mean")
        assert sites.site_auc(rated.assign(score=rate))["auc_within"] == 0.5

    def test_it_counts_pairs_of_one_site(self):
        rows = pd.DataFrame(
            {"site": list("aabbb"), "y_true": [0, 1, 0, 1, 1], "score": [0.2, 0.3, 0.9, 0.8, 0.95]}
        )
        assert sites.site_auc(rows)["auc_within"] == pytest.approx(2 / 3)

    def test_sites_of_one_class_each_are_refused(self):
        rows = pd.DataFrame({"site": ["a", "b"], "y_true": [0, 1], "score": [0.1, 0.9]})
        with pytest.raises(ValueError, match="no site holds both classes"):
            sites.site_auc(rows)


class TestTransfer:
    def test_the_target_s_labels_are_not_used(self, rated):
        recipe = sites.Recipe("within", ("logistic", "stump"))
        source, target = rated[:80], rated[80:].reset_index(drop=True)
        one = sitetransfer.transfer(source, target, NAMES, recipe, seed=0)
        blind = target.assign(y_true=0)
        assert (
            sitetransfer.transfer(source, blind, NAMES, recipe, seed=0).score == one.score
        ).all()

    def test_the_same_share_is_called(self, rng):
        source = pd.DataFrame({"y_true": [0, 0, 0, 1], "score": [0.1, 0.2, 0.3, 0.9]})
        target = pd.DataFrame({"y_true": np.arange(40) % 2, "score": rng.random(40) / 4})
        table = sitetransfer.transfer_thresholds(source, target).set_index("threshold")
        assert table.called["one half"] == 0
        assert table.called["same share called"] == pytest.approx(0.25, abs=0.03)
        assert table.value["best on the source"] == pytest.approx(0.6)

    def test_marked_positives_are_judged_apart(self):
        rows = pd.DataFrame({"y_true": [0, 0, 1, 1], "score": [0.2, 0.4, 0.9, 0.1]})
        table = sitetransfer.auc_by_mark(rows, [0, 0, 0, 1])
        assert table.auc.tolist() == [1.0, 0.0]
        assert np.isnan(sitetransfer.auc_by_mark(rows, [0, 0, 0, 0]).auc[1])

    def test_rows_fit_the_waist_and_the_table_of_auc(self, rated):
        from motionlib.predictions import check_predictions

        recipe = sites.Recipe("raw+within", ("logistic",))
        scored = sitetransfer.transfer(rated[:80], rated[80:], NAMES, recipe, seed=0)
        rows = check_predictions(sitetransfer.waist(scored, rated[80:], recipe))
        assert set(rows.experiment) == {"ratings/demo/raw_within_logistic"}
        judged = sitetransfer.judge_transfer({"a": scored}, {"a": recipe}, n_boot=50)
        assert (judged.auc_low <= judged.auc).all()
