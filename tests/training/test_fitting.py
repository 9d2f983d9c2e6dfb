"""Training: the same bits after any interruption, the lowest loss kept, faults in one sentence."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from prepared_set import prepared_set

from motionlib import files
from motionlib.compute.engines import configure_cpu
from motionlib.networks import NETWORKS, build_network
from motionlib.training import fitting, prediction
from motionlib.training.checkpoints import load_model, read_weights
from motionlib.training.fitting import fit
from motionlib.training.prediction import predict, predict_all
from motionlib.training.spec import TrainSpec

KILLS = 10


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return prepared_set(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def spec(manifest):
    return TrainSpec(
        "Conv5FC3", str(manifest), fold=0, epochs=3, batch_size=8, learning_rate=1e-3, dropout=0.3
    )


@pytest.fixture
def every_epoch(monkeypatch):
    """Save after every epoch but the last, however soon it ends."""
    monkeypatch.setattr(fitting, "SAVE_EVERY_S", 0.0)


def same_weights(one, two) -> bool:
    """Tell whether two run folders hold the same tensors to the bit."""
    a, b = (read_weights(run / "weights.safetensors") for run in (one, two))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class TestTrainSpec:
    def test_key_ignores_where_the_manifest_lies(self, spec, tmp_path):
        moved = tmp_path / "elsewhere.tsv"
        shutil.copyfile(spec.manifest, moved)
        assert replace(spec, manifest=str(moved)).key == spec.key

    @pytest.mark.parametrize(
        "change",
        [{"seed": 1}, {"fold": 1}, {"loss": "plain"}, {"precision": "bf16"}, {"epochs": 4}],
    )
    def test_key_changes_with_every_choice(self, spec, change):
        assert replace(spec, **change).key != spec.key

    def test_unknown_choice_is_named(self, spec):
        with pytest.raises(ValueError, match="network is 'VGG'; use one of Conv5FC3"):
            replace(spec, network="VGG")

    def test_balancing_twice_is_refused(self, spec):
        with pytest.raises(ValueError, match="already balances"):
            replace(spec, sampler="weighted")

    def test_changed_manifest_is_refused(self, spec, tmp_path):
        with pytest.raises(ValueError, match="make the specification again"):
            fit(replace(spec, manifest_sha256="0" * 64), tmp_path)


class TestFit:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_every_network_overfits_eight_phantoms(self, name, tmp_path):
        manifest = prepared_set(tmp_path / "data", 6)
        spec = TrainSpec(
            name, str(manifest), epochs=12, batch_size=4, learning_rate=1e-3, dropout=0.0
        )
        spec = replace(spec, learning_rate=1e-4) if name == "ViT3D" else spec
        run = fit(spec, tmp_path / "runs")
        assert pd.read_csv(run / "metrics.csv")["train_loss"].iloc[-1] < 0.3

    def test_same_seed_gives_the_same_bits(self, spec, tmp_path):
        assert same_weights(fit(spec, tmp_path / "a"), fit(spec, tmp_path / "b"))

    def test_other_seed_gives_other_weights(self, spec, tmp_path):
        assert not same_weights(fit(spec, tmp_path), fit(replace(spec, seed=1), tmp_path))

    def test_callers_threads_and_random_state_are_left_alone(self, spec, tmp_path):
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        before = torch.get_num_threads()
        fit(spec, tmp_path)
        assert torch.equal(torch.rand(1), expected)
        assert torch.get_num_threads() == before

    def test_lowest_validation_loss_is_kept(self, spec, tmp_path):
        run = fit(replace(spec, learning_rate=3e-2, epochs=5), tmp_path)
        history = pd.read_csv(run / "metrics.csv")
        model = json.loads((run / "model.json").read_text())
        assert model["best_epoch"] == history["epoch"][history["valid_loss"].idxmin()]
        assert model["valid_loss"] == pytest.approx(history["valid_loss"].min(), rel=1e-9)

    def test_finished_run_is_not_trained_again(self, spec, tmp_path):
        lines = []
        run = fit(spec, tmp_path, progress=lines.append)
        stamp = (run / "weights.safetensors").stat().st_mtime_ns
        assert fit(spec, tmp_path, progress=lines.append) == run
        assert (run / "weights.safetensors").stat().st_mtime_ns == stamp
        assert len(lines) == spec.epochs
        assert "epoch 3/3" in lines[-1]

    def test_run_folder_holds_the_promised_files(self, spec, tmp_path):
        run = fit(spec, tmp_path)
        names = {path.name for path in run.iterdir()}
        assert names == {"weights.safetensors", "model.json", "metrics.csv", "spec.json", "DONE"}
        assert str(tmp_path) not in (run / "model.json").read_text()

    def test_class_weights_balance_the_classes(self, spec, tmp_path):
        table = pd.read_csv(spec.manifest, sep="\t")
        table = table[(table["y_true"] == 0) | (table["participant_id"].isin(["sub-00", "sub-01"]))]
        table["path"] = [os.path.join(os.path.dirname(spec.manifest), p) for p in table["path"]]
        table.to_csv(tmp_path / "few.tsv", sep="\t", index=False)
        some = replace(spec, manifest=str(tmp_path / "few.tsv"), manifest_sha256="", epochs=1)
        weights = json.loads((fit(some, tmp_path) / "model.json").read_text())["class_weights"]
        assert weights == pytest.approx([7 / 12, 7 / 2])  # 6 still, 1 moved

    def test_without_a_folder_it_goes_to_the_runs_of_the_study(self, spec, tmp_path, monkeypatch):
        monkeypatch.setenv("MOTIONLIB_RUNS", str(tmp_path / "runs"))
        spec = replace(spec, epochs=1)
        folder = fit(spec)
        assert folder == tmp_path / "runs" / "models" / f"Conv5FC3-{spec.key}"
        model = json.loads((folder / "model.json").read_text())
        assert model["architecture"] == model["network"] == spec.network

    def test_start_from_another_run_is_left_to_transfer(self, spec, tmp_path):
        with pytest.raises(ValueError, match=r"use transfer\.fine_tune"):
            fit(replace(spec, init_from="0123"), tmp_path)

    def test_half_precision_is_refused_on_the_cpu(self, spec, tmp_path):
        with pytest.raises(ValueError, match="needs a GPU"):
            fit(replace(spec, precision="bf16"), tmp_path)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_half_precision_trains_to_similar_loss_on_a_gpu(self, spec, tmp_path):
        full, half = (
            pd.read_csv(fit(replace(spec, precision=p), tmp_path, device="cuda") / "metrics.csv")
            for p in ("float32", "bf16")
        )
        assert half["train_loss"].iloc[0] == pytest.approx(full["train_loss"].iloc[0], abs=0.05)


@pytest.mark.usefixtures("every_epoch")
class TestResume:
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_killed_at_ten_random_moments_it_ends_in_the_same_bits(self, spec, tmp_path, rng):
        manifest = prepared_set(tmp_path / "data", shape=(8, 9, 8))
        spec = replace(spec, manifest=str(manifest), manifest_sha256="", epochs=6)
        spec = replace(spec, augment="nuisance", schedule="cosine")
        begun = time.monotonic()
        whole = fit(spec, tmp_path / "whole")
        duration_s, expected = time.monotonic() - begun, predict(whole, manifest)["score"]
        left_behind = set()
        for number in range(KILLS):
            runs = tmp_path / str(number)
            child = multiprocessing.get_context("fork").Process(target=fit, args=(spec, runs))
            child.start()
            time.sleep(rng.uniform(0.1, 1.0) * duration_s)
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            state = spec.folder(runs) / "last" / "state.json"
            left_behind.add(json.loads(state.read_text())["epoch"] if state.exists() else 0)
            run = fit(spec, runs)
            assert same_weights(run, whole)
            assert predict(run, manifest)["score"].equals(expected)
        assert len(left_behind) > 1  # the kills did fall into different epochs

    @pytest.mark.parametrize("write", range(1, 8))
    def test_stop_at_any_write_loses_at_most_an_epoch(self, spec, tmp_path, monkeypatch, write):
        expected = fit(spec, tmp_path / "whole")
        replace_file, count = os.replace, [0]

        def stop(source, target):
            count[0] += 1
            if count[0] == write:
                raise KeyboardInterrupt
            replace_file(source, target)

        monkeypatch.setattr(files.os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(spec, tmp_path / "cut")
        monkeypatch.undo()
        assert same_weights(fit(spec, tmp_path / "cut"), expected)

    def test_best_weights_of_an_epoch_that_was_not_saved_outlive_a_stop(
        self, spec, tmp_path, monkeypatch
    ):
        first = fit(replace(spec, epochs=1), tmp_path / "first")
        epoch = fitting.Loop.epoch

        def stop_in_the_third(self, state):
            monkeypatch.setattr(fitting, "SAVE_EVERY_S", 0.0 if state["epoch"] == 1 else 1e9)
            if state["epoch"] == 2:
                raise KeyboardInterrupt
            return epoch(self, state) | {"best_epoch": 1}

        monkeypatch.setattr(fitting.Loop, "epoch", stop_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            fit(spec, tmp_path / "cut")
        last = spec.folder(tmp_path / "cut") / "last"
        assert json.loads((last / "state.json").read_text())["epoch"] == 2
        monkeypatch.setattr(
            fitting.Loop, "epoch", lambda self, state: epoch(self, state) | {"best_epoch": 1}
        )
        assert same_weights(fit(spec, tmp_path / "cut"), first)

    def test_what_a_kill_left_of_another_try_is_never_used(self, spec, tmp_path):
        expected = fit(spec, tmp_path / "whole")
        last = spec.folder(tmp_path / "cut") / "last"
        last.mkdir(parents=True)
        for number in (1, 2, 3):
            (last / f"epoch_{number}.safetensors").write_bytes(b"of another computer")
        assert same_weights(fit(spec, tmp_path / "cut"), expected)

    def test_optimiser_state_that_could_execute_code_is_refused(self, spec, tmp_path, monkeypatch):
        monkeypatch.setattr(fitting, "finish", lambda folder, *_: folder)
        run = fit(spec, tmp_path)
        torch.save({"state": print}, run / "last" / "epoch_2.pt")
        with pytest.raises(ValueError, match=r"epoch_2\.pt .* is damaged or not ours"):
            fit(spec, tmp_path)

    def test_only_the_last_and_the_best_epoch_stay_on_disk(self, spec, tmp_path, monkeypatch):
        monkeypatch.setattr(fitting, "finish", lambda folder, *_: folder)
        run = fit(spec, tmp_path)
        best = json.loads((run / "last" / "state.json").read_text())["best_epoch"]
        expected = {f"epoch_{n}.safetensors" for n in {2, best}} | {"epoch_2.pt", "state.json"}
        assert {path.name for path in (run / "last").iterdir()} == expected


class TestPatience:
    def test_it_ends_that_many_epochs_after_the_lowest_validation_loss(
        self, spec, tmp_path, monkeypatch
    ):
        losses = iter([0.9, 0.7, 0.8, 0.71, 0.72, 0.1])
        monkeypatch.setattr(fitting.Loop, "_validate", lambda self: (next(losses), 0.5))
        run = fit(replace(spec, epochs=6, patience=3), tmp_path)
        assert pd.read_csv(run / "metrics.csv")["valid_loss"].tolist() == [
            0.9,
            0.7,
            0.8,
            0.71,
            0.72,
        ]
        assert json.loads((run / "model.json").read_text())["best_epoch"] == 2

    def test_without_it_the_key_is_that_of_a_specification_that_knows_no_patience(self, spec):
        values = asdict(spec)
        del values["manifest"], values["patience"]
        assert spec.key == files.content_key("TrainSpec", values)
        assert len({replace(spec, patience=n).key for n in (None, 1, 2)}) == 3


class TestFaults:
    @pytest.mark.usefixtures("every_epoch")
    def test_loss_that_is_not_finite_keeps_the_scans_and_the_last_epoch(
        self, spec, tmp_path, monkeypatch
    ):
        step = fitting.Loop._step

        def fails(self, batch, epoch):
            loss = step(self, batch, epoch)
            return loss * float("nan") if epoch == 2 and self.scans.append(batch) is None else loss

        monkeypatch.setattr(fitting.Loop, "scans", [], raising=False)
        monkeypatch.setattr(fitting.Loop, "_step", fails)
        with pytest.raises(ValueError, match=r"training loss of .* is not finite in epoch 2"):
            fit(spec, tmp_path)
        run = spec.folder(tmp_path)
        note = json.loads((run / "not_finite.json").read_text())
        assert len(note["scan_ids"]) == len(fitting.Loop.scans[0])
        assert note["scan_ids"][0].startswith("sub-")
        assert json.loads((run / "last" / "state.json").read_text())["epoch"] == 1
        assert not (run / "DONE").exists()

    @pytest.mark.usefixtures("every_epoch")
    def test_full_disk_keeps_the_last_epoch_and_resumes(self, spec, tmp_path, monkeypatch):
        expected, saved = fit(spec, tmp_path / "whole"), torch.save

        def full(state, path):
            if "epoch_2" in str(path):
                raise OSError(errno.ENOSPC, "No space left on device")
            saved(state, path)

        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match=r"No space left while writing epoch 2 .* run again"):
            fit(spec, tmp_path / "cut")
        state = json.loads((spec.folder(tmp_path / "cut") / "last" / "state.json").read_text())
        assert state["epoch"] == 1
        monkeypatch.undo()
        assert same_weights(fit(spec, tmp_path / "cut"), expected)

    def test_short_memory_becomes_smaller_pieces_of_the_same_batch(
        self, spec, tmp_path, monkeypatch
    ):
        forward = fitting.Loop._forward

        def short(self, part, batch, epoch):
            if len(batch) > 3:
                raise torch.OutOfMemoryError
            return forward(self, part, batch, epoch)

        monkeypatch.setattr(fitting.Loop, "_forward", short)
        some = replace(spec, epochs=1, dropout=0.0)
        history = pd.read_csv(fit(some, tmp_path) / "metrics.csv")
        assert history["micro_batch"].tolist() == [2]

    def test_one_scan_that_does_not_fit_is_said(self, spec, tmp_path, monkeypatch):
        def never(self, part, batch, epoch):
            raise torch.OutOfMemoryError

        monkeypatch.setattr(fitting.Loop, "_forward", never)
        with pytest.raises(MemoryError, match="One scan alone does not fit"):
            fit(spec, tmp_path)

    def test_vanished_volume_is_named_and_nothing_is_written(self, tmp_path):
        manifest = prepared_set(tmp_path / "data")
        (tmp_path / "data" / "sub-04_still.npy").unlink()
        with pytest.raises(FileNotFoundError, match="sub-04_still"):
            fit(TrainSpec("Conv5FC3", str(manifest), fold=0), tmp_path / "runs")
        assert not (tmp_path / "runs").exists()

    def test_pickle_in_place_of_safetensors_is_refused(self, spec, tmp_path):
        run = fit(replace(spec, epochs=1), tmp_path)
        torch.save({"a": torch.ones(1)}, run / "weights.safetensors")
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            predict(run, spec.manifest)

    def test_weights_of_another_network_are_refused(self, spec, tmp_path):
        run = fit(replace(spec, epochs=1), tmp_path)
        model = json.loads((run / "model.json").read_text())
        files.write_json(run / "model.json", model | {"network": "SECNN"})
        with pytest.raises(ValueError, match="are not those of SECNN at"):
            load_model(run)

    def test_unfinished_run_cannot_predict(self, spec, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no model\.json"):
            predict(tmp_path, spec.manifest)


class TestBatches:
    def loop(self, spec, y_true, original=None):
        rows = np.arange(len(y_true))
        original = rows if original is None else np.asarray(original)
        part = fitting.Split(None, rows, np.asarray(y_true), original)
        network = build_network("SECNN", (5, 5, 5))
        return fitting.Loop(spec, None, network, network, part, part, "cpu")

    def test_every_scan_once_an_epoch_in_changing_order(self, spec):
        batches = self.loop(spec, [0, 1] * 10)
        first, second = (np.concatenate(batches.batches(epoch)) for epoch in (1, 2))
        assert sorted(first) == sorted(second) == list(range(20))
        assert first.tolist() != second.tolist()

    def test_last_batch_of_one_joins_the_one_before(self, spec):
        assert [len(b) for b in self.loop(spec, [0, 1] * 8 + [1]).batches(1)] == [8, 9]

    def test_weighted_sampler_draws_both_classes_alike(self, spec):
        spec = replace(spec, sampler="weighted", loss="plain")
        y_true = np.array([1] * 20 + [0] * 380)
        drawn = np.concatenate(self.loop(spec, y_true).batches(1))
        assert 0.4 < y_true[drawn].mean() < 0.6
        assert len(drawn) == 400

    def test_pairs_are_a_still_and_a_moved_copy_of_one_original(self, spec):
        y_true = np.tile([0, 0, 0, 1, 1], 6)
        original = np.repeat(np.arange(6), 5)
        loop = self.loop(replace(spec, sampler="pairs", batch_size=4), y_true, original)
        first, second = (np.concatenate(loop.batches(epoch)) for epoch in (1, 2))
        pairs = first.reshape(-1, 2)
        assert (y_true[pairs] == [0, 1]).all()
        assert (original[pairs[:, 0]] == original[pairs[:, 1]]).all()
        assert len(set(first)) == len(first) == 24
        assert first.tolist() != second.tolist()

    def test_pairs_without_copies_are_refused(self, spec):
        with pytest.raises(ValueError, match="No original has a copy with and one without"):
            self.loop(replace(spec, sampler="pairs"), [0, 1, 1, 0])

    def test_weighted_loss_of_pieces_adds_up_to_that_of_the_batch(self, spec):
        some, logits = self.loop(spec, [0, 0, 0, 1]), torch.randn(4, 2)
        y = torch.tensor([0, 0, 0, 1])
        whole = some._loss(logits, y)
        assert torch.allclose(some._loss(logits[:3], y[:3]) + some._loss(logits[3:], y[3:]), whole)
        by_hand = torch.nn.functional.cross_entropy(
            logits, y, weight=torch.tensor([4 / 6, 2.0]), reduction="sum"
        )
        assert torch.allclose(whole, by_hand)

    def test_two_logits_are_binary_cross_entropy_of_their_difference(self, spec):
        some, logits = self.loop(spec, [0, 0, 0, 1]), torch.randn(4, 2)
        y = torch.tensor([0, 0, 0, 1])
        binary = torch.nn.functional.binary_cross_entropy_with_logits(
            logits[:, 1] - logits[:, 0], y.float(), weight=some.class_weights[y], reduction="sum"
        )
        assert torch.allclose(some._loss(logits, y), binary)

    def test_cosine_schedule_warms_up_and_ends_near_zero(self, spec):
        some = self.loop(replace(spec, schedule="cosine", epochs=10), [0, 1] * 20)
        rates = [some.rate(step) for step in range(50)]
        assert max(rates) == spec.learning_rate == rates[4]
        assert rates[0] == pytest.approx(spec.learning_rate / 5)
        assert rates[-1] < 0.01 * spec.learning_rate


class TestPredict:
    def test_columns_order_and_decision(self, spec, manifest, tmp_path):
        found = predict(fit(spec, tmp_path), manifest)
        expected = ["scan_id", "participant_id", "y_true", "score", "y_pred"]
        assert found.columns.tolist() == expected
        assert found["scan_id"].tolist() == pd.read_csv(manifest, sep="\t")["scan_id"].tolist()
        assert (found["y_pred"] == (found["score"] >= 0.5)).all()
        assert found["score"].between(0, 1).all()

    def test_batch_size_does_not_matter(self, spec, manifest, tmp_path):
        run = fit(spec, tmp_path)
        one, many = (predict(run, manifest, batch_size=n)["score"] for n in (1, 32))
        assert np.allclose(one, many, rtol=0, atol=1e-6)

    def test_other_grid_is_refused(self, spec, tmp_path):
        run = fit(replace(spec, epochs=1), tmp_path / "runs")
        other = prepared_set(tmp_path / "other", 2, (16, 16, 16))
        with pytest.raises(ValueError, match=r"shape \(16, 16, 16\) where .* trained on"):
            predict(run, other)

    def test_many_are_scored_in_the_order_asked_for(self, spec, manifest, tmp_path):
        runs = [fit(replace(spec, epochs=1, seed=seed), tmp_path) for seed in (1, 2)]
        pairs = [(runs[1], manifest), (runs[0], manifest)]
        for found, pair in zip(predict_all(pairs), pairs, strict=True):
            pd.testing.assert_frame_equal(found, predict(*pair))
        with pytest.raises(RuntimeError, match=r"1 of 2 .* the first with The volumes have shape"):
            predict_all([*pairs[:1], (runs[0], prepared_set(tmp_path / "other", 2, (16, 16, 16)))])

    def test_scores_are_read_again_only_for_the_same_weights_and_volumes(
        self, spec, tmp_path, monkeypatch
    ):
        manifest = prepared_set(tmp_path / "own")
        run, asked = fit(replace(spec, epochs=1), tmp_path / "runs"), []
        (first,) = predict_all([(run, manifest)])
        honest = prediction.predict
        monkeypatch.setattr(
            prediction, "predict", lambda *a, **k: asked.append(a) or honest(*a, **k)
        )
        pd.testing.assert_frame_equal(predict_all([(run, manifest)])[0], first)
        assert not asked
        path = manifest.parent / pd.read_csv(manifest, sep="\t")["path"][0]
        before = path.stat()
        np.save(path, np.load(path)[::-1])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time
        (again,) = predict_all([(run, manifest)])
        assert len(asked) == 1
        assert (again["score"] != first["score"]).tolist() == [True, *[False] * (len(first) - 1)]
        other = fit(replace(spec, epochs=1, seed=5), tmp_path / "others")
        shutil.copy(other / "weights.safetensors", run)
        (otherwise,) = predict_all([(run, manifest)])
        assert len(asked) == 2
        assert not otherwise["score"].equals(again["score"])
        path.unlink()
        with pytest.raises(RuntimeError, match=r"1 of .* prepared volumes are not there"):
            predict_all([(run, manifest)])


class TestConfigureCpu:
    def test_environment_decides_and_the_old_number_returns(self, monkeypatch):
        monkeypatch.setenv("MOTIONLIB_THREADS", "2")
        before = torch.get_num_threads()
        with configure_cpu() as threads:
            assert threads == torch.get_num_threads() == 2
        assert torch.get_num_threads() == before
