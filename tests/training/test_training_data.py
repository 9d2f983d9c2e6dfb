"""Prepared manifests, splits of their rows, and z-scored or augmented batches."""

import time

import numpy as np
import pandas as pd
import pytest
import torch
from prepared_set import SHAPE, prepared_set

from motionlib.training.data import VolumeStore, augmented, load_prepared, split_rows


@pytest.fixture
def manifest(tmp_path):
    return prepared_set(tmp_path)


class TestLoadPrepared:
    def test_paths_are_resolved_against_the_manifest(self, manifest):
        table = load_prepared(manifest)
        assert all(np.load(path).shape == SHAPE for path in table["path"])

    def test_digits_in_ids_stay_text(self, manifest):
        table = pd.read_csv(manifest, sep="\t")
        table["scan_id"] = [f"{i:03d}" for i in range(len(table))]
        table.to_csv(manifest, sep="\t", index=False)
        assert load_prepared(manifest)["scan_id"][7] == "007"

    def test_missing_manifest_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.tsv is not there"):
            load_prepared(tmp_path / "nowhere.tsv")

    def test_missing_column_is_named(self, manifest):
        with pytest.raises(ValueError, match=r"lacks the columns \['y_true'\]"):
            load_prepared(load_prepared(manifest).drop(columns="y_true"))

    def test_scan_in_two_rows_is_refused(self, manifest):
        table = load_prepared(manifest)
        with pytest.raises(ValueError, match="more than one row"):
            load_prepared(pd.concat([table, table.head(1)]))


class TestSplitRows:
    def test_fold_validates_and_the_others_train(self, manifest):
        table = load_prepared(manifest)
        train, validation = split_rows(table, 1)
        assert set(table["fold"].iloc[validation]) == {1}
        assert set(table["fold"].iloc[train]) == {0, 2}
        assert (table["role"].iloc[np.r_[train, validation]] == "train").all()

    def test_no_fold_holds_out_a_fifth_of_the_patients(self, manifest):
        table = load_prepared(manifest)
        train, validation = split_rows(table, None)
        patients = table["source_participant_id"]
        assert patients.iloc[validation].nunique() == 2
        assert not set(patients.iloc[train]) & set(patients.iloc[validation])

    def test_row_order_does_not_matter_for_the_patients_held_out(self, manifest):
        table = load_prepared(manifest)
        mixed = table.sample(frac=1, random_state=0).reset_index(drop=True)
        held = [set(t["scan_id"].iloc[split_rows(t, None)[1]]) for t in (table, mixed)]
        assert held[0] == held[1]

    def test_scans_without_a_class_are_left_out(self, manifest):
        table = load_prepared(manifest)
        table.loc[0, "y_true"] = pd.NA
        assert 0 not in np.concatenate(split_rows(table, 1))

    def test_empty_class_is_refused(self, manifest):
        table = load_prepared(manifest)
        table["y_true"] = 0
        with pytest.raises(ValueError, match="training part of fold 1 has 14 scans without and 0"):
            split_rows(table, 1)

    def test_patient_in_training_and_validation_is_refused(self, manifest):
        table = load_prepared(manifest)
        table["source_participant_id"] = "one"
        with pytest.raises(ValueError, match="1 patients train and validate at once"):
            split_rows(table, 1)


class TestVolumeStore:
    def test_volumes_have_mean_zero_and_deviation_one(self, manifest):
        x = VolumeStore(load_prepared(manifest)).batch([3, 0])
        assert x.shape == (2, 1, *SHAPE)
        assert x.dtype == torch.float32
        assert torch.allclose(x.mean((1, 2, 3, 4)), torch.zeros(2), atol=1e-5)
        assert torch.allclose(x.std((1, 2, 3, 4), correction=0), torch.ones(2), atol=1e-4)

    def test_intensity_scale_does_not_matter(self, manifest):
        table = load_prepared(manifest).head(2)
        np.save(table["path"][1], np.load(table["path"][0]) * np.float16(4))
        one, four = VolumeStore(table).batch([0, 1])
        assert torch.allclose(one, four, atol=1e-3)

    def test_one_header_is_parsed_at_a_time(self, manifest, monkeypatch):
        load, busy, most = np.load, [], []

        def slow(path, **options):
            busy.append(path)
            most.append(len(busy))
            time.sleep(0.002)
            found = load(path, **options)
            busy.remove(path)
            return found

        monkeypatch.setattr(np, "load", slow)
        assert len(VolumeStore(load_prepared(manifest))) == 24
        assert max(most) == 1

    def test_vanished_file_is_named_by_its_scan(self, manifest):
        (manifest.parent / "sub-03_moved.npy").unlink()
        with pytest.raises(FileNotFoundError, match=r"1 of 24 .* scan sub-03_moved"):
            VolumeStore(load_prepared(manifest))

    def test_constant_volume_is_named(self, manifest):
        np.save(manifest.parent / "sub-01_still.npy", np.ones(SHAPE, np.float16))
        with pytest.raises(ValueError, match="sub-01_still is constant"):
            VolumeStore(load_prepared(manifest))

    def test_other_shape_is_named(self, manifest):
        np.save(manifest.parent / "sub-01_still.npy", np.ones((4, 4, 4), np.float16))
        with pytest.raises(ValueError, match=r"sub-01_still has shape \(4, 4, 4\)"):
            VolumeStore(load_prepared(manifest))


class TestAugmentation:
    def store(self, manifest, kind="nuisance", seed=5):
        return VolumeStore(load_prepared(manifest), augment=kind, seed=seed)

    def test_same_seed_epoch_and_scan_give_the_same_bits_in_any_batch(self, manifest):
        alone = self.store(manifest).batch([4], epoch=2)
        among = self.store(manifest).batch([1, 4, 7], epoch=2)
        assert torch.equal(alone[0], among[1])

    def test_epochs_and_seeds_differ(self, manifest):
        store = self.store(manifest)
        first = store.batch([4], epoch=1)
        assert not torch.equal(first, store.batch([4], epoch=2))
        assert not torch.equal(first, self.store(manifest, seed=6).batch([4], epoch=1))

    def test_validation_is_never_augmented(self, manifest):
        plain = self.store(manifest, "none").batch([4])
        assert torch.equal(self.store(manifest).batch([4]), plain)

    def test_result_is_z_scored(self, manifest):
        x = self.store(manifest).batch(range(8), epoch=1)
        assert torch.allclose(x.mean((1, 2, 3, 4)), torch.zeros(8), atol=1e-5)
        assert torch.allclose(x.std((1, 2, 3, 4), correction=0), torch.ones(8), atol=1e-4)

    def test_scale_of_the_scan_does_not_change_the_strength(self, manifest):
        volumes = self.store(manifest).volumes[:6].float()[:, None]
        seeds = range(6)
        one = augmented(volumes, "nuisance", seeds)
        assert torch.allclose(one, augmented(volumes * 700, "nuisance", seeds), rtol=1e-3)

    def test_flip_mirrors_left_and_right_of_about_half(self, phantom):
        volumes = phantom[None].expand(40, -1, -1, -1, -1)
        flipped = augmented(volumes, "flip", range(40))
        mirrored = [torch.equal(v, phantom.flip(1)) for v in flipped]
        kept = [torch.equal(v, phantom) for v in flipped]
        assert 8 <= sum(mirrored) <= 32
        assert sum(mirrored) + sum(kept) == 40

    def test_input_is_not_modified(self, phantom):
        before = phantom.clone()
        augmented(phantom[None], "nuisance", [1])
        assert torch.equal(phantom, before)

    def test_unknown_kind_is_refused(self, manifest):
        with pytest.raises(ValueError, match="'elastic' is not one of none, flip, nuisance"):
            self.store(manifest, "elastic")
