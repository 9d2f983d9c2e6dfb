"""Limits for grades: the best pair, from validation patients alone, or a sentence why not."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
from scoring_set import Page, write_heads, write_model

from motionlib.cli import main
from motionlib.scoring.grade_limits import (
    best_limits,
    choose_limits,
    grade_warnings,
    grades_by,
    judge_limits,
)
from motionlib.stats.agreement import weighted_kappa

N_SCANS = 36  # two a patient


def scans_of(grades, p) -> pd.DataFrame:
    """Test scans as `judge_limits` takes them."""
    names = [f"scan-{number}" for number in range(len(grades))]
    table = {"scan_id": names, "participant_id": names, "motion_grade": grades, "p_motion": p}
    return pd.DataFrame(table)


class TestBestLimits:
    @pytest.mark.parametrize("seed", range(5))
    def test_no_other_pair_agrees_better(self, seed):
        """Against every pair, by the package's own kappa."""
        rng = np.random.default_rng(seed)
        grades = np.r_[0, 1, 2, rng.integers(0, 3, 20)]
        p = np.round(np.clip(grades * 0.3 + rng.normal(0.2, 0.2, 23), 0, 1), 2)
        limits, kappa = best_limits(grades, p)
        levels = np.unique(p)
        cuts = (levels[1:] + levels[:-1]) / 2
        every = [
            weighted_kappa(grades, grades_by(pair, p)).estimate
            for pair in itertools.combinations(cuts, 2)
        ]
        assert kappa == pytest.approx(max(every))
        assert weighted_kappa(grades, grades_by(limits, p)).estimate == pytest.approx(kappa)

    def test_perfectly_ordered_scans_are_cut_in_the_middle_of_the_gaps(self):
        limits, kappa = best_limits([0, 0, 1, 1, 2, 2], [0.1, 0.2, 0.4, 0.5, 0.7, 0.9])
        assert limits == pytest.approx((0.3, 0.6))
        assert kappa == pytest.approx(1.0)

    def test_of_equally_good_pairs_the_middle_one_is_taken(self):
        """The grades below make lower limits of 0.15, 0.35 and 0.55 equally good."""
        grades, p = [0, 1, 0, 1, 0, 1, 2, 0], np.arange(1, 9) / 10
        limits, best = best_limits(grades, p)
        ties = [
            low
            for low in (0.15, 0.25, 0.35, 0.45, 0.55)
            if weighted_kappa(grades, grades_by((low, 0.65), p)).estimate == pytest.approx(best)
        ]
        assert ties == [0.15, 0.35, 0.55]
        assert limits == pytest.approx((0.35, 0.65))

    def test_the_grade_never_falls_where_the_probability_rises(self):
        rng = np.random.default_rng(3)
        limits, _ = best_limits(rng.integers(0, 3, 60), rng.uniform(size=60))
        found = grades_by(limits, np.linspace(0, 1, 200))
        assert (np.diff(found) >= 0).all()
        assert set(found) == {0, 1, 2}


class TestChoice:
    P = (0.1, 0.2, 0.4, 0.5, 0.7, 0.9)

    @pytest.mark.parametrize(
        ("task", "grades", "held", "p", "why"),
        [
            ("mov01vs2", [0, 2], [0, 0, 0, 2, 2, 2], P, "grades 0 and 2 only"),
            ("mov0vs1", [0, 1], [0, 0, 0, 1, 1, 1], P, "--task mov01vs2 uses all three"),
            ("mov01vs2", [0, 1, 2], [0, 0, 0, 2, 2, 2], P, "no scan of grade 1"),
            ("mov01vs2", [0, 1, 2], [0, 0, 1, 1, 2, 2], [0.5] * 6, "1 different"),
            ("mov01vs2", [0, 1, 2], [2, 2, 1, 1, 0, 0], P, "better than chance"),
        ],
    )
    def test_without_what_limits_need_there_are_none_and_it_says_why(
        self, task, grades, held, p, why
    ):
        grading = choose_limits(task, grades, held, p)
        assert grading.limits is None
        assert why in grading.reason
        assert judge_limits(grading, scans_of(held, list(p)), list("abcdef"), 0) == grading
        assert grade_warnings(grading) == []

    def test_the_test_scans_judge_the_limits_and_move_nothing(self):
        held = [0, 0, 1, 1, 2, 2]
        grading = choose_limits("mov01vs2", held, held, self.P)
        p = [0.05, 0.25, 0.45, 0.65, 0.8, 0.95]
        right = judge_limits(grading, scans_of([0, 0, 1, 2, 2, 2], p), list("abcdef"), 0)
        wrong = judge_limits(grading, scans_of([2, 2, 1, 0, 0, 0], p), list("abcdef"), 0)
        assert right.limits == wrong.limits == grading.limits
        assert right.kappa.estimate == pytest.approx(1.0)
        assert np.diag(right.table).tolist() == [2, 1, 3]
        assert wrong.kappa.estimate < 0
        assert "may be no use" in " ".join(grade_warnings(wrong))
        assert grade_warnings(right) == [
            "Few validation scans of a grade: 2, 2, 2 of 0, 1, 2; the limits rest on them."
        ]

    def test_mild_scans_that_are_graded_wrongly_are_told(self):
        held = [0, 0, 1, 1, 2, 2]
        grading = choose_limits("mov01vs2", held, held, self.P)
        p = [0.05, 0.1, 0.2, 0.4, 0.8, 0.95]
        judged = judge_limits(grading, scans_of([0, 1, 1, 1, 2, 2], p), list("abcdef"), 0)
        assert "1 of 3 test scans" in " ".join(grade_warnings(judged))
        assert judged.table.loc[1].tolist() == [2, 1, 0]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Eighteen patients with two scans, grades 0, 1 and 2, a third of them for the test."""
    folder = tmp_path_factory.mktemp("grades")
    paths = write_heads(folder / "scans", N_SCANS, graded=True)
    table = pd.DataFrame(
        {
            "scan_id": [path.name[:-7] for path in paths],
            "participant_id": [f"sub-{number // 2:02d}" for number in range(N_SCANS)],
            "path": [f"scans/{path.name}" for path in paths],
            "motion_grade": [2 if n % 2 else n // 2 % 2 for n in range(N_SCANS)],
            "role": ["test" if n < N_SCANS // 3 else "train" for n in range(N_SCANS)],
        }
    )
    return folder, table, write_model(folder / "start")


def tune(graded, out, table, task="mov01vs2") -> dict:
    """Fine-tune on a table's grades; ``model.json``."""
    manifest = graded[0] / f"{out.parent.name}-{out.name}.tsv"
    table.to_csv(manifest, sep="\t", index=False)
    words = ["finetune", manifest, "--from", graded[2], "--task", task, "--out", out]
    words += ["--epochs", "4", "--folds", "2", "--learning-rate", "0.002"]
    assert main([str(word) for word in words]) == 0
    return json.loads((out / "model.json").read_text())


@pytest.fixture(scope="module")
def tuned(graded, tmp_path_factory):
    """A model folder with limits for grades."""
    out = tmp_path_factory.mktemp("tuned") / "mine"
    return out, tune(graded, out, graded[1])


class TestCommand:
    def test_other_grades_of_test_patients_change_no_limit(self, graded, tuned, tmp_path):
        swap = (graded[1]["role"] == "test") & (graded[1]["motion_grade"] < 2)
        other = graded[1].assign(
            motion_grade=graded[1]["motion_grade"].where(~swap, 1 - graded[1]["motion_grade"])
        )
        facts = tune(graded, tmp_path / "other", other)
        assert facts["grade_thresholds"] == tuned[1]["grade_thresholds"]
        assert (tmp_path / "other" / "report.html").read_text() != (
            tuned[0] / "report.html"
        ).read_text()

    def test_other_grades_of_validation_patients_change_them(self, graded, tuned, tmp_path):
        """So that the test above is one that can fail."""
        table, grades = graded[1], graded[1]["motion_grade"]
        free = (table["role"] == "train") & (grades < 2)
        patient = table["participant_id"].str[-2:].astype(int)
        others = (1 - grades, patient // 2 % 2, 1 - patient // 2 % 2, patient // 3 % 2)
        changed = False
        for number, other in enumerate(others):  # one of them may give the same limits by chance
            facts = tune(graded, tmp_path / str(number), table.assign(
                motion_grade=grades.where(~free, other)
            ))  # fmt: skip
            assert facts["threshold"] == tuned[1]["threshold"]
            changed = facts["grade_thresholds"] != tuned[1]["grade_thresholds"]
            if changed:
                break
        assert changed

    def test_the_report_holds_kappa_and_the_table(self, tuned):
        own = pd.read_csv(tuned[0] / "grades.csv")
        kappa = weighted_kappa(own["motion_grade"], own["grade"])
        text = (tuned[0] / "report.html").read_text()
        rows = Page(text).rows
        assert f"{kappa.n} test scans: {kappa.estimate:.3f} [" in text
        for grade in (0, 1, 2):
            given = own[own["motion_grade"] == grade]["grade"]
            counts = [str((given == other).sum()) for other in (0, 1, 2)]
            assert [f"you: {grade}", *counts] in rows
            hits = (given == grade).sum()
            said = f"you graded {grade}: {len(given)}; of these {hits} got grade {grade}."
            assert said in text
        assert "Mild motion is the hard grade" in text

    def test_score_fills_the_grade_where_there_is_a_probability(self, graded, tuned, tmp_path):
        broken = tmp_path / "broken_T1w.nii.gz"
        broken.write_bytes(b"")
        scans = [*sorted((graded[0] / "scans").glob("*.nii.gz")), broken]
        words = ["score", *scans, "--model", tuned[0], "--out", tmp_path / "s.tsv"]
        assert main([str(word) for word in words]) == 1
        assert f"grade 1 from {tuned[1]['grade_thresholds'][0]:.3g} on" in (
            (tmp_path / "s.html").read_text()
        )
        rows = pd.read_csv(tmp_path / "s.tsv", sep="\t")
        assert rows["grade"].isna().tolist() == [False] * N_SCANS + [True]
        rows = rows.dropna(subset="grade").sort_values("p_motion")
        assert (np.diff(rows["grade"]) >= 0).all()
        limits = tuned[1]["grade_thresholds"]
        assert rows["grade"].tolist() == grades_by(limits, rows["p_motion"]).tolist()
        assert rows["grade"].nunique() > 1

    def test_with_two_grades_there_are_none(self, graded, tmp_path, capsys):
        table = graded[1][graded[1]["motion_grade"] != 1]
        facts = tune(graded, tmp_path / "two", table)
        assert facts["grade_thresholds"] is None
        assert "No grades are given" in capsys.readouterr().out
        text = (tmp_path / "two" / "report.html").read_text()
        assert "grades 0 and 2 only" in text
        assert "you: 0" not in text
        assert 'id="grades"' not in text
        assert not (tmp_path / "two" / "grades.csv").exists()

    def test_an_older_model_without_limits_leaves_the_column_empty(self, graded, tmp_path):
        scans = sorted((graded[0] / "scans").glob("scan-0*.nii.gz"))
        words = ["score", *scans, "--model", graded[2], "--out", tmp_path / "s.tsv", "--no-report"]
        assert main([str(word) for word in words]) == 0
        rows = pd.read_csv(tmp_path / "s.tsv", sep="\t")
        assert rows["grade"].isna().all()
        assert rows["p_motion"].notna().all()
