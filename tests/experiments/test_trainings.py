"""Budgets: one device for the whole study, its precision, a GPU a training."""

import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from motionlib.compute.engines import default_device
from motionlib.experiments import copies, fine_tuning, pretraining, trainings
from motionlib.experiments.trainings import Budget, Job, spec_for, train


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setenv("MOTIONLIB_DEVICE", "cuda")


class TestBudget:
    @pytest.mark.parametrize(("device", "precision"), [("cpu", "float32"), ("cuda", "bf16")])
    def test_device_decides_the_precision_of_a_specification(self, device, precision, tmp_path):
        manifest = tmp_path / "prepared.tsv"
        manifest.write_text("scan_id\n")
        budget = Budget(1, 1, device=device)
        spec = spec_for(SimpleNamespace(seed=20), manifest, 0, budget)
        assert spec.precision == precision

    def test_everything_follows_the_named_device(self, gpu):
        assert default_device() == Budget(1, 1).device == "cuda"

    def test_folds_are_predicted_on_the_named_device(self, gpu, monkeypatch):
        seen = []

        def predict_all(pairs, *, device, engine):
            seen.append(device)
            raise StopIteration

        monkeypatch.setattr(pretraining, "predict_all", predict_all)
        for module in (fine_tuning, pretraining):
            monkeypatch.setattr(
                module,
                "read_prepared",
                lambda run, path: pd.DataFrame({"role": ["test"], "cohort": ["here"]}),
            )
        monkeypatch.setattr(
            pretraining, "manifest_of", lambda run: pd.DataFrame(columns=["role", "cohort"])
        )
        monkeypatch.setattr(pretraining, "pretrained", lambda *args: ["fold0"])
        monkeypatch.setattr(copies, "control_set", lambda *a, **k: Path("x"))
        monkeypatch.setattr(copies, "warehouse_set", lambda *a, **k: Path("x"))
        with pytest.raises(StopIteration):
            pretraining.controls(None)
        with pytest.raises(StopIteration):
            fine_tuning.research_only(None, {"research_only": ["fold0"]})
        assert seen == ["cuda", "cuda"]


class TestTrain:
    @pytest.mark.parametrize(("device", "resources"), [("cpu", None), ("cuda", {"GPU": 1})])
    def test_a_training_on_a_gpu_occupies_one(self, device, resources, monkeypatch):
        asked = {}
        monkeypatch.setattr(trainings.compute, "submit", lambda *a, **k: asked.update(k) or ["x"])
        train([Job(None, "models", device)], engine="local:2", label="x")
        assert asked["resources"] == resources

    def test_workers_see_one_gpu_each_in_turn(self, monkeypatch):
        from motionlib.compute.clusters import OwnGpu, visible_gpus

        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
        plugin, seen = OwnGpu(visible_gpus()), []
        for number in range(3):
            plugin.setup(SimpleNamespace(name=number))
            seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        assert seen == ["4", "6", "4"]


class TestRecipe:
    @pytest.fixture
    def run(self, tmp_path):
        (tmp_path / "cohort.json").write_text('{"spacing_mm": 4}')
        return SimpleNamespace(cohort=tmp_path)

    @pytest.fixture
    def prepared(self, tmp_path):
        def write(n):
            rows = pd.DataFrame({"role": ["train"] * n + ["test"] * 200})
            rows.to_csv(tmp_path / "prepared.tsv", sep="\t", index=False)
            return tmp_path / "prepared.tsv"

        return write

    def test_the_papers_copies_are_made_once_where_there_are_enough(self, run, prepared):
        how = pretraining.recipe_of(run, prepared(100), "paper", Budget(12, 3))
        assert how == ({"augment": "none"}, Budget(12, 3))

    def test_few_are_moved_and_mirrored_in_every_epoch_for_twice_the_epochs(self, run, prepared):
        how = pretraining.recipe_of(run, prepared(99), "paper", Budget(12, 3))
        assert how == ({"augment": "flip", "fresh_mm": 4.0}, Budget(24, 3))

    def test_the_recommended_recipe_has_copies_enough(self, run, prepared):
        how = pretraining.recipe_of(run, prepared(10), "recommended", Budget(12, 3))
        assert how == ({"augment": "nuisance"}, Budget(12, 3))

    @pytest.mark.parametrize(("n", "epochs", "augment"), [(99, 6, "flip"), (100, 3, "none")])
    def test_pretraining_specifies_it(self, run, prepared, monkeypatch, n, epochs, augment):
        seen = []

        def stop(jobs, **options):
            seen.extend(job.spec for job in jobs)
            raise StopIteration

        cell = prepared(n)
        monkeypatch.setattr(copies, "real_motion_set", lambda run: None)
        for name in ("control_set", "synthetic_set"):
            monkeypatch.setattr(copies, name, lambda *args, **options: cell)
        monkeypatch.setattr(pretraining, "note_folds", lambda *args: None)
        monkeypatch.setattr(pretraining, "train", stop)
        run.seed, run.models = 20, "models"
        with pytest.raises(StopIteration):
            pretraining.pretrain(run, Budget(3, 2))
        assert [(one.fold, one.epochs, one.augment) for one in seen] == [
            (0, epochs, augment),
            (1, epochs, augment),
        ]
