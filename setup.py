"""Pack the notebooks and the published tables into the wheel, where no repository is at hand.

Everything else about the package stands in ``pyproject.toml``.
"""

from pathlib import Path
from shutil import copytree, ignore_patterns, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py

PACKED = ("notebooks", "data_manifests")  # found again by `motionlib.files.shipped`


class BuildWithStudy(build_py):
    """Copy the folders beside the modules; an editable installation finds them where they are."""

    def run(self):
        """Build the modules, then the folders."""
        super().run()
        if self.editable_mode:
            return
        for name in PACKED:
            target = Path(self.build_lib) / "motionlib" / "_study" / name
            rmtree(target, ignore_errors=True)  # an older build may have packed what is gone
            copytree(name, target, ignore=ignore_patterns(".*"))


setup(cmdclass={"build_py": BuildWithStudy})
