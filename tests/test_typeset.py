"""How tables look: in a notebook, on a page, in LaTeX; and how templates are filled."""

import re
from fractions import Fraction
from html import unescape

import numpy as np
import pandas as pd
import pytest

from motionlib.files import repository
from motionlib.typeset import (
    LONGEST,
    MISSING,
    gather,
    number,
    render,
    show_tables_readably,
    table_html,
    to_latex,
    to_notebook,
)

PUBLISHED = sorted((repository() / "results").glob("*/tables/*.csv"))


def compared() -> pd.DataFrame:
    """Two methods beside the paper, as `tables.build_table` makes them."""
    table = pd.DataFrame({"method": ["fine_tuned", "forest"], "cohort": "virtual-warehouse"})
    for part, values in {
        "paper": (0.845, np.nan), "ours": (0.6875, 0.5), "difference": (-0.1575, np.nan),
        "low": (0.5655, 0.4), "high": (0.776, 0.6), "mean": (0.6875, 0.5), "sd": (0.02, 0.01),
    }.items():  # fmt: skip
        table[f"balanced_accuracy_{part}"] = values
    return table.assign(reason=np.nan)


def shown(table: pd.DataFrame) -> list[list[str]]:
    """Cells of the body, row by row, as a browser finds them."""
    body = to_notebook(table).split("<tbody", 1)[1]
    rows = re.findall("<tr>(.*?)</tr>", body, flags=re.DOTALL)
    return [[unescape(cell) for cell in re.findall("<t[dh][^>]*>(.*?)</t[dh]>", r)] for r in rows]


class TestComparison:
    def test_it_is_shortened_to_paper_ours_and_difference(self):
        assert shown(compared()) == [
            ["network, fine-tuned", "84.5", "68.8 [56.5, 77.6]", "\u221215.8"],
            ["forest", MISSING, "50.0 [40.0, 60.0]", MISSING],
        ]

    def test_the_one_cohort_is_a_note_and_several_are_a_column(self):
        made = to_notebook(compared())
        assert made.count("virtual-warehouse") == made.count("Cohort: virtual-warehouse.") == 1
        several = compared().assign(cohort=["a", "b"])
        assert "Cohort:" not in to_notebook(several)
        assert [row[1] for row in shown(several)] == ["a", "b"]

    def test_a_reason_is_kept_where_there_is_one(self):
        table = compared().assign(reason=[None, "too few scans"])
        assert [row[-1] for row in shown(table)] == [MISSING, "too few scans"]

    def test_an_index_with_a_meaning_is_shown(self):
        rows = shown(compared().set_index("method"))
        assert [row[0] for row in rows] == ["network, fine-tuned", "forest"]

    def test_rows_of_two_tasks_stand_under_a_heading_each(self):
        table = pd.concat([compared().assign(task=task) for task in ("mov01vs2", "mov0vs1")])
        made = to_notebook(table.reset_index(drop=True))
        assert made.count("severe motion against the rest") == 1
        assert made.count("mild motion against none") == 1
        assert made.index("severe motion") < made.index("mild motion")

    def test_what_is_compared_comes_first_and_all_columns_are_folded(self):
        halves = {f"{half}_{part}": 0.5 for half in ("specificity", "sensitivity")
                  for part in ("paper", "ours")}  # fmt: skip
        first, _, folded = to_notebook(compared().assign(**halves)).partition("<details>")
        assert "balanced accuracy (%)" in first
        assert "specificity (%)" not in first
        assert all(f"{name} (%)" in folded for name in ("balanced accuracy", *("specificity",)))

    def test_the_table_stays_as_it_was(self):
        table = compared()
        to_notebook(table)
        pd.testing.assert_frame_equal(table, compared())


class TestPlainTable:
    def test_numbers_have_four_digits_and_blanks_are_marked(self):
        table = pd.DataFrame(
            {"n": [3, 4], "rate": [0.123456, np.nan], "p": [2e-7, 1.0], "kept": [True, False]}
        )
        assert shown(table) == [["3", "0.1235", "2e-07", "yes"], ["4", MISSING, "1", "no"]]

    def test_keys_stay_as_code_knows_them(self):
        table = pd.DataFrame({"task": ["mov01vs2"], "method": ["fine_tuned"], "auc": [0.5]})
        assert shown(table) == [["mov01vs2", "fine_tuned", "0.5"]]

    def test_a_long_text_is_whole_and_marks_are_text(self):
        reason = "Found 8 graded scans in the smaller class, expected at least 9: " + "x" * 80
        assert shown(pd.DataFrame({"n": [1], "reason": [reason]})) == [["1", reason]]
        assert "<script>" not in to_notebook(pd.DataFrame({"<script>": ["<script>"]}))

    def test_values_that_are_no_numbers_are_written_out(self):
        table = pd.DataFrame({"a": [[1, 2], np.inf, None, pd.Timestamp("2020-01-02")]})
        assert shown(table) == [["[1, 2]"], ["inf"], [MISSING], ["2020-01-02 00:00:00"]]

    def test_an_index_with_a_meaning_is_shown(self):
        table = pd.DataFrame({"loss": [0.25]}, index=pd.Index(["fc1+"], name="depth"))
        assert shown(table) == [["fc1+", "0.25"]]
        assert "depth" in to_notebook(table)

    def test_labels_of_rows_are_text_too(self):
        table = pd.DataFrame({"<i>": [1]}, index=pd.Index(["<b>"], name="<u>"))
        made = to_notebook(table)
        assert not any(mark in made for mark in ("<i>", "<b>", "<u>"))
        assert all(f"&lt;{mark}&gt;" in made for mark in "ibu")

    def test_its_columns_keep_their_names(self):
        table = pd.DataFrame({"cohort": [None, None], "n_folds": 1, "auc_low": 0.5})
        assert shown(table) == [[MISSING, "1", "0.5"]] * 2
        assert all(f">{name}</th>" in to_notebook(table) for name in table)

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
        ],
    )
    def test_what_it_cannot_show_is_left_to_pandas_with_whole_texts(self, table):
        with pd.option_context("display.max_colwidth", None):
            assert to_notebook(table) == table._repr_html_()

    @pytest.mark.parametrize("value", [2**70, Fraction(1, 3), np.float32(0.5), pd.NA, pd.NaT])
    def test_odd_numbers_do_no_harm(self, value):
        assert len(shown(pd.DataFrame({"a": pd.Series([value], dtype=object), 3: [1]}))) == 1


class TestOnAPage:
    def test_measures_are_gathered_under_paper_ours_and_difference(self):
        columns = ["method", "auc_paper", "auc_ours_mean", "auc_ours_low", "auc_ours_high",
                   "auc_difference", "n"]  # fmt: skip
        found = [(column.measure, column.source, set(column.parts)) for column in gather(columns)]
        assert found == [
            ("method", None, {""}),
            ("auc", "paper", {""}),
            ("auc", "ours", {"mean", "low", "high"}),
            ("auc", "difference", {""}),
            ("n", None, {""}),
        ]

    def test_statistics_without_a_source_are_ours_and_spread_is_shown_beside_the_paper_s(self):
        names = ["ours", "difference", "mean", "sd", "low", "high"]
        columns = ["m", "auc_paper", *[f"auc_{name}" for name in names]]
        assert [column.source for column in gather(columns)] == [
            None,
            "paper",
            "ours",
            "difference",
        ]
        assert set(gather(columns)[2].parts) == {"", "mean", "low", "high"}
        assert "sd" in gather([*columns, "auc_sd_paper"])[2].parts

    def test_a_row_that_names_its_metric_is_written_in_its_unit(self):
        table = pd.DataFrame(
            {"row": ["x", "y"], "metric": ["n", "sensitivity"], "ours": [640.0, 0.9]}
        )
        html = table_html(table, "A table.")
        assert all(f">{text}<" in html for text in ("640", "90.0", "sensitivity (%)"))

    def test_limits_without_a_name_are_those_of_the_column_before_them(self):
        table = pd.DataFrame({"m": ["x"], "called_motion": [0.25], "low": [0.1], "high": [0.5]})
        html = table_html(table.assign(n=32), "A table.")
        assert "25.0 [10.0, 50.0]" in html
        assert "called motion (%)" in html
        assert ">high<" not in html
        assert [c.measure for c in gather(["low", "high", "n"])] == ["low", "high", "n"]

    @pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parts[-3]} {path.stem}")
    def test_no_published_table_has_limits_in_columns_of_their_own(self, path):
        columns = gather(list(pd.read_csv(path, nrows=0)))
        assert [c.heading for c in columns if c.heading.split()[-1] in ("low", "high")] == []

    def test_a_mean_carries_its_interval(self):
        table = pd.DataFrame({"m": ["x"], "auc_ours_mean": [0.9], "auc_ours_low": [0.8],
                              "auc_ours_high": [0.95]})  # fmt: skip
        assert "0.90 [0.80, 0.95]" in table_html(table, "A table.")

    def test_an_empty_cell_is_marked_and_never_zero(self):
        html = table_html(pd.DataFrame({"m": ["x", "y"], "auc_ours": [0.9, np.nan]}), "A table.")
        assert html.count(f">{MISSING}<") == 1

    def test_a_column_that_never_changes_moves_below(self):
        table = pd.DataFrame({"m": ["x", "y"], "cohort": ["virtual", "virtual"]})
        html = table_html(table, "A table.")
        assert "Cohort: virtual." in html
        assert html.count("virtual.") == html.count("virtual") == 1

    @pytest.mark.parametrize(
        ("value", "measure", "said"),
        [(0.8452, "balanced_accuracy", "84.5"), (0.0002, "p_value", "< 0.001"), (92, "n", "92"),
         (5500.0, "n", "5,500"), (1.5, "spacing_mm", "1.5"), (True, "holds", "yes"),
         (84.52, "balanced_accuracy", "84.52"), ("mov0vs1", "task", "mild motion against none")],
    )  # fmt: skip
    def test_numbers_are_written_for_reading(self, value, measure, said):
        assert number(value, measure) == said

    def test_a_difference_carries_its_sign(self):
        assert number(0.031, "sensitivity", signed=True) == "+3.1"
        assert number(-0.031, "auc", signed=True) == "\u22120.03"

    def test_how_far_two_p_lie_apart_is_not_told(self):
        table = pd.DataFrame({"metric": ["p of McNemar"], "paper": [1e-9], "ours": [0.03]})
        html = table_html(table.assign(difference=0.03), "A table.")
        assert "&lt; 0.001" in html
        assert html.count("0.03") == 1

    def test_each_cell_knows_its_headings(self):
        html = table_html(compared(), "A table.", number="Table IV")
        assert html.count('scope="colgroup"') == 1
        assert html.count('scope="row"') == 2
        assert "balanced accuracy (%)" in html
        assert "<b>Table IV.</b> A table." in html


class TestLatex:
    def test_headings_span_and_signs_are_latex_s(self):
        text = to_latex(compared(), caption="100 % & more", label="tab:x")
        assert r"\caption{100 \% \& more}\label{tab:x}" in text
        assert r"\multicolumn{3}{c}{balanced accuracy (\%)}" in text
        assert r"network, fine-tuned & 84.5 & 68.8 [56.5, 77.6] & $-$15.8 \\" in text


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
        assert made.count("<table ") == made.count("</table>") == 1
