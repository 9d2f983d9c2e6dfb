"""Counted parameters and operations."""

import pytest

from motionlib.networks import PAPER_SHAPE, cost_table


class TestCostTable:
    def test_conv5fc3_at_the_papers_size(self):
        (row,) = cost_table(["Conv5FC3"], {"paper": PAPER_SHAPE}).to_dict("records")
        assert (row["model"], row["grid"], row["shape"]) == ("Conv5FC3", "paper", "169x208x179")
        assert row["parameters"] == 42_293_972
        assert row["gflop_forward"] == pytest.approx(13.30, rel=0.01)
        assert row["gflop_training"] == pytest.approx(37.2, rel=0.01)
