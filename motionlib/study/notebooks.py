"""A notebook file goes in; its parameters, with type, default and comment, and a key come out.

Papermill only warns about a parameter that a notebook does not have and takes any type; here both
are faults.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import tokenize
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from motionlib import files

SIMPLE = {"str": str, "int": int, "float": float, "bool": bool, "dict": dict}
RESERVED = ("description", "needs", "all")


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


@dataclass(frozen=True)
class Study:
    """What a call asked for: the profile, where it lives, and the notebooks in their order."""

    profile: str
    folder: Path
    notebooks: list[Notebook]
    only: tuple[str, ...]
    parameters: dict[str, dict[str, Any]]
    needs: dict[str, Path]


def read_study(
    profile: str,
    *,
    notebooks: Path,
    runs: Path,
    only: str | None = None,
    engine: str | None = None,
    settings: list[str] | tuple[str, ...] = (),
) -> Study:
    """Read the notebooks and the profile, and check every name and value before anything runs.

    Parameters
    ----------
    profile : str
        Name of a file in ``notebooks/profiles/``, or path of another one.
    notebooks, runs : Path
        Folder of the notebooks, folder of all runs.
    only : str, optional
        Numbers of notebooks, such as ``"02,03"``.
    engine : str, optional
        Where to compute; goes to every notebook that has the parameter ``engine``.
    settings : sequence of str
        ``NAME=VALUE`` for every notebook that has it, ``NN.NAME=VALUE`` for one of them.

    Raises
    ------
    ValueError, FileNotFoundError
        If a name is not known, a value has the wrong type, or data that the profile needs is away.
    """
    found = find_notebooks(notebooks)
    path = profile_path(profile, notebooks)
    declared = read_profile(path, [one.stem for one in found])
    needs = data_needed(path.stem, declared["needs"])
    given: dict[str, dict[str, Any]] = {one.stem: {} for one in found}
    for one in found:
        values = {k: v for k, v in declared["all"].items() if k in one.parameters}
        for name, value in {**values, **declared["of"].get(one.stem, {})}.items():
            if name not in one.parameters:
                hint = unknown(name, list(one.parameters))
                raise ValueError(
                    f"profile {path.stem} sets {name}, which {one.stem} does not have; {hint}"
                )
            given[one.stem][name] = coerce(one.parameters[name], value)
        if "profile" in one.parameters:
            given[one.stem]["profile"] = path.stem
    known = sorted({name for one in found for name in one.parameters})
    for name in declared["all"]:
        if name not in known:
            raise ValueError(
                f"profile {path.stem} sets {name} for all, which no notebook has; "
                f"{unknown(name, known)}"
            )
    if engine is not None:
        settings = [*settings, f"engine={engine}"]
    for setting in settings:
        _apply(setting, found, given)
    for values in given.values():
        if "engine" in values:
            values["engine"] = check_engine(str(values["engine"]))
    numbers = tuple(_number(word, found) for word in only.split(",")) if only else ()
    return Study(path.stem, runs / path.stem, found, numbers, given, needs)


def profile_path(profile: str, notebooks: Path) -> Path:
    """Find a profile by name or path, or name the ones there are."""
    if profile.endswith((".yml", ".yaml")) and Path(profile).is_file():
        return Path(profile).resolve()
    path = notebooks / "profiles" / f"{profile}.yml"
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", profile) or not path.is_file():
        names = sorted(one.stem for one in (notebooks / "profiles").glob("*.yml"))
        raise ValueError(f"no profile {profile}; {unknown(profile, names)}")
    return path


def read_profile(path: Path, stems: list[str]) -> dict[str, Any]:
    """Read a profile: ``description``, ``needs``, ``all`` and one block per notebook."""
    import yaml

    try:
        whole = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        line = getattr(error, "problem_mark", None)
        at = f" near line {line.line + 1}" if line else ""
        raise ValueError(f"{path.name} is not valid YAML{at}") from None
    if not isinstance(whole, dict):
        raise ValueError(f"{path.name} holds a {type(whole).__name__}; expected blocks by notebook")
    for name, block in whole.items():
        if name not in RESERVED and name not in stems:
            hint = unknown(str(name), [*stems, *RESERVED])
            raise ValueError(f"{path.name} has a block {name}, which is no notebook; {hint}")
        if name not in RESERVED[:2] and not isinstance(block or {}, dict):
            raise ValueError(f"{path.name}: block {name} is {block!r}; expected NAME: VALUE lines")
    of = {name: block or {} for name, block in whole.items() if name in stems}
    return {"needs": whole.get("needs") or [], "all": whole.get("all") or {}, "of": of}


def data_needed(profile: str, needs: list[str]) -> dict[str, Path]:
    """Find the folders that a profile needs, given as ``VARIABLE`` or ``VARIABLE/sub``."""
    found = {}
    for need in needs:
        variable, _, inside = str(need).partition("/")
        value = os.environ.get(variable)
        if not value:
            raise ValueError(
                f"profile {profile} needs {variable}, which is not set; point it at the folder "
                f"that holds {inside or 'the scans'}, or choose the profile demo"
            )
        folder = Path(value).expanduser().resolve() / inside
        if not folder.is_dir():
            raise FileNotFoundError(
                f"profile {profile} needs {need}, but that folder is not there; correct {variable}"
            )
        found[str(need)] = folder
    return found


def check_engine(engine: str) -> str:
    """Return an engine's name, with the path of a SLURM file made absolute."""
    kind, _, rest = engine.partition(":")
    if kind == "slurm" and rest:
        if not Path(rest).is_file():
            raise FileNotFoundError(f"engine {engine} names no file; expected slurm:FILE.yaml")
        return f"slurm:{Path(rest).resolve()}"
    if not re.fullmatch(r"inline|local(:[1-9]\d*)?|tcp://[^/\s:]+:\d+", engine):
        raise ValueError(
            f"engine is {engine!r}; expected inline, local, local:N, tcp://host:port or slurm:FILE"
        )
    return engine


def _apply(setting: str, found: list[Notebook], given: dict[str, dict[str, Any]]) -> None:
    """Put one ``NAME=VALUE`` or ``NN.NAME=VALUE`` into the parameters."""
    name, sign, words = setting.partition("=")
    if not sign:
        raise ValueError(f"--set {setting} has no value; expected NAME=VALUE")
    number, dot, short = name.partition(".")
    name = short if dot else name
    if name == "profile":
        raise ValueError("--set cannot change the profile; use --profile")
    targets = [one for one in found if not dot or one.number == _number(number, found)]
    having = [one for one in targets if name in one.parameters]
    if not having:
        known = sorted({key for one in targets for key in one.parameters})
        raise ValueError(f"no notebook has the parameter {name}; {unknown(name, known)}")
    for one in having:
        given[one.stem][name] = from_words(one.parameters[name], words)


def _number(word: str, found: list[Notebook]) -> str:
    """Two digits of the notebook that a word of ``--only`` names."""
    word = word.strip().removesuffix(".ipynb")
    for one in found:
        if word in (one.stem, one.number, one.number.lstrip("0")):
            return one.number
    raise ValueError(f"no notebook {word!r}; known: {', '.join(one.number for one in found)}")
