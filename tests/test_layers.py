"""The rooms of the house: imports only downward, no circle, torch only where it is needed."""

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

PACKAGE = next(p for p in Path(__file__).resolve().parents if (p / "motionlib").is_dir())
PACKAGE = PACKAGE / "motionlib"
ROOMS = [  # from the ground up: a room imports itself and what stands before it
    *("files", "tasks", "manifest", "splits", "predictions", "metrics", "typeset", "compute"),
    *("preprocess", "motion", "networks", "stats", "cohorts", "training", "paper", "iqms"),
    *("figures", "experiments", "study", "scoring", "commands", "cli"),
]
WITHOUT_TORCH = [  # tables, ROC and tests are computed where there is no torch
    *("files", "tasks", "manifest", "splits", "predictions", "metrics", "typeset", "compute"),
    *("stats", "paper", "figures", "study", "commands", "cli"),
]
DRAWS_SIMULATIONS = "figures.motion"  # the one figure room that runs a simulator
LONGEST, FULLEST, MOST_AT_TOP, MOST_MODULES = 800, 12, 24, 125


@cache
def modules() -> dict[str, Path]:
    """Dotted names below motionlib and their files; a folder's own name is its face."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(tree: ast.AST, known: dict[str, Path], *, deep: bool) -> set[str]:
    """Names of what a module imports: those of motionlib dotted, others by first word.

    With `deep`, imports inside functions count too.
    """
    found = set()
    for node in ast.walk(tree) if deep else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").removeprefix("motionlib").lstrip(".")
            inside = {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
            found |= (inside & set(known)) or {base if base in known else node.module}
    return {name.removeprefix("motionlib.") for name in found}


@cache
def graph(deep: bool) -> dict[str, frozenset[str]]:
    """What each module imports."""
    return {
        name: frozenset(imports(ast.parse(path.read_text()), modules(), deep=deep))
        for name, path in modules().items()
    }


def reach(name: str, *, deep: bool) -> set[str]:
    """Everything that a module imports, directly or through others."""
    found, waiting = set(), [name]
    while waiting:
        for one in graph(deep).get(waiting.pop(), ()):
            if one not in found:
                found.add(one)
                waiting.append(one)
    return found


def circle(edges: dict[str, frozenset[str]]) -> list[str]:
    """Members of the import circles of a graph, sorted; none is an empty list."""
    left = {name: set(found) & set(edges) for name, found in edges.items()}
    while True:
        wanted = set().union(*left.values())
        gone = {name for name, found in left.items() if not found or name not in wanted}
        if not gone:
            return sorted(left)
        left = {name: found - gone for name, found in left.items() if name not in gone}


def room(name: str) -> str:
    """Room of a module: the first word of its dotted name."""
    return name.partition(".")[0]


def torch_free() -> list[str]:
    """Modules that must open where there is no torch."""
    return [n for n in sorted(modules()) if room(n) in WITHOUT_TORCH and n != DRAWS_SIMULATIONS]


def printed(code: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class TestRooms:
    def test_every_module_has_its_room(self):
        assert {room(name) for name in modules() if name} == set(ROOMS)

    @pytest.mark.parametrize("name", sorted(name for name in modules() if name))
    def test_a_module_imports_nothing_from_above(self, name):
        above = set(ROOMS[ROOMS.index(room(name)) + 1 :])
        assert {one for one in graph(True)[name] if room(one) in above} == set()

    def test_no_imports_go_round_in_a_circle_however_deep_they_are(self):
        assert circle(graph(True)) == []

    def test_a_circle_closed_inside_a_function_is_found(self):
        sources = {
            "one": "from motionlib import two\n",
            "two": "def late():\n    from motionlib.one import name\n",
        }
        known = dict.fromkeys(sources, Path())
        edges = {
            deep: {
                name: frozenset(imports(ast.parse(text), known, deep=deep))
                for name, text in sources.items()
            }
            for deep in (False, True)
        }
        assert (circle(edges[False]), circle(edges[True])) == ([], ["one", "two"])

    def test_a_circle_in_the_real_graph_is_found(self):
        closed = graph(True) | {"files": graph(True)["files"] | {"experiments.cohort"}}
        assert {"files", "experiments.cohort"} <= set(circle(closed))


class TestSize:
    def test_no_file_is_too_long_to_read(self):
        lengths = {n: len(p.read_text().splitlines()) for n, p in modules().items()}
        assert {name: n for name, n in lengths.items() if n > LONGEST} == {}

    def test_no_folder_is_a_corridor(self):
        counts = Counter(p.parent for p in modules().values() if p.name != "__init__.py")
        assert {folder.name: n for folder, n in counts.items() if n > FULLEST} == {}

    def test_the_top_is_a_map(self):
        names = [p.name for p in PACKAGE.iterdir() if not p.name.startswith(("_", "."))]
        assert len(names) <= MOST_AT_TOP

    def test_the_house_stays_small(self):
        assert sum(p.name != "__init__.py" for p in modules().values()) <= MOST_MODULES

    @pytest.mark.parametrize("name", sorted(modules()))
    def test_a_module_says_what_it_is(self, name):
        assert (ast.get_docstring(ast.parse(modules()[name].read_text())) or "").strip()


class TestTorch:
    @pytest.mark.parametrize("name", torch_free())
    def test_a_module_that_needs_no_torch_imports_none(self, name):
        assert reach(name, deep=False) & {"torch", "torchio"} == set()

    def test_torch_is_not_loaded_in_fact(self):
        names = [f"motionlib.{name}" for name in torch_free()]
        code = f"import sys, {', '.join(names)}; print([m for m in ('torch', 'torchio', 'nilearn') "
        assert printed(code + "if m in sys.modules])") == "[]"

    def test_opening_the_package_loads_nothing_heavy(self):
        code = "import sys, motionlib; print({'numpy', 'pandas', 'torch'} & set(sys.modules))"
        assert printed(code) == "set()"
