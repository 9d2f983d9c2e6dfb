"""Readers on generated folders with the true layout, hostile cases included, and on real ones."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from motionlib.cli import main as cli
from motionlib.cohorts import COHORTS, read_cohort
from motionlib.cohorts.adni import says_motion, session_of
from motionlib.cohorts.selection import Selection, flow_label
from motionlib.experiments.cohort import assemble
from motionlib.manifest import read_manifest


@pytest.fixture
def place(tmp_path):
    """Write a small image, or a text, at a path below the folder."""
    image = nib.Nifti1Image(np.random.default_rng(0).random((8, 8, 8), np.float32), np.eye(4))

    def put(path, text=None):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            nib.save(image, file)
        else:
            file.write_text(text, encoding="utf-8")
        return file

    put.root = tmp_path
    return put


def reasons(selection):
    """Scan and reason of every scan that left."""
    return dict(zip(selection.dropped["scan_id"], selection.dropped["reason"], strict=True))


def assert_flow_adds_up(selection: Selection):
    """Every step begins with what the last one left; every lost scan is named."""
    flow = selection.flow
    assert list(flow.columns) == ["step", "n_in", "n_out", "reason"]
    assert list(flow["n_in"][1:]) == list(flow["n_out"][:-1])
    assert len(selection.dropped) == flow["n_in"].iloc[0] - flow["n_out"].iloc[-1]


class TestReadCohort:
    def test_an_unknown_name_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="no cohort"):
            read_cohort("oasis", tmp_path)

    @pytest.mark.parametrize("name", sorted(set(COHORTS) - {"virtual"}))
    def test_a_missing_folder_is_one_sentence(self, name, tmp_path):
        with pytest.raises(FileNotFoundError, match="no folder"):
            read_cohort(name, tmp_path / "gone")

    @pytest.mark.parametrize("name", sorted(set(COHORTS) - {"virtual"}))
    def test_an_empty_folder_is_one_sentence(self, name, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_cohort(name, tmp_path)


def adni_folder(place):
    """Eleven scans: four motion-free, one with real motion, and one of every hostile kind."""
    rows, scores = [], []
    cases = {
        "0001": ("1", "0"),
        "0002": ("1", "0"),
        "0003": ("1", "3"),
        "0004": ("1", "1"),
        "0005": ("0", "0"),
        "0006": ("1", "0"),
        "0007": ("1", "0"),
        "0008": ("1", "0"),
        "0009": ("1", "0"),
        "0010": None,
        "0011": ("1", "0"),
    }
    for number, score in cases.items():
        rid = int(number)
        tesla = 3.0 if number == "0011" else 1.5
        rows.append(
            f"011_S_{number}\tm06\tADNI1\tMPR\t2006-05-02\t1\t{10000 + rid}\t{500 + rid}\t{tesla}"
        )
        if score:
            scores.append(f"{rid},m06,S{10000 + rid},{score[0]},{score[1]}")
        if number != "0008":
            name = f"sub-ADNI011S{number}"
            place(f"BIDS/{name}/ses-M006/anat/{name}_ses-M006_T1w.nii.gz")
    rows.append("011_S_0001\tbl\tADNI1\tMPR\t2005-11-02\t1\t20001\t601\t1.5")
    scores += ["1,bl,S20001,1,2", "9,m06,S10009,1,3", "1,m06,S10001,1,0"]
    place("BIDS/sub-ADNI011S0001/ses-M000/anat/sub-ADNI011S0001_ses-M000_T1w.nii.gz")
    place("BIDS/sub-ADNI011S0099/ses-M000/anat/sub-ADNI011S0099_ses-M000_T1w.nii.gz")
    broken = place("BIDS/sub-ADNI011S0007/ses-M006/anat/sub-ADNI011S0007_ses-M006_T1w.nii.gz")
    broken.write_bytes(b"no image")
    header = (
        "Subject_ID VISCODE Visit Sequence Scan_Date Study_ID Series_ID Image_ID Field_Strength"
    )
    lines = ["\t".join(header.split()), *rows]
    place("conversion_info/v0/t1_paths.tsv", "\n".join(lines) + "\n")
    place("MRIQUALITY.csv", "\n".join(["RID,VISCODE,LONIUID,PASS,IPMOTION", *scores]) + "\n")
    place(
        "MAYOADIRL_MRI_IMAGEQC_12_08_15.csv",
        "RID,LONI_IMAGE,series_date,series_type,Series_Comments,study_comments\n"
        '6,I506,20060502,T1,"mild motion",\n2,I502,20060502,T1,"no motion seen",\n',
    )
    place(
        "BIDS/participants.tsv",
        "participant_id\tsex\tage\nsub-ADNI011S0001\tF\t71\nsub-ADNI011S0003\tM\t80\n",
    )
    return place.root


class TestAdni:
    def test_the_selection_and_every_reason(self, place):
        selection = read_cohort("adni", adni_folder(place))
        manifest, flow = selection
        kept = dict(zip(manifest["scan_id"], manifest["role"], strict=True))
        assert kept == {
            "sub-ADNI011S0001_ses-M006_T1w": "research",
            "sub-ADNI011S0002_ses-M006_T1w": "research",
            "sub-ADNI011S0003_ses-M006_T1w": "real_motion",
        }
        left = {scan[9:16] + scan[-8:-4]: text for scan, text in reasons(selection).items()}
        assert len(selection.dropped) == 10
        said = {scan.split("_")[0][8:]: text for scan, text in reasons(selection).items()}
        assert "mild" in said["011S0004"]
        assert "failed" in said["011S0005"]
        assert "contradictory: IPMOTION 0" in said["011S0006"]
        assert "unreadable" in said["011S0007"]
        assert "not on disk" in said["011S0008"]
        assert "contradictory rows" in said["011S0009"]
        assert "no row in MRIQUALITY" in said["011S0010"]
        assert "field strength" in said["011S0011"]
        assert "not in table" in said["011S0099"]
        assert "motion-free set" in said["011S0001"]
        assert left
        assert_flow_adds_up(selection)
        assert flow["n_in"].iloc[0] == 13
        assert list(manifest["motion_grade"]) == [0, 0, 2]
        assert manifest["age"].iloc[0] == 71

    def test_a_missing_column_is_named(self, place):
        root = adni_folder(place)
        place("MRIQUALITY.csv", "RID,PASS\n1,1\n")
        with pytest.raises(ValueError, match="no column loniuid, ipmotion"):
            read_cohort("adni", root)

    def test_scores_and_keys_written_as_floats_select_the_same_scans(self, place):
        root = adni_folder(place)
        expected = read_cohort("adni", root).manifest
        table = pd.read_csv(root / "MRIQUALITY.csv")
        table["LONIUID"] = table["LONIUID"].str[1:].astype(float)
        table.astype({"PASS": float, "IPMOTION": float}).to_csv(
            root / "MRIQUALITY.csv", index=False
        )
        paths = root / "conversion_info/v0/t1_paths.tsv"
        table = pd.read_csv(paths, sep="\t")
        table.astype({"Series_ID": float, "Image_ID": float}).to_csv(paths, sep="\t", index=False)
        notes = root / "MAYOADIRL_MRI_IMAGEQC_12_08_15.csv"
        table = pd.read_csv(notes)
        table["LONI_IMAGE"] = table["LONI_IMAGE"].str[1:].astype(float)
        table.to_csv(notes, index=False)
        pd.testing.assert_frame_equal(read_cohort("adni", root).manifest, expected)

    def test_a_missing_table_is_named(self, place):
        root = adni_folder(place)
        (root / "MRIQUALITY.csv").unlink()
        with pytest.raises(FileNotFoundError, match="MRIQUALITY"):
            read_cohort("adni", root)

    def test_comments_are_searched_without_their_negations(self):
        assert says_motion("Mild MOTION artefact")
        assert says_motion("ghosting; repeat scan")
        assert not says_motion("no motion, good scan")
        assert not says_motion("removed during string")

    def test_visit_codes_become_sessions(self):
        codes = ("bl", "m06", "m120", "sc", "scmri", "nv")
        sessions = ["ses-M000", "ses-M006", "ses-M120", "ses-M000", "ses-M000", "ses-nv"]
        assert [session_of(code) for code in codes] == sessions

    def test_older_names_of_sessions_and_a_table_by_rid_select_the_same(self, place):
        root = adni_folder(place)
        expected = read_cohort("adni", root).manifest.drop(columns="path")
        for folder in sorted((root / "BIDS").glob("*/ses-M0*")):
            older = folder.rename(str(folder).replace("ses-M0", "ses-M"))
            for path in older.glob("anat/*"):
                path.rename(str(path).replace("_ses-M0", "_ses-M"))
        paths = root / "conversion_info/v0/t1_paths.tsv"
        table = pd.read_csv(paths, sep="\t")
        table["RID"] = table.pop("Subject_ID").str[-4:].astype(float)
        table.to_csv(paths, sep="\t", index=False)
        found = read_cohort("adni", root).manifest.drop(columns="path")
        pd.testing.assert_frame_equal(found, expected)


class TestMsseg:
    def test_new_and_old_layout(self, place):
        place("Training/Center_01/Patient_02/Raw_Data/3DT1GADO.nii.gz")
        place("Testing/Center_01/Patient_02/Raw_Data/3DT1GADO.nii.gz")
        place("Testing/Center_03/Patient_01/Preprocessed_Data/GADO_preprocessed.nii.gz")
        place("Testing/Center_03/Patient_02/Raw_Data/3DT1.nii.gz")
        place("MSSEG-1/01016SACH/3DT1GADO.nii")
        place("Training/Center_07/Patient_01/Raw_Data/3DT1GADO.nii.gz").write_bytes(b"\x1f\x8b")
        selection = read_cohort("msseg", place.root)
        assert sorted(selection.manifest["participant_id"]) == [
            "sub-MSSEG101016SACH",
            "sub-TestingC01P02",
            "sub-TrainingC01P02",
        ]
        assert set(selection.manifest["contrast_agent"]) == {1}
        said = sorted(reasons(selection).values())
        assert "skull-stripped" in said[1]
        assert "no Raw_Data" in said[0]
        assert "unreadable" in said[2]
        assert_flow_adds_up(selection)


class TestBite:
    def test_thirteen_patients_twice(self, place):
        for number in range(1, 15):
            for name in ("preop_mri", "postop_mri"):
                if number != 13 and (number, name) != (14, "postop_mri"):
                    place(f"group3/{number:02d}/{number:02d}_{name}.nii.gz")
        place("group3/02/02_tumor.nii.gz")
        place("group3/13/13_preop_mri.nii.gz")
        selection = read_cohort("bite", place.root)
        assert len(selection.manifest) == 25
        assert selection.manifest["participant_id"].nunique() == 13
        assert selection.flow["n_in"].iloc[0] == 26
        assert list(reasons(selection)) == ["sub-14_ses-postop_ce-gadolinium_T1w"]
        assert_flow_adds_up(selection)

    def test_an_unreadable_image_leaves_with_a_reason(self, place):
        place("group3/01/01_preop_mri.nii.gz")
        place("group3/01/01_postop_mri.nii.gz").write_bytes(b"no image")
        selection = read_cohort("bite", place.root)
        assert list(selection.manifest["scan_id"]) == ["sub-01_ses-preop_ce-gadolinium_T1w"]
        said = reasons(selection)
        assert "unreadable" in said["sub-01_ses-postop_ce-gadolinium_T1w"]
        assert_flow_adds_up(selection)


class TestAphp:
    def rows(self, place, header="image;rater_1;rater_2;straight reject;patient;sex;age"):
        lines = [
            "a.nii.gz;mov0;mov1;0;p1;F;40",
            "b.nii.gz;2;2;no;p1;F;40",
            "c.nii.gz;;;1;p2;M;50",
            "d.nii.gz;0;;0;p3;M;50",
            "e.nii.gz;1;1;1;p4;M;50",
            "f.nii.gz;1;1;0;p5;M;50",
            "f.nii.gz;2;2;0;p5;M;50",
            "a.nii.gz;mov0;mov1;0;p1;F;40",
            "gone.nii.gz;0;0;0;p6;M;50",
            "../x.nii.gz;0;0;0;p7;M;50",
            "bad.nii.gz;0;0;0;p8;M;50",
            "nobody.nii.gz;0;0;0;;M;50",
        ]
        for name in "abcdef":
            place(f"{name}.nii.gz")
        place("bad.nii.gz").write_bytes(b"text")
        place("nobody.nii.gz")
        place("grades.csv", "\n".join([header, *lines]) + "\n")
        return place.root

    def test_grades_consensus_and_rejects(self, place):
        selection = read_cohort("aphp", self.rows(place))
        manifest = selection.manifest.set_index("scan_id")
        assert list(manifest.index) == ["a", "b", "c"]
        assert list(manifest["consensus"][:2]) == [1, 2]
        assert list(manifest["role"]) == ["warehouse", "warehouse", "excluded"]
        assert manifest.loc["c", "straight_reject"] == 1
        assert_flow_adds_up(selection)
        assert selection.flow["n_out"].iloc[-1] == 2
        said = selection.dropped.groupby("scan_id")["reason"].first()
        assert "both raters" in said["d"]
        assert "contradictory" in said["e"]
        assert "contradict" in said["f"]
        assert "not on disk" in said["gone"]
        assert "leaves the folder" in said["x"]
        assert "unreadable" in said["bad"]
        assert "patient" in said["nobody"]

    def test_the_short_schema(self, place):
        place("sub-1/sub-1_T1w.nii.gz")
        place("own.csv", "image,mov\nsub-1/sub-1_T1w.nii.gz,2\n")
        manifest, _ = read_cohort("aphp", place.root)
        assert manifest.loc[0, "participant_id"] == "sub-1"
        assert manifest.loc[0, "motion_grade"] == 2

    def write(self, place, *lines):
        """Four images and their table."""
        for name in "abcd":
            place(f"{name}.nii.gz")
        place("grades.csv", "\n".join(lines) + "\n")
        return place.root

    def test_grades_and_flags_written_as_floats_are_what_they_say(self, place):
        root = self.write(
            place,
            "image,patient,rater_1,rater_2,straight reject",
            "a.nii.gz,p1,1.0,2.0,0.0",
            "b.nii.gz,p2,mov0,0.0,FALSE",
            "c.nii.gz,p3,,,1.0",
            'd.nii.gz,p4,"2,0",1.0,',
        )
        manifest = read_cohort("aphp", root).manifest.set_index("scan_id")
        assert list(manifest["consensus"].astype(object).fillna(-1)) == [2, 0, 2, -1]
        assert list(manifest["role"]) == ["warehouse", "warehouse", "warehouse", "excluded"]
        assert manifest.loc["c", "straight_reject"] == 1

    def test_an_unknown_flag_is_an_error_that_lists_the_words_seen(self, place):
        root = self.write(place, "image,patient,mov,sr", "a.nii.gz,p1,1,oui", "b.nii.gz,p2,1,x")
        with pytest.raises(ValueError, match=r"straight_reject, holds 'oui', 'x'; expected 1 or 0"):
            read_cohort("aphp", root)

    @pytest.mark.parametrize("header", ["image,patient,mov,sr", "image,patient,mov"])
    def test_a_scan_that_nobody_graded_leaves_with_a_reason(self, place, header):
        end = "," if header.endswith("sr") else ""
        root = self.write(place, header, f"a.nii.gz,p1,1{end}", f"b.nii.gz,p2,{end}")
        selection = read_cohort("aphp", root)
        assert list(selection.manifest["scan_id"]) == ["a"]
        assert "no known reject" in reasons(selection)["b"]

    def test_a_missing_column_is_named(self, place):
        place("own.csv", "image,rater_1\na,1\n")
        with pytest.raises(ValueError, match="rater_2"):
            read_cohort("aphp", place.root)

    def test_two_tables_need_a_choice(self, place):
        root = self.rows(place)
        place("other.csv", "image,mov\n")
        with pytest.raises(FileNotFoundError, match=r"grades\.csv, other\.csv"):
            read_cohort("aphp", root)
        assert len(read_cohort("aphp", root, table="grades.csv").manifest) == 3
        call = ["manifest", "aphp", str(root), "--out", str(root / "all.tsv")]
        assert cli(call) == 2
        assert cli([*call, "--table", "grades.csv"]) == 1  # one image is unreadable
        assert len(read_manifest(root / "all.tsv")) == 3
        assert cli(["manifest", "bids", *call[2:], "--table", "grades.csv"]) == 2


class TestIxi:
    def test_sites_and_demographics(self, place):
        for name in ("IXI002-Guys-0828", "IXI012-HH-1211", "IXI035-IOP-0873", "IXI040-Guys-0724"):
            place(f"IXI-T1/{name}-T1.nii.gz")
        place("IXI-T1/IXI041-Guys-0706-T2.nii.gz")
        place("IXI-T1/IXI099-Guys-0748-T1.nii.gz").write_bytes(b"")
        place(
            "IXI.csv",
            'IXI_ID,"SEX_ID (1=m, 2=f)",HEIGHT,AGE\n2,2,164,35.8\n12,1,175,0\n'
            "35,1,170,40\n35,1,170,41\n77,1,170,50\n",
        )
        selection = read_cohort("ixi", place.root)
        table = selection.manifest.set_index("participant_id")
        assert list(table["field_strength"]) == [1.5, 3.0, 1.5, 1.5]
        assert list(table["manufacturer"]) == ["Philips", "Philips", "GE", "Philips"]
        assert table.loc["sub-IXI002", "age"] == 35.8
        assert table.loc["sub-IXI002", "sex"] == "F"
        assert pd.isna(table.loc["sub-IXI012", "age"])
        assert pd.isna(table.loc["sub-IXI035", "age"])
        assert table.loc["sub-IXI035", "sex"] == "M"
        assert "not on disk" in reasons(selection)["sub-IXI077_T1w"]
        assert "unreadable" in reasons(selection)["sub-IXI099_T1w"]
        assert_flow_adds_up(selection)

    def test_a_missing_column_is_named(self, place):
        place("IXI-T1/IXI002-Guys-0828-T1.nii.gz")
        place("IXI.csv", "IXI_ID,HEIGHT\n2,164\n")
        with pytest.raises(ValueError, match=r"IXI\.csv has no column age"):
            read_cohort("ixi", place.root)

    def test_ratings_beside_the_images_are_joined_and_others_stay_unknown(self, place):
        for name in ("IXI002-Guys-0828", "IXI012-HH-1211"):
            place(f"ixi/{name}-T1.nii.gz")
        place(
            "ixi-ratings/ratings.tsv",
            "participant_id\trater_id\tdefaced\trating\thead_motion\n"
            "sub-IXI012\trater_01\t0\t3\t1\nsub-IXI012\trater_02\t0\t4\t0\n",
        )
        table = read_cohort("ixi", place.root / "ixi").manifest.set_index("participant_id")
        assert table.loc["sub-IXI012", ["motion_votes", "n_verdicts"]].tolist() == [1, 2]
        assert table.loc["sub-IXI002", ["motion_votes", "n_verdicts"]].isna().all()

    def test_the_shared_subset_with_its_suspects_and_verdicts(self, data_root, tmp_path):
        selection = read_cohort("ixi", data_root / "ixi-2mm")
        table = selection.manifest
        assert len(table) == 150
        assert set(table["cohort"]) == {"ixi"}
        assert table["age"].between(18, 90).mean() > 0.9
        assert all((selection.root / path).is_file() for path in table["path"])
        suspect = table["path"].str.contains("suspect")
        assert sorted(table.loc[suspect, "motion_votes"]) == [2, 4, 5, 8, 8, 8]
        call = ["manifest", "ixi", str(data_root / "ixi-2mm"), "--out", str(tmp_path / "ixi.tsv")]
        assert cli(call) == 0
        assert (
            read_manifest(tmp_path / "ixi.tsv", check_files=True)["motion_votes"].gt(0).sum() == 88
        )


class TestMrArt:
    def test_scores_images_and_hostile_rows(self, place):
        names = [f"sub-00000{n}_acq-standard_T1w" for n in range(1, 7)]
        for name in [*names[:4], "sub-000009_acq-standard_T1w"]:
            place(f"{name[:10]}/anat/{name}.nii.gz")
        scores = dict(zip(names, ("1", "2.0", 3, 7, 1, 1), strict=True))
        lines = [f"{name}\t{score}" for name, score in scores.items()]
        lines += [f"{names[5]}\t2", f"{names[0]}\t1.0"]
        place("derivatives/scores.tsv", "\n".join(["bids_name\tscore", *lines]) + "\n")
        place("participants.tsv", "participant_id\tsex\tage\nsub-000001\tF\t30\n")
        selection = read_cohort("mr-art", place.root)
        assert list(selection.manifest["motion_grade"]) == [0, 1, 2]
        said = reasons(selection)
        assert "none of 1, 2, 3" in said[names[3]]
        assert "not on disk" in said[names[4]]
        assert "contradictory" in said[names[5]]
        assert "no score" in said["sub-000009_acq-standard_T1w"]
        assert_flow_adds_up(selection)

    def test_a_missing_column_is_named(self, place):
        place("derivatives/scores.tsv", "bids_name\tgrade\nsub-000001_T1w\t1\n")
        with pytest.raises(ValueError, match=r"scores\.tsv has no column score"):
            read_cohort("mr-art", place.root)

    def test_an_unreadable_image_leaves_with_a_reason(self, place):
        names = [f"sub-00000{n}_acq-standard_T1w" for n in (1, 2)]
        for name in names:
            place(f"{name[:10]}/anat/{name}.nii.gz")
        place(f"{names[1][:10]}/anat/{names[1]}.nii.gz").write_bytes(b"\x1f\x8b")
        lines = ["bids_name\tscore", *(f"{name}\t1" for name in names)]
        place("derivatives/scores.tsv", "\n".join(lines) + "\n")
        selection = read_cohort("mr-art", place.root)
        assert list(selection.manifest["scan_id"]) == names[:1]
        assert "unreadable" in reasons(selection)[names[1]]
        assert_flow_adds_up(selection)

    def test_the_published_tables(self, data_root):
        manifest, _ = read_cohort("mr-art", data_root / "mr-art", require_images=False)
        assert len(manifest) == 436
        assert manifest["participant_id"].nunique() == 148
        assert list(manifest["motion_grade"].value_counts().sort_index()) == [129, 109, 198]
        assert manifest["age"].notna().all()


class TestBids:
    def test_sessions_sidecars_and_hostile_files(self, place):
        place("sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz")
        place("sub-01/ses-1/anat/sub-01_ses-1_T1w.json", '{"Manufacturer": "GE"}')
        place("sub-02/anat/sub-02_ce-gd_T1w.nii.gz")
        place("sub-02/anat/sub-02_T2w.nii.gz")
        place("sub-03/anat/sub-03_T1w.nii.gz")
        place("sub-03/anat/sub-03_T1w.nii")
        place("sub-04/anat/sub-04_T1w.nii.gz").write_bytes(b"\x1f\x8b broken")
        place("sub-é/anat/sub-é_T1w.nii.gz")
        place("T1w.json", '{"MagneticFieldStrength": 3, "Manufacturer": "Siemens"}')
        place("participants.tsv", "participant_id\tgender\tage\nsub-01\tfemale\tn/a\n")
        selection = read_cohort("bids", place.root)
        table = selection.manifest.set_index("participant_id")
        assert list(table.index) == ["sub-01", "sub-02", "sub-03"]
        assert list(table["manufacturer"]) == ["GE", "Siemens", "Siemens"]
        assert set(table["field_strength"]) == {3.0}
        assert table.loc["sub-02", "contrast_agent"] == 1
        assert table.loc["sub-01", "sex"] == "F"
        assert "unreadable" in reasons(selection)["sub-04_T1w"]
        assert "shares its name" in reasons(selection)["sub-03_T1w"]
        assert "ASCII" in reasons(selection)["sub-é_T1w"]
        assert_flow_adds_up(selection)

    @pytest.mark.parametrize(
        "content",
        [
            b"{",
            b"[3]",
            '{"Manufacturer": "é"}'.encode("latin-1"),
            b'{"MagneticFieldStrength": "3T"}',
            b'{"MagneticFieldStrength": 30000}',
        ],
    )
    def test_a_broken_sidecar_costs_its_facts_and_not_the_cohort(self, place, content):
        for number in (1, 2):
            place(f"sub-0{number}/anat/sub-0{number}_T1w.nii.gz")
        place("sub-01/anat/sub-01_T1w.json", "").write_bytes(content)
        place("sub-02/anat/sub-02_T1w.json", "").write_bytes(b'\xef\xbb\xbf{"Manufacturer": "GE"}')
        manifest, flow = read_cohort("bids", place.root)
        assert list(manifest["manufacturer"].astype(object).fillna("")) == ["", "GE"]
        assert manifest["field_strength"].isna().all()
        assert "sub-01_T1w.json" in flow["reason"].str.cat()

    def test_sidecars_are_inherited_from_root_subject_and_session(self, place):
        for scan in ("sub-01/ses-1/anat/sub-01_ses-1", "sub-01/ses-2/anat/sub-01_ses-2"):
            place(f"{scan}_acq-x_T1w.nii.gz")
        place("acq-x_T1w.json", '{"MagneticFieldStrength": 3, "Manufacturer": "GE"}')
        place("acq-y_T1w.json", '{"Manufacturer": "Toshiba"}')
        place("sub-01/sub-01_T1w.json", '{"Manufacturer": "Philips"}')
        place("sub-01/ses-2/sub-01_ses-2_T1w.json", '{"MagneticFieldStrength": 1.5}')
        manifest, _ = read_cohort("bids", place.root)
        assert list(manifest["manufacturer"]) == ["Philips", "Philips"]
        assert list(manifest["field_strength"]) == [3.0, 1.5]

    def test_people_are_found_under_the_names_that_tables_give_them(self, place):
        for name in ("sub-001", "sub-Abc", "sub-02", "sub-2", "sub-4", "sub-5"):
            place(f"{name}/anat/{name}_T1w.nii.gz")
        rows = ["1\t30,5", "ABC\t89+", "2\t50", "sub-4\t41", "99\t60"]
        place("participants.tsv", "\n".join(["participant_id\tage", *rows]) + "\n")
        manifest, flow = read_cohort("bids", place.root)
        ages = manifest.set_index("participant_id")["age"].dropna().to_dict()
        assert ages == {"sub-001": 30.5, "sub-Abc": 89.0, "sub-4": 41.0}
        assert manifest.loc[manifest["age_censored"] == 1, "participant_id"].item() == "sub-Abc"
        assert "without a scan: 2, 99" in flow["reason"].str.cat()

    def test_a_quotation_mark_gives_nobody_anothers_age(self, place):
        for name in ("sub-1", "sub-2", "sub-3"):
            place(f"{name}/anat/{name}_T1w.nii.gz")
        rows = ['sub-1\t30\t"moved', "sub-2\t40\t", 'sub-3\t50\tnod"']
        place("participants.tsv", "\n".join(["participant_id\tage\tnote", *rows]) + "\n")
        assert list(read_cohort("bids", place.root).manifest["age"]) == [30, 40, 50]

    @pytest.mark.parametrize(
        ("folder", "cohort", "n"), [("ds000011", "ds000011", 6), ("ds002748-1p5mm", "ds002748", 40)]
    )
    def test_the_shared_folders(self, data_root, folder, cohort, n):
        selection = read_cohort("bids", data_root / folder)
        assert len(selection.manifest) == n
        assert set(selection.manifest["cohort"]) == {cohort}
        assert selection.dropped.empty

    def test_the_flow_of_profile_real_adds_up(self, data_root, tmp_path, monkeypatch):
        monkeypatch.setenv("MOTIONLIB_DATA", str(data_root))
        options = {"size": 12, "spacing_mm": 2.0, "seed": 20, "engine": "local:2"}
        manifest, flow = assemble("real", tmp_path, **options)
        last = flow.groupby("cohort").tail(1).set_index("cohort")["n_out"]
        kept = manifest[manifest["role"] != "excluded"]
        names = [flow_label(*pair) for pair in zip(kept["cohort"], kept["role"], strict=True)]
        assert last.to_dict() == pd.Series(names).value_counts().to_dict()
        votes = manifest["motion_votes"]
        assert (votes[manifest["role"] == "research"] == 0).all()
        assert flow.loc[flow["step"] == "research", "n_in"].item() == 62  # without a vote, of 150
        lost = flow["n_in"] > flow["n_out"]
        assert flow.loc[lost, "reason"].str.len().gt(0).all()


class TestCaps:
    def test_cropped_images_come_first(self, place):
        start = "subjects/sub-1/ses-M000/t1_linear/sub-1_ses-M000_space-MNI152NLin2009cSym"
        place(f"{start}_desc-Crop_res-1x1x1_T1w.nii.gz")
        place(f"{start}_res-1x1x1_T1w.nii.gz")
        other = "subjects/sub-2/ses-M006/t1_linear/sub-2_ses-M006"
        place(f"{other}_space-MNI152NLin2009cSym_res-1x1x1_T1w.nii.gz")
        place(f"{other}_space-Ixi549Space_T1w.nii.gz")
        selection = read_cohort("caps", place.root)
        assert list(selection.manifest["scan_id"]) == ["sub-1_ses-M000_T1w", "sub-2_ses-M006_T1w"]
        assert "desc-Crop" in selection.manifest.loc[0, "path"]
        assert sorted(selection.dropped["reason"]) == [
            "is the uncropped copy of a cropped image",
            "not in MNI152NLin2009cSym",
        ]
        assert_flow_adds_up(selection)

    def test_hostile_files_leave_with_a_reason(self, place):
        def image(subject, ending):
            start = f"subjects/sub-{subject}/ses-M000/t1_linear/sub-{subject}_ses-M000"
            return place(f"{start}_space-MNI152NLin2009cSym_desc-Crop_res-1x1x1_T1w{ending}")

        image(1, ".nii.gz")
        image(2, ".nii.gz").write_bytes(b"no image")
        image(3, ".nii.gz")
        image(3, ".nii")
        selection = read_cohort("caps", place.root)
        assert sorted(selection.manifest["scan_id"]) == [
            "sub-1_ses-M000_T1w",
            "sub-3_ses-M000_T1w",
        ]
        said = reasons(selection)
        assert "unreadable" in said["sub-2_ses-M000_T1w"]
        assert "shares its name" in said["sub-3_ses-M000_T1w"]
        assert_flow_adds_up(selection)
