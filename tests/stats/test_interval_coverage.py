"""Simulated studies with a known truth."""

import numpy as np
import pytest

from benchmarks import bench_coverage
from benchmarks.bench_coverage import StudyDesign, coverage
from motionlib.metrics import classification_metrics
from motionlib.stats import kept_intervals

SMALL = StudyDesign(n_patients=40, prevalence=0.4, n_boot=20)


class TestTruth:
    def test_a_large_study_shows_it(self):
        design = StudyDesign(n_patients=20_000)
        first, second = bench_coverage._simulate(design, 0)
        seen = [classification_metrics(t["y_true"], t["score"]) for t in (first, second)]
        for name in ("balanced_accuracy", "auc"):
            assert seen[0][name] == pytest.approx(design.truth[name], abs=0.015)
            apart = seen[0][name] - seen[1][name]
            assert apart == pytest.approx(design.truth[f"difference_{name}"], abs=0.015)
        assert np.corrcoef(first["score"], second["score"])[0, 1] > 0.4


class TestCoverage:
    def test_every_interval_is_counted_and_the_same_again(self):
        table = coverage(SMALL, 4)
        assert len(table) == 7
        assert table["n_studies"].eq(4).all()
        outside = table["missed_below"] + table["missed_above"]
        np.testing.assert_allclose(table["coverage"] + outside, 1)
        assert table["width"].gt(0).all()
        assert coverage(SMALL, 4).equals(table)

    def test_drawing_scans_instead_of_patients_gives_shorter_intervals(self):
        design = StudyDesign(n_patients=60, prevalence=0.4, shared=0.9, n_boot=100)
        width = coverage(design, 6).set_index("interval")["width"]
        assert width["naive_balanced_accuracy"] < width["balanced_accuracy"]

    def test_many_scans_of_few_patients(self):
        first, _ = bench_coverage._simulate(StudyDesign(n_patients=10, n_scans=10), 0)
        assert (first.groupby("participant_id").size() == 10).all()


def test_the_lesson_shows_that_scans_of_one_patient_are_no_new_evidence():
    table = kept_intervals(40, n_boot=100, seed=20, engine="inline")
    assert table.loc["patients drawn", "coverage"] >= 0.9
    assert table.loc["scans drawn", "coverage"] < 0.8
    assert table.loc["scans drawn", "width"] < 0.6 * table.loc["patients drawn", "width"]
