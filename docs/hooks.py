"""What the site has that no file in ``docs/`` holds: README, changelog, API pages, a report.

Links from a page to a file of the repository outside ``docs/`` lead to where it is hosted.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
ROOT_PAGES["CONTRIBUTING.md"] = "contributing.md"
REPORT = ROOT / "runs" / "demo" / "report"
LINK = re.compile(r"(!?\[[^]]*\]\()([^)#\s]+)(#[^)\s]*)?(\))")
ORDER = ("manifest", "splits", "predictions", "metrics", "tasks", "compute", "preprocess", "motion")
ORDER += ("networks", "stats", "cohorts", "training", "paper", "iqms", "figures", "experiments")
ORDER += ("study", "scoring")


def on_config(config):
    """Add the API pages and, where a run has one, its report to the navigation."""
    if (ROOT / "docs" / "teaching.md").is_file():
        config.nav.insert(2, {"Teaching": "teaching.md"})
    config.nav.append({"Source": config.extra["repository"]})
    config.nav.append({"API": [{name: f"api/{name}.md"} for name in ORDER]})
    if (REPORT / "index.html").is_file():
        pages = [path for path in sorted(REPORT.glob("[0-9]*.html"))]
        report = [{"Report": "report/index.html"}]
        report += [{path.stem.replace("_", " "): f"report/{path.name}"} for path in pages]
        config.nav.insert(1, {"The demo, executed": report})
    return config


def on_files(files, config):
    """Make pages of the files that lie elsewhere."""
    for source, name in ROOT_PAGES.items():
        text = _with_links((ROOT / source).read_text("utf-8"), ROOT, config)
        files.append(File.generated(config, name, content=text))
    for name in ORDER:
        files.append(File.generated(config, f"api/{name}.md", content=_api(name)))
    for path in sorted(REPORT.rglob("*")):
        if path.is_file():
            name = f"report/{path.relative_to(REPORT).as_posix()}"
            inclusion = InclusionLevel.INCLUDED
            files.append(File.generated(config, name, abs_src_path=str(path), inclusion=inclusion))
    picture = ROOT / "results" / "demo" / "report.png"
    files.append(File.generated(config, "report.png", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links to files outside ``docs/`` lead to where the repository is hosted."""
    if page.file.src_uri in ROOT_PAGES.values():
        return markdown
    return _with_links(markdown, (ROOT / "docs" / page.file.src_uri).parent, config)


def _with_links(markdown: str, folder: Path, config) -> str:
    """Rewrite relative links of a page that lay in `folder`."""
    repository = config.extra["repository"]

    def moved(match: re.Match) -> str:
        before, target, anchor, after = match.groups()
        anchor = anchor or ""
        if re.match(r"[a-z]+:", target):
            return match[0]
        path = (folder / target).resolve()
        if not path.is_relative_to(ROOT):
            return match[0]
        place = path.relative_to(ROOT).as_posix()
        if place == "results/demo/report.png":
            return f"{before}report.png{after}"
        if place in ROOT_PAGES:
            return f"{before}{ROOT_PAGES[place]}{anchor}{after}"
        if place.startswith("docs/"):
            return f"{before}{place.removeprefix('docs/')}{anchor}{after}"
        kind = "tree" if path.is_dir() else "blob"
        return f"{before}{repository}/{kind}/main/{place}{anchor}{after}"

    return LINK.sub(moved, markdown)


def _api(name: str) -> str:
    """Write the page of a room: its docstring, then what its face hands on, or its own names."""
    path = ROOT / "motionlib" / f"{name}.py"
    lines = [f"# motionlib.{name}", ""]
    if path.is_file():
        return "\n".join(
            [*lines, f"::: motionlib.{name}", "    options: {show_root_heading: false}"]
        )
    tree = ast.parse((ROOT / "motionlib" / name / "__init__.py").read_text("utf-8"))
    lines += [ast.get_docstring(tree) or "", ""]
    names = [f"motionlib.{name}.{own}" for own in sorted(_defined(tree)) if own[0] != "_"]
    for module, members in _handed_on(tree).items():
        path = ROOT / "motionlib" / name / f"{module.replace('.', '/')}.py"
        known = _defined(ast.parse(path.read_text("utf-8"))) if path.is_file() else set()
        names += [f"motionlib.{name}.{module}.{one}" for one in members if one in known]
    return "\n".join([*lines, *[f"::: {one}\n" for one in names]])


def _defined(tree: ast.Module) -> set[str]:
    """Functions and classes that a module defines; constants have no docstring to show."""
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name for node in tree.body if isinstance(node, kinds)}


def _handed_on(tree: ast.Module) -> dict[str, list[str]]:
    """Names that a room's ``__init__`` hands on, by module."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "submod_attrs":
            for key, value in ast.literal_eval(node.value).items():
                found.setdefault(key, []).extend(value)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("motionlib."):
            module = node.module.split(".", 2)[-1]
            found.setdefault(module, []).extend(alias.name for alias in node.names)
    return found
