"""Copies made anew in every epoch."""

import numpy as np
import pandas as pd
import pytest

from motionlib.preprocess.grid import study_grid
from motionlib.preprocess.images import phantom
from motionlib.training.data import FreshStore, VolumeStore, load_prepared
from motionlib.training.fitting import fit
from motionlib.training.spec import TrainSpec

SPACING_MM = 8.0
VARIANTS = ("image_2-4_recommended#0", "image_2-4_recommended#1", "clean", "matched#1")


@pytest.fixture
def manifest(tmp_path):
    """Four copies, two of them moved, of each of three still heads, one a fold."""
    rows = []
    for k in range(3):
        head = np.asarray(phantom(study_grid(SPACING_MM).shape)).squeeze() * (1 + 0.1 * k)
        np.save(tmp_path / f"{k}.npy", head.astype(np.float16))
        for variant in VARIANTS:
            rows.append(
                {
                    "scan_id": f"{k}_{variant}", "participant_id": f"sub-{k}", "path": f"{k}.npy",
                    "original": f"{k}.npy", "variant": variant, "role": "train", "fold": k,
                    "y_true": int(variant.startswith("image")),
                }
            )  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "set.tsv", sep="\t", index=False)
    return tmp_path / "set.tsv"


class TestFreshStore:
    def test_every_epoch_and_draw_gives_other_copies_and_the_same_ones_again(self, manifest):
        store = FreshStore(load_prepared(manifest), SPACING_MM, seed=3)
        first, draw = store.batch([0], epoch=1), store.batch([1], epoch=1)
        second = store.batch([0], epoch=2)
        assert not np.allclose(first, second)
        assert not np.allclose(first, draw)
        np.testing.assert_array_equal(store.batch([5, 0], epoch=1)[1], first[0])

    def test_a_still_copy_stays_still_and_all_are_z_scored(self, manifest):
        store = FreshStore(load_prepared(manifest), SPACING_MM)
        whole = VolumeStore(load_prepared(manifest)).batch([2])
        np.testing.assert_allclose(store.batch([2], epoch=4), whole, atol=1e-3)
        every = store.batch(range(4), epoch=1)
        assert every.shape == (4, 1, *study_grid(SPACING_MM).shape)
        np.testing.assert_allclose(every.mean(dim=(1, 2, 3, 4)), 0, atol=1e-5)
        np.testing.assert_allclose(every.std(dim=(1, 2, 3, 4), correction=0), 1, atol=1e-5)

    def test_validation_sees_the_prepared_copies(self, manifest):
        table = load_prepared(manifest)
        store = FreshStore(table, SPACING_MM)
        np.testing.assert_array_equal(store.batch([0, 7]), VolumeStore(table).batch([0, 7]))

    def test_other_voxels_and_old_manifests_are_refused(self, manifest):
        table = load_prepared(manifest)
        with pytest.raises(ValueError, match="give their own voxel size"):
            FreshStore(table, 10.0)
        with pytest.raises(ValueError, match=r"lacks \['original'\]"):
            FreshStore(table.drop(columns="original"), SPACING_MM)

    def test_training_with_fresh_copies_is_reproducible_and_another_run(self, manifest, tmp_path):
        spec = {"network": "SECNN", "manifest": str(manifest), "fold": 0, "epochs": 2}
        spec |= {"batch_size": 4}
        fresh = TrainSpec(**spec, fresh_mm=SPACING_MM)
        assert fresh.key != TrainSpec(**spec).key
        runs = [fit(fresh, tmp_path / name) for name in ("a", "b")]
        kept = [pd.read_csv(run / "metrics.csv").drop(columns="seconds") for run in runs]
        pd.testing.assert_frame_equal(*kept)
        prepared = pd.read_csv(fit(TrainSpec(**spec), tmp_path / "c") / "metrics.csv")
        assert not np.allclose(prepared["train_loss"], kept[0]["train_loss"])
