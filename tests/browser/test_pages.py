"""The report without a network at three widths: nothing cut, nothing missing, no complaint."""

from __future__ import annotations

import shutil

import pytest

from motionlib.files import repository
from motionlib.study.report import build

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
WIDTHS = (400, 1300, 1920)
# a number is cut where it is wider than its cell, or its cell leaves a box that does not scroll
CUT = """() => {
  const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
  const found = [];
  for (const e of document.querySelectorAll('td, th, dd, figcaption, .claim')) {
    if (!e.innerText.trim() || !e.getClientRects().length) continue;
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible')
      found.push(e.innerText);
    let box = e.parentElement;
    while (box && !scrolls(box)) box = box.parentElement;
    if (!box && e.getBoundingClientRect().right > innerWidth + 1) found.push(e.innerText);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of the published run of the demo."""
    folder = tmp_path_factory.mktemp("report") / "demo"
    shutil.copytree(repository() / "results" / "demo", folder)
    return build(folder)


@pytest.fixture(params=WIDTHS)
def page(request, browser, report):
    """The report at one width, with what the browser complained of and what it asked for."""
    context = browser.new_context(viewport={"width": request.param, "height": 900}, offline=True)
    page = context.new_page()
    page.faults, page.asked = [], []
    page.on("console", lambda said: page.faults.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(report.as_uri())
    yield page
    context.close()


class TestReport:
    def test_it_complains_of_nothing_and_asks_for_nothing(self, page):
        assert page.faults == []
        assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []

    def test_no_number_is_cut(self, page):
        for fold in page.query_selector_all("details"):
            fold.evaluate("fold => { fold.open = true }")
        assert page.evaluate(CUT) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")

    def test_a_number_that_is_cut_would_be_found(self, page):
        page.add_style_tag(content="td { overflow: hidden; max-width: 1em; white-space: nowrap }")
        assert page.evaluate(CUT) != []

    def test_every_picture_has_a_text_and_is_there(self, page):
        pictures = page.evaluate(
            "[...document.images].map(i => [i.alt.trim().length, i.naturalWidth])"
        )
        assert [p for p in pictures if min(p) == 0] == []

    def test_a_number_is_seen_on_the_first_screen(self, page):
        seen = page.evaluate(
            "[...document.querySelectorAll('main td, main p, main dd')].filter(e => "
            "/[0-9]/.test(e.innerText) && e.getBoundingClientRect().top < innerHeight).length"
        )
        assert seen > 0
