"""A notebook file goes in; its parameters, with type, default and comment, and a key come out.

Papermill only warns about a parameter that a notebook does not have and takes any type; here both
are faults.
"""

from __future__ import annotations

import ast
import io
import json
import tokenize
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from motionlib import files

SIMPLE = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict}


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's ``parameters`` cell."""

    name: str
    annotation: str
    default: Any
    comment: str


@dataclass(frozen=True)
class Notebook:
    """A notebook on disk: its stem, cells and parameters."""

    path: Path
    cells: tuple
    parameters: dict[str, Parameter]

    @property
    def stem(self) -> str:
        """Name without suffix, such as ``03_architecture_benchmark``."""
        return self.path.stem

    @property
    def number(self) -> str:
        """Two digits that order the notebooks."""
        return self.path.stem[:2]

    @property
    def key(self) -> str:
        """Content key of the cells: kind, source and tags; outputs and metadata do not count."""
        plain = [(c["cell_type"], text(c), c["metadata"].get("tags", [])) for c in self.cells]
        return files.content_key(plain)


def find_notebooks(folder: str | Path) -> list[Notebook]:
    """Read the numbered notebooks of a folder, in their order.

    Raises
    ------
    FileNotFoundError
        If the folder holds none.
    ValueError
        If two notebooks share a number, or one cannot be read.
    """
    paths = sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(
            f"no notebook such as 01_name.ipynb in {folder}; run the command inside the repository "
            "or give --notebooks"
        )
    for first, second in pairwise(paths):
        if first.name[:2] == second.name[:2]:
            raise ValueError(f"{first.name} and {second.name} share a number; rename one of them")
    return [read_notebook(path) for path in paths]


def read_notebook(path: str | Path) -> Notebook:
    """Read one notebook and the parameters that it declares.

    Raises
    ------
    ValueError
        If it is no notebook, or has not exactly one readable cell tagged ``parameters``.
    """
    path = Path(path)
    try:
        cells = tuple(json.loads(path.read_text(encoding="utf-8"))["cells"])
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise ValueError(f"{path.name} is not a notebook; expected the JSON of Jupyter 4") from None
    tagged = [text(cell) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ValueError(
            f"{path.name} has {len(tagged)} cells tagged 'parameters'; expected exactly one"
        )
    return Notebook(path, cells, read_parameters(tagged[0], path.name))


def read_parameters(source: str, name: str = "notebook") -> dict[str, Parameter]:
    """Read the lines ``name: type = literal  # comment`` of a parameters cell."""
    try:
        tree = ast.parse(source)
        found = {}
        for node in tree.body:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            kind = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
            found[target.id] = (kind, ast.literal_eval(node.value), node.end_lineno)
    except (SyntaxError, AttributeError, ValueError, TypeError):
        raise ValueError(
            f"the parameters cell of {name} holds more than flat literals; "
            "expected lines such as: seed: int = 20  # master seed"
        ) from None
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return {
        key: Parameter(key, kind or type(value).__name__, value, comments.get(line, ""))
        for key, (kind, value, line) in found.items()
    }


def text(cell: dict) -> str:
    """Source of a cell as one string."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def coerce(parameter: Parameter, value: Any) -> Any:
    """Return a value in the parameter's type, or say what was expected.

    Whole numbers may stand for floats, and so may texts such as ``1e-4``, which YAML does not take
    for numbers.

    Raises
    ------
    ValueError
        If the value is of another type.
    """
    for kind in _kinds(parameter.annotation):
        accepted, result = _fit(kind, value)
        if accepted:
            return result
    raise ValueError(
        f"parameter {parameter.name} is {value!r} ({type(value).__name__}); "
        f"expected {parameter.annotation}, such as {parameter.default!r}"
    )


def from_words(parameter: Parameter, words: str) -> Any:
    """Value of ``--set NAME=WORDS``: text stays text where text is expected, else read as YAML."""
    import yaml

    kinds = _kinds(parameter.annotation)
    if "str" in kinds and not ("None" in kinds and words in {"None", "null", ""}):
        return words
    try:
        return coerce(parameter, None if words == "None" else yaml.safe_load(words))
    except yaml.YAMLError:
        return coerce(parameter, words)


def unknown(name: str, known: list[str]) -> str:
    """Words that help with a misspelt name."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"


def _kinds(annotation: str) -> list[str]:
    """Split ``float | None`` into its members."""
    return [part.strip() for part in annotation.split("|")]


def _fit(kind: str, value: Any) -> tuple[bool, Any]:
    """Tell whether a value is of a kind, and give it in that kind."""
    outer, _, inner = kind.partition("[")
    if kind == "None":
        return value is None, value
    if outer in {"list", "tuple"}:
        if not isinstance(value, list | tuple):
            return False, value
        if not inner:
            return True, list(value)
        member = Parameter("member", inner.rstrip("]").split(",")[0], None, "")
        try:
            return True, [coerce(member, one) for one in value]
        except ValueError:
            return False, value
    if kind == "float" and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return True, float(value)
        except ValueError:
            return False, value
    expected = SIMPLE.get(outer)
    if expected is None:
        raise ValueError(
            f"type {kind} of a parameter is not known; use {', '.join(SIMPLE)} or list"
        )
    exact = isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
    return exact, value
