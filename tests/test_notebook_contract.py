"""What a notebook of the study may hold; checked on the files, without running them."""

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import papermill
import pytest

from motionlib.study.notebooks import (
    ASIDE,
    RESERVED,
    check_engine,
    coerce,
    find_notebooks,
    read_notebook,
    read_parameters,
    read_profile,
    read_study,
    text,
)

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
ALL = sorted(NOTEBOOKS.glob("*.ipynb"))
PATHS = [path for path in ALL if path.name[:2] not in ASIDE]  # the study's
PROFILES = sorted((NOTEBOOKS / "profiles").glob("*.yml"))
LONGEST_CELL = 20
MOST_PARAMETERS = 8
EVERYWHERE = ("profile", "seed", "engine")
FREE = {"exercise", "solution"}  # tags of cells in which a reader may define things
MOST_OFF = 2.0  # between computers; what a head tells may be as many times too long or too short
SPOKEN_S = {"a quarter of a minute": 15, "half a minute": 30, "one minute": 60}
SPOKEN_S |= {f"{word} minutes": 60 * n for n, word in {
    2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine",
    10: "ten", 12: "twelve", 15: "fifteen", 20: "twenty", 30: "thirty", 40: "forty",
}.items()}  # fmt: skip
FORBIDDEN = (
    (r"^\s*[!%]", "a shell or magic line"),
    (r"\bsys\.path\b", "an edit of sys.path"),
    (r"\bos\.chdir\b", "a change of folder"),
    (r"\bwarnings\.(filterwarnings|simplefilter|catch_warnings)\b", "a warning filter"),
    (r"[\"'](/|[A-Za-z]:\\)\w+/", "an absolute path"),
    (r"\bplt\.show\(", "plt.show"),
)

each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
every = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)


def cells(path: Path, kind: str | None = None) -> list[dict]:
    """Cells of a notebook, all or those of one kind."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if kind in (None, cell["cell_type"])]


def tags(cell: dict) -> set[str]:
    """Tags of a cell."""
    return set(cell["metadata"].get("tags", []))


def prose(path: Path) -> str:
    """All text between the code."""
    return "\n\n".join(text(cell) for cell in cells(path, "markdown"))


def tree(cell: dict) -> ast.AST:
    """Syntax of a code cell."""
    return ast.parse(text(cell))


def test_the_study_s_seven_notebooks_are_there_between_the_start_and_the_rating_page():
    assert [path.name[:2] for path in ALL] == [f"0{number}" for number in range(9)]
    assert [notebook.number for notebook in find_notebooks(NOTEBOOKS)] == [
        path.name[:2] for path in ALL[1:-1]
    ]


@every
class TestFile:
    def test_it_is_stripped_of_outputs(self, path):
        left = [c["id"] for c in cells(path, "code") if c["outputs"] or c["execution_count"]]
        assert left == []

    def test_it_carries_no_trace_of_a_run_or_a_computer(self, path):
        whole = json.loads(path.read_text(encoding="utf-8"))
        known = {"kernelspec", "language_info"}
        assert set(whole["metadata"]) <= known
        assert whole["metadata"].get("kernelspec", {}).get("name", "python3") == "python3"
        assert "version" not in whole["metadata"].get("language_info", {})
        assert {key for cell in cells(path) for key in cell["metadata"]} <= {"tags", "jupyter"}

    def test_every_cell_has_its_own_id(self, path):
        ids = [cell.get("id") for cell in cells(path)]
        assert None not in ids
        assert len(set(ids)) == len(ids)


@every
class TestParametersCell:
    def test_one_cell_declares_them_before_any_other_code(self, path):
        code = cells(path, "code")
        assert [index for index, c in enumerate(code) if "parameters" in tags(c)] == [0]

    def test_each_is_typed_and_described(self, path):
        source = text(cells(path, "code")[0])
        nodes = ast.parse(source).body
        assert all(isinstance(node, ast.AnnAssign) for node in nodes)
        told = papermill.inspect_notebook(path)
        assert [name for name in read_parameters(source) if len(told[name]["help"]) < 5] == []

    def test_each_default_is_of_its_type(self, path):
        declared = read_notebook(path).parameters.values()
        assert [p.name for p in declared if coerce(p, p.default) != p.default] == []

    def test_each_is_used(self, path):
        names = {n.id for c in cells(path, "code")[1:] for n in ast.walk(tree(c))
                 if isinstance(n, ast.Name)}  # fmt: skip
        assert set(read_notebook(path).parameters) - names == set()


@each
class TestParameters:
    def test_its_defaults_are_the_profile_demo_s(self, path):
        # opened by hand and run as it is, it belongs to the run of `make study`
        demo = read_profile(NOTEBOOKS / "profiles" / "demo.yml", [p.stem for p in PATHS])
        own = {p.name: p.default for p in read_notebook(path).parameters.values()}
        given = {**demo["all"], **demo["of"].get(path.stem, {}), "profile": "demo"}
        assert {name: given.get(name) for name in own} == own

    def test_there_are_eight_at_most_and_the_common_ones_among_them(self, path):
        names = list(read_notebook(path).parameters)
        assert len(names) <= MOST_PARAMETERS
        assert names[:2] == ["profile", "seed"]
        assert set(EVERYWHERE) <= set(names)


@every
class TestCode:
    def test_no_cell_is_longer_than_twenty_lines(self, path):
        lengths = {c["id"]: len(text(c).splitlines()) for c in cells(path, "code")}
        assert {key: n for key, n in lengths.items() if n > LONGEST_CELL} == {}

    def test_nothing_is_defined_outside_exercises(self, path):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        defining = [
            c["id"]
            for c in cells(path, "code")
            if not tags(c) & FREE and any(isinstance(n, kinds[:3]) for n in ast.walk(tree(c)))
        ]
        assert defining == []

    def test_no_error_is_swallowed(self, path):
        caught = [c["id"] for c in cells(path, "code")
                  if any(isinstance(n, ast.Try) for n in ast.walk(tree(c)))]  # fmt: skip
        assert caught == []

    @pytest.mark.parametrize(("pattern", "what"), FORBIDDEN, ids=[what for _, what in FORBIDDEN])
    def test_a_cell_does_not_hold(self, path, pattern, what):
        found = [c["id"] for c in cells(path, "code") if re.search(pattern, text(c), re.MULTILINE)]
        assert found == []

    def test_no_cell_hides_its_result(self, path):
        hidden = [c["id"] for c in cells(path, "code") if text(c).rstrip().endswith(";")]
        assert hidden == []


@every
class TestProse:
    def test_it_opens_with_its_number_and_question(self, path):
        first = cells(path)[0]
        assert first["cell_type"] == "markdown"
        assert re.match(rf"# {int(path.name[:2])}\. \S", text(first))
        for word in ("*Needs*", "*Makes*", "*Time*"):
            assert word in text(first)

    def test_it_says_what_it_does_not_show(self, path):
        assert re.search(r"^## What this does not show", prose(path), re.MULTILINE)

    def test_there_is_a_sentence_between_two_steps(self, path):
        order = cells(path)
        bare = [
            below["id"]
            for above, below in pairwise(order[2:])
            if above["cell_type"] == below["cell_type"] == "code"
            and not tags(below) & {*FREE, "check"}
            and not all(isinstance(n, ast.Import | ast.ImportFrom) for n in tree(above).body)
        ]
        assert bare == []


@each
class TestPlace:
    def test_it_stands_beside_the_paper(self, path):
        assert re.search(r"^## Beside the paper", prose(path), re.MULTILINE)

    def test_the_run_is_opened_under_the_notebook_s_own_name(self, path):
        code = "\n".join(text(cell) for cell in cells(path, "code"))
        assert re.findall(r"\bRun\(\s*[\"'](\w+)[\"']", code) == [path.stem]


@each
class TestTime:
    def test_the_head_tells_what_the_published_runs_took(self, path):
        (told,) = re.findall(r"^\*Time\* about (.+)\.$", text(cells(path)[0]), re.MULTILINE)
        told = [re.fullmatch(r"(.+) \((\w+)\)", part).groups() for part in told.split(", ")]
        assert "demo" in [profile for _, profile in told]
        for words, profile in told:
            record = NOTEBOOKS.parent / "results" / profile / "provenance.json"
            took = json.loads(record.read_text())["durations_s"][path.stem]
            assert took / MOST_OFF <= SPOKEN_S[words] <= took * MOST_OFF, (profile, took)


@each
class TestExercises:
    def test_there_are_two_to_four_in_their_order(self, path):
        numbers = re.findall(r"\*\*Exercise (\d\.\d)", prose(path))
        chapter = int(path.name[:2])
        assert 2 <= len(numbers) <= 4
        assert numbers == [f"{chapter}.{k}" for k in range(1, len(numbers) + 1)]

    def test_each_has_an_empty_cell_a_hidden_solution_and_a_check(self, path):
        order = cells(path)
        for place, cell in enumerate(order):
            number = re.search(r"\*\*Exercise (\d\.\d)", text(cell))
            if number is None or cell["cell_type"] != "markdown":
                continue
            empty, solution, check = order[place + 1 : place + 4]
            assert [tags(c) for c in (empty, solution, check)] == [
                {"exercise"}, {"solution"}, {"check"}
            ]  # fmt: skip
            hidden = solution["metadata"]["jupyter"]
            assert hidden == {"outputs_hidden": True, "source_hidden": True}
            open_names = set(re.findall(r"^(\w+) = \.\.\.", text(empty), re.MULTILINE))
            filled = {n.id for n in ast.walk(tree(solution)) if isinstance(n, ast.Name)
                      and isinstance(n.ctx, ast.Store)}  # fmt: skip
            assert open_names
            assert open_names <= filled
            first = text(check).partition("\n")[0]
            told = f'is not ..., "Exercise {number[1]}: put your answer in the place of the dots"'
            assert first.removeprefix("assert ").partition(" ")[0] in open_names
            assert first.endswith(told)

    def test_the_students_edition_holds_no_solution(self, path, tmp_path):
        command = '--keep-id --drop-tagged-cells "solution"'
        assert f"nbstripout {command} runs/student/" in (NOTEBOOKS.parent / "Makefile").read_text()
        copy = tmp_path / path.name
        whole = json.loads(path.read_text(encoding="utf-8"))
        for cell in whole["cells"]:  # as if it had been run and saved
            if cell["cell_type"] == "code":
                shown = {"output_type": "stream", "name": "stdout", "text": ["an answer"]}
                cell["outputs"], cell["execution_count"] = [shown], 1
        copy.write_text(json.dumps(whole), encoding="utf-8")
        words = [word.strip('"') for word in command.split()]
        subprocess.run([sys.executable, "-m", "nbstripout", *words, str(copy)], check=True)
        kept = {c["id"] for c in cells(path)} - {c["id"] for c in cells(path)
                                                if "solution" in tags(c)}  # fmt: skip
        assert {c["id"] for c in cells(copy)} == kept
        assert "an answer" not in copy.read_text(encoding="utf-8")


class TestTogether:
    def test_the_same_name_has_the_same_type_in_all_notebooks(self):
        types = defaultdict(set)
        for path in PATHS:
            for parameter in read_notebook(path).parameters.values():
                types[parameter.name].add(parameter.kind)
        assert {name: kinds for name, kinds in types.items() if len(kinds) > 1} == {}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
class TestProfiles:
    def test_every_key_is_a_parameter_of_its_notebook_and_of_its_type(self, profile, monkeypatch):
        needs = read_profile(profile, [path.stem for path in PATHS])["needs"]
        for need in needs:  # whether the data are there is not asked here
            monkeypatch.setenv(str(need).partition("/")[0], str(NOTEBOOKS))
        monkeypatch.setattr("motionlib.study.notebooks.data_needed", lambda *_: {})
        study = read_study(profile.stem, notebooks=NOTEBOOKS, runs=NOTEBOOKS)
        assert set(study.parameters) == {path.stem for path in PATHS}

    @each
    def test_it_leaves_no_parameter_to_the_demo_s_value(self, profile, path):
        whole = read_profile(profile, [path.stem for path in PATHS])
        given = {"profile", *whole["all"], *whole["of"].get(path.stem, {})}
        assert set(read_notebook(path).parameters) - given == set()

    def test_it_is_described(self, profile):
        import yaml

        whole = yaml.safe_load(profile.read_text())
        assert len(whole["description"].split()) > 3
        assert set(whole) - {*RESERVED, *[path.stem for path in PATHS]} == set()

    def test_its_engine_is_one_that_exists(self, profile):
        import yaml

        whole = yaml.safe_load(profile.read_text())
        assert check_engine((whole.get("all") or {}).get("engine", "inline"))


def test_the_profiles_are_there():
    assert {"smoke", "demo", "open", "paper", "real"} <= {path.stem for path in PROFILES}
