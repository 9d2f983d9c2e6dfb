"""The rooms of the house: imports only downward, small modules, torch only where it is needed."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "motionlib"
LAYERS = {
    **dict.fromkeys(("files", "manifest", "paper", "metrics", "stats", "audit", "runs"), 0),
    **dict.fromkeys(("tables", "figures", "predictions", "provenance", "notebooks"), 0),
    **dict.fromkeys(("progress", "locks", "tableview", "typeset"), 0),
    **dict.fromkeys(("calibration", "calibrators", "reliability", "conformal", "priorshift"), 0),
    "gradelimits": 0,
    **dict.fromkeys(("compute", "splits", "volumes", "trajectories", "networks"), 1),
    **dict.fromkeys(("simulate", "acquisition", "iqms", "preprocess"), 2),
    **dict.fromkeys(("transforms", "datasets", "freshcopies", "fetch", "forest"), 3),
    **dict.fromkeys(("cohorts.heads", "cohorts.virtual", "cohorts.warehouse"), 3),
    "training": 4,
    "transfer": 5,
    **dict.fromkeys(("trainings", "occlusion"), 6),
    **dict.fromkeys(("modelinput", "scancheck", "scanlist", "scanpicture", "journal"), 2),
    **dict.fromkeys(
        ("experiments", "scoring", "decisions", "ownscans", "ownfigures", "owngrades"), 6
    ),
    **dict.fromkeys(("modelcopies", "modeltests"), 4),
    **dict.fromkeys(("modelchoice", "modelcard", "modelbuild"), 6),
    "trustfigures": 0,
    "trust": 7,
    **dict.fromkeys(("profiles", "execute", "study", "shards", "doctor", "publish"), 7),
    **dict.fromkeys(
        ("report", "reportboard", "reportpages", "reportstyle", "reporttables", "scoringreport"), 7
    ),
    **dict.fromkeys(("commands", "cli", "owngradesreport"), 8),
}
WITHOUT_TORCH = [name for name, layer in LAYERS.items() if layer in (0, 7)]
LONGEST = 300  # lines; a longer module holds two ideas


def modules() -> dict[str, Path]:
    """Dotted names below motionlib and their files."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(tree: ast.AST, known: dict[str, Path], *, name: str, deep: bool) -> set[str]:
    """Names of what a module imports: rooms of motionlib by dotted name, others by first word.

    With `deep`, imports inside functions count too.
    """
    nodes = ast.walk(tree) if deep else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name if known[name].name == "__init__.py" else name.rpartition(".")[0]
                for _ in range(node.level - 1):
                    package = package.rpartition(".")[0]
                base = ".".join(part for part in ("motionlib", package, base) if part)
            inside = {f"{base}.{alias.name}" for alias in node.names}
            rooms = {one for one in inside if one.removeprefix("motionlib.") in known}
            found |= rooms or {base}
    return {one.removeprefix("motionlib.") for one in found}


@cache
def graph(deep: bool) -> dict[str, frozenset[str]]:
    """What each room imports."""
    known = modules()
    return {
        name: frozenset(imports(ast.parse(path.read_text()), known, name=name, deep=deep))
        for name, path in known.items()
    }


def reach(name: str, *, deep: bool) -> set[str]:
    """Everything that a room imports, directly or through others."""
    found, waiting = set(), [name]
    while waiting:
        for one in graph(deep).get(waiting.pop(), ()):
            if one not in found:
                found.add(one)
                waiting.append(one)
    return found


def circle(edges: dict[str, frozenset[str]]) -> list[str]:
    """Members of the import circles of a graph, sorted; none is an empty list.

    Rooms that import only rooms already taken away are taken away, and those that nobody left
    imports, until nothing changes.
    """
    left = {name: set(found) & set(edges) for name, found in edges.items()}
    while True:
        wanted = set().union(*left.values())
        gone = {name for name, found in left.items() if not found or name not in wanted}
        if not gone:
            return sorted(left)
        left = {name: found - gone for name, found in left.items() if name not in gone}


def layer(name: str) -> int | None:
    """Layer of a room whose place is declared; a member of a package has the package's."""
    return LAYERS.get(name, LAYERS.get(name.partition(".")[0]))


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class TestLayers:
    @pytest.mark.parametrize("name", [n for n in modules() if n and layer(n) is not None])
    def test_a_room_imports_nothing_from_above(self, name):
        above = {
            one
            for one in reach(name, deep=True)
            if layer(one) is not None and layer(one) > layer(name)
        }
        assert above == set()

    def test_no_two_rooms_import_each_other_when_they_open(self):
        circles = {name for name in modules() if name and name in reach(name, deep=False)}
        assert circles == set()

    def test_no_imports_go_round_in_a_circle_however_deep_they_are(self):
        assert circle(graph(True)) == []

    def test_a_circle_closed_inside_a_function_is_found(self, tmp_path):
        one, two = tmp_path / "one.py", tmp_path / "two.py"
        one.write_text("from motionlib import two\n")
        two.write_text("def late():\n    from motionlib.one import name\n")
        known = {"one": one, "two": two}
        edges = {
            deep: {
                name: frozenset(imports(ast.parse(path.read_text()), known, name=name, deep=deep))
                for name, path in known.items()
            }
            for deep in (False, True)
        }
        assert (circle(edges[False]), circle(edges[True])) == ([], ["one", "two"])

    def test_a_circle_in_the_real_graph_is_found(self):
        closed = graph(True) | {"files": graph(True)["files"] | {"experiments"}}
        assert {"files", "experiments"} <= set(circle(closed))

    @pytest.mark.parametrize("name", sorted(modules()))
    def test_a_room_says_in_its_docstring_what_goes_in_and_out(self, name):
        assert (ast.get_docstring(ast.parse(modules()[name].read_text())) or "").strip()

    def test_no_module_is_longer_than_one_idea(self):
        lengths = {n: len(p.read_text().splitlines()) for n, p in modules().items()}
        assert {name: n for name, n in lengths.items() if n > LONGEST} == {}


class TestTorch:
    @pytest.mark.parametrize("name", [n for n in WITHOUT_TORCH if n in modules()])
    def test_a_room_that_needs_no_torch_imports_none(self, name):
        assert reach(name, deep=False) & {"torch", "torchio"} == set()

    def test_torch_is_not_loaded_in_fact(self):
        rooms = [f"motionlib.{name}" for name in WITHOUT_TORCH if name in modules()]
        code = f"import sys, {', '.join(rooms)}; print([m for m in ('torch', 'torchio', 'nilearn') "
        code += "if m in sys.modules])"
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert said.stdout.strip() == "[]"

    def test_opening_the_package_loads_nothing_heavy(self):
        code = "import sys, motionlib; print({'numpy', 'pandas', 'torch'} & set(sys.modules))"
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert said.stdout.strip() == "set()"
