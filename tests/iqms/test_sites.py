"""Sites: label-free normalisation, leaving sites out, thresholds that travel or do not."""

import numpy as np
import pandas as pd
import pytest

from motionlib.iqms import sites
from motionlib.iqms.forest import class_weights, fit_model, fit_shares


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


@pytest.fixture
def judged(rated, rng) -> pd.DataFrame:
    """The same scans; a second rater saw half of them and grades by a half-step, at random."""
    second = np.where(rng.random(160) < 0.5, rng.choice([-1.0, 0.0, 1.0], 160), np.nan)
    return rated.assign(rater_1=second, rater_3=np.where(rated.y_true == 1, -1, 1))


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
        chosen = sites.choose_recipe(table, predictions)
        assert chosen.features == table.features[table.auc_within.idxmax()]
        assert len(predictions[chosen]) == 160

    def test_three_models_make_twenty_one_recipes_a_lesson(self):
        three = ("forest", "boosting", "logistic")
        assert len(sites.recipes(three, sites.LESSONS[:1])) == 21
        assert len({str(recipe) for recipe in sites.recipes(three)}) == 63

    def test_one_site_is_refused(self, rated):
        with pytest.raises(ValueError, match="found 1 site"):
            sites.leave_one_site_out(rated[:40], NAMES, "raw", "logistic", seed=0)


class TestLessons:
    def test_votes_and_grades_are_shares_of_motion(self):
        table = pd.DataFrame(
            {"site": list("aabb"), "y_true": [1, 0, 0, 1],
             "rater_1": [-1, 0, np.nan, np.nan], "rater_3": [-1, 1, 0, np.nan]}
        )  # fmt: skip
        assert sites.taught(table, "verdict")[0].tolist() == [1, 0, 0, 1]
        assert sites.taught(table, "votes")[0].tolist() == [1, 0, 0, 1]
        grades, strata = sites.taught(table, "grades within")
        assert grades.tolist() == [1, 0.25, 0.5, 1]
        assert strata.tolist() == list("aabb")

    def test_a_vote_splits_a_scan(self):
        table = pd.DataFrame(
            {"site": "a", "y_true": [1, 0], "rater_1": [1, -1], "rater_2": [-1, 0.0]}
        )
        assert sites.taught(table, "votes")[0].tolist() == [0.5, 0.5]

    def test_without_raters_only_the_verdict_can_be_taught(self, rated, judged):
        assert sites.lessons_of(rated) == ("verdict",)
        assert sites.lessons_of(judged) == sites.LESSONS
        with pytest.raises(ValueError, match="no column rater_"):
            sites.taught(rated, "votes")
        with pytest.raises(ValueError, match="lesson is 'rumour'"):
            sites.taught(rated, "rumour")

    @pytest.mark.parametrize("lesson", sites.LESSONS)
    def test_a_site_s_scores_do_not_depend_on_its_ratings(self, judged, lesson):
        options = {"lesson": lesson, "seed": 0}
        at = (judged.site == "b").to_numpy()
        changed = judged.assign(
            y_true=np.where(at, 1 - judged.y_true, judged.y_true),
            rater_1=np.where(at, -judged.rater_1, judged.rater_1),
            rater_3=np.where(at, -judged.rater_3, judged.rater_3),
        )
        one = sites.leave_one_site_out(judged, NAMES, "within", "logistic", **options)
        two = sites.leave_one_site_out(changed, NAMES, "within", "logistic", **options)
        assert (one.score[at] == two.score[at]).all()
        assert not (one.score[~at] == two.score[~at]).all()


class TestShares:
    def test_both_classes_weigh_the_same_overall_or_in_every_stratum(self, rng):
        share, site = rng.random(60), np.arange(60) % 3
        for strata in (None, site):
            positive, negative = class_weights(share, strata)
            assert positive.sum() + negative.sum() == pytest.approx(60)
            groups = np.zeros(60) if strata is None else site
            for k in np.unique(groups):
                inside = groups == k
                assert positive[inside].sum() == pytest.approx(negative[inside].sum())

    def test_a_stratum_of_one_class_does_not_count(self):
        positive, negative = class_weights([0, 1, 0, 0], ["a", "a", "b", "b"])
        assert (positive + negative).tolist() == [2, 2, 0, 0]

    def test_whole_shares_are_labels(self, rated):
        X, y = rated[NAMES].to_numpy(), rated.y_true.to_numpy()
        shares = fit_shares("stump", X, y, seed=0).predict_proba(X)
        np.testing.assert_allclose(shares, fit_model("stump", X, y, seed=0).predict_proba(X))

    @pytest.mark.parametrize("model", ["forest", "boosting", "logistic", "ridge", "stump"])
    def test_every_model_learns_from_shares(self, rated, model):
        X = rated[["cjv"]].to_numpy()[:40]
        share = np.where(rated.y_true[:40] == 1, 0.8, 0.1)
        score = fit_shares(model, X, share, seed=0).predict_proba(X)[:, 1]
        assert np.corrcoef(score, share)[0, 1] > 0.5

    @pytest.mark.parametrize(
        ("share", "strata", "word"),
        [
            ([0, 1.2], None, "outside 0 to 1"),
            ([0, np.nan], None, "undefined or outside"),
            ([0, 0], None, "no stratum holds both"),
            ([0, 1], ["a", "b"], "no stratum holds both"),
        ],
    )
    def test_other_shares_are_refused(self, share, strata, word):
        with pytest.raises(ValueError, match=word):
            class_weights(share, strata)


class TestChoiceBySite:
    def test_a_site_has_no_say_in_its_own_recipe(self, judged):
        _, predictions = sites.compare_recipes(judged, NAMES, seed=0, models=("logistic",))
        rows = sites.choose_by_site(predictions)
        assert rows.groupby("site").recipe.nunique().max() == 1
        assert rows.row.tolist() == list(range(160))
        at = rows.site == "c"
        flipped = {
            recipe: part.assign(y_true=np.where(at, 1 - part.y_true, part.y_true))
            for recipe, part in predictions.items()
        }
        other = sites.choose_by_site(flipped)
        assert other.recipe[at].tolist() == rows.recipe[at].tolist()
        assert other.score[at].tolist() == rows.score[at].tolist()

    def test_the_best_on_the_others_is_taken(self):
        base = pd.DataFrame(
            {"row": range(6), "fold": 0, "site": list("aabbcc"), "y_true": [0, 1] * 3, "y_pred": 0}
        )
        right, wrong = (sites.Recipe(f, ("stump",)) for f in ("raw", "within"))
        found = {
            wrong: base.assign(score=[0.9, 0.1, 0.2, 0.3, 0.9, 0.1]),
            right: base.assign(score=[0.2, 0.1, 0.2, 0.3, 0.1, 0.9], y_pred=1),
        }
        rows = sites.choose_by_site(found)
        chosen = rows[rows.site != "c"]  # without c the two are equal
        assert set(chosen.recipe) == {str(right)}
        assert (chosen.y_pred == 1).all()


class TestSiteAuc:
    def test_knowing_the_site_alone_is_worth_nothing_within(self, rated):
        rate = rated.groupby("site").y_true.transform("mean")
        assert sites.site_auc(rated.assign(score=rate))["auc_within"] == 0.5

    def test_it_counts_pairs_of_one_site(self):
        rows = pd.DataFrame(
            {"site": list("aabbb"), "y_true": [0, 1, 0, 1, 1], "score": [0.2, 0.3, 0.9, 0.8, 0.95]}
        )
        assert sites.site_auc(rows)["auc_within"] == pytest.approx(2 / 3)

    def test_a_score_that_is_missing_is_refused(self):
        rows = pd.DataFrame({"site": list("aa"), "y_true": [0, 1], "score": [0.1, float("nan")]})
        with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
            sites.site_auc(rows)

    def test_sites_of_one_class_each_are_refused(self):
        rows = pd.DataFrame({"site": ["a", "b"], "y_true": [0, 1], "score": [0.1, 0.9]})
        with pytest.raises(ValueError, match="no site holds both classes"):
            sites.site_auc(rows)


class TestTransfer:
    def test_the_target_s_labels_are_not_used(self, rated):
        recipe = sites.Recipe("within", ("logistic", "stump"))
        source, target = rated[:80], rated[80:].reset_index(drop=True)
        one = sites.transfer(source, target, NAMES, recipe, seed=0)
        blind = target.assign(y_true=0)
        assert (sites.transfer(source, blind, NAMES, recipe, seed=0).score == one.score).all()

    def test_the_same_share_is_called(self, rng):
        source = pd.DataFrame({"y_true": [0, 0, 0, 1], "score": [0.1, 0.2, 0.3, 0.9]})
        target = pd.DataFrame({"y_true": np.arange(40) % 2, "score": rng.random(40) / 4})
        table = sites.transfer_thresholds(source, target).set_index("threshold")
        assert table.called["one half"] == 0
        assert table.called["same share called"] == pytest.approx(0.25, abs=0.03)
        assert table.value["best on the source"] == pytest.approx(0.6)

    def test_marked_positives_are_judged_apart(self):
        rows = pd.DataFrame({"y_true": [0, 0, 1, 1], "score": [0.2, 0.4, 0.9, 0.1]})
        table = sites.auc_by_mark(rows, [0, 0, 0, 1])
        assert table.auc.tolist() == [1.0, 0.0]
        assert np.isnan(sites.auc_by_mark(rows, [0, 0, 0, 0]).auc[1])

    def test_rows_fit_the_waist_and_the_table_of_auc(self, rated):
        from motionlib.predictions import check_predictions

        recipe = sites.Recipe("raw+within", ("logistic",))
        scored = sites.transfer(rated[:80], rated[80:], NAMES, recipe, seed=0)
        rows = check_predictions(sites.waist(scored, rated[80:], recipe))
        assert set(rows.experiment) == {"ratings/demo/raw_within_logistic_verdict"}
        judged = sites.judge_transfer({"a": scored}, {"a": recipe}, n_boot=50)
        assert (judged.auc_low <= judged.auc).all()
