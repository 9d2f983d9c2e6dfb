"""Scans and people named to do harm stay text, in pages, tables and file names, inside folders."""

import pandas as pd
import pytest
from scoring_set import write_heads, write_model

from motionlib.cli import main
from motionlib.files import as_cell, write_json, write_table
from motionlib.typeset import table_html, to_html, to_latex, to_notebook

NAMES = (
    "<script>alert(1)</script>",
    "=cmd()",
    "../../up",
    "/tmp/absolute",
    "@SUM(A1)",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}",
    "\\input{/etc/passwd}",
)


def run(*words) -> int:
    """Exit status of the command line."""
    return main([str(word) for word in words])


def files_of(folder) -> set:
    """Everything below a folder."""
    return {path.relative_to(folder) for path in folder.rglob("*")}


def is_harmless(page: str) -> bool:
    """Whether a page holds no tag of ours."""
    return "<script>alert" not in page and "<img src=x" not in page and ">49<" not in page


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def hostile(tmp_path):
    """A manifest whose ids are the hostile names, of two heads and of files that are none."""
    folder = tmp_path / "a" / "b" / "c"
    heads = write_heads(folder, 2)
    paths = [heads[0].name, heads[1].name, *(f"missing{n}.nii.gz" for n in range(2, len(NAMES)))]
    table = pd.DataFrame({"scan_id": NAMES, "participant_id": NAMES, "path": paths})
    table["motion_grade"] = [0, 2] * (len(NAMES) // 2)
    table.to_csv(folder / "m.tsv", sep="\t", index=False, quoting=3)
    return folder


def cells_of(path) -> pd.DataFrame:
    """A table as text."""
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=3)


def test_score_keeps_them_text_and_inside(hostile, model, tmp_path):
    before = files_of(tmp_path)
    out = hostile / "out" / "s.tsv"
    assert run("score", hostile / "m.tsv", "--model", model, "--out", out) == 1
    new = files_of(tmp_path) - before
    assert {path.parts[:4] for path in new} == {("a", "b", "c", "out")}
    assert cells_of(out)["scan_id"].tolist() == [as_cell(name) for name in NAMES]
    page = out.with_suffix(".html").read_text()
    assert is_harmless(page)
    assert "&lt;script&gt;alert(1)" in page
    assert "{{7*7}}" in page


def test_iqms_names_no_picture_outside(hostile, tmp_path):
    before = files_of(tmp_path)
    out = hostile / "out"
    words = ("iqms", hostile / "m.tsv", "--out", out / "q.tsv", "--overlay", out / "pictures")
    # the two scans that are there go by ids that lead away
    text = (hostile / "m.tsv").read_text()
    swapped = text.replace(NAMES[0], "x").replace("../../up", NAMES[0]).replace("x", "../../up", 1)
    rows = swapped.splitlines()
    assert rows[1].startswith("../../up")
    rows[2] = rows[2].replace("=cmd()", "/tmp/absolute2")
    (hostile / "m.tsv").write_text("\n".join(rows) + "\n")
    assert run(*words) == 1
    new = files_of(tmp_path) - before
    assert {path.parts[:4] for path in new} == {("a", "b", "c", "out")}
    assert sum(path.suffix == ".png" for path in new) == 2


@pytest.mark.parametrize("command", ["simulate", "preprocess"])
def test_what_names_files_by_ids_refuses_the_rows(hostile, tmp_path, command):
    before = files_of(tmp_path)
    out = hostile / "out"
    words = [command, hostile / "m.tsv", *(["--out"] if command == "preprocess" else []), out]
    assert run(*words) == 1
    outcome = cells_of(out / "outcome.tsv")
    assert set(outcome["status"]) == {"failed"}
    assert outcome["scan_id"].tolist() == [as_cell(name) for name in NAMES]
    assert {path.parts[:4] for path in files_of(tmp_path) - before} == {("a", "b", "c", "out")}
    for page in out.rglob("*.html"):
        assert is_harmless(page.read_text())


def test_finetune_refuses_them_before_it_writes(hostile, model, tmp_path, capsys):
    before = files_of(tmp_path)
    words = ("finetune", hostile / "m.tsv", "--from", model, "--task", "mov01vs2")
    assert run(*words, "--out", hostile / "mine") == 2
    assert files_of(tmp_path) == before
    assert "other characters than ASCII letters" in capsys.readouterr().err


def test_a_data_set_with_such_names_makes_a_table_of_text(tmp_path, capsys):
    root = tmp_path / "bids"
    (head,) = write_heads(tmp_path, 1)
    for subject in ("good", "<script>alert(1)<", "=cmd()"):
        place = root / f"sub-{subject}" / "anat"
        place.mkdir(parents=True)
        (place / f"sub-{subject}_T1w.nii.gz").hardlink_to(head)
    write_json(root / "T1w.json", {"Manufacturer": "=HYPERLINK(1)", "MagneticFieldStrength": 3})
    assert run("manifest", "bids", root, "--out", tmp_path / "m.tsv") == 1
    kept, dropped = cells_of(tmp_path / "m.tsv"), cells_of(tmp_path / "m_dropped.tsv")
    assert kept["scan_id"].tolist() == ["sub-good_T1w"]
    assert kept["manufacturer"].tolist() == ["'=HYPERLINK(1)"]
    assert dropped["step"].tolist() == ["plain name"] * 2


def test_a_link_in_the_place_of_a_result_is_replaced_not_followed(model, tmp_path):
    (head,) = write_heads(tmp_path / "scans", 1)
    (tmp_path / "precious.txt").write_text("precious")
    out = tmp_path / "out" / "s.tsv"
    out.parent.mkdir()
    out.symlink_to(tmp_path / "precious.txt")
    assert run("score", head, "--model", model, "--out", out, "--no-report") == 0
    assert (tmp_path / "precious.txt").read_text() == "precious"
    assert not out.is_symlink()


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1+cmd()", "'+1+cmd()"),
        ("-2+3+cmd()", "'-2+3+cmd()"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=cmd()", "' =cmd()"),
        ("'=cmd()", "'=cmd()"),
        *((text, text) for text in ("-", "-1", "+0.5", "-1.5e-05", "-.5", "a=b", "sub-01", "")),
    ],
)
def test_what_a_spreadsheet_would_compute_is_text(text, cell, tmp_path):
    assert as_cell(text) == cell
    for name in ("t.csv", "t.tsv"):
        write_table(pd.DataFrame({"a": [text], "b": [-1.5]}), tmp_path / name)
        written = (tmp_path / name).read_text().splitlines()[1]
        assert written.lstrip('"').startswith("'") == cell.startswith("'")
        assert written.endswith("-1.5")


def test_tables_typeset_them_as_text():
    table = pd.DataFrame({"participant": NAMES, "auc": 0.5})
    for page in (table_html(table, NAMES[0]), to_html(table, title=NAMES[0]), to_notebook(table)):
        assert is_harmless(page)
        assert "&lt;script&gt;" in page
    latex = to_latex(table, caption=NAMES[7])
    assert "\\input{" not in latex
    assert "<script>" not in latex


def test_a_table_on_the_way_through_write_table_keeps_its_types(tmp_path):
    kinds = {"a": pd.Categorical(["=x", "y"]), "b": [True, False], "c": [1, 2], "d": [None, "-"]}
    table = pd.DataFrame(kinds | {"e": pd.array([1, None], "Int64")})
    write_table(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "a,b,c,d,e\n'=x,True,1,,1\ny,False,2,-,\n"
