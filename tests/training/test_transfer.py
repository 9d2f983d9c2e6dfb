"""Fine-tuning: frozen means frozen to the bit, cached means the same result."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from prepared_set import prepared_set

from motionlib.files import write_json
from motionlib.networks import NETWORKS, PAPER_SHAPE, build_network
from motionlib.training import checkpoints, data, transfer
from motionlib.training.checkpoints import load_model, read_weights
from motionlib.training.fitting import fit
from motionlib.training.prediction import predict
from motionlib.training.spec import TrainSpec
from motionlib.training.transfer import fine_tune, freeze_except, frozen_prefix, named_blocks


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return prepared_set(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def sources(manifest, tmp_path_factory):
    """A pre-trained run of every network."""
    runs = tmp_path_factory.mktemp("sources")
    common = {"fold": 0, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3}
    return {name: fit(TrainSpec(name, str(manifest), **common), runs) for name in NETWORKS}


def tuning(manifest, name="Conv5FC3", **more) -> TrainSpec:
    """A specification of a short fine-tuning."""
    common = {"fold": 1, "epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "seed": 3}
    return TrainSpec(name, str(manifest), task="mov01vs2", **(common | more))


def changed(before, after) -> set[str]:
    """Names of tensors and buffers that differ between two runs' weights."""
    a, b = (read_weights(run / "weights.safetensors") for run in (before, after))
    return {name for name in a if not torch.equal(a[name], b[name])}


class TestFineTune:
    @pytest.mark.parametrize("name", NETWORKS)
    @pytest.mark.parametrize("cache", [True, False])
    def test_only_the_named_blocks_change(self, name, cache, sources, manifest, tmp_path):
        run = fine_tune(sources[name], tuning(manifest, name), tmp_path, cache=cache)
        parameters = {n for n, _ in build_network(name, (24, 28, 24)).named_parameters()}
        expected = {n for n in parameters if n.startswith("fc")}
        assert changed(sources[name], run) == expected

    @pytest.mark.parametrize("name", NETWORKS)
    def test_cached_features_give_the_uncached_result(self, name, sources, manifest, tmp_path):
        spec = tuning(manifest, name)
        scores = [
            predict(fine_tune(sources[name], spec, tmp_path / str(c), cache=c), manifest)["score"]
            for c in (True, False)
        ]
        assert np.abs(scores[0] - scores[1]).max() < 1e-5

    def test_prefix_is_computed_once_for_all_epochs(self, sources, manifest, tmp_path, monkeypatch):
        counted, batch = [0], data.VolumeStore.batch

        def count(self, indices, *more):
            counted[0] += len(indices)
            return batch(self, indices, *more)

        monkeypatch.setattr(data.VolumeStore, "batch", count)
        fine_tune(sources["Conv5FC3"], tuning(manifest, epochs=5), tmp_path)
        assert counted[0] == 20  # the scans that train or validate, each once

    def test_published_behaviour_moves_frozen_statistics(self, sources, manifest, tmp_path):
        source, spec = sources["Conv5FC3"], replace(tuning(manifest), freeze_bn_stats=False)
        run = fine_tune(source, spec, tmp_path)
        moved = {name for name in changed(source, run) if name.startswith("block")}
        assert {name.rpartition(".")[2] for name in moved} == {
            *("running_mean", "running_var", "num_batches_tracked")
        }

    def test_weight_decay_leaves_frozen_tensors_alone(self, sources, manifest, tmp_path):
        spec = tuning(manifest, weight_decay=0.1)
        run = fine_tune(sources["Conv5FC3"], spec, tmp_path, trainable=("fc3",))
        assert changed(sources["Conv5FC3"], run) == {"fc3.0.weight", "fc3.0.bias"}

    def test_everything_may_train(self, sources, manifest, tmp_path):
        run = fine_tune(sources["Conv5FC3"], tuning(manifest), tmp_path, trainable=("all",))
        assert "block1.0.weight" in changed(sources["Conv5FC3"], run)

    def test_model_names_its_source_and_blocks(self, sources, manifest, tmp_path):
        run = fine_tune(sources["Conv5FC3"], tuning(manifest), tmp_path)
        source = json.loads((sources["Conv5FC3"] / "model.json").read_text())
        assert json.loads((run / "model.json").read_text())["init_from"] == source["key"]
        spec = json.loads((run / "spec.json").read_text())
        assert spec["trainable"] == ["fc1", "fc2", "fc3"]

    def test_order_of_names_does_not_make_another_run(self, sources, manifest, tmp_path):
        spec = tuning(manifest, epochs=1)
        one, two = (
            fine_tune(sources["Conv5FC3"], spec, tmp_path, trainable=names)
            for names in (("fc3", "fc2"), ("fc2", "fc3"))
        )
        assert one == two

    def test_stopped_fine_tuning_ends_in_the_same_bits(
        self, sources, manifest, tmp_path, monkeypatch
    ):
        spec, source = tuning(manifest, dropout=0.4), sources["Conv5FC3"]
        whole = fine_tune(source, spec, tmp_path / "whole")

        def stop(line):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fine_tune(source, spec, tmp_path / "cut", progress=stop)
        assert changed(whole, fine_tune(source, spec, tmp_path / "cut")) == set()

    def test_features_too_large_to_keep_are_computed_again(
        self, sources, manifest, tmp_path, monkeypatch
    ):
        expected = fine_tune(sources["Conv5FC3"], tuning(manifest), tmp_path / "a", cache=False)
        monkeypatch.setattr(transfer, "CACHE_BYTES", 10)
        found = fine_tune(sources["Conv5FC3"], tuning(manifest), tmp_path / "b")
        assert changed(expected, found) == set()


class TestOpenModel:
    def test_a_model_opened_once_fine_tunes_and_predicts_as_its_folder_does(
        self, sources, manifest, tmp_path, monkeypatch
    ):
        folder, spec = sources["Conv5FC3"], tuning(manifest, epochs=1)
        expected = fine_tune(folder, spec, tmp_path / "folder"), predict(folder, manifest)
        model = load_model(folder)
        for name in ("read_model", "read_weights"):
            monkeypatch.setattr(checkpoints, name, lambda source: pytest.fail("opened again"))
        tuned = fine_tune(model, spec, tmp_path / "model")
        scores = predict(model, manifest)
        monkeypatch.undo()
        assert changed(expected[0], tuned) == set()
        pd.testing.assert_frame_equal(expected[1], scores)


class TestRefusals:
    def test_other_network_is_refused(self, sources, manifest, tmp_path):
        with pytest.raises(ValueError, match="is a SECNN, the specification asks for Conv5FC3"):
            fine_tune(sources["SECNN"], tuning(manifest), tmp_path)

    def test_other_grid_is_refused(self, sources, tmp_path):
        other = prepared_set(tmp_path / "other", shape=(16, 16, 16))
        with pytest.raises(ValueError, match=r"shape \(16, 16, 16\) where"):
            fine_tune(sources["Conv5FC3"], tuning(other), tmp_path)

    def test_unknown_block_is_named_with_those_there_are(self, sources, manifest, tmp_path):
        with pytest.raises(ValueError, match=r"\['fc9'\] are not in Conv5FC3, which has block1"):
            fine_tune(sources["Conv5FC3"], tuning(manifest), tmp_path, trainable=("fc9",))

    def test_pickle_is_refused(self, sources, manifest, tmp_path):
        model = json.loads((sources["Conv5FC3"] / "model.json").read_text())
        write_json(tmp_path / "theirs" / "model.json", model)
        torch.save({"a": torch.ones(2)}, tmp_path / "theirs" / "weights.safetensors")
        with pytest.raises(ValueError, match="pickles are not read"):
            fine_tune(tmp_path / "theirs", tuning(manifest), tmp_path)

    def test_constant_grades_are_refused(self, sources, manifest, tmp_path):
        table = pd.read_csv(manifest, sep="\t").assign(y_true=1)
        table.to_csv(tmp_path / "one.tsv", sep="\t", index=False)
        with pytest.raises(ValueError, match="0 scans without and 14 with motion"):
            fine_tune(sources["Conv5FC3"], tuning(tmp_path / "one.tsv"), tmp_path)


class TestNamedBlocks:
    @pytest.fixture(scope="class")
    def network(self):
        with torch.device("meta"):
            return build_network("Conv5FC3", PAPER_SHAPE)

    def count(self, network, trainable) -> int:
        freeze_except(network, named_blocks(network, trainable))
        return sum(p.numel() for p in network.parameters() if p.requires_grad)

    @pytest.mark.parametrize(
        ("trainable", "expected"),
        [
            (("fc3",), 102),
            (("fc2", "fc3"), 65_152),
            (None, 41_999_252),  # the paper's best: the three fully connected layers
            (("block5", "fc1", "fc2", "fc3"), 42_220_820),
            (("all",), 42_293_972),
        ],
    )
    def test_trainable_parameters_are_those_of_the_published_tool(
        self, network, trainable, expected
    ):
        assert self.count(network, trainable) == expected

    @pytest.mark.parametrize("name", NETWORKS)
    def test_every_network_can_free_its_fully_connected_blocks(self, name):
        network = build_network(name, (5, 5, 5))
        assert all(block.startswith("fc") for block in named_blocks(network, None))


class TestFrozenPrefix:
    def prefix(self, manifest, trainable, **more) -> int:
        spec = tuning(manifest, **more)
        network = build_network("Conv5FC3", (24, 28, 24), dropout=spec.dropout)
        freeze_except(network, trainable)
        return frozen_prefix(spec, network)

    def test_convolutions_before_the_head(self, manifest):
        assert self.prefix(manifest, ("fc1", "fc2", "fc3")) == 5

    def test_head_up_to_the_last_layer(self, manifest):
        assert self.prefix(manifest, ("fc3",)) == 7

    def test_active_dropout_ends_it(self, manifest):
        assert self.prefix(manifest, ("fc3",), dropout=0.5) == 5

    def test_augmentation_and_moving_statistics_forbid_it(self, manifest):
        assert self.prefix(manifest, ("fc3",), augment="flip") == 0
        moving = replace(tuning(manifest), freeze_bn_stats=False)
        network = build_network("Conv5FC3", (24, 28, 24))
        freeze_except(network, ("fc3",))
        assert frozen_prefix(moving, network) == 0
