"""The report opens without a network, reads aloud, and shows what the files hold."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from motionlib import files
from motionlib.files import PACKAGE
from motionlib.study.report import answer, build, formula, in_short, with_formulas
from motionlib.study.run import Run

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNg"
PIXEL += "YGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
STYLE = (PACKAGE / "templates" / "style.css").read_text()
VOID = {"meta", "link", "img", "br", "hr", "input", "col", "source", "wbr"}
LOADING = {"src", "srcset", "poster", "data", "background"}


class Page(HTMLParser):
    """What a page loads, and what a screen reader would find in it."""

    def __init__(self, text: str):
        super().__init__()
        self.loads, self.images, self.headings, self.cells = [], [], [], []
        self.ids, self.links, self.scripts, self.open, self.marks = [], [], 0, [], []
        self.lang = self.title = None
        self.tables = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.marks.append(tag)
        self.open += [] if tag in VOID else [tag]
        self.ids += [found["id"]] if "id" in found else []
        self.loads += [found[name] for name in LOADING & set(found)]
        self.loads += [found["href"]] if tag == "link" else []
        self.links += [found["href"]] if tag == "a" and "href" in found else []
        self.images += [found] if tag == "img" else []
        self.cells += [found] if tag == "th" else []
        self.scripts += tag == "script"
        self.tables += [found] if tag == "table" else []
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "html":
            self.lang = found.get("lang")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self.open and self.open[-1] == "title":
            self.title = data


def executed(folder, stem):
    """Write an executed notebook with a formula, a table, a picture, code and a widget."""
    frame = pd.DataFrame({"a": [1]}).to_html()
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "interactive(...)"}
    outputs = [
        {"output_type": "execute_result", "execution_count": 1, "metadata": {},
         "data": {"text/html": frame, "text/plain": "a"}},
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": PIXEL}},
        {"output_type": "display_data", "metadata": {}, "data": widget},
        {"output_type": "stream", "name": "stdout", "text": "12 scans <ok>\n"},
    ]  # fmt: skip
    title = f"# {int(stem[:2])}. A question\n\nThe measure is $\\frac{{a}}{{b}}$."
    cells = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": title},
        {"cell_type": "code", "id": "b", "metadata": {}, "execution_count": 1, "outputs": outputs,
         "source": 'run.save_figure(figure, "fig_1")  # a comment'},
    ]  # fmt: skip
    solution = {**cells[1], "id": "c", "metadata": {"tags": ["solution"]}, "outputs": []}
    cells.append({**solution, "source": "the_answer = 42"})
    whole = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path = folder / "notebooks" / f"{stem}.ipynb"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(whole))


def board():
    """A scoreboard of four cells: one met, one missed, one not measured, one p-value."""
    return pd.DataFrame(
        {
            "table": ["table_4", "table_4", "table_4", "mcnemar"],
            "row": ["mov01vs2 fine_tuned", "mov01vs2 from_scratch", "mov0vs1 fine_tuned", "a b"],
            "metric": ["balanced_accuracy", "balanced_accuracy", "sensitivity", "p of McNemar"],
            "paper": [0.8452, 0.7376, 0.5, 1e-9],
            "ours": [0.81, 0.82, np.nan, 0.03],
            "low": [0.75, 0.76, np.nan, np.nan],
            "high": [0.87, 0.88, np.nan, np.nan],
            "difference": [-0.0352, 0.0824, np.nan, 0.03],
            "n": [92, 92, np.nan, 92],
            "same_order": [False, False, None, None],
            "cohort": ["virtual", "virtual", None, "virtual"],
            "reason": [None, None, "not run", None],
        }
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A small run with its report."""
    from matplotlib.figure import Figure

    run = Run("02_compare", "demo", 20, tmp_path_factory.mktemp("runs"), quiet=True)
    run.save_table(
        pd.DataFrame(
            {
                "simulator": ["image", "kspace"],
                "balanced_accuracy_paper": [0.9822, 0.97],
                "balanced_accuracy_ours_mean": [0.951, np.nan],
                "balanced_accuracy_ours_sd": [0.02, np.nan],
                "balanced_accuracy_difference": [-0.0312, np.nan],
                "n": [92, 92],
                "cohort": ["virtual", "virtual"],
                "reason": [np.nan, "not run at this profile"],
            }
        ),
        "table_2",
    )
    run.save_table(
        pd.DataFrame(
            {
                "task": ["mov01vs2"],
                "method": ["<b>fine-tuned</b>"],
                "balanced_accuracy_paper": [0.8452],
                "balanced_accuracy_ours": [0.81],
                "balanced_accuracy_sd": [0.02],
                "balanced_accuracy_low": [0.75],
                "balanced_accuracy_high": [0.87],
            }
        ),
        "table_4",
    )
    run.save_table(board(), "scoreboard")
    run.save_table(pd.DataFrame({"step": ["train"], "seconds": [3.0]}), "timing")
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([1, 2])
    run.save_figure(figure, "fig_1", alt='A head & "its" copy')
    facts = {"caption": "Emulated heads, no patients."}
    files.write_json(run.cohort / "cohort.json", facts)
    run.note("severe motion, balanced accuracy", 0.85)
    for stem in ("01_data", "02_compare"):
        executed(run.folder, stem)
    (run.folder / "notebooks" / "03_broken.partial.ipynb").write_text("{}")
    build(run.folder)
    return run.folder / "report"


@pytest.fixture(params=["index.html", "01_data.html", "02_compare.html"])
def page(report, request):
    """Each page in turn."""
    return Page((report / request.param).read_text())


class TestEveryPage:
    def test_it_loads_nothing_from_a_network(self, page):
        assert [one[:60] for one in page.loads if not one.startswith("data:")] == []
        assert page.scripts == 0
        assert re.search(r"url\(|@import|http", STYLE) is None

    def test_it_names_its_language_and_title(self, page):
        assert page.lang == "en-GB"
        assert page.title

    def test_every_picture_has_a_text(self, page):
        assert page.images
        assert [image for image in page.images if not image.get("alt", "").strip()] == []

    def test_headings_start_at_one_and_skip_no_level(self, page):
        assert page.headings.count(1) == 1
        assert page.headings[0] == 1
        steps = [b - a for a, b in zip(page.headings, page.headings[1:], strict=False)]
        assert max(steps, default=0) <= 1

    def test_every_header_cell_says_what_it_heads(self, page):
        known = {"col", "row", "colgroup"}
        assert page.cells
        assert [cell for cell in page.cells if cell.get("scope") not in known] == []

    def test_it_has_one_main_part_and_a_way_to_skip_to_it(self, page):
        assert page.marks.count("main") == 1
        assert page.links[0] == "#main"
        assert "main" in page.ids

    def test_its_elements_close_and_its_ids_are_its_own(self, page):
        assert page.open == []
        assert len(set(page.ids)) == len(page.ids)

    def test_its_links_lead_somewhere(self, page, report):
        inside = [link[1:] for link in page.links if link.startswith("#")]
        assert set(inside) <= set(page.ids)
        files = [link for link in page.links if not link.startswith("#")]
        assert files
        assert [link for link in files if not (report / link).is_file()] == []


class TestAnswer:
    def test_methods_are_named_in_words_and_halves_are_left_out(self):
        rows = {"task": ["mov01vs2"] * 2, "method": ["fine_tuned", "fine_tuned_kspace"]}
        found = answer(pd.DataFrame(rows | {"auc_ours": [0.8, 0.7], "specificity_ours": 0.5}))
        assert found["method"].tolist() == [
            "network, fine-tuned",
            "k-space pre-training, fine-tuned",
        ]
        assert list(found) == ["task", "method", "auc_ours"]


class TestIndex:
    @pytest.fixture
    def text(self, report):
        return (report / "index.html").read_text()

    def test_results_come_before_everything_else(self, text):
        order = ("&lt;b&gt;fine-tuned", "<dd>85.0 %", "in one line", "01_data.html", "Table II.")
        order += ("Fig. 1", "Computer")
        places = [text.index(part) for part in order]
        assert places == sorted(places)

    def test_the_scoreboard_is_the_first_section_and_provenance_the_last(self, text):
        titles = re.findall(r"<h2 id=.(\w+)", text)
        assert titles[:2] == ["scoreboard", "notebooks"]
        assert titles[-1] == "provenance"

    def test_every_printed_number_stands_beside_ours_with_its_interval(self, text):
        assert "81.0 [75.0, 87.0]" in text
        assert "not run" in text
        assert "&lt; 0.001" in text

    def test_every_table_is_captioned(self, text):
        page = Page(text)
        assert len(page.tables) >= 3
        plain = [table for table in page.tables if "aria-labelledby" not in table]
        assert len(plain) == page.marks.count("caption") == 1
        labels = {table["aria-labelledby"] for table in page.tables if table not in plain}
        assert labels <= set(page.ids)

    def test_the_cohort_is_told_in_the_head(self, text):
        assert "Emulated heads, no patients." in text.partition("</header>")[0]

    def test_what_the_files_hold_is_shown_as_text(self, text):
        assert "&lt;b&gt;fine-tuned&lt;/b&gt;" in text
        assert "A head &amp; &#34;its&#34; copy" in text

    def test_a_notebook_that_did_not_finish_is_left_out(self, text):
        assert "03_broken" not in text

    def test_it_is_the_same_when_built_again(self, report, text):
        build(report.parent)
        assert (report / "index.html").read_text() == text

    def test_it_can_be_printed(self):
        assert "@media print" in STYLE

    def test_text_stands_out_from_its_ground(self):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", STYLE))
        for ink in ("ink", "soft", "accent"):
            for ground in ("ground", "wash", "ours"):
                assert contrast(colours[ink], colours[ground]) >= 4.5
        shades = re.findall(r"\.highlight [^{]+\{ color: (#[0-9a-f]{6})", STYLE)
        assert shades
        for colour in shades:
            assert contrast(colour, colours["wash"]) >= 4.5


class TestPages:
    def test_code_outputs_and_formula_are_there(self, report):
        text = (report / "02_compare.html").read_text()
        assert "12 scans &lt;ok&gt;" in text
        assert 'alt="\\frac{a}{b}"' in text
        assert "interactive(" in text  # a widget needs JupyterLab
        assert 'A head & "its" copy' in [image["alt"] for image in Page(text).images]

    def test_a_solution_is_folded_away(self, report):
        text = (report / "02_compare.html").read_text()
        folded = text.partition("<details")[2].partition("</details>")[0]
        assert "the_answer" in folded
        assert text.count("the_answer") == 1

    def test_dollars_in_code_are_no_formulas(self):
        assert with_formulas("cost `$x$` and\n```\n$y$\n```") == "cost `$x$` and\n```\n$y$\n```"

    def test_prices_are_no_formulas(self):
        assert with_formulas("from $5 to $10") == "from $5 to $10"

    def test_what_cannot_be_drawn_stays_text(self):
        assert formula(r"\nosuchthing{x}") == r"<code>\nosuchthing{x}</code>"


class TestScoreboard:
    def test_a_table_s_line_counts_what_was_measured_met_and_ranked(self):
        line = in_short(board()).iloc[0].tolist()
        assert line == ["Table IV", 3, 2, "1 of 2", "0 of 2"]

    def test_a_table_without_intervals_claims_none(self):
        line = in_short(board()).iloc[1].tolist()
        assert line[:3] == ["McNemar's tests", 1, 1]
        assert pd.isna(line[3:]).all()


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours by WCAG 2."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
