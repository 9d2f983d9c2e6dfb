"""Every graded scan judged once: by networks, by regressions on frozen features, by raters."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from motionlib.experiments import cohort as cohorts
from motionlib.experiments import copies, fine_tuning, pooled_head
from motionlib.experiments.cohort import prepare_cohort
from motionlib.experiments.fine_tuning import (
    annotators,
    compare_starts,
    fewer_patients,
    research_only,
)
from motionlib.experiments.pooled_head import pooled_heads
from motionlib.experiments.trainings import Budget, plan_trainings, train
from motionlib.metrics import classification_metrics, fold_summary
from motionlib.stats.intervals import summary_intervals
from motionlib.study.run import Run

FOLDS = 3


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A run with a handful of virtual heads, of which networks see a slab, and one pre-training."""
    run = Run("04_fine_tuning", "tiny", 20, tmp_path_factory.mktemp("runs"), quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohorts, "COARSEST_MM", 6.0)  # nobody looks at these heads
        cohort = prepare_cohort(
            run, cohort="virtual", size=40, spacing_mm=10.0, slab_mm=50.0, n_folds=FOLDS
        )
    prepared = copies.synthetic_set(cohort, "image", "2-4", "paper")
    plan = plan_trainings(run, "pretrain/x", "synthetic", prepared, Budget(1, 1))
    train(run, plan, engine="inline", label="x")
    return SimpleNamespace(run=run, cohort=cohort, sources=[plan[0].folder])


def graded(study) -> pd.DataFrame:
    """Graded scans of the cohort."""
    rows = study.cohort.manifest
    return rows[rows["cohort"].str.contains("warehouse") & rows["role"].eq("train")]


class TestCohort:
    def test_there_is_no_test_set_and_every_graded_scan_has_a_fold(self, study):
        assert study.cohort.n_outer == FOLDS
        assert set(graded(study)["fold"]) == set(range(FOLDS))

    def test_networks_see_the_slab_and_measures_the_whole_head(self, study):
        whole, slab = (
            copies.read_prepared(
                study.cohort, copies.warehouse_set(study.cohort, "mov01vs2", whole=w)
            )
            for w in (True, False)
        )
        volume, planes = (np.load(table["path"].iloc[0]) for table in (whole, slab))
        assert planes.shape == study.cohort.network_grid.shape == (5, *volume.shape[1:])
        np.testing.assert_array_equal(planes, volume[study.cohort.planes])
        first = study.cohort.grid.matrix @ [study.cohort.planes.start, 0, 0, 1]
        np.testing.assert_allclose(study.cohort.network_grid.matrix[:, 3], first)

    def test_motion_is_made_on_the_whole_head_then_cut(self, study):
        names = (study.cohort, "image", "2-4", "paper")
        whole, slab = (
            copies.read_prepared(study.cohort, copies.synthetic_set(*names, whole=w))
            for w in (True, False)
        )
        moved = slab.index[slab["y_true"] == 1][0]
        volume, planes = (np.load(table.loc[moved, "path"]) for table in (whole, slab))
        np.testing.assert_array_equal(planes, volume[study.cohort.planes])


class TestRows:
    @pytest.fixture(scope="class")
    def rows(self, study):
        starts = {"fine_tuned": (study.sources, "fc1+")}
        budget = Budget(1, FOLDS, 1e-3, 8)
        parts = [
            research_only(study.cohort, {"research_only": study.sources}),
            compare_starts(study.run, study.cohort, starts, budget, budget),
            pooled_heads(study.cohort, study.sources, [12]),
        ]
        return pd.concat(parts, ignore_index=True)

    def test_each_scan_is_judged_once_by_the_network_of_its_fold(self, study, rows):
        folds = graded(study).set_index("scan_id")["fold"]
        for _, part in rows[rows["fold"] >= 0].groupby(["experiment", "task"]):
            assert part["scan_id"].is_unique
            assert (part["fold"].to_numpy() == folds[part["scan_id"]].to_numpy()).all()

    def test_heads_are_trained_once(self, study, rows, monkeypatch):
        again = rows[rows["experiment"].str.contains("pooled_head|untrained_features")]
        monkeypatch.setattr(pooled_head, "submit", None)  # fails where a head is trained
        found = pooled_heads(study.cohort, study.sources, [12])
        pd.testing.assert_frame_equal(found, again.reset_index(drop=True), check_exact=True)
        with pytest.raises(TypeError):
            pooled_heads(study.cohort, study.sources, [11])

    def test_a_network_has_seen_no_scan_that_it_judges(self, study, rows):
        made = pd.read_csv(study.run.models / "trainings.csv")
        assert sorted(made.query("experiment == 'warehouse/from_scratch'").fold.unique()) == [
            0,
            1,
            2,
        ]

    def test_all_methods_judge_the_same_scans_as_the_raters(self, study, rows):
        people = annotators(study.cohort)
        for task, part in rows[rows["experiment"].str.startswith("warehouse/")].groupby("task"):
            asked = set(people.loc[people["task"] == task, "scan_id"])
            for _, each in part.groupby("experiment"):
                assert set(each["scan_id"]) == asked

    def test_the_metric_is_of_all_scans_as_one_set(self, rows):
        part = rows.query("experiment == 'warehouse/research_only' and task == 'mov0vs1'")
        single = part[part["fold"] >= 0]
        whole = classification_metrics(single["y_true"], single["score"], y_pred=single["y_pred"])
        summary = fold_summary(part, allow_one_class=True)
        assert summary["auc_mean"] == pytest.approx(whole["auc"])
        assert summary["n_folds"] == FOLDS
        assert summary["n_patients"] == single["participant_id"].nunique()
        interval = summary_intervals(part, n_boot=20)["balanced_accuracy"]
        assert interval.estimate == pytest.approx(whole["balanced_accuracy"])


class TestFewerPatients:
    def test_they_train_as_long_and_judge_the_same_scans(self, study):
        budget = Budget(2, FOLDS, 1e-3, 8)
        some = (6, 10_000)
        rows = fewer_patients(study.run, study.cohort, study.sources, budget, some)
        assert set(rows["experiment"]) == {
            "labels/fine_tuned_recommended/6",
            "labels/from_scratch/6",
        }
        single = rows[(rows["fold"] >= 0) & (rows["experiment"] == "labels/from_scratch/6")]
        assert set(single["scan_id"]) == set(graded(study)["scan_id"])
        assert single["scan_id"].is_unique
        (prepared,) = study.cohort.cache.glob("warehouse_mov01vs2_6_patients.tsv")
        few = pd.read_csv(prepared, sep="\t")
        one_fold = few.groupby("fold")["source_participant_id"].nunique()  # of three, one trains
        assert one_fold.between(5, 7).all()
        assert few.groupby("fold")["y_true"].max().eq(1).all()
        folder = pd.read_csv(study.run.models / "trainings.csv").query(
            "experiment == 'labels/from_scratch/6'"
        )["folder"]
        spec = json.loads((study.run.models / folder.iloc[0] / "spec.json").read_text())
        assert spec["epochs"] == round(2 * len(graded(study)) / len(few))

    def test_without_numbers_there_are_no_rows_and_scores_stay_numbers(self, study):
        budget = Budget(1, FOLDS)
        none = fewer_patients(study.run, study.cohort, study.sources, budget, [])
        assert none.empty
        assert none["score"].dtype == float


class TestPooledHead:
    def test_it_finds_what_a_channel_tells_and_learns_nothing_from_the_judged_fold(self, rng):
        n = 120
        scans = pd.DataFrame(
            {"scan_id": [f"s{k}" for k in range(n)], "participant_id": [f"p{k}" for k in range(n)],
             "source_participant_id": [f"p{k}" for k in range(n)], "role": "train",
             "fold": np.arange(n) % 3, "y_true": rng.integers(0, 2, n)}
        )  # fmt: skip
        features = rng.normal(size=(n, 12))
        features[:, 3] += 3 * scans["y_true"]
        cohort = SimpleNamespace(n_outer=3, seed=1)
        rows = pooled_head._judge(cohort, scans, [features], "x", "mov01vs2")
        single = rows[rows["fold"] >= 0]
        assert (single["y_pred"] == single["y_true"]).mean() > 0.85
        flipped = scans.assign(
            y_true=scans["y_true"].where(scans["fold"] != 0, 1 - scans["y_true"])
        )
        again = pooled_head._judge(cohort, flipped, [features], "x", "mov01vs2")
        same = [r[r["fold"] == 0].set_index("scan_id")["score"] for r in (rows, again)]
        pd.testing.assert_series_equal(*same)

    def test_fewer_patients_are_chosen_within_the_training_folds(self):
        patients = np.array([f"p{k}" for k in range(40)])
        inside, y_true = np.arange(40) < 30, np.arange(40) % 5 == 0
        some = pooled_head._some(patients, y_true.astype(int), inside, 12, seed=0)
        assert some.sum() == 12
        assert not some[~inside].any()
        assert (some & y_true).sum() == 6


class TestChosenDepth:
    def test_a_fold_takes_the_depth_of_its_own_lowest_loss_and_no_other_fold_s(self, monkeypatch):
        losses = pd.DataFrame({0: [0.5, 0.6], 1: [0.7, 0.4]}, index=["fc1+", "all"])
        monkeypatch.setattr(fine_tuning, "validation_losses", lambda run: losses)
        rows = pd.DataFrame(
            [(f"freeze/{depth}", fold, f"s{fold}", 0.1 * k)
             for k, depth in enumerate(losses.index) for fold in (0, 1, -1)],
            columns=["experiment", "fold", "scan_id", "score"],
        ).assign(task="mov01vs2", model="Conv5FC3", y_true=1, y_pred=0)  # fmt: skip
        chosen = fine_tuning.chosen_depth(None, rows)
        assert set(chosen["experiment"]) == {"warehouse/fine_tuned_chosen"}
        single = chosen[chosen["fold"] >= 0].set_index("fold")["score"]
        assert single.to_dict() == {0: 0.0, 1: 0.1}
        assert (chosen["fold"] == -1).sum() == 2
