"""Manifests: typed, complete, and every fault shown at once."""

import numpy as np
import pandas as pd
import pytest

from motionlib.files import sha256_file
from motionlib.manifest import (
    COLUMNS,
    ManifestError,
    check_still,
    complete,
    locate,
    read_manifest,
    validate,
    write_manifest,
)


@pytest.fixture
def sound(tiny_manifest):
    """A manifest without faults whose cells can be changed at will."""
    return validate(tiny_manifest).astype(object)


def faults(table, **options):
    """The faults found, as (row, column) pairs and words."""
    with pytest.raises(ManifestError) as caught:
        validate(table, **options)
    found = caught.value.faults
    assert list(found.columns) == ["row", "scan_id", "column", "fault"]
    return found


class TestComplete:
    def test_missing_columns_are_added_in_order(self):
        table = complete(pd.DataFrame({"participant_id": ["sub-1"], "scan_id": ["a"], "x": [1]}))
        assert list(table.columns) == [*COLUMNS, "x"]
        assert table.loc[0, "source_participant_id"] == "sub-1"
        assert pd.isna(table.loc[0, "motion_grade"])
        assert str(table["motion_grade"].dtype) == "Int64"

    def test_cells_of_the_wrong_type_are_faults(self):
        with pytest.raises(ManifestError, match="old is no number"):
            complete(pd.DataFrame({"scan_id": ["a"], "age": ["old"]}))


class TestReadAndWrite:
    def test_what_is_written_is_read_back(self, sound, tmp_path):
        path = write_manifest(sound, tmp_path / "manifest.tsv")
        pd.testing.assert_frame_equal(read_manifest(path), validate(sound))
        assert path.read_text().splitlines()[0] == "\t".join(COLUMNS)

    def test_the_same_table_gives_the_same_bytes(self, sound, tmp_path):
        paths = [write_manifest(sound, tmp_path / name) for name in ("a.tsv", "b.tsv")]
        assert sha256_file(paths[0]) == sha256_file(paths[1])

    def test_a_faulty_manifest_is_not_written(self, sound, tmp_path):
        sound.loc[0, "cohort"] = "nowhere"
        with pytest.raises(ManifestError):
            write_manifest(sound, tmp_path / "manifest.tsv")
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_file_names_the_command_that_makes_one(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="motionlib manifest"):
            read_manifest(tmp_path / "manifest.tsv")

    def test_text_na_is_a_missing_cell_and_the_word_none_is_not(self, tmp_path):
        path = tmp_path / "m.tsv"
        path.write_text("scan_id\tmanufacturer\tage\na\tNone\tn/a\n")
        with pytest.raises(ManifestError) as caught:
            read_manifest(path)
        assert "age" not in set(caught.value.faults["column"])


class TestValidate:
    def test_a_sound_manifest_passes_typed(self, tiny_manifest):
        table = validate(tiny_manifest)
        assert str(table["fold"].dtype) == "Int64"
        assert str(table["scan_id"].dtype) == "string"
        assert table["age"].dtype == np.float64

    def test_every_fault_is_found_at_once(self, sound):
        wrong = {
            (0, "cohort"): "nowhere",
            (1, "motion_grade"): 3,
            (2, "path"): "../outside.nii.gz",
            (3, "scan_id"): sound.loc[4, "scan_id"],
            (5, "age"): "old",
            (6, "consensus"): 2,
            (7, "participant_id"): None,
            (8, "sha256"): "abc",
            (9, "straight_reject"): 0.5,
            (10, "sex"): "female",
            (11, "field_strength"): 300,
            (12, "role"): "Train Set",
            (13, "path"): "/etc/passwd",
            (14, "scan_id"): "é",
            (15, "contrast_agent"): 2,
        }
        for (row, column), value in wrong.items():
            sound.loc[row, column] = value
        found = faults(sound)
        pairs = set(zip(found["row"], found["column"], strict=True))
        assert set(wrong) <= pairs
        assert {(4, "scan_id")} <= pairs
        extra = pairs - set(wrong) - {(4, "scan_id")}
        assert extra <= {(12, "role"), (13, "role"), (6, "source_participant_id")}

    def test_an_image_written_in_two_ways_is_one(self, sound):
        """It could fall into training and test under two names."""
        sound.loc[1, "path"] = "./" + sound.loc[0, "path"]
        found = faults(sound)
        assert list(found["row"]) == [0, 1]
        assert found["fault"].str.endswith("stands in more than one row").all()

    def test_columns_that_older_manifests_lack_are_completed(self, sound):
        older = sound.drop(columns=["motion_votes", "n_verdicts"])
        assert validate(older)[["motion_votes", "n_verdicts"]].isna().all(axis=None)

    def test_a_missing_column_is_a_fault_without_a_row(self, sound):
        found = faults(sound.drop(columns=["sex", "fold"]))
        assert set(found["column"]) == {"sex", "fold"}
        assert found["row"].isna().all()

    def test_a_patient_in_two_roles_or_folds(self, sound):
        sound.loc[1, "fold"] = 2
        sound.loc[3, ["role", "fold"]] = ["test", None]
        found = faults(sound)
        assert set(found.loc[found["row"].isin([0, 1]), "column"]) == {"fold"}
        assert set(found.loc[found["row"].isin([2, 3]), "column"]) == {"role", "fold"}

    def test_excluded_scans_may_share_a_patient(self, sound):
        sound.loc[1, ["role", "fold"]] = ["excluded", None]
        validate(sound)

    def test_one_participant_has_one_source(self, sound):
        sound.loc[1, "source_participant_id"] = "somebody"
        assert set(faults(sound)["column"]) == {"source_participant_id"}

    def test_the_consensus_is_the_maximum(self, sound):
        sound.loc[0, ["rater_1", "rater_2", "consensus"]] = [1, 2, 1]
        found = faults(sound)
        assert list(found["fault"]) == ["is not 2, the maximum of the two raters"]

    def test_a_scan_with_votes_for_motion_is_not_called_still(self, sound):
        sound = sound.assign(motion_votes=0, n_verdicts=8, role="real_motion", fold=None)
        sound.loc[0, ["motion_votes", "motion_grade"]] = [3, 0]
        sound.loc[1, ["motion_votes", "motion_grade"]] = [3, 1]
        sound.loc[2, ["motion_votes", "motion_grade"]] = [9, None]
        sound.loc[4, ["motion_votes", "motion_grade", "role"]] = [1, None, "research"]
        sound.loc[5, "role"] = "research"
        found = faults(sound)
        assert list(found["row"]) == [0, 2, 4]
        assert found["fault"].iloc[0] == "is called still, and 3 of 8 verdicts saw head motion"
        assert found["fault"].iloc[1] == "is 9 of 8 verdicts"

    def test_no_scan_with_votes_is_taken_for_a_still_head(self, sound):
        check_still(sound)
        check_still(sound.assign(motion_votes=0, n_verdicts=8))
        sound = sound.assign(motion_votes=[2, *[None] * (len(sound) - 1)], n_verdicts=8)
        with pytest.raises(
            ValueError, match=r"1 scans would be called still .* \(2 of 8 verdicts\)"
        ):
            check_still(sound)

    def test_a_prepared_manifest_may_hold_a_scan_once_per_variant(self, sound):
        both = pd.concat([sound.assign(variant="clean"), sound.assign(variant="image_2-4")])
        assert len(validate(both)) == 2 * len(sound)
        twice = pd.concat([sound.assign(variant="clean")] * 2)
        assert set(faults(twice)["column"]) == {"scan_id", "path"}

    def test_files_and_checksums(self, sound, tmp_path):
        table = sound.iloc[:3].copy()
        table["path"] = ["a.nii", "b.nii", "gone.nii"]
        for name in ("a.nii", "b.nii"):
            (tmp_path / name).write_text(name)
        table["sha256"] = [sha256_file(tmp_path / "a.nii"), "0" * 64, None]
        found = faults(table, root=tmp_path, check_files=True)
        assert list(found["row"]) == [1, 2]
        assert "another checksum" in found["fault"].iloc[0]
        assert "no file" in found["fault"].iloc[1]

    def test_checking_files_needs_a_folder(self, sound):
        with pytest.raises(ValueError, match="needs root"):
            validate(sound, check_files=True)

    def test_the_message_is_one_sentence_about_the_first_fault(self, sound):
        sound.loc[2, "motion_grade"] = 7
        with pytest.raises(ManifestError, match="row 2, column motion_grade: 7 is none of 0, 1, 2"):
            validate(sound)


class TestLocate:
    def test_the_manifests_folder_comes_first(self, tmp_path, monkeypatch):
        data, here = tmp_path / "data", tmp_path / "here"
        for folder in (data, here):
            folder.mkdir()
            (folder / "a.nii").write_text("")
        (data / "b.nii").write_text("")
        monkeypatch.setenv("MOTIONLIB_DATA", str(data))
        assert locate("a.nii", here) == here / "a.nii"
        assert locate("b.nii", here) == data / "b.nii"
        monkeypatch.delenv("MOTIONLIB_DATA")
        assert locate("b.nii", here) == here / "b.nii"
