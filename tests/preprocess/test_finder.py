"""Finding scans: BIDS's rules, CAPS as it comes, and a word on what was left aside."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from motionlib.cli import main as cli
from motionlib.cohorts import read_cohort
from motionlib.preprocess.finder import bids_images, find_scans


def put(root, *paths):
    """Write small images below a folder."""
    image = nib.Nifti1Image(np.random.default_rng(0).random((8, 8, 8), np.float32), np.eye(4))
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, root / path)


@pytest.fixture
def used(tmp_path):
    """A BIDS folder as people have it: three scans among much that looks like one."""
    root = tmp_path / "mybids"
    put(root, "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz")
    put(root, "sub-02/anat/sub-02_T1w.nii.gz", "sub-01/ses-2/func/sub-01_ses-2_bold.nii.gz")
    put(root, "sub-02/anat/sub-02_T1w_defacemask.nii.gz", "sub-03/anat/sub-03_acq-bad_T1w.nii.gz")
    put(root, "sourcedata/sub-01/anat/sub-01_T1w.nii.gz", "code/test_T1w.nii.gz")
    put(root, "derivatives/fs/sub-01/anat/sub-01_T1w.nii.gz", ".git/annex/objects/x_T1w.nii.gz")
    (root / "sub-02/anat/._sub-02_T1w.nii.gz").write_bytes(b"\x00\x05\x16\x07")
    (root / ".bidsignore").write_text("# spoiled\n*_acq-bad_*\n")
    return root


EXPECTED = ["sub-01_T1w", "sub-01_ses-1_T1w", "sub-02_T1w"]


class TestBids:
    def test_only_the_scans_of_the_data_set_are_found_under_their_own_names(self, used):
        lines = []
        assert [scan for scan, _ in find_scans([str(used)], report=lines.append)] == EXPECTED
        assert lines == [
            "mybids: left aside code/, derivatives/, sourcedata/ and 3 more",
        ]

    def test_the_reader_finds_the_same_and_says_what_it_left(self, used):
        manifest, flow = read_cohort("bids", used)
        assert list(manifest["scan_id"]) == EXPECTED
        assert "left aside: code/, derivatives/" in flow["reason"].str.cat()

    def test_patterns_of_bidsignore_name_files_and_folders(self, tmp_path):
        put(tmp_path, *(f"sub-{n}/anat/sub-{n}_T1w.nii.gz" for n in range(4)))
        (tmp_path / ".bidsignore").write_text("sub-0/\n**/sub-1_*\nsub-2/anat/sub-2_T1w.nii.gz\n")
        assert [subject for subject, _, _ in bids_images(tmp_path)[0]] == ["sub-3"]

    def test_a_scan_of_another_place_ending_or_case_is_told_not_passed_over(self, tmp_path):
        put(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/sub-02_T1w.nii.gz")
        put(tmp_path, "patient7/anat/p7_T1w.nii.gz", "sub-05/ses-1/extra/sub-05_ses-1_T1w.nii")
        put(tmp_path, "sub-06/func/sub-06_T1w.nii.gz", "sub-08_T1w.nii.gz")
        for name in ("sub-03/anat/sub-03_T1w.NII.GZ", "sub-04/anat/sub-04_T1w.mgz"):
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).write_bytes(b"an image")
        images, aside = bids_images(tmp_path)
        assert [path for _, _, path in images] == ["sub-01/anat/sub-01_T1w.nii.gz"]
        assert aside == [
            "sub-08_T1w.nii.gz",
            "patient7/anat/p7_T1w.nii.gz",
            "sub-02/sub-02_T1w.nii.gz",
            "sub-03/anat/sub-03_T1w.NII.GZ",
            "sub-04/anat/sub-04_T1w.mgz",
            "sub-05/ses-1/extra/sub-05_ses-1_T1w.nii",
        ]

    def test_a_folder_that_leads_back_is_not_followed_for_ever(self, tmp_path):
        put(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
        (tmp_path / "sub-01/ses-1").symlink_to(tmp_path / "sub-01")
        images, _ = bids_images(tmp_path)
        assert [path for _, _, path in images] == [
            "sub-01/anat/sub-01_T1w.nii.gz",
            "sub-01/ses-1/anat/sub-01_T1w.nii.gz",
        ]


class TestPlainFolders:
    def test_what_could_be_read_in_another_format_is_told(self, tmp_path):
        put(tmp_path, "x.nii.gz")
        (tmp_path / "y.mgz").write_bytes(b"an image")
        lines = []
        find_scans([str(tmp_path)], report=lines.append)
        assert lines == [f"{tmp_path.name}: left aside y.mgz"]

    def test_hidden_files_and_masks_are_no_scans(self, tmp_path):
        put(tmp_path, "a/one_T1w.nii.gz", "a/one_T1w_mask.nii.gz", ".cache/two_T1w.nii.gz")
        (tmp_path / "a/._one_T1w.nii.gz").write_bytes(b"x")
        assert [scan for scan, _ in find_scans([str(tmp_path)])] == ["one_T1w"]

    def test_without_such_a_name_all_images_are_taken(self, tmp_path):
        put(tmp_path, "x.nii.gz", "y.nii")
        assert [scan for scan, _ in find_scans([str(tmp_path)])] == ["x", "y"]


class TestCaps:
    def test_old_and_new_names_of_one_scan_are_one(self, tmp_path):
        start = "subjects/sub-1/ses-M00/t1_linear/sub-1_ses-M00"
        space = "space-MNI152NLin2009cSym"
        put(tmp_path, f"{start}_T1w_{space}_desc-Crop_res-1x1x1_T1w.nii.gz")
        put(tmp_path, f"{start}_{space}_res-1x1x1_T1w.nii.gz")
        ((scan, path),) = find_scans([str(tmp_path)])
        assert scan == "sub-1_ses-M00_T1w"
        assert "desc-Crop" in path
        assert list(read_cohort("caps", tmp_path).manifest["scan_id"]) == [scan]


class TestCommands:
    def test_a_manifest_is_given_alone(self, used, tmp_path, capsys):
        """Joined with other inputs it would lose its patients and its grades."""
        (tmp_path / "m.tsv").write_text("scan_id\tparticipant_id\tpath\n")
        call = ["preprocess", str(tmp_path / "m.tsv"), str(used), "--out", str(tmp_path / "out")]
        assert cli(call) == 2
        assert "is one of 2 inputs; a manifest is given alone" in capsys.readouterr().err

    """Every command takes files, folders and manifests; absolute paths are paths."""

    def test_preprocess_lists_what_a_folder_holds(self, used, tmp_path, monkeypatch):
        given = {}

        def note(manifest, out, **options):
            given["table"] = pd.read_csv(manifest, sep="\t")
            return pd.DataFrame({"status": []})

        monkeypatch.setattr("motionlib.preprocess.caps.preprocess_manifest", note)
        assert cli(["preprocess", str(used), "--out", str(tmp_path / "caps")]) == 0
        assert list(given["table"]["scan_id"]) == EXPECTED
        assert list(given["table"]["participant_id"]) == ["sub-01", "sub-01", "sub-02"]

    def test_simulate_moves_every_scan_of_a_folder(self, used, tmp_path, capsys):
        out = tmp_path / "moved"
        assert cli(["simulate", str(used), str(out), "--positions", "2"]) == 0
        assert sorted(path.name for path in out.glob("*.nii.gz")) == [
            f"{scan.removesuffix('_T1w')}_desc-moved_T1w.nii.gz" for scan in EXPECTED
        ]
        assert "left aside" in capsys.readouterr().err

    def test_a_folder_in_place_of_a_manifest_is_never_offered_as_a_name_to_write(
        self, used, tmp_path, capsys
    ):
        call = ["finetune", str(used), "--task", "mov01vs2", "--out", str(tmp_path / "mine")]
        assert cli(call) == 2
        error = capsys.readouterr().err
        assert "is a folder" in error
        assert f"--out {used}" not in error
