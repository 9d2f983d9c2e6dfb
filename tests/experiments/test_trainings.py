"""Trainings: their specification, their folders by experiment, a GPU each, one device for all."""

import os
from types import SimpleNamespace

import pandas as pd
import pytest
from prepared_set import prepared_set

from motionlib.compute.engines import default_device
from motionlib.experiments import evaluation, pretraining, trainings
from motionlib.experiments.evaluation import Evaluation, evaluate
from motionlib.experiments.trainings import Budget, plan_trainings, train, trained_folds
from motionlib.study.run import Run
from motionlib.training.data import load_prepared, split_rows


@pytest.fixture
def run(tmp_path):
    return Run("02_simulation", "smoke", 20, tmp_path / "runs", quiet=True)


@pytest.fixture
def prepared(tmp_path):
    return prepared_set(tmp_path / "prepared", 6, (8, 9, 8))


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setenv("MOTIONLIB_DEVICE", "cuda")


class TestPlanTrainings:
    def test_folds_are_specified_one_by_one(self, run, prepared):
        plan = plan_trainings(run, "labels/x", "mov0vs1", prepared, Budget(3, 2, 1e-3, 8))
        assert [(t.spec.fold, t.spec.epochs, t.spec.task) for t in plan] == [
            (0, 3, "mov0vs1"),
            (1, 3, "mov0vs1"),
        ]
        assert plan[0].folder == run.models / f"Conv5FC3-{plan[0].spec.key}"

    def test_the_experiment_does_not_decide_the_folder(self, run, prepared):
        one, two = (
            plan_trainings(run, experiment, "mov01vs2", prepared, Budget(1, 1))
            for experiment in ("freeze/fc1+", "warehouse/fine_tuned")
        )
        assert one[0].folder == two[0].folder

    def test_fold_i_goes_on_from_source_i_with_its_blocks_free(self, run, prepared):
        plan = plan_trainings(run, "pretrain/x", "synthetic", prepared, Budget(1, 2))
        train(run, plan, engine="inline", label="x")
        sources = trained_folds(run, "pretrain/x", "synthetic", notebook="02")
        tuned = plan_trainings(
            run, "x", "mov01vs2", prepared, Budget(1, 2), sources=sources, trainable=("fc3",)
        )
        assert [t.spec.init_from for t in tuned] == [t.spec.key for t in plan]
        assert {t.spec.trainable for t in tuned} == {("fc3",)}
        train(run, tuned, engine="inline", label="x")
        assert trained_folds(run, "x", "mov01vs2", notebook="04") == [t.folder for t in tuned]

    def test_an_outer_fold_neither_trains_nor_validates(self, run, prepared):
        plan = plan_trainings(run, "x", "mov01vs2", prepared, Budget(1, 3), outer=True)
        assert [(t.fold, t.spec.fold, t.spec.test_fold) for t in plan] == [
            (0, 1, 0),
            (1, 2, 1),
            (2, 0, 2),
        ]
        table = load_prepared(prepared)
        for training in plan:
            seen = [set(table.loc[rows, "fold"]) for rows in
                    split_rows(table, training.spec.fold, training.spec.test_fold)]  # fmt: skip
            assert seen == [set(range(3)) - {training.fold, training.spec.fold},
                            {training.spec.fold}]  # fmt: skip

    def test_two_folds_cannot_be_outer_ones(self, run, prepared):
        with pytest.raises(ValueError, match="at least 3 where every graded scan is judged once"):
            plan_trainings(run, "x", "mov01vs2", prepared, Budget(1, 2), outer=True)

    @pytest.mark.parametrize(("device", "precision"), [("cpu", "float32"), ("cuda", "bf16")])
    def test_the_device_decides_the_precision(self, run, prepared, monkeypatch, device, precision):
        monkeypatch.setenv("MOTIONLIB_DEVICE", device)
        assert default_device() == device
        (training,) = plan_trainings(run, "x", "synthetic", prepared, Budget(1, 1))
        assert training.spec.precision == precision


class TestTrain:
    @pytest.mark.parametrize(("device", "resources"), [("cpu", None), ("cuda", {"GPU": 1})])
    def test_a_training_on_a_gpu_occupies_one(self, run, prepared, device, resources, monkeypatch):
        asked = {}
        monkeypatch.setenv("MOTIONLIB_DEVICE", device)
        monkeypatch.setattr(trainings.compute, "submit", lambda *a, **k: asked.update(k) or ["x"])
        plan = plan_trainings(run, "x", "synthetic", prepared, Budget(1, 1))
        train(run, plan, engine="local:2", label="x")
        assert asked["resources"] == resources

    def test_equal_trainings_are_made_once(self, run, prepared, monkeypatch):
        made = []
        monkeypatch.setattr(trainings.compute, "submit", lambda f, items, **k: made.extend(items))
        monkeypatch.setattr(trainings.compute, "raise_failures", lambda results: None)
        plan = [
            training
            for name in ("a", "b")
            for training in plan_trainings(run, name, "synthetic", prepared, Budget(1, 2))
        ]
        train(run, plan, engine="inline", label="x")
        assert [t.spec.fold for t in made] == [0, 1]

    def test_workers_see_one_gpu_each_in_turn(self, monkeypatch):
        from motionlib.compute.clusters import OwnGpu, visible_gpus

        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
        plugin, seen = OwnGpu(visible_gpus()), []
        for number in range(3):
            plugin.setup(SimpleNamespace(name=number))
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        assert seen == ["4", "6", "4"]


class TestTrainedFolds:
    def test_a_new_plan_replaces_the_rows_of_its_network_only(self, run, prepared, monkeypatch):
        monkeypatch.setattr(trainings.compute, "submit", lambda *a, **k: [])
        monkeypatch.setattr(trainings, "is_done", lambda folder: True)
        for n_folds, networks in ((2, ("Conv5FC3", "SECNN")), (1, ("Conv5FC3",))):
            for network in networks:
                budget, names = Budget(1, n_folds), ("x", "synthetic", prepared)
                train(run, plan_trainings(run, *names, budget, network=network), engine="inline",
                      label="x")  # fmt: skip
        folds = {
            network: len(trained_folds(run, "x", "synthetic", network, notebook="03"))
            for network in ("Conv5FC3", "SECNN")
        }
        assert folds == {"Conv5FC3": 1, "SECNN": 2}

    def test_what_is_missing_is_said_with_the_notebook_that_makes_it(self, run, prepared):
        with pytest.raises(FileNotFoundError, match="Run 02 first"):
            trained_folds(run, "x", "synthetic", notebook="02")
        plan = plan_trainings(run, "x", "synthetic", prepared, Budget(1, 1))
        trainings._note_folders(run, plan)
        for experiment in ("x", "y"):  # noted but not made, never noted
            with pytest.raises(FileNotFoundError, match="Run 04 first"):
                trained_folds(run, experiment, "synthetic", notebook="04")


class TestEvaluate:
    def test_everything_is_predicted_on_the_named_device(self, gpu, monkeypatch):
        seen = []

        def predict_all(pairs, *, device, engine):
            seen.append((device, engine))
            raise StopIteration

        monkeypatch.setattr(evaluation, "predict_all", predict_all)
        with pytest.raises(StopIteration):
            evaluate([Evaluation("x", "synthetic", "fold0", pd.DataFrame())], engine="local:2")
        assert seen == [("cuda", "local:2")]


class TestRecipe:
    def cohort(self, n: int) -> SimpleNamespace:
        research = pd.DataFrame({"role": ["train"] * n + ["test"] * 200})
        return SimpleNamespace(research=research, engine="inline")

    @pytest.mark.parametrize(
        ("n", "recipe", "expected"),
        [
            (100, "paper", {"augment": "none"}),
            (99, "paper", {"augment": "flip", "sampler": "weighted", "loss": "plain"}),
            (10, "recommended", {"augment": "nuisance", "sampler": "pairs"}),
        ],
    )
    def test_few_scans_are_mirrored_and_both_classes_drawn_alike(self, n, recipe, expected):
        assert pretraining.recipe_of(self.cohort(n), recipe) == expected

    @pytest.mark.parametrize(("n", "augment"), [(99, "flip"), (100, "none")])
    def test_pretraining_specifies_it(self, run, prepared, monkeypatch, n, augment):
        seen = []

        def stop(run, trainings, **options):
            seen.extend((t.experiment, t.spec.fold, t.spec.augment) for t in trainings)
            raise StopIteration

        monkeypatch.setattr(pretraining, "motion_set", lambda cohort, **kind: None)
        monkeypatch.setattr(pretraining, "control_set", lambda *cell: None)
        monkeypatch.setattr(pretraining, "synthetic_set", lambda *names: prepared)
        monkeypatch.setattr(pretraining, "train", stop)
        with pytest.raises(StopIteration):
            pretraining.pretrain(run, self.cohort(n), Budget(3, 2), stage="benchmark")
        name = "benchmark/image/2-4/paper"
        assert seen == [(name, 0, augment), (name, 1, augment)]
