"""README and guides: short, their links lead somewhere, and their commands can be called."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from own_bids import write_bids, write_grades

from motionlib.cli import available, build_parser, main
from motionlib.files import repository

ROOT = repository()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")])
PAGES += [ROOT / "motionlib/model/card.md", *sorted(ROOT.glob("results/*/README.md"))]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
OTHERS = {"conda", "pip", "pre-commit", "export"}  # programs that are not ours
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z_]+) \?=", MAKEFILE, flags=re.MULTILINE)) | {"FORCE"}


def commands(text: str) -> list[str]:
    """Commands of the fenced blocks of a page, and those in backticks in its prose."""
    found = []
    for language, block in FENCE.findall(text):
        lines = block.splitlines()
        if language == "console":
            found += [line[2:] for line in lines if line.startswith("$ ")]
        elif language in ("", "bash"):
            found += [line.partition("  #")[0].strip() for line in lines]
    prose = FENCE.sub("", text)
    found += re.findall(r"`((?:[A-Z_]+=\S+ )*(?:make|motionlib) [^`]+)`", prose)
    return [line for line in found if line]


def fault_of(command: str) -> str:
    """Say why a command cannot be called; nothing if it can. Capitals are somebody's own names."""
    words = shlex.split(command)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    program, *words = words
    if program == "make":
        targets = [word for word in words if "=" not in word]
        names = {word.partition("=")[0] for word in words if "=" in word}
        if set(targets) <= TARGETS and names <= VARIABLES:
            return ""
        return f"{command}: no such target or variable"
    if program == "motionlib":
        if words in [[name] for name in available()]:
            return ""  # only named
        name = next((word for word in words if not word.startswith("-")), None)
        try:
            build_parser(name).parse_args(words)
        except SystemExit as stop:
            return f"{command}: a wrong call" if stop.code else ""
        return ""
    return "" if program in OTHERS else f"{command}: an unknown program"


def slug(heading: str) -> str:
    """Anchor that GitHub gives a heading."""
    plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def broken_links(page: Path) -> list[str]:
    """Relative links and anchors of a page that lead nowhere."""
    broken = []
    text = FENCE.sub("", page.read_text("utf-8"))
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists():
            broken.append(target)
        elif anchor and path.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
            broken += [] if anchor in map(slug, heads) else [f"{target}#{anchor}"]
    return broken


class TestReadme:
    def test_it_is_short(self):
        assert len((ROOT / "README.md").read_text().splitlines()) <= 150

    def test_its_first_screen_has_two_commands_and_the_result(self):
        first = (ROOT / "README.md").read_text().splitlines()[:30]
        assert [line.split()[:2] for line in first if line.startswith("make ")] == [
            ["make", "study"],
            ["make", "lab"],
        ]
        assert any("Severe motion" in line for line in first)

    def test_it_tells_how_long_the_published_study_took(self):
        assert "about half an hour on two cores" in (ROOT / "README.md").read_text()
        record = json.loads((ROOT / "results" / "demo" / "provenance.json").read_text())
        assert record["device"]["cores"] == 2
        assert 20 < sum(record["durations_s"].values()) / 60 < 45


class TestCommands:
    @pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
    def test_every_command_can_be_called(self, page, capsys):
        faults = [fault for line in commands(page.read_text("utf-8")) if (fault := fault_of(line))]
        assert faults == []

    def test_a_wrong_one_is_noticed(self, capsys):
        for line in ("make dinner", "motionlib scroe", "motionlib score a", "motionlib score a --x",
                     "make study PROFIL=demo", "rm -r everything"):  # fmt: skip
            assert fault_of(line)
        text = "```\nmake study  # all\n```\n`motionlib doctor`\n```console\n$ make lab\nopens\n```"
        assert commands(text) == ["make study", "make lab", "motionlib doctor"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_page_holds_the_marks_of_a_merge(page):
    assert not re.search(r"^(<{7}|>{7}) |^={7}$", page.read_text("utf-8"), flags=re.MULTILINE)


class TestLinks:
    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
    def test_every_link_leads_somewhere(self, page):
        assert broken_links(page) == []

    def test_a_broken_one_is_noticed(self, tmp_path):
        page = tmp_path / "a.md"
        page.write_text("# One `two`\n[x](b.md) [y](#one-two) [z](#three) [w](a.md#one-two)")
        assert broken_links(page) == ["b.md", "#three"]


class TestTables:
    def test_each_that_a_notebook_makes_is_listed_beside_it(self):
        listed = (ROOT / "docs" / "tables.md").read_text()
        rows = [line for line in listed.splitlines() if line.startswith("| `")]
        missing = []
        for path in sorted((ROOT / "notebooks").glob("0*.ipynb")):
            number = path.name[:2]
            beside = [row for row in rows if number in row.split("|")[2]]
            for name in made_by(path):
                if not any(f"`{name}`" in row for row in beside):
                    missing.append(f"{number} {name}")
        assert missing == []


def made_by(notebook: Path) -> set[str]:
    """Names of the tables and figures that a notebook saves."""
    cells = json.loads(notebook.read_text())["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            place = {"table": 0, "save_table": 1, "save_figure": 1}.get(node.func.attr)
            named = node.args[place : place + 1] if place is not None else []
            names |= {one.value for one in named if isinstance(one, ast.Constant)}
    return names


@pytest.mark.slow
def test_the_guide_to_own_data_prints_what_it_says(tmp_path, monkeypatch, capsys):
    """Run its commands, in its order, on a small folder; digits may differ, words may not."""
    write_bids(tmp_path / "my_bids", n_patients=6)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOTIONLIB_DATA", raising=False)
    text = (ROOT / "docs" / "own_data.md").read_text("utf-8")
    blocks = [block for language, block in FENCE.findall(text) if language == "console"]
    assert len(blocks) == 4
    clicks = next(block for language, block in FENCE.findall(text) if language == "python")
    monkeypatch.syspath_prepend(str(ROOT / "notebooks"))
    for block in blocks:
        command, *expected = block.splitlines()
        words = shlex.split(command)[2:]
        if words[0] == "finetune":
            rate_by_clicks(clicks, tmp_path, monkeypatch)
            write_grades(tmp_path / "scans.tsv", tmp_path / words[1])
        assert main(words) == 0
        printed = capsys.readouterr()
        lines = iter(masked(printed.out + printed.err))
        assert all(line in lines for line in masked("\n".join(expected))), printed
    assert (tmp_path / "my_model" / "finetune.log").is_file()


def rate_by_clicks(code: str, folder: Path, monkeypatch) -> None:
    """Run the guide's cell where a notebook would, and click once."""
    (folder / "notebooks").mkdir()
    monkeypatch.chdir(folder / "notebooks")
    *lines, last = code.strip().splitlines()
    names: dict = {}
    exec("\n".join([*lines, f"panel = {last}"]), names)
    buttons = [w for w in walk(names["panel"]) if type(w).__name__ == "Button"]
    grades = [button for button in buttons if button.description[0] in "012"]
    assert len(grades) == 3
    grades[2].click()
    lines = (folder / "ratings" / "grades.tsv").read_text().splitlines()
    assert lines[1].split("\t")[-2:] == ["2", ""]
    assert "motion_grade" not in lines[0]
    monkeypatch.chdir(folder)


def walk(widget):
    """A widget and all inside it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


def masked(text: str) -> list[str]:
    """Lines without their digits and widths."""
    return [re.sub(r"\s+", " ", re.sub(r"\d+", "#", line)).strip() for line in text.splitlines()]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="make docs installs it")
    words = ["-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING  -" not in done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text("utf-8")
        loads = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', text)
        assert [url for url in loads if "motionlib.github.io" not in url] == []  # rel=canonical
    api = (tmp_path / "site" / "api" / "motion.html").read_text("utf-8")
    assert "image_motion" in api
