"""Compiled functions work where nothing can be written, as in a container with a foreign uid."""

import subprocess
import sys

import pytest

from motionlib.compute.compiled import compiled, keeps_code
from motionlib.files import PACKAGE

NOWHERE = "from numba.core import caching; caching.CacheImpl._locator_classes = []\n"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path.read_text()
    for path in PACKAGE.rglob("*.py")
}
USERS = [name for name, text in MODULES.items() if "compute.compiled import" in text]


def test_only_this_module_calls_numba():
    found = {name for name, text in MODULES.items() if "import numba" in text or "njit" in text}
    assert found == {"motionlib.compute.compiled"}


@pytest.mark.parametrize("name", sorted(USERS))
def test_a_module_opens_where_no_folder_can_be_written(name):
    code = f"{NOWHERE}import {name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_function_in_memory_computes_the_same(monkeypatch):
    def double(x):
        return 2 * x

    kept = compiled()(double)
    assert keeps_code()
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    assert not keeps_code()
    assert compiled()(double)(3) == kept(3) == 6
