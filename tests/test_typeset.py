"""What a notebook shows of a table."""

import re
from fractions import Fraction
from html import unescape

import numpy as np
import pandas as pd
import pytest

from motionlib.typeset import LONGEST, render, show_tables_readably, table_html, to_notebook


def compared() -> pd.DataFrame:
    """Two methods beside the paper, as `tables.build_table` makes them."""
    table = pd.DataFrame({"method": ["fine_tuned", "forest"], "cohort": "virtual-warehouse"})
    for part, values in {
        "paper": (0.845, np.nan), "ours": (0.6875, 0.5), "difference": (-0.1575, np.nan),
        "low": (0.5655, 0.4), "high": (0.776, 0.6), "mean": (0.6875, 0.5), "sd": (0.02, 0.01),
    }.items():  # fmt: skip
        table[f"balanced_accuracy_{part}"] = values
    return table.assign(reason=["", ""])


def shown(table: pd.DataFrame) -> list[list[str]]:
    """Cells of the body, row by row, as a browser finds them."""
    body = to_notebook(table).split("<tbody>")[1]
    rows = re.findall("<tr>(.*?)</tr>", body, flags=re.DOTALL)
    return [[unescape(cell) for cell in re.findall("<t[dh][^>]*>(.*?)</t[dh]>", r)] for r in rows]


class TestComparison:
    def test_it_is_shortened_to_paper_ours_and_difference(self):
        assert shown(compared()) == [
            ["fine_tuned", "84.5", "68.8 [56.5, 77.6]", "-15.8"],
            ["forest", "", "50.0 [40.0, 60.0]", ""],
        ]

    def test_the_one_cohort_is_the_caption_and_several_are_a_column(self):
        assert "<caption>Cohort: virtual-warehouse</caption>" in to_notebook(compared())
        several = compared().assign(cohort=["a", "b"])
        assert "caption>" not in to_notebook(several)
        assert [row[-1] for row in shown(several)] == ["a", "b"]

    def test_a_reason_is_kept_where_there_is_one(self):
        table = compared().assign(reason=["", "too few scans"])
        assert [row[-1] for row in shown(table)] == ["", "too few scans"]

    def test_an_index_with_a_meaning_is_shown(self):
        assert [row[0] for row in shown(compared().set_index("method"))] == ["fine_tuned", "forest"]

    def test_the_table_stays_as_it_was(self):
        table = compared()
        to_notebook(table)
        pd.testing.assert_frame_equal(table, compared())


class TestPlainTable:
    def test_numbers_have_three_decimals_and_blanks_are_blank(self):
        table = pd.DataFrame(
            {"n": [3, 4], "rate": [0.123456, np.nan], "p": [2e-7, 1.0], "kept": [True, False]}
        )
        assert shown(table) == [["3", "0.123", "2.0e-07", "yes"], ["4", "", "1", "no"]]

    def test_a_long_text_is_whole_and_marks_are_text(self):
        reason = "Found 8 graded scans in the smaller class, expected at least 9: " + "x" * 80
        assert shown(pd.DataFrame({"n": [1], "reason": [reason]})) == [["1", reason]]
        assert "<script>" not in to_notebook(pd.DataFrame({"<script>": ["<script>"]}))

    def test_values_that_are_no_numbers_are_written_out(self):
        table = pd.DataFrame({"a": [[1, 2], np.inf, None, pd.Timestamp("2020-01-02")]})
        assert shown(table) == [["[1, 2]"], ["inf"], [""], ["2020-01-02 00:00:00"]]

    def test_an_index_with_a_meaning_is_shown(self):
        table = pd.DataFrame({"loss": [0.25]}, index=pd.Index(["fc1+"], name="depth"))
        assert shown(table) == [["fc1+", "0.250"]]
        assert "depth" in to_notebook(table)

    def test_labels_of_rows_and_the_caption_are_text_too(self):
        table = pd.DataFrame({"cohort": ["<i>"]}, index=pd.Index(["<b>"], name="<u>"))
        made = to_notebook(table.assign(n=1))
        assert not any(mark in made for mark in ("<i>", "<b>", "<u>"))
        assert all(f"&lt;{mark}&gt;" in made for mark in "ibu")

    def test_a_cohort_that_nobody_named_stays_a_column(self):
        assert shown(pd.DataFrame({"cohort": [None, None], "n": 1})) == [["", "1"]] * 2

    def test_two_tables_of_a_page_have_two_styles(self):
        first, second = (to_notebook(pd.DataFrame({"a": [n]})) for n in (1, 2))
        assert first.split('id="')[1].split('"')[0] != second.split('id="')[1].split('"')[0]

    @pytest.mark.parametrize(
        "table",
        [
            pd.DataFrame({"a": range(LONGEST + 1)}),
            pd.DataFrame({"a": []}),
            pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([("x", "y")])),
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            pd.DataFrame({"a": ["x" * 80, "y"]}, index=[0, 0]),
            pd.DataFrame([["x" * 80] * (LONGEST + 1)]),
            pd.DataFrame({"a_b_ours": [1], "a_b_paper": [1], "a b_ours": [1], "a b_paper": [1]}),
        ],
    )
    def test_what_it_cannot_show_is_left_to_pandas_with_whole_texts(self, table):
        with pd.option_context("display.max_colwidth", None):
            assert to_notebook(table) == table._repr_html_()

    @pytest.mark.parametrize("value", [2**70, Fraction(1, 3), np.float32(0.5), pd.NA, pd.NaT])
    def test_odd_numbers_do_no_harm(self, value):
        assert len(shown(pd.DataFrame({"a": pd.Series([value], dtype=object), 3: [1]}))) == 1


class TestInANotebook:
    def test_outside_one_nothing_happens(self):
        assert not show_tables_readably()

    def test_inside_one_frames_are_shown_so(self, monkeypatch):
        import IPython
        from IPython.core.interactiveshell import InteractiveShell

        shell = InteractiveShell()
        monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
        assert show_tables_readably()
        table = compared()
        data, _ = shell.display_formatter.format(table)
        assert data["text/html"] == to_notebook(table)
        assert data["text/plain"] == repr(table)


class TestTemplates:
    def test_values_are_escaped_and_what_was_rendered_is_not(self):
        table = table_html(pd.DataFrame({"a": ["<i>"]}), "A <b> caption.")
        sections = [("one", "<u>", table), ("two", "B", "<s>")]
        made = render("page.html", title="<em>", sections=sections, footer="")
        assert not any(f"<{mark}>" in made for mark in ("i", "b", "u", "s", "em"))
        assert "<td>" not in made
        assert made.count("<table>") == 1
