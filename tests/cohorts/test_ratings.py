"""Tables of rated scans: counts as published, sentences for tables that are something else."""

import sys

import pandas as pd
import pytest

from motionlib.cli import main as cli
from motionlib.cohorts import ratings


def write(path, text):
    """Write words separated by blanks as a TSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(line.split()) for line in text.splitlines()) + "\n")


@pytest.fixture
def mr_art(tmp_path):
    """Two subjects of an MR-ART-like folder."""
    write(
        tmp_path / ratings.MR_ART_SCORES,
        "bids_name score\nsub-1_acq-standard_T1w 1\nsub-1_acq-headmotion2_T1w 3\n"
        "sub-2_acq-headmotion1_T1w 2",
    )
    write(
        tmp_path / ratings.MR_ART_MEASURES,
        "bids_name cjv efc fber size_x\nsub-2_acq-headmotion1_T1w 0.5 0.6 7 256\n"
        "sub-1_acq-standard_T1w 0.3 0.5 9 256\nsub-1_acq-headmotion2_T1w 0.8 0.7 5 256",
    )
    return tmp_path


class TestShippedTables:
    def test_abide_has_its_1101_scans_and_156_exclusions(self):
        table = ratings.read_abide()
        assert (len(table), table.y_true.sum(), table.site.nunique()) == (1101, 156, 17)
        assert table[["rater_1", "rater_2"]].notna().sum().tolist() == [600, 600]
        assert len(ratings.measure_names(table)) == 62

    def test_ds030_has_its_265_scans_and_75_exclusions(self):
        table = ratings.read_ds030()
        assert (len(table), table.y_true.sum()) == (265, 75)

    def test_no_label_is_among_the_measures(self):
        labels = {"rater_1", "rater_2", "rater_3", "has_ghost", "y_true", "site", "motion_grade"}
        for table in (ratings.read_abide(), ratings.read_ds030()):
            assert not labels & set(ratings.measure_names(table))

    def test_the_package_is_never_imported(self):
        ratings.read_ds030()
        assert not [name for name in sys.modules if name.split(".")[0] == "mriqc_learn"]

    def test_a_missing_package_is_one_sentence(self, monkeypatch):
        monkeypatch.setattr(ratings, "find_spec", lambda name: None)
        with pytest.raises(FileNotFoundError, match="install mriqc-learn"):
            ratings.read_abide()


class TestMRArt:
    def test_scores_become_grades_joined_by_name(self, mr_art):
        table = ratings.read_mr_art(mr_art).set_index("scan_id")
        assert table.motion_grade.to_dict() == {
            "sub-2_acq-headmotion1_T1w": 1,
            "sub-1_acq-standard_T1w": 0,
            "sub-1_acq-headmotion2_T1w": 2,
        }
        assert table.participant_id.tolist() == ["sub-2", "sub-1", "sub-1"]
        assert table.protocol.tolist() == ["headmotion1", "standard", "headmotion2"]

    def test_the_real_tables_have_the_published_counts(self, data_root):
        table = ratings.read_mr_art(data_root / "mr-art")
        assert table.motion_grade.value_counts().to_dict() == {2: 198, 0: 129, 1: 109}
        assert table.participant_id.nunique() == 148

    def test_absent_tables_are_none_to_find_and_one_sentence_to_read(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MOTIONLIB_DATA", str(tmp_path))
        assert ratings.find_mr_art() is None
        with pytest.raises(FileNotFoundError, match="motionlib fetch mr-art"):
            ratings.read_mr_art()
        monkeypatch.delenv("MOTIONLIB_DATA")
        assert ratings.find_mr_art() is None

    def test_tables_of_different_scans_are_refused(self, mr_art):
        scores = pd.read_csv(mr_art / ratings.MR_ART_SCORES, sep="\t")
        scores[:-1].to_csv(mr_art / ratings.MR_ART_SCORES, sep="\t", index=False)
        with pytest.raises(ValueError, match="2 scored and 3 measured"):
            ratings.read_mr_art(mr_art)


class TestMRIQC:
    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("name cjv\na 1", "no column bids_name, efc, fber"),
            ("bids_name cjv efc fber\na 1 2 x", "words in fber"),
            ("bids_name cjv efc fber\na 1 2 3\na 1 2 3", "names a scan twice"),
        ],
    )
    def test_other_tables_are_refused(self, tmp_path, text, word):
        write(tmp_path / "group_T1w.tsv", text)
        with pytest.raises(ValueError, match=word):
            ratings.read_mriqc(tmp_path / "group_T1w.tsv")

    def test_constant_measures_are_left_out(self, mr_art):
        table = ratings.read_mr_art(mr_art)
        assert ratings.measure_names(table) == ["cjv", "efc", "fber"]


class TestMriqcTables:
    def test_byte_order_mark_semicolons_and_blank_rows(self, tmp_path):
        text = "bids_name;cjv;efc;fber;size_x\nsub-1_T1w;0.5;0.6;n/a;256\n;;;;\n\n"
        (tmp_path / "group_T1w.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
        table = ratings.read_mriqc(tmp_path / "group_T1w.csv")
        assert table["scan_id"].tolist() == ["sub-1_T1w"]
        assert table.loc[0, ["cjv", "efc", "size_x"]].tolist() == [0.5, 0.6, 256]
        assert table["fber"].isna().all()
        call = ["iqms", str(tmp_path / "group_T1w.csv"), "--out", str(tmp_path / "out.tsv")]
        assert cli(call) == 0


class TestIxiRatings:
    def test_the_shared_table_has_the_counts_of_its_readme(self, data_root):
        table = ratings.read_ixi_ratings(data_root / "ixi-ratings")
        assert list(table) == ["participant_id", "motion_votes", "n_verdicts", "quality_rating"]
        assert (len(table), set(table["n_verdicts"])) == (150, {8})
        votes = table.set_index("participant_id")["motion_votes"]
        assert (votes == 0).sum() == 62
        assert (votes["sub-IXI072"], votes["sub-IXI012"]) == (8, 0)
        assert table["quality_rating"].between(1, 4).all()

    def test_a_folder_without_the_table_names_the_command(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="fetch ixi-ratings"):
            ratings.read_ixi_ratings(tmp_path)

    def test_the_measures_as_published_name_the_subject_by_number(self, tmp_path):
        write(tmp_path / "S2_Data.csv", "bids_name,sub,defaced,site,cjv,efc\nx,12,1,0,0.5,0.6")
        table = ratings.read_ixi_mriqc(tmp_path)
        assert table.loc[0, ["participant_id", "defaced", "cjv"]].to_list() == [
            "sub-IXI012",
            1,
            0.5,
        ]
        assert list(table) == ["participant_id", "defaced", "cjv", "efc"]
        with pytest.raises(FileNotFoundError, match=r"S1_Data\.tsv or ratings\.tsv"):
            ratings.read_ixi_verdicts(tmp_path)

    def test_a_rater_s_looks_at_one_version_are_counted(self, tmp_path):
        text = "participant_id rater_id defaced rating head_motion\n"
        write(tmp_path / "ratings.tsv", text + "a r1 0 3 0\na r1 1 3 0\na r1 0 2 1")
        looks = ratings.read_ixi_verdicts(tmp_path)
        assert looks["repeat"].to_list() == [1, 1, 2]
        assert ratings.read_ixi_ratings(tmp_path)["motion_votes"].to_list() == [1]
