"""A reader in JupyterLab: runs the start, moves a slider, rates two scans."""

from __future__ import annotations

import re
import time

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
PATIENCE_MS = 300_000  # a busy computer needs minutes for what takes seconds else
SCAN = 'img[alt^="Three planes of the scan"]'
CHANGED = "([path, src]) => document.querySelector(path).src !== src"
MOVE = 'img[alt^="A move of a head"]'
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
        page.wait_for_selector(wanted)
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
        page = open_notebook("00_start", 'img[alt^="Three planes of a scan"]')
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


class TestRating:
    def test_two_clicks_are_two_rows_and_the_next_scan_is_shown(self, open_notebook, place):
        page = open_notebook("08_rate_scans", SCAN)
        clicks = place / "runs" / "ratings" / "virtual" / "clicks.tsv"
        for count, words in enumerate(("0: no motion", "2: severe motion"), start=1):
            before = page.get_attribute(SCAN, "src")
            page.get_by_role("button", name=words).click()
            page.get_by_text(re.compile(rf"has graded {count} of \d+ scans")).wait_for()
            page.wait_for_function(CHANGED, arg=[SCAN, before])
            assert len(clicks.read_text().splitlines()) == 1 + count
        page.get_by_text("You said 2: severe motion. Emulated raters said").wait_for()
        assert faults(page) == []
