"""One set of requirements in four places: pyproject, environment.yml, constraints and the code."""

import ast
import json
import re
import sys
import tomllib
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA_NAMES = {  # what a distribution is called on conda-forge, where the name differs
    "torch": "pytorch",
    "isal": "python-isal",
    "dask": "dask-core",
    "matplotlib": "matplotlib-base",
    "seaborn": "seaborn-base",
}
IMPORT_NAMES = {  # what a distribution is called in an import, where the name differs
    "scikit-learn": "sklearn",
    "simpleitk": "SimpleITK",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "great-tables": "great_tables",
    "lazy-loader": "lazy_loader",
    "mriqc-learn": "mriqc_learn",
    "dask-jobqueue": "dask_jobqueue",
    "antspyx": "ants",
    "pytest-timeout": "pytest_timeout",
}
NOT_CONSTRAINED = {"torch"}  # each site chooses its build


def requirements(lines: list[str]) -> dict[str, SpecifierSet]:
    """Canonical names and version ranges."""
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): one.specifier for one in parsed}


CORE = requirements(PROJECT["dependencies"])
EXTRAS = {name: requirements(lines) for name, lines in PROJECT["optional-dependencies"].items()}
PINS = {
    canonicalize_name(line.partition("==")[0]): line.strip().partition("==")[2]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
}


def conda_packages() -> tuple[dict[str, SpecifierSet], dict[str, SpecifierSet]]:
    """Packages that environment.yml takes from conda and from pip, under their names on PyPI."""
    back = {conda: pypi for pypi, conda in CONDA_NAMES.items()}
    conda, pip = [], []
    for entry in CONDA["dependencies"]:
        if isinstance(entry, dict):
            pip += [line for line in entry["pip"] if not line.startswith("-e")]
        else:
            name = re.match(r"[\w.-]+", entry)[0]
            conda.append(entry.replace(name, back.get(name, name), 1))
    return requirements(conda), requirements(pip)


def imported(source: str) -> set[str]:
    """First words of all imports of a source text, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def sources(*patterns: str) -> dict[str, str]:
    """Texts of modules and of the code of notebooks, by name."""
    found = {}
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix == ".py":
                found[name] = path.read_text()
                continue
            cells = json.loads(path.read_text())["cells"]
            code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
            plain = [line for cell in code for line in cell.splitlines() if line[:1] not in "%!"]
            found[name] = "\n".join(plain)
    return found


class TestCondaEnvironment:
    def test_it_holds_the_same_packages_as_pyproject(self):
        conda, pip = conda_packages()
        expected = {*CORE, *EXTRAS["test"], "python", "pip"}
        assert {*conda, *pip} == expected

    def test_its_ranges_are_those_of_pyproject(self):
        conda, pip = conda_packages()
        declared = {**CORE, **EXTRAS["test"], "python": SpecifierSet(PROJECT["requires-python"])}
        ours = {name: str(spec) for name, spec in {**conda, **pip}.items() if name != "pip"}
        assert ours == {name: str(spec) for name, spec in declared.items()}

    def test_only_what_conda_forge_lacks_comes_from_pip(self):
        _, pip = conda_packages()
        assert set(pip) == {"mriqc-learn"}

    def test_it_pins_no_build_and_no_single_version(self):
        lines = [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]
        assert [line for line in lines if re.search(r"(?<![<>~!])=", line)] == []

    def test_it_takes_everything_from_conda_forge(self):
        assert CONDA["channels"] == ["conda-forge", "nodefaults"]

    def test_what_lacks_builds_for_some_systems_stays_out(self):
        conda, pip = conda_packages()
        assert {"antspyx", "indexed-gzip"} & {*conda, *pip, *CORE} == set()


class TestConstraints:
    @pytest.mark.parametrize("name", sorted({*CORE, *EXTRAS["test"]} - NOT_CONSTRAINED))
    def test_a_required_package_has_one_tested_version_in_its_range(self, name):
        specifier = {**CORE, **EXTRAS["test"]}[name]
        assert name in PINS
        assert specifier.contains(PINS[name])

    def test_torch_is_left_to_the_site(self):
        assert not {name for name in PINS if name == "torch" or name.startswith("nvidia-")}

    def test_no_package_is_named_twice(self):
        lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line]
        assert len(lines) == len(PINS)

    def test_no_pin_refuses_the_oldest_python_that_is_promised(self):
        """Debian 12 has 3.11.2; only what is installed here at its pin can be asked."""
        refused = {}
        for name, pin in PINS.items():
            with suppress(metadata.PackageNotFoundError):
                found = metadata.metadata(name)
                wanted = SpecifierSet(found.get("Requires-Python") or "")
                if found["Version"] == pin and not wanted.contains("3.11.2"):
                    refused[name] = str(wanted)
        assert refused == {}


class TestPublicFace:
    def test_the_classifiers_are_the_pythons_that_are_allowed(self):
        named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if ":: Python :: 3." in c]
        allowed = SpecifierSet(PROJECT["requires-python"])
        assert named == [f"3.{n}" for n in range(30) if f"3.{n}" in allowed]

    def test_continuous_integration_tries_them_all_on_two_systems(self):
        jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
        matrix = jobs["test"]["strategy"]["matrix"]
        assert matrix["os"] == ["ubuntu-latest", "macos-latest"]
        allowed = SpecifierSet(PROJECT["requires-python"])
        assert matrix["python"] == [f"3.{n}" for n in range(30) if f"3.{n}" in allowed]
        steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
        made = {word for run in steps for word in re.findall(r"make (\w+)", run)}
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert made <= set(targets)

    def test_the_citation_is_of_this_version_and_this_repository(self):
        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
        assert (citation["version"], citation["license"]) == (
            PROJECT["version"],
            PROJECT["license"],
        )
        assert citation["repository-code"] == PROJECT["urls"]["Source"]
        assert re.fullmatch(r"10\.\d{4,}/\S+", citation["references"][0]["doi"])

    def test_containers_make_what_everybody_makes(self):
        facts = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
        assert facts["postCreateCommand"] == "make setup"
        lines = (ROOT / ".binder" / "requirements.txt").read_text().splitlines()
        assert {"--constraint ../constraints.txt", "-e ."} <= set(lines)


class TestImports:
    def test_every_import_of_the_package_is_declared(self):
        declared = {IMPORT_NAMES.get(name, name) for name in {*CORE, *_optional()}}
        declared.add("triton")  # CUDA builds of torch bring it along; used where it is
        unknown = {
            name: sorted(third)
            for name, text in sources("motionlib/**/*.py").items()
            if (third := imported(text) - declared - sys.stdlib_module_names - {"motionlib"})
        }
        assert unknown == {}

    def test_every_import_of_a_notebook_is_a_core_requirement(self):
        declared = {IMPORT_NAMES.get(name, name) for name in CORE}
        known = {*declared, *sys.stdlib_module_names, "motionlib", "IPython", "pages"}
        texts = sources("notebooks/*.ipynb")
        assert {name: t for name, text in texts.items() if (t := imported(text) - known)} == {}

    def test_every_core_requirement_is_used(self):
        texts = sources("motionlib/**/*.py", "notebooks/*.ipynb")
        used = {name for text in texts.values() for name in imported(text)}
        # mriqc-learn is read as tables, never imported: its wheel also holds a pickle
        run_by_others = {"jupyterlab", "ipykernel", "ipywidgets", "nbclient", "dask"}
        run_by_others |= {"mriqc-learn", "xlrd"}  # pandas reads IXI.xls by xlrd
        run_by_others |= {"cryptography"}  # by which distributed makes certificates
        unused = {n for n in CORE if IMPORT_NAMES.get(n, n).replace("-", "_") not in used}
        assert unused - run_by_others == set()


def _optional() -> set[str]:
    """Packages of the extras other than the tests'."""
    return {name for extra, packages in EXTRAS.items() if extra != "test" for name in packages}
