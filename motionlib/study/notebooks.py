"""What a call of ``motionlib study`` asks for: notebooks, their parameters, a profile.

A notebook declares its parameters in one cell, a line each: ``seed: int = 20  # master seed``.  A
profile is a YAML file of values for them.  Papermill only warns about a parameter that a notebook
does not have, and takes any type; here both are faults, found before anything runs.
"""

import ast
import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from motionlib import files
from motionlib.compute import engines

TYPES = {"str": str, "int": int, "float": float, "bool": bool}
RESERVED = ("description", "needs", "all")
MOST_BRACKETS = 200  # of a profile; nested, they take PyYAML ever longer
PASSING = ("profile", "engine")  # parameters that do not change what a notebook computes
ASIDE = ("00", "08")  # the start and the rating page are for people: no table comes from them


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's ``parameters`` cell."""

    name: str
    kind: str
    default: Any


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
    """Read the study's notebooks of a folder, in their order; each number may stand once."""
    paths = sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))
    paths = [path for path in paths if path.name[:2] not in ASIDE]
    if not paths:
        raise FileNotFoundError(
            f"no notebook such as 01_name.ipynb in {folder}; run the command inside the repository "
            "or give --notebooks"
        )
    for first, second in pairwise(paths):
        if first.name[:2] == second.name[:2]:
            raise ValueError(f"{first.name} and {second.name} share a number; rename one of them")
    return [read_notebook(path) for path in paths]


def notebooks_folder() -> Path:
    """Folder of the study's notebooks: of the repository around the cwd, else the package's own."""
    around = files.repository() / "notebooks"
    return around if around.is_dir() else files.shipped("notebooks")


def read_notebook(path: str | Path) -> Notebook:
    """Read one notebook and the parameters that its one cell tagged ``parameters`` declares."""
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
    """Read the lines ``name: type = literal`` of a parameters cell.

    Not by `papermill.inspect_notebook`, which takes expressions too and cuts a text at its first
    ``#``; opening papermill also takes longer than a study that has nothing to run.
    """
    try:
        nodes = ast.parse(source).body
        lines = [(n.target.id, ast.unparse(n.annotation), ast.literal_eval(n.value)) for n in nodes]
    except (SyntaxError, AttributeError, ValueError, TypeError):
        raise ValueError(
            f"the parameters cell of {name} holds more than flat literals; "
            "expected lines such as: seed: int = 20  # master seed"
        ) from None
    for key, kind, _ in lines:
        if kind not in TYPES:
            raise ValueError(f"parameter {key} of {name} is a {kind}; use {', '.join(TYPES)}")
    return {key: Parameter(key, kind, value) for key, kind, value in lines}


def text(cell: dict) -> str:
    """Source of a cell as one string."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def coerce(parameter: Parameter, value: Any) -> Any:
    """Return a value in the parameter's type; one of another type is a ValueError.

    Whole numbers may stand for floats, and so may texts such as ``1e-4``, which YAML leaves alone.
    """
    if type(value) is TYPES[parameter.kind]:
        return value
    if parameter.kind == "float" and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError):
            return float(value)
    raise ValueError(
        f"parameter {parameter.name} is {value!r} ({type(value).__name__}); "
        f"expected {parameter.kind}, such as {parameter.default!r}"
    )


def from_words(parameter: Parameter, words: str) -> Any:
    """Value of ``--set NAME=WORDS``: text stays text where text is expected, else read as YAML."""
    if parameter.kind == "str":
        return words
    try:
        return coerce(parameter, yaml.safe_load(words))
    except yaml.YAMLError:
        return coerce(parameter, words)


def unknown(name: str, known: list[str]) -> str:
    """Words that help with a misspelt name."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known) or 'none'}"


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

    `profile` is the name of a file in ``notebooks/profiles/`` or the path of another one; `runs`
    the folder of all runs; `only` numbers of notebooks (``"02,03"``).  `engine` goes to every
    notebook that has such a parameter; `settings` are ``NAME=VALUE`` for every notebook that has
    it, or ``NN.NAME=VALUE`` for one of them.  What is not known, of another type or away is a
    ValueError or FileNotFoundError.
    """
    known = find_notebooks(notebooks)
    path = _profile_path(profile, notebooks, runs)
    declared = read_profile(path, [notebook.stem for notebook in known])
    needs = data_needed(path.stem, declared["needs"])
    names = sorted({name for notebook in known for name in notebook.parameters})
    for name in sorted(set(declared["all"]) - set(names)):
        hint = unknown(name, names)
        raise ValueError(f"profile {path.stem} sets {name} for all, which no notebook has; {hint}")
    parameters = {}
    for notebook in known:
        values = _declared(declared, notebook)
        for name in sorted(set(values) - set(notebook.parameters)):
            hint = unknown(name, list(notebook.parameters))
            raise ValueError(
                f"profile {path.stem} sets {name}, which {notebook.stem} does not have; {hint}"
            )
        values = {name: coerce(notebook.parameters[name], v) for name, v in values.items()}
        if "profile" in notebook.parameters:
            values["profile"] = path.stem
        parameters[notebook.stem] = values
    for setting in [*settings, *([f"engine={engine}"] if engine is not None else [])]:
        _apply(setting, known, parameters)
    for values in parameters.values():
        if "engine" in values:
            values["engine"] = check_engine(values["engine"])
    numbers = tuple(_number(word, known) for word in only.split(",")) if only else ()
    return Study(path.stem, runs / path.stem, known, numbers, parameters, needs)


def run_apart(stem: str, profile: str, runs: Path, values: dict[str, Any]) -> tuple[str, dict]:
    """Tell the run that a notebook with such values belongs to, and what makes it another one.

    That is the profile's where they are the profile's, or what the study has given it there.  Else
    it is a run of its own, with a profile of its own, ``runs/NAME/NAME.yml``; it begins with what
    the notebooks before this one have made in the other.
    """
    try:
        known = find_notebooks(notebooks_folder())
        path = _profile_path(profile, known[0].path.parent, runs)
    except (FileNotFoundError, ValueError):  # somebody's own: nothing to compare with
        return profile, {}
    declared = read_profile(path, [notebook.stem for notebook in known])
    settled = {notebook.stem: _settled(runs / profile, declared, notebook) for notebook in known}
    own = {p.name: p.default for n in known if n.stem == stem for p in n.parameters.values()}
    own |= settled.get(stem, {})
    changed = {name: values[name] for name in own if values.get(name, own[name]) != own[name]
               and name not in PASSING and isinstance(values[name], str | int | float)}  # fmt: skip
    if not changed:
        return profile, {}
    settled[stem] |= changed
    name = f"{re.sub('-[0-9a-f]{6}$', '', profile)}-{files.content_key(settled, digits=6)}"
    if not (runs / name / f"{name}.yml").is_file():
        _begin_with_earlier(runs / profile, runs / name, stem[:2])
        whole = {"description": f"As {profile}, but for {changed} in {stem}."}
        whole |= {"needs": declared["needs"], **settled}
        files.write_text(runs / name / f"{name}.yml", yaml.safe_dump(whole, sort_keys=False))
    return name, changed


def _declared(declared: dict[str, Any], notebook: Notebook) -> dict[str, Any]:
    """Values that a profile sets for a notebook."""
    values = {k: v for k, v in declared["all"].items() if k in notebook.parameters}
    return values | declared["of"].get(notebook.stem, {})


def _settled(folder: Path, declared: dict[str, Any], notebook: Notebook) -> dict[str, Any]:
    """Values that a notebook is given in a run folder: by the study that ran there, or profile."""
    stamp = folder / "stamps" / f"{notebook.number}.json"
    stamped = files.read_json(stamp)["parameters"] if stamp.is_file() else {}
    values = _declared(declared, notebook) | stamped
    return {k: v for k, v in values.items() if k in notebook.parameters and k not in PASSING}


def _begin_with_earlier(base: Path, folder: Path, number: str) -> None:
    """Link into a new run folder what the notebooks before a number have made in another.

    Links take no room, and no file of a run is ever written into: all are replaced as wholes.
    """
    numbered = [path for path in base.glob("*/[0-9][0-9]*") if path.name[:2] < number]
    records = [path for path in numbered if path.parent.name == "provenance"]
    makes = [base / name for path in records for name in files.read_json(path)["makes"]]
    shared = [path for part in ("cohort", "cache", "models") for path in base.glob(f"{part}/**/*")]
    shared += [base / "splits.csv", base / "layout.json"]
    for path in [*numbered, *makes, *shared] if records else []:
        target = folder / path.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and not target.exists():
            try:
                os.link(path, target)
            except OSError:  # a disk that knows no links
                shutil.copy2(path, target)


def _profile_path(profile: str, notebooks: Path, runs: Path) -> Path:
    """Find a profile by path, by name or as that of a run apart, or name the ones there are."""
    if profile.endswith((".yml", ".yaml")) and Path(profile).is_file():
        return Path(profile).resolve()
    places = (notebooks / "profiles" / f"{profile}.yml", runs / profile / f"{profile}.yml")
    path = next((place for place in places if place.is_file()), None)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", profile) or path is None:
        names = sorted(path.stem for path in (notebooks / "profiles").glob("*.yml"))
        raise ValueError(f"no profile {profile}; {unknown(profile, names)}")
    return path


def profile_descriptions() -> dict[str, str]:
    """Say what each profile of the study is, by its name."""
    paths = sorted((notebooks_folder() / "profiles").glob("*.yml"))
    return {path.stem: yaml.safe_load(path.read_text("utf-8"))["description"] for path in paths}


def read_profile(path: Path, stems: list[str]) -> dict[str, Any]:
    """Read a profile: ``description``, ``needs``, ``all`` and one block per notebook."""
    try:
        text = path.read_text(encoding="utf-8")
        if len(re.findall(r"[\[{]", text)) > MOST_BRACKETS:
            raise ValueError("more brackets than a profile has")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("an alias, which could stand for gigabytes")
        whole = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        line = getattr(error, "problem_mark", None)
        at = f" near line {line.line + 1}" if line else f" ({str(error).splitlines()[0]})"
        raise ValueError(f"{path.name} is not valid YAML{at}") from None
    if not isinstance(whole, dict):
        raise ValueError(f"{path.name} holds a {type(whole).__name__}; expected blocks by notebook")
    for name, block in whole.items():
        if name not in RESERVED and name not in stems:
            hint = unknown(str(name), [*stems, *RESERVED])
            raise ValueError(f"{path.name} has a block {name}, which is no notebook; {hint}")
        names = block or {} if isinstance(block or {}, dict) else [None]
        if name not in RESERVED[:2] and not all(isinstance(one, str) for one in names):
            raise ValueError(f"{path.name}: block {name} is {block!r}; expected NAME: VALUE lines")
    of = {name: block or {} for name, block in whole.items() if name in stems}
    if not isinstance(needs := whole.get("needs") or [], list):
        raise ValueError(f"{path.name} needs {needs!r}; expected a list of variables")
    return {"needs": needs, "all": whole.get("all") or {}, "of": of}


def data_needed(profile: str, needs: list[str]) -> dict[str, Path]:
    """Find the folders that a profile needs, given as ``VARIABLE`` or ``VARIABLE/sub``."""
    folders = {}
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
        folders[str(need)] = folder
    return folders


def check_engine(engine: str) -> str:
    """Return an engine's name, with the path of a SLURM file made absolute."""
    if engines.family(engine) != "slurm":
        return engine
    path = Path(engine.partition(":")[2])
    if not path.is_file():
        raise FileNotFoundError(f"engine {engine} names no file; expected slurm:FILE.yaml")
    return f"slurm:{path.resolve()}"


def _apply(setting: str, known: list[Notebook], parameters: dict[str, dict[str, Any]]) -> None:
    """Put one ``NAME=VALUE`` or ``NN.NAME=VALUE`` into the parameters."""
    name, sign, words = setting.partition("=")
    if not sign:
        raise ValueError(f"--set {setting} has no value; expected NAME=VALUE")
    number, dot, short = name.partition(".")
    name = short if dot else name
    if name == "profile":
        raise ValueError("--set cannot change the profile; use --profile")
    targets = [n for n in known if not dot or n.number == _number(number, known)]
    having = [notebook for notebook in targets if name in notebook.parameters]
    if not having:
        names = sorted({key for notebook in targets for key in notebook.parameters})
        raise ValueError(f"no notebook has the parameter {name}; {unknown(name, names)}")
    for notebook in having:
        parameters[notebook.stem][name] = from_words(notebook.parameters[name], words)


def _number(word: str, known: list[Notebook]) -> str:
    """Two digits of the notebook that a word of ``--only`` names."""
    word = word.strip().removesuffix(".ipynb")
    for notebook in known:
        if word in (notebook.stem, notebook.number, notebook.number.lstrip("0")):
            return notebook.number
    numbers = ", ".join(notebook.number for notebook in known)
    raise ValueError(f"no notebook {word!r}; known: {numbers}")
