"""The command: what it writes, what it says, and its exit status."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from motionlib.cli import main
from motionlib.preprocess.finder import find_scans


@pytest.fixture
def folder(rng, tmp_path):
    """Two small heads in a BIDS-like folder, and one image that is no T1w."""
    grid = np.indices((14, 16, 12)) - np.array([6.5, 7.5, 5.5])[:, None, None, None]
    inside = (grid**2).sum(axis=0) < 25
    for name in ("sub-1_T1w", "sub-2_T1w", "sub-1_T2w"):
        volume = np.where(inside, 300, 20) + rng.normal(0, 5, inside.shape)
        anat = tmp_path / "bids" / name[:5] / "anat"
        anat.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(volume.astype(np.int16), np.eye(4)), anat / f"{name}.nii.gz")
    return tmp_path / "bids"


def run(*words) -> int:
    """Exit status of the command line, however it is given."""
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code)


def test_a_folder_gives_its_t1w_images(folder, tmp_path):
    assert run("iqms", folder, "--out", tmp_path / "out.tsv") == 0
    table = pd.read_csv(tmp_path / "out.tsv", sep="\t")
    assert table.scan_id.tolist() == ["sub-1_T1w", "sub-2_T1w"]
    assert table.shape[1] == 19
    assert table.MEAN.between(150, 320).all()


def test_a_manifest_s_paths_are_relative_to_it_and_a_lost_file_is_a_row(folder, tmp_path, capsys):
    manifest = folder / "manifest.tsv"
    manifest.write_text("scan_id\tpath\na\tsub-1/anat/sub-1_T1w.nii.gz\nb\tgone.nii.gz\n")
    assert run("iqms", manifest, "--out", tmp_path / "out.tsv") == 1
    table = pd.read_csv(tmp_path / "out.tsv", sep="\t").set_index("scan_id")
    assert np.isfinite(table.MEAN["a"])
    assert table.reason["b"] == "the file is not there; expected an image"
    assert "1 of 2 scans measured" in capsys.readouterr().err
    assert run("iqms", manifest, "--out", tmp_path / "out.tsv", "--json") == 1
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["scans"] == 2
    assert outcome["without_measures"] == {"b": table.reason["b"]}


def test_slices_and_pictures_come_on_demand(folder, tmp_path):
    image = folder / "sub-1/anat/sub-1_T1w.nii.gz"
    status = run(
        "iqms", image, "--out", tmp_path / "out.tsv", "--per-slice", tmp_path / "slices.tsv",
        "--overlay", tmp_path / "pictures", "--corrected",
    )  # fmt: skip
    assert status == 0
    slices = pd.read_csv(tmp_path / "slices.tsv", sep="\t")
    assert slices.columns[:3].tolist() == ["scan_id", "slice", "foreground_voxels"]
    assert [p.name for p in (tmp_path / "pictures").iterdir()] == ["sub-1_T1w_foreground.png"]


def test_a_table_of_mriqc_is_imported(tmp_path):
    source = tmp_path / "group_T1w.tsv"
    source.write_text("bids_name\textra\tcjv\tefc\tfber\nsub-1\t0\t0.3\t0.5\t9\n")
    assert run("iqms", source, "--out", tmp_path / "out.tsv") == 0
    table = pd.read_csv(tmp_path / "out.tsv", sep="\t")
    assert table.columns.tolist() == ["scan_id", "cjv", "efc", "fber"]


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("gone.nii", None, "no file or folder"),
        ("notes.txt", "hello", "neither an image"),
        ("table.tsv", "a\tb\n1\t2\n", "expected a manifest with scan_id and path"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_status_two(tmp_path, capsys, name, text, word):
    if text is not None:
        (tmp_path / name).write_text(text)
    assert run("iqms", tmp_path / name, "--out", tmp_path / "out.tsv") == 2
    error = capsys.readouterr().err
    assert word in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.tsv").exists()


def test_a_name_that_promises_commas_is_refused(tmp_path, capsys):
    assert run("iqms", tmp_path, "--out", tmp_path / "out.csv") == 2
    assert "does not end in .tsv" in capsys.readouterr().err


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no image in folder empty"):
        find_scans([str(tmp_path / "empty")])
