"""Counted parameters and operations."""

import pytest

from motionlib import costs


class TestCount:
    def test_conv5fc3_at_the_papers_size(self):
        found = costs.count("Conv5FC3", (169, 208, 179))
        assert found["parameters"] == 42_293_972
        assert found["gflop_forward"] == pytest.approx(13.30, rel=0.01)
        assert found["gflop_training"] == pytest.approx(37.2, rel=0.01)


class TestPlan:
    def test_total_is_the_sum_and_says_that_nothing_was_measured(self):
        plan = costs.plan(["Conv5FC3"], epochs=10)
        assert plan.hours_on_one.iloc[-1] == pytest.approx(plan.hours_on_one.iloc[0])
        assert not plan.measured.any()
        assert plan.hours_on_eight.iloc[0] == pytest.approx(plan.hours_on_one.iloc[0] / 8)
