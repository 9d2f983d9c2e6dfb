"""``motionlib finetune``: a model that scores, honest figures, refusals in one sentence."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from scoring_set import Page, write_broken, write_heads, write_model

from motionlib.cli import main
from motionlib.manifest import complete
from motionlib.predictions import PREDICTION_COLUMNS
from motionlib.scoring import own_grades
from motionlib.scoring.model import default_model, read_rule
from motionlib.scoring.own_scans import read_graded, split_scans
from motionlib.stats.calibration import best_threshold

N_SCANS = 24  # two a patient


def run(*words) -> int:
    """Exit status of the command line."""
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Twelve patients with a still scan and a severely moved one, and a model to start from."""
    folder = tmp_path_factory.mktemp("graded")
    paths = write_heads(folder / "scans", N_SCANS, graded=True)
    table = pd.DataFrame(
        {
            "scan_id": [path.name[:-7] for path in paths],
            "participant_id": [f"sub-{number // 2:02d}" for number in range(N_SCANS)],
            "path": [f"scans/{path.name}" for path in paths],
            "motion_grade": [2 * (number % 2) for number in range(N_SCANS)],
        }
    )
    return folder, table, write_model(folder / "start")


def write(graded, tmp_path, table) -> tuple:
    """Write a manifest beside the scans; the words of a call."""
    manifest = graded[0] / f"{tmp_path.name}.tsv"
    table.to_csv(manifest, sep="\t", index=False)
    words = ("finetune", manifest, "--from", graded[2], "--task", "mov01vs2")
    return (*words, "--out", tmp_path / "mine", "--epochs", "2", "--folds", "3")


@pytest.fixture(scope="module")
def tuned(graded, tmp_path_factory):
    """The fine-tuned model folder, from a manifest with one broken scan beside the good ones."""
    tmp_path = tmp_path_factory.mktemp("tuned")
    write_broken(graded[0] / "scans")
    bad = {"scan_id": "half", "participant_id": "sub-99", "path": "scans/half_T1w.nii.gz"}
    table = pd.concat([graded[1], pd.DataFrame([bad | {"motion_grade": 0}])])
    return run(*write(graded, tmp_path, table)), tmp_path / "mine"


SLICES = {
    "network": "Slices", "dropout": 0.0, "options": {"members": 2, "channels": [4, 4, 8]},
    "field_mm": [192.0, 240.0, 208.0],
}  # fmt: skip


def test_slices_on_a_field_of_their_own_are_tuned_in_their_last_block_and_score(graded, tmp_path):
    start = write_model(tmp_path / "start", **SLICES)
    words = list(write(graded, tmp_path, graded[1]))
    words[words.index("--from") + 1] = start
    assert run(*words) == 0
    before, after = (
        load_file(folder / "weights.safetensors") for folder in (start, tmp_path / "mine")
    )
    moved = [name for name in before if not (before[name] == after[name]).all()]
    assert moved == ["fc1.1.bias", "fc1.1.weight"]
    rule = read_rule(tmp_path / "mine")
    assert rule.field_mm == (192.0, 240.0, 208.0)
    scan, out = next((graded[0] / "scans").glob("scan-0*.nii.gz")), tmp_path / "s.tsv"
    assert run("score", scan, "--model", tmp_path / "mine", "--out", out, "--no-report") == 0
    assert pd.read_csv(out, sep="\t")["air_spread"].gt(0).all()


class TestResult:
    def test_a_scan_that_cannot_be_used_is_told_and_the_rest_is_done(self, tuned):
        status, folder = tuned
        assert status == 1
        page = Page((folder / "report.html").read_text())
        assert "half" in [row[0] for row in page.rows]

    def test_the_folder_scores(self, tuned, graded, tmp_path):
        out = tmp_path / "s.tsv"
        scans = sorted((graded[0] / "scans").glob("scan-0*.nii.gz"))
        assert run("score", *scans, "--model", tuned[1], "--out", out, "--no-report") == 0
        scores = pd.read_csv(out, sep="\t").set_index("scan_id")
        own = pd.read_csv(tuned[1] / "predictions.csv")
        own = own[own["experiment"] == "own_grades/fine_tuned"].set_index("scan_id")
        shared = own.index.intersection(scores.index)
        assert len(shared)
        assert scores.loc[shared, "p_motion"].tolist() == pytest.approx(
            own.loc[shared, "score"].tolist(), abs=1e-4
        )

    def test_only_the_fully_connected_blocks_moved(self, tuned, graded):
        before = load_file(graded[2] / "weights.safetensors")
        after = load_file(tuned[1] / "weights.safetensors")
        moved = {name.split(".")[0] for name in before if (before[name] != after[name]).any()}
        assert moved
        assert moved <= {"fc1", "fc2", "fc3"}

    def test_no_patient_is_in_two_parts(self, tuned):
        table = pd.read_csv(tuned[1] / "work" / "mov01vs2.tsv", sep="\t")
        sides = table.assign(fold=table["fold"].fillna(-1)).groupby("source_participant_id")
        assert (sides[["role", "fold"]].nunique() == 1).all(axis=None)
        assert set(table["role"]) == {"train", "test"}

    def test_the_threshold_is_the_validation_patients_and_not_the_tests(self, tuned):
        from motionlib.stats.calibration import temperature, tempered
        from motionlib.training.data import load_prepared
        from motionlib.training.prediction import predict

        facts = json.loads((tuned[1] / "model.json").read_text())
        table = load_prepared(tuned[1] / "work" / "mov01vs2.tsv")
        held = predict(tuned[1], table[(table["fold"] == facts["fold"]).fillna(False)])
        t = temperature(held["y_true"], held["score"])
        assert facts["calibration"]["temperature"] == pytest.approx(t, rel=1e-6)
        cut = best_threshold(held["y_true"], tempered(held["score"], t))
        assert facts["threshold"] == pytest.approx(cut, rel=1e-6)

    def test_the_report_says_n_intervals_and_warns_of_few_scans(self, tuned):
        text = (tuned[1] / "report.html").read_text()
        page = Page(text)
        table = pd.read_csv(tuned[1] / "predictions.csv")
        n = len(table) // 2
        assert list(table.columns) == list(PREDICTION_COLUMNS)
        for words in ("before fine-tuning", "threshold 0.5", "chosen threshold"):
            assert words in text
        assert [row[1] for row in page.rows if row[0].startswith("fine-tuned")] == [str(n)] * 2
        assert "Few test scans" in text
        assert "Few validation scans" in text
        assert page.captions == page.tables == 3
        assert page.headings == [1, 2, 2, 2, 2, 2]
        assert all(source.startswith("data:") for source in page.loads)

    def test_the_description_is_whole(self, tuned):
        facts = json.loads((tuned[1] / "model.json").read_text())
        assert facts["voxel_mm"] == 16.0
        assert facts["card"] == "report.html"
        assert facts["init_from"] == "fresh"
        assert 0 <= facts["threshold"] <= 1


class TestRefusals:
    def refused(self, words, said, capsys):
        assert run(*words) == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("motionlib finetune: ")
        assert said in last

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda t: t.drop(columns="motion_grade"), "lacks motion_grade"),
            (lambda t: t.assign(motion_grade=""), "no motion_grade in any row"),
            (lambda t: t.assign(motion_grade=0), "constant"),
            (lambda t: t.assign(motion_grade=7), "is none of 0, 1, 2"),
            (lambda t: t.drop(columns="participant_id"), "lacks participant_id"),
            (lambda t: t.head(4), "needs at least 3 with grade 0 or 1 and 3 with grade 2"),
            (lambda t: t.assign(role=["train", "test"] * (N_SCANS // 2)), "more than one role"),
            (lambda t: t.assign(role=["train"] * N_SCANS), "test part"),
        ],
    )
    def test_a_table_that_cannot_be_used(self, graded, tmp_path, capsys, change, said):
        self.refused(write(graded, tmp_path, change(graded[1])), said, capsys)
        assert not (tmp_path / "mine" / "model.json").exists()

    def test_the_minimum_is_said_before_anything_is_prepared(self, graded, tmp_path, capsys):
        self.refused(write(graded, tmp_path, graded[1].head(4)), "at least 3", capsys)
        assert not (tmp_path / "mine").exists()

    def test_the_first_cause_is_named_where_no_scan_can_be_read(self, graded, tmp_path, capsys):
        table = graded[1].assign(path=graded[1]["scan_id"] + "-away.nii.gz")
        self.refused(
            write(graded, tmp_path, table),
            "24 of 24 graded scans cannot be used, the first of them, scan-00_T1w: the file is not "
            "there; expected an image.",
            capsys,
        )

    def replace_source(self, words, source) -> list:
        words = list(words)
        words[words.index("--from") + 1] = source
        return words

    def test_a_pickle(self, graded, tmp_path, capsys):
        words = write(graded, tmp_path, graded[1])
        (tmp_path / "model.pt").write_bytes(b"\x80\x04.")
        self.refused(
            self.replace_source(words, tmp_path / "model.pt"), "pickles are not read", capsys
        )

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"network": "SECNN"}, "are not those of SECNN"),
            ({"shape": [40, 40, 40]}, "are not those of Conv5FC3"),
            ({"shape": [12, 14, 13]}, "the grid of 16 mm"),
            ({"voxel_mm": 8.0}, "the grid of 8 mm"),
            ({"voxel_mm": None}, "does not say its voxel_mm"),
        ],
    )
    def test_a_checkpoint_of_another_architecture_or_shape(
        self, graded, tmp_path, capsys, changes, said
    ):
        source = tmp_path / "other"
        shutil.copytree(graded[2], source)
        facts = json.loads((source / "model.json").read_text()) | changes
        (source / "model.json").write_text(json.dumps(facts))
        words = write(graded, tmp_path, graded[1])
        self.refused(self.replace_source(words, source), said, capsys)


def test_roles_of_the_manifest_are_kept(graded, tmp_path):
    table = graded[1].assign(role=["test"] * 8 + ["train"] * (N_SCANS - 8))
    assert run(*write(graded, tmp_path, table)) == 0
    tested = pd.read_csv(tmp_path / "mine" / "predictions.csv")["scan_id"].unique()
    assert sorted(tested) == sorted(table["scan_id"][:8])


def test_a_table_of_grades_that_is_no_model_s_is_left_alone(graded, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "grades.csv").write_text("mine")
    assert run(*write(graded, tmp_path, graded[1])) == 0
    assert (tmp_path / "mine" / "grades.csv").read_text() == "mine"


def test_what_stops_at_the_end_leaves_no_half_of_a_model(graded, tmp_path, monkeypatch):
    """Weights of one training and the description of another would be a model that lies."""
    old = write_model(tmp_path / "mine")

    def stop(path, facts):
        raise KeyboardInterrupt

    monkeypatch.setattr(own_grades, "write_json", stop)
    assert run(*write(graded, tmp_path, graded[1])) == 1
    with pytest.raises(FileNotFoundError, match=r"no model\.json"):
        read_rule(old)


class TestDoubt:
    def test_beyond_the_range_at_most_a_tenth_of_either_class_is_decided_wrongly(self):
        """Over many sites of 40 validation scans, as new scans of them show."""
        rng, wrong = np.random.default_rng(0), []
        for _ in range(300):
            y = np.arange(40) % 2
            low, high = own_grades.choose_doubt(y, self.scores(y, rng), 0.5)[0]
            assert low <= 0.5 <= high
            y = np.arange(400) % 2
            p = self.scores(y, rng)
            wrong.append([(p[y == 0] > high).mean(), (p[y == 1] < low).mean()])
        assert np.mean(wrong, axis=0).max() < 0.105
        assert np.mean(wrong, axis=0).min() > 0.04  # it leaves no more than it must

    def scores(self, y, rng):
        return 1 / (1 + np.exp(-rng.normal(2 * y - 1.0, 1.2)))

    def test_few_scans_promise_nothing_and_it_is_said(self):
        review, said = own_grades.choose_doubt([0, 1] * 8, np.linspace(0, 1, 16), 0.5)
        assert review is None
        assert "Found 8 graded scans in the smaller class, expected at least 9" in said


def test_what_grades_bought_is_told_from_the_shipped_table():
    table = pd.read_csv(default_model() / "grades.csv").set_index("grades")
    said = own_grades.worth_of_grades()
    for count, row in table.iterrows():
        assert f"{count}: AUC {row['auc']:.2f}" in said
    assert said.count("balanced accuracy") == table["balanced_accuracy"].notna().sum() == 3


class TestGrades:
    def read(self, tmp_path, **columns) -> tuple:
        """Grades of a table as finetune takes them; one patient a scan."""
        n = len(next(iter(columns.values())))
        names = [f"scan-{k}" for k in range(n)]
        table = pd.DataFrame({"scan_id": names, "participant_id": names, "path": names} | columns)
        table.to_csv(tmp_path / "m.tsv", sep="\t", index=False)
        return tuple(read_graded(tmp_path / "m.tsv", "mov01vs2")["motion_grade"])

    FIRST, SECOND = (0, 1, 0, 2, 2, 0, 1), (1, 1, 0, 2, 1, 2, 0)
    HIGHEST = (1, 1, 0, 2, 2, 2, 1)

    def test_they_follow_from_the_raters(self, tmp_path):
        both = {"rater_1": self.FIRST, "rater_2": self.SECOND}
        assert self.read(tmp_path, **both) == self.HIGHEST
        assert self.read(tmp_path, **both, motion_grade=[""] * 7) == self.HIGHEST
        assert self.read(tmp_path, **both, consensus=[""] * 7) == self.HIGHEST

    def test_one_rater_is_enough(self, tmp_path):
        assert self.read(tmp_path, rater_1=(0, 0, 0, 1, 2, 2, 2)) == (0, 0, 0, 1, 2, 2, 2)

    def test_a_grade_that_is_given_stands(self, tmp_path):
        given = [0, 0, 0, "", 2, 2, 2]
        raters = {"rater_1": self.FIRST, "rater_2": self.SECOND}
        assert self.read(tmp_path, motion_grade=given, **raters) == (0, 0, 0, 2, 2, 2, 2)


def test_few_patients_are_split_into_fewer_folds():
    """Three patients a class, one scan each: one of either class trains, validates and tests."""
    names = [f"scan-{k}" for k in range(6)]
    table = complete(pd.DataFrame({"scan_id": names, "participant_id": names, "cohort": "bids"}))
    table = table.assign(y_true=[0, 0, 0, 1, 1, 1], motion_grade=[0, 0, 0, 2, 2, 2])
    split, fold = split_scans(table, test_fraction=0.3, n_folds=5, seed=20)
    parts = split["role"].where((split["fold"] != fold).fillna(True), "validation")
    assert parts.groupby(split["y_true"]).agg(set).tolist() == [{"train", "validation", "test"}] * 2
