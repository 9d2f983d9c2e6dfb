"""The wheel holds all that the study needs, so that an empty folder is enough to run it in."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from motionlib.study.notebooks import find_notebooks

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("runs", "results", "tests", "benchmarks", "build", "*.egg-info", "__pycache__", ".*")
SHIPPED = ("notebooks", "data_manifests")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the contents of the wheel, built from a copy of the repository."""
    pytest.importorskip("setuptools", minversion="77")
    place = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, place / "source", ignore=shutil.ignore_patterns(*LEFT_OUT))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    command += ["--no-index", "--wheel-dir", str(place), str(place / "source")]
    subprocess.run(command, check=True)
    (wheel,) = place.glob("motionlib-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(place / "site")
    return place / "site"


def files_below(folder: Path) -> set[str]:
    """Relative names of the files of a folder, caches and hidden ones left out."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {n for n in names if "__pycache__" not in n and not n.startswith(".") and "/." not in n}


def printed(site: Path, folder: Path, *words: str) -> str:
    """What an interpreter prints that finds motionlib in the wheel and starts in another folder."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    environment.pop("MOTIONLIB_RUNS", None)
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_it_holds_the_whole_package_and_the_study(site):
    expected = files_below(ROOT / "motionlib")
    for name in SHIPPED:
        expected |= {f"_study/{name}/{path}" for path in files_below(ROOT / name)}
    assert files_below(site / "motionlib") == expected


def test_only_files_knows_where_they_lie():
    rooms = [path for path in (ROOT / "motionlib").rglob("*.py") if path.name != "files.py"]
    fixed = re.compile(r"(PACKAGE|__file__).*(notebooks|data_manifests)")
    assert [path.name for path in rooms if fixed.search(path.read_text())] == []


def test_its_copies_are_the_repository_s(site):
    for name in SHIPPED:
        for path in files_below(ROOT / name):
            packed = site / "motionlib" / "_study" / name / path
            assert packed.read_bytes() == (ROOT / name / path).read_bytes()


def test_from_an_empty_folder_the_study_knows_what_to_run(site, tmp_path):
    said = printed(site, tmp_path, "-m", "motionlib.cli", "study", "--profile=smoke", "--dry-run")
    n = len(find_notebooks(ROOT / "notebooks"))
    assert f"profile smoke: {n} of {n} notebooks to run" in said
    assert list(tmp_path.iterdir()) == []


def test_the_published_tables_are_found(site, tmp_path):
    code = "import motionlib; from motionlib.paper import published; print(motionlib.__file__, "
    said = printed(site, tmp_path, "-c", code + "len(published('table_4')))")
    assert said.split() == [str(site / "motionlib" / "__init__.py"), "12"]
