"""Forty scans of which twenty are broken: every command gives forty rows and the right reasons."""

import re

import numpy as np
import pandas as pd
import pytest
from broken_scans import IN_THE_HEADER, N_GOOD, REASONS, write_forty
from scoring_set import write_model

from motionlib.cli import main
from motionlib.preprocess import caps

GRADES = {f"good{number:02d}": 2 * (number % 2) for number in range(N_GOOD)}


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    return write_forty(tmp_path_factory.mktemp("forty") / "mybids")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


def run(*words) -> int:
    """Exit status of the command line."""
    return main([str(word) for word in words])


def reasons_of(path) -> pd.Series:
    """Reason by subject in a command's table, which has a row for each of the forty."""
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    assert len(table) == 40
    subjects = table["scan_id"].str.extract("sub-([a-z0-9]+)", expand=False)
    return table.set_index(subjects)["reason"]


def check(reasons, expected=REASONS) -> None:
    """The broken ones, and they alone, have their reasons, without a library's words."""
    assert set(reasons[reasons != ""].index) == set(expected)
    wrong = {way: reasons[way] for way, word in expected.items() if word not in reasons[way]}
    assert wrong == {}
    assert not reasons.str.contains("Error|Exception|Traceback|codec").any()


def test_score(forty, model, tmp_path, capsys):
    words = ("score", forty, "--model", model, "--out", tmp_path / "s.tsv")
    assert run(*words) == 1
    check(reasons_of(tmp_path / "s.tsv"))
    assert "20 of 40 scans scored" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [(), ("--corrected",)])
def test_iqms(kind, forty, tmp_path):
    assert run("iqms", forty, "--out", tmp_path / "q.tsv", *kind) == 1
    # MRQy's numbers need no axes: they are of slices as stored
    check(
        reasons_of(tmp_path / "q.tsv"),
        REASONS if kind else {way: word for way, word in REASONS.items() if way != "axes"},
    )


def test_preprocess(forty, tmp_path, monkeypatch):
    # the registration itself takes seconds a scan, and has its own tests
    qc = {"target": "none", "matrix": np.eye(4).tolist()}
    monkeypatch.setattr(caps, "t1_linear", lambda scan, **how: (scan[0], scan[1], dict(qc)))
    monkeypatch.setattr(caps, "qc_picture", lambda volume, path: path)
    assert run("preprocess", forty, "--out", tmp_path / "caps") == 1
    check(reasons_of(tmp_path / "caps" / "outcome.tsv"))
    kept = pd.read_csv(tmp_path / "caps" / "manifest.tsv", sep="\t")
    assert len(kept) == N_GOOD


@pytest.mark.parametrize("method", ["image", "kspace"])
def test_simulate(method, forty, tmp_path):
    words = ("simulate", forty, tmp_path / "moved", "--method", method, "--points", "20")
    assert run(*words) == 1
    check(reasons_of(tmp_path / "moved" / "outcome.tsv"))
    assert len(list((tmp_path / "moved").glob("*.nii.gz"))) == N_GOOD


def test_manifest(forty, tmp_path):
    assert run("manifest", "bids", forty, "--out", tmp_path / "m.tsv") == 1
    kept = pd.read_csv(tmp_path / "m.tsv", sep="\t")
    left = pd.read_csv(tmp_path / "m_dropped.tsv", sep="\t")
    rows = pd.concat([kept.assign(reason=""), left])[["scan_id", "reason"]]
    rows.to_csv(tmp_path / "rows.tsv", sep="\t", index=False)
    check(reasons_of(tmp_path / "rows.tsv"), IN_THE_HEADER)


def test_finetune(forty, model, tmp_path, capsys):
    rows = [
        (f"sub-{name}_T1w", f"sub-{name}", path, GRADES.get(name, number % 2 * 2))
        for number, path in enumerate(sorted(forty.glob("sub-*/anat/*")))
        for name in [path.parts[-3].removeprefix("sub-")]
    ]
    columns = ["scan_id", "participant_id", "path", "motion_grade"]
    table = pd.DataFrame(rows, columns=columns)
    # absolute paths and those relative to the table are alike
    short = [path.relative_to(forty.parent) for path in table["path"]]
    table["path"] = table["path"].where(table.index % 2 == 0, pd.Series(short))
    table.to_csv(forty.parent / "grades.tsv", sep="\t", index=False)
    words = ("finetune", forty.parent / "grades.tsv", "--from", model, "--task", "mov01vs2")
    assert run(*words, "--out", tmp_path / "mine", "--epochs", "1", "--folds", "3") == 1
    used = pd.read_csv(tmp_path / "mine" / "work" / "mov01vs2.tsv", sep="\t")["scan_id"]
    told = re.findall(r"^(sub-\w+): (.+)$", capsys.readouterr().err, flags=re.MULTILINE)
    left = pd.DataFrame(told, columns=["scan_id", "reason"])
    rows = pd.concat([pd.DataFrame({"scan_id": used, "reason": ""}), left])
    rows.to_csv(tmp_path / "rows.tsv", sep="\t", index=False)
    check(reasons_of(tmp_path / "rows.tsv"))
