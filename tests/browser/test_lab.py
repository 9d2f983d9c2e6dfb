"""A reader in JupyterLab: runs the start, moves a slider, trains networks, rates two scans."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import pytest

from motionlib.study.notebooks import read_study

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
PATIENCE_MS = 300_000  # a busy computer needs minutes for what takes seconds else
SCAN = 'img[alt^="Three planes of a scan"]'
CHANGED = "([path, src]) => ![undefined, src].includes(document.querySelector(path)?.src)"
MOVE = 'img[alt^="A move of a head"]'
ALL_RUN = """() => {
  const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')];
  return prompts.length && prompts.every(prompt => /\\[[0-9]+\\]/.test(prompt.textContent));
}"""
ERROR = '.jp-OutputArea-output[data-mime-type$="error"]'
FAULTS = ", ".join(
    f'.jp-OutputArea-output[data-mime-type$="{kind}"]' for kind in ("error", "stderr")
)


@pytest.fixture
def open_notebook(browser, lab):
    """Open a notebook, run all of its cells, and wait for the element that a selector names."""
    pages = []

    def opened(name: str, wanted: str):
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        pages.append(page)
        page.set_default_timeout(PATIENCE_MS)
        page.goto(lab(name))
        page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
        page.get_by_text(re.compile(r"^Python 3.* \| Idle$")).wait_for()  # the kernel is up
        page.locator(".lm-MenuBar-item", has_text="Run").click()
        page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
        page.wait_for_selector(f"{wanted}, {ERROR}")
        failed = page.query_selector(ERROR)
        assert failed is None, failed.inner_text()
        return page

    yield opened
    for page in pages:
        page.close()


def faults(page) -> list[str]:
    """What a cell has written as an error or a warning."""
    return [element.inner_text() for element in page.query_selector_all(FAULTS)]


class TestStart:
    @pytest.fixture
    def page(self, open_notebook):
        page = open_notebook("00_start", SCAN)
        assert faults(page) == []
        return page

    def test_a_slider_changes_the_picture_and_answers_soon(self, page):
        before = page.get_attribute(MOVE, "src")
        handle = page.locator(".widget-hslider", has_text="move (mm)").locator(".noUi-handle")
        handle.scroll_into_view_if_needed()
        handle.focus()
        start = time.monotonic()
        handle.press("ArrowRight")
        page.wait_for_function(CHANGED, arg=[MOVE, before])
        took = time.monotonic() - start
        print(f"the slider was answered in {took:.2f} s")
        assert took < 20  # on a computer of its own half a second

    def test_the_order_of_k_space_changes_it_too(self, page):
        before = page.get_attribute(MOVE, "src")
        page.locator(".widget-dropdown", has_text="order").locator("select").select_option(
            "centric"
        )
        page.wait_for_function(CHANGED, arg=[MOVE, before])

    def test_every_notebook_and_every_picture_is_told(self, page):
        questions = page.locator(".jp-RenderedHTMLCommon table").first.inner_text()
        assert [n for n in range(1, 8) if f"0{n}" in questions] == list(range(1, 8))
        controls = page.query_selector_all(".jupyter-widgets img")
        assert len(controls) == 3
        assert all(len(image.get_attribute("alt").split()) > 5 for image in controls)


class TestNotebook2:
    """A notebook of the study, run by hand at the smallest scale after notebook 1."""

    @pytest.fixture
    def page(self, place, environment, open_notebook):
        command = [sys.executable, "-m", "motionlib.cli", "study", "--profile", "smoke"]
        subprocess.run([*command, "--only", "01"], cwd=place, env=environment, check=True)
        path = place / "notebooks" / "02_simulation_comparison.ipynb"
        study = read_study("smoke", notebooks=path.parent, runs=place / "runs")
        values = study.parameters[path.stem]
        lines = [f"{name}: {type(value).__name__} = {value!r}" for name, value in values.items()]
        whole = json.loads(path.read_text())
        (cell,) = [c for c in whole["cells"] if c["metadata"].get("tags") == ["parameters"]]
        cell["source"] = "\n".join(lines)
        path.write_text(json.dumps(whole))
        page = open_notebook(path.stem, ".jp-OutputArea-output img")
        page.wait_for_function(ALL_RUN)
        return page

    def test_it_runs_to_its_end_and_shows_what_it_has_made(self, page, place):
        assert faults(page) == []
        shown = page.locator(".jp-NotebookPanel").inner_text()
        assert "NETWORKS THAT HAVE LEARNT NOTHING" in shown
        assert "balanced accuracy (%)" in shown  # Table II
        assert "share of voxels that are exactly zero" in shown  # the last exercise's check
        assert len(page.query_selector_all(".jp-OutputArea-output img")) >= 3
        made = {path.stem for path in (place / "runs" / "smoke" / "tables").glob("*.csv")}
        assert {"table_2", "timing", "controls"} <= made


class TestRating:
    @pytest.fixture
    def page(self, open_notebook, place):
        for name in ("clicks.tsv", "grades.tsv"):  # grades without clicks are somebody else's
            (place / "runs" / "ratings" / "virtual" / name).unlink(missing_ok=True)
        return open_notebook("08_rate_scans", SCAN)

    @pytest.fixture
    def click(self, page):
        """Click a button, twice at once if asked to, and wait until another scan is shown."""

        def clicked(words: str, *, graded: int, twice: bool = False) -> None:
            page.wait_for_timeout(1500)  # as if somebody looked
            before = page.get_attribute(SCAN, "src")
            button = page.get_by_role("button", name=words)
            button.dblclick() if twice else button.click()
            page.get_by_text(re.compile(rf"has graded {graded} of \d+ scans")).wait_for()
            page.wait_for_function(CHANGED, arg=[SCAN, before])

        return clicked

    @pytest.fixture
    def rows(self, place):
        """The clicks on disk so far."""
        clicks = place / "runs" / "ratings" / "virtual" / "clicks.tsv"
        return lambda: [line.split("\t") for line in clicks.read_text().splitlines()[1:]]

    def test_two_clicks_are_two_rows_and_the_next_scan_is_shown(self, page, click, rows):
        for count, words in enumerate(("0: no motion", "2: severe motion"), start=1):
            click(words, graded=count)
            assert len(rows()) == count
        page.get_by_text("You said 2: severe motion. Emulated raters said").wait_for()
        assert faults(page) == []

    def test_a_double_click_grades_one_scan_and_can_be_taken_back(self, page, click, rows):
        first = page.get_attribute(SCAN, "src")
        click("1: some motion", graded=1, twice=True)
        page.get_by_text("was not counted").wait_for()
        click("take back the last grade", graded=0)
        assert page.get_attribute(SCAN, "src") == first
        assert [row[3] for row in rows()] == ["1", ""]
        assert faults(page) == []
