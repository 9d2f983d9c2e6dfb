"""A new site without grades: its share of motion, and its threshold."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.special import logit as log_odds
from scipy.stats import norm

from motionlib.stats.prior_shift import estimate_prior, match_quantiles

APART, SOURCE = 2.5, 0.3


def site(rng, n, prior, *, shift=0.0, stretch=1.0):
    """Labels and source posteriors of two normals, at a site that may move all log-odds."""
    y_true = (rng.random(n) < prior).astype(int)
    x = rng.normal(size=n) + APART * (y_true - 0.5)
    return y_true, expit((APART * x + log_odds(SOURCE) - shift) / stretch)


class TestEstimatePrior:
    @pytest.mark.parametrize("prior", [0.05, 0.3, 0.7])
    def test_a_known_share_is_recovered(self, prior, rng):
        _, score = site(rng, 20_000, prior)
        assert estimate_prior(score, SOURCE).target == pytest.approx(prior, abs=0.02)

    def test_it_is_the_share_of_highest_likelihood(self, rng):
        _, score = site(rng, 300, 0.15)
        shares = np.linspace(0.001, 0.999, 999)
        ratio = score / SOURCE - (1 - score) / (1 - SOURCE)
        base = (1 - score) / (1 - SOURCE)
        fit = np.log(base + shares[:, None] * ratio).sum(axis=1)
        found = estimate_prior(score, SOURCE).target
        assert found == pytest.approx(shares[fit.argmax()], abs=0.0015)

    def test_adjusted_scores_are_the_posteriors_of_the_site(self, rng):
        y_true, score = site(rng, 20_000, 0.1)
        found = estimate_prior(score, SOURCE)
        truth = expit(log_odds(score) - log_odds(SOURCE) + log_odds(0.1))
        assert np.abs(found.adjust(score) - truth).max() < 0.02
        assert found.adjust(score).mean() == pytest.approx(y_true.mean(), abs=0.01)

    def test_threshold_on_the_score_is_one_half_after_adjustment(self, rng):
        _, score = site(rng, 2000, 0.1)
        found = estimate_prior(score, SOURCE)
        assert found.adjust([found.threshold()])[0] == pytest.approx(0.5)
        assert found.threshold() > 0.6  # rarer motion needs a surer score

    def test_the_same_site_is_left_alone(self, rng):
        _, score = site(rng, 20_000, SOURCE)
        assert abs(estimate_prior(score, SOURCE).bias) < 0.05

    def test_a_scanner_that_shifts_all_scores_deceives_it(self, rng):
        _, score = site(rng, 5000, 0.1, shift=-1.5)
        assert estimate_prior(score, SOURCE).target > 0.2


class TestMatchQuantiles:
    @pytest.mark.parametrize("shift", [-2.0, 1.0])
    def test_a_known_shift_is_undone(self, shift, rng):
        y_source, at_home = site(rng, 4000, SOURCE)
        _, score = site(rng, 4000, 0.15, shift=shift)
        found = match_quantiles(score, at_home[y_source == 0], 0.85)
        assert found.bias == pytest.approx(shift, abs=0.25)
        assert found.slope == 1

    def test_specificity_of_the_threshold_is_that_of_the_source(self, rng):
        y_source, at_home = site(rng, 4000, SOURCE)
        y_true, score = site(rng, 4000, 0.15, shift=-2)
        cut = match_quantiles(score, at_home[y_source == 0], 0.85).threshold(0.5)
        wanted = (at_home[y_source == 0] < 0.5).mean()
        assert (score[y_true == 0] < cut).mean() == pytest.approx(wanted, abs=0.03)
        assert (score[y_true == 0] < 0.5).mean() < wanted - 0.1

    def test_stretch_is_undone_too(self, rng):
        y_source, at_home = site(rng, 8000, SOURCE)
        _, score = site(rng, 8000, 0.1, shift=-1, stretch=2)
        found = match_quantiles(score, at_home[y_source == 0], 0.9, stretch=True)
        assert found.slope == pytest.approx(2, rel=0.1)
        assert found.adjust([found.threshold(0.4)])[0] == pytest.approx(0.4)

    def test_a_wrong_share_is_read_as_a_shift(self, rng):
        y_source, at_home = site(rng, 4000, SOURCE)
        _, score = site(rng, 4000, 0.6)
        wrong = match_quantiles(score, at_home[y_source == 0], 1.0).bias
        assert wrong < -0.3 < -abs(match_quantiles(score, at_home[y_source == 0], 0.4).bias) + 0.3

    def test_still_scans_alone_give_the_shift_of_their_medians(self, rng):
        still = expit(rng.normal(size=500))
        found = match_quantiles(expit(log_odds(still) + 0.7), still, 1.0)
        assert found.bias == pytest.approx(-0.7, abs=1e-6)
        assert found.threshold(norm.cdf(0)) == pytest.approx(expit(0.7), abs=1e-6)


class TestRefusals:
    @pytest.mark.parametrize(
        ("score", "said"),
        [
            ([0.2] * 5, "Found 5 scans of the new site, expected at least 20"),
            ([0.2] * 30, "same score, 0.2, for all 30 scans"),
            ([0.2] * 29 + [1.2], r"outside \[0, 1\] in the new site \(position 29, value 1.2\)"),
        ],
    )
    def test_scores_that_tell_nothing_are_refused(self, score, said):
        with pytest.raises(ValueError, match=said):
            estimate_prior(score, 0.3)
        with pytest.raises(ValueError, match=said):
            match_quantiles(score, np.linspace(0, 1, 30), 0.7)

    def test_impossible_shares_are_refused(self):
        score = np.linspace(0.1, 0.9, 30)
        with pytest.raises(ValueError, match="source share of 1"):
            estimate_prior(score, 1.0)
        with pytest.raises(ValueError, match="share of 0 still"):
            match_quantiles(score, score, 0.0)

    def test_few_still_scans_at_the_source_are_named(self):
        with pytest.raises(ValueError, match="source's still scans"):
            match_quantiles(np.linspace(0.1, 0.9, 30), [0.1, 0.2], 0.7)
