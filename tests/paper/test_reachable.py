"""What a printed number allows, against the ranges worked out by hand from the paper."""

from __future__ import annotations

import numpy as np
import pytest
from printed_numbers import smallest_denominator, smallest_p_nearby

from motionlib.paper.reachable import (
    counts_that_print,
    exchange_fits,
    largest_sd,
    mcnemar_range,
    mcnemar_reach,
    set_sizes,
    smallest_sd,
)
from motionlib.stats.paired import mcnemar_counts


@pytest.fixture(scope="module")
def reach():
    return mcnemar_reach().set_index(["task", "reading"])


class TestCountsThatPrint:
    @pytest.mark.parametrize(
        ("percent", "n", "expected"),
        [
            (33.33, 57, {19: "RT"}),
            (33.33, 328, {}),
            (87.19, 328, {286: "T"}),
            (14.40, 118, {17: "T"}),
            (26.32, 57, {15: "R"}),
            (52.00, 1050, {546: "RT"}),
            (100.0, 90, {90: "RT"}),
            (0.0, 90, {0: "RT"}),
        ],
    )
    def test_known_cases(self, percent, n, expected):
        assert counts_that_print(percent, n) == expected

    @pytest.mark.parametrize("n", [57, 118, 210, 328])
    def test_every_count_prints_as_itself(self, n):
        for k in range(n + 1):
            assert k in counts_that_print(round(100 * k / n + 1e-9, 2), n)

    def test_smallest_denominators(self):
        values = {
            98.33: (59, 60),
            98.61: (71, 72),
            98.41: (62, 63),
            95.16: (59, 62),
            96.77: (30, 31),
        }
        assert {value: smallest_denominator(value) for value in values} == values


class TestSpreadLimits:
    def test_largest_sd_of_five_values_at_a_mean(self):
        values = np.array([100, 100, 100, 100, 91.65])
        assert largest_sd(values.mean()) == pytest.approx(values.std(ddof=1), abs=1e-9)
        assert largest_sd(98.33) == pytest.approx(3.73, abs=0.005)

    def test_smallest_sd_on_a_lattice(self):
        assert smallest_sd(1.0) == pytest.approx(np.std([0, 0, 0, 0, 1], ddof=1), abs=1e-12)

    def test_a_mean_far_from_the_top_is_refused(self):
        with pytest.raises(ValueError, match="mean 50"):
            largest_sd(50)


class TestMcnemarRange:
    def test_enumeration_equals_brute_force(self):
        margins = [(5, 3, 6), (2, 4, 4)]
        ps = []
        for both_first in range(6):
            for both_second in range(5):
                cells = []
                for (a, b, n), both in zip(margins, (both_first, both_second), strict=True):
                    cells.append((both, a - both, b - both, n - a - b + both))
                if min(map(min, cells)) >= 0:
                    ps.append(mcnemar_counts(*(sum(c[i] for c in cells) for i in (1, 2))))
        found = mcnemar_range(margins)
        assert found.p_low == pytest.approx(min(p[0] for p in ps), abs=1e-12)
        assert found.p_high == pytest.approx(max(p[0] for p in ps), abs=1e-12)
        assert found.chi2_p_low == pytest.approx(min(p[2] for p in ps), abs=1e-12)
        assert found.chi2_p_high == pytest.approx(max(p[2] for p in ps), abs=1e-12)

    def test_impossible_counts_are_refused(self):
        with pytest.raises(ValueError, match="7 and 3 right of 6"):
            mcnemar_range([(7, 3, 6)])

    @pytest.mark.parametrize(
        ("task", "reading", "correct", "difference", "discordant", "p_low", "p_high", "possible"),
        [
            ("mov01vs2", "as labelled", (328, 219), 109, (125, 223), 5.9e-26, 1.5e-13, True),
            ("mov0vs1", "as labelled", (195, 166), 29, (67, 215), 5.2e-4, 0.056, False),
            (
                *("mov01vs2", "as labelled, five models pooled", (1638, 1092), 546),
                *((628, 1120), 7.9e-125, 3.8e-62, False),
            ),
            (
                *("mov0vs1", "as labelled, five models pooled", (978, 828), 150),
                *((336, 1072), 1.3e-16, 5.2e-6, True),
            ),
            (
                *("mov01vs2", "as labelled, negatives only", (280, 163), 117),
                *((117, 213), 1.2e-35, 3.2e-16, True),
            ),
            (
                *("mov0vs1", "as labelled, negatives only", (109, 61), 48),
                *((48, 170), 7.1e-15, 2.9e-4, True),
            ),
            (
                "mov01vs2",
                "from scratch exchanged",
                (328, 349),
                -21,
                (61, 93),
                9.9e-3,
                3.8e-2,
                False,
            ),
            ("mov01vs2", "both exchanged", (323, 349), -26, (68, 98), 2.2e-3, 1.1e-2, False),
            ("mov0vs1", "from scratch exchanged", (195, 221), -26, (130, 240), 2.8e-2, 0.11, False),
            ("mov0vs1", "both exchanged", (215, 221), -6, (60, 174), 0.52, 0.70, False),
        ],
    )
    def test_ranges_of_the_paper(
        self, reach, task, reading, correct, difference, discordant, p_low, p_high, possible
    ):
        row = reach.loc[(task, reading)]
        assert (row["correct_a"], row["correct_b"]) == correct
        assert row["difference"] == difference
        assert (row["discordant_low"], row["discordant_high"]) == discordant
        assert row["p_low"] == pytest.approx(p_low, rel=0.05)
        assert row["p_high"] == pytest.approx(p_high, rel=0.05)
        assert bool(row["possible"]) is possible

    def test_calls_without_labels_reach_the_severe_p_by_the_corrected_form_only(self, reach):
        row = reach.loc[("mov01vs2", "as labelled, calls without labels")]
        assert row["p_high"] == pytest.approx(1.3e-17, rel=0.05)
        assert row["forms"] == "corrected"

    def test_no_counts_nearby_reach_the_mild_p(self):
        nearest = smallest_p_nearby("mov0vs1")
        assert nearest == pytest.approx(6.2e-6, rel=0.01)
        assert nearest > 100 * 1.39e-8


class TestExchange:
    @pytest.mark.parametrize(
        ("task", "method", "rate", "column", "text"),
        [
            ("mov01vs2", "research_only", "specificity", "exchanged", "19/57 (RT)"),
            ("mov01vs2", "research_only", "sensitivity", "exchanged", "286/328 (T)"),
            ("mov0vs1", "from_scratch", "specificity", "exchanged", "34/118 (RT)"),
            ("mov0vs1", "from_scratch", "sensitivity", "exchanged", "187/210 (R)"),
            ("mov01vs2", "forest_clinical", "specificity", "labelled", "320/328 (RT)"),
            ("mov01vs2", "fine_tuned", "specificity", "labelled", "280/328 (R)"),
            ("mov01vs2", "from_scratch", "sensitivity", "pooled_exchanged", "1606/1640 (R)"),
            ("mov0vs1", "fine_tuned", "specificity", "pooled", "546/1050 (RT)"),
            ("mov0vs1", "research_only", "specificity", "pooled_exchanged", "106/590 (T)"),
        ],
    )
    def test_integer_fits(self, task, method, rate, column, text):
        table = exchange_fits().set_index(["task", "method", "rate"])
        assert table.loc[(task, method, rate), column] == text

    def test_every_forest_rate_fits_as_labelled(self):
        table = exchange_fits()
        forest = table[table["method"].str.startswith("forest")]
        assert len(forest) == 8
        assert (forest["labelled"] != "").all()

    def test_sizes_come_from_table_a2(self):
        assert set_sizes() == {"mov01vs2": (328, 57), "mov0vs1": (210, 118)}
