"""Sites: label-free normalisation, leaving sites out, thresholds that travel or do not."""

import numpy as np
import pandas as pd
import pytest

from motionlib.iqms import sites
from motionlib.predictions import check_predictions

NAMES = ["cjv", "efc"]
LOGISTIC = {"models": ("logistic",), "seed": 0}


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


class TestLeaveOneSiteOut:
    def test_a_site_s_scores_do_not_depend_on_its_labels(self, rated):
        first = sites.leave_one_site_out(rated, NAMES, **LOGISTIC)["within", "logistic"]
        flipped = rated.assign(y_true=np.where(rated.site == "c", 1 - rated.y_true, rated.y_true))
        second = sites.leave_one_site_out(flipped, NAMES, **LOGISTIC)["within", "logistic"]
        at = (rated.site == "c").to_numpy()
        assert (first.score[at] == second.score[at]).all()
        assert not (first.score[~at] == second.score[~at]).all()

    def test_each_site_is_a_fold_in_alphabetical_order(self, rated):
        turned = rated[::-1].reset_index(drop=True)
        rows = sites.leave_one_site_out(turned, NAMES, **LOGISTIC)["raw", "logistic"]
        assert rows.site.tolist() == turned.site.tolist()
        assert dict(zip(rows.site, rows.fold, strict=True)) == {"a": 0, "b": 1, "c": 2, "d": 3}

    def test_within_beats_raw_where_levels_differ(self, rated):
        rows = sites.leave_one_site_out(rated, NAMES, **LOGISTIC)
        best = sites.judge_sites(rows, n_boot=50).set_index("features")
        assert best.auc_within["within"] > 0.9 > best.auc["raw"]
        assert (best.auc_low <= best.auc).all()

    def test_one_site_is_refused(self, rated):
        with pytest.raises(ValueError, match="found 1 site"):
            sites.leave_one_site_out(rated[:40], NAMES, **LOGISTIC)


class TestAucWithinSites:
    def test_knowing_the_site_alone_is_worth_nothing_within(self, rated):
        rate = rated.groupby("site").y_true.transform("mean")
        assert sites.auc_within_sites(rated.assign(score=rate)) == 0.5

    def test_it_counts_pairs_of_one_site(self):
        rows = pd.DataFrame(
            {"site": list("aabbb"), "y_true": [0, 1, 0, 1, 1], "score": [0.2, 0.3, 0.9, 0.8, 0.95]}
        )
        assert sites.auc_within_sites(rows) == pytest.approx(2 / 3)

    def test_a_score_that_is_missing_is_refused(self):
        rows = pd.DataFrame({"site": list("aa"), "y_true": [0, 1], "score": [0.1, float("nan")]})
        with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
            sites.auc_within_sites(rows)

    def test_sites_of_one_class_each_are_refused(self):
        rows = pd.DataFrame({"site": ["a", "b"], "y_true": [0, 1], "score": [0.1, 0.9]})
        with pytest.raises(ValueError, match="no site holds both classes"):
            sites.auc_within_sites(rows)


class TestTransfer:
    def test_the_target_s_labels_are_not_used(self, rated):
        source, target = rated[:80], rated[80:].reset_index(drop=True)
        for key, rows in sites.transfer(source, target, NAMES, **LOGISTIC).items():
            blind = sites.transfer(source, target.assign(y_true=0), NAMES, **LOGISTIC)[key]
            assert (blind.score == rows.score).all()

    def test_the_same_share_is_called(self, rng):
        source = pd.DataFrame({"y_true": [0, 0, 0, 1], "score": [0.1, 0.2, 0.3, 0.9]})
        target = pd.DataFrame({"y_true": np.arange(40) % 2, "score": rng.random(40) / 4})
        table = sites.transfer_thresholds(source, target).set_index("threshold")
        assert table.called["one half"] == 0
        assert table.called["same share called"] == pytest.approx(0.25, abs=0.03)
        assert table.value["best on the source"] == pytest.approx(0.6)

    def test_rows_fit_predictions_csv(self, rated):
        source, target = rated[:80], rated[80:].reset_index(drop=True)
        scored = sites.transfer(source, target, NAMES, **LOGISTIC)
        rows = check_predictions(sites.prediction_rows(scored))
        assert set(rows.experiment) == {"ratings/demo/raw_logistic", "ratings/demo/within_logistic"}
        assert rows.groupby("experiment").scan_id.apply(set).map(len).tolist() == [80, 80]
