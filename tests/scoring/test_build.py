"""The shipped model: how its copies are made, how its threshold is chosen, and what it does."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from motionlib.cli import main
from motionlib.preprocess.images import phantom, read_array, save_volume
from motionlib.scoring.build import (
    SHAPE,
    STILL_CALLED,
    TESTED,
    balanced_accuracy,
    calibrate,
    card,
    choose_decision,
    compare_recipes,
    shares_called_motion,
    ship,
    still_heads,
)
from motionlib.scoring.build_copies import (
    CopyRecipe,
    make_copy,
    make_test_copy,
    make_training_copies,
)
from motionlib.scoring.model import default_model, slab_grid

MEGABYTES = 6
EVERYTHING = CopyRecipe(nuisance=True)


@pytest.fixture(scope="module")
def head():
    volume = np.asarray(phantom((40, 44, 40))).squeeze().astype(np.float32)
    return volume, np.diag([4.0, 4.0, 4.0, 1.0])


class TestSlab:
    def test_it_is_the_middle_of_the_study_grid(self):
        whole, slab = slab_grid(2.0), slab_grid(2.0, 48.0)
        assert slab.shape == (25, *whole.shape[1:])
        middle = whole.matrix @ [whole.shape[0] // 2, 0, 0, 1]
        np.testing.assert_allclose(slab.matrix @ [12, 0, 0, 1], middle)

    @pytest.mark.parametrize("slab_mm", [0.5, 400.0])
    def test_one_that_does_not_fit_is_refused(self, slab_mm):
        with pytest.raises(ValueError, match="does not fit"):
            slab_grid(2.0, slab_mm)


class TestCopies:
    @pytest.mark.parametrize("moved", [False, True])
    def test_the_same_seed_gives_the_same_copy_and_the_head_is_not_changed(self, head, moved):
        before = head[0].copy()
        for seed in range(12):
            a, b = (
                make_copy(*head, moved, EVERYTHING, np.random.default_rng(seed))[0]
                for _ in range(2)
            )
            np.testing.assert_array_equal(a, b)
            assert np.isfinite(a).all()
        np.testing.assert_array_equal(head[0], before)

    def test_untouched_negatives_are_untouched(self, head):
        recipe = CopyRecipe(matched=False, coarser=0.0)
        copy, _ = make_copy(*head, False, recipe, np.random.default_rng(0))
        np.testing.assert_array_equal(copy, head[0])

    def test_matched_negatives_are_resampled_but_never_torn(self, head):
        """A still copy is a smooth resampling of the head: no energy where the head has none."""
        recipe = CopyRecipe(coarser=0.0)
        changed = 0
        for seed in range(16):
            copy, _ = make_copy(*head, False, recipe, np.random.default_rng(seed))
            changed += not np.array_equal(copy, head[0])
            assert copy.max() < 1.3 * head[0].max()
        assert 8 <= changed <= 15

    def test_copies_are_prepared_once_and_name_their_patient(self, tmp_path):
        path = save_volume(
            phantom((70, 84, 72)), np.diag([2.5, 2.5, 2.5, 1]), tmp_path / "head.nii.gz"
        )
        heads = pd.DataFrame(
            [
                {
                    "scan_id": "scan-1", "participant_id": "sub-1",
                    "source_participant_id": "sub-1", "cohort": "phantom",
                    "path": str(path), "role": "train", "fold": 3,
                }
            ]
        )  # fmt: skip
        options = {"copies": 2, "seed": 5, "shape": (8.0, None)}
        made = make_training_copies(heads, CopyRecipe(), tmp_path / "copies", **options)
        table = pd.read_csv(made, sep="\t")
        assert table.groupby("y_true").size().tolist() == [2, 2]
        assert set(table["source_participant_id"]) == {"sub-1"}
        files = {path: (made.parent / path).stat().st_mtime_ns for path in table["path"]}
        make_training_copies(heads, CopyRecipe(), tmp_path / "copies", **options)
        assert files == {path: (made.parent / path).stat().st_mtime_ns for path in table["path"]}


def scored(site, middles, n_people, rng, spread=1.5):
    """Scores of every variant about its middle log-odds, one a person."""
    parts = []
    for variant, middle in middles.items():
        z = rng.normal(middle, spread, n_people)
        rows = {"site": site, "variant": variant, "y_true": int("torchio" in variant)}
        rows |= {"score": 1 / (1 + np.exp(-z)), "participant_id": [str(k) for k in range(n_people)]}
        parts.append(pd.DataFrame(rows))
    return pd.concat(parts, ignore_index=True)


class TestChoice:
    MIDDLES = {  # noqa: RUF012
        "clean@native": -3, "resampled@native": -2, "clean@4mm": 5,
        "torchio_n4_0.5-1@native": -2, "torchio_n4_2-4@native": 3, "torchio_n4_4-6@native": 4,
    }  # fmt: skip

    def test_the_threshold_is_of_native_copies_and_seldom_calls_still_ones(self):
        rows = scored("validation", self.MIDDLES, 2000, np.random.default_rng(0))
        chosen = choose_decision(rows)
        assert (chosen["n_held"], chosen["n_still"]) == (2000, 4000)
        assert chosen["still_called"] <= STILL_CALLED + 1e-3
        assert chosen["review"][0] < chosen["review"][1] == chosen["threshold"]
        p = calibrate(rows["score"], chosen)
        called = pd.Series(p >= chosen["threshold"]).groupby(rows["variant"]).mean()
        assert called["torchio_n4_4-6@native"] > 0.9
        kept = rows["variant"].isin(
            ["clean@native", "resampled@native", "torchio_n4_2-4@native", "torchio_n4_4-6@native"]
        )
        assert np.abs(p[kept].mean() - rows["y_true"][kept].mean()) < 0.01

    def test_classes_far_apart_leave_a_threshold_between_them(self):
        middles = {"clean@native": -12, "torchio_n4_4-6@native": 12}
        chosen = choose_decision(scored("validation", middles, 40, np.random.default_rng(0)))
        assert 0 < chosen["review"][0] <= chosen["threshold"] < 1
        assert chosen["still_called"] == 0

    def test_scores_that_fall_with_motion_are_refused(self):
        middles = {"clean@native": 3, "torchio_n4_4-6@native": -3}
        with pytest.raises(ValueError, match="learnt nothing"):
            choose_decision(scored("validation", middles, 40, np.random.default_rng(0)))

    def test_shares_count_what_reaches_the_threshold(self):
        rows = pd.DataFrame(
            {
                "site": "here", "y_true": 0,
                "variant": ["clean@native"] * 4, "score": [0.1, 0.2, 0.5, 0.9],
            }
        )  # fmt: skip
        chosen = {"calibration": {"temperature": 1.0, "bias": 0.0}, "threshold": 0.5}
        assert shares_called_motion(rows, chosen)["called"].tolist() == [0.5]


class TestCompared:
    def test_each_site_is_judged_at_the_threshold_of_the_validation_patients(self):
        rng = np.random.default_rng(0)
        parts = []
        for site, shift in (("validation", 0), ("same", 0), ("shifted", 6)):
            middles = {"clean@native": -3, "resampled@native": -3, "torchio_n4_4-6@native": 3}
            middles = {name: middle + shift for name, middle in middles.items()}
            parts.append(scored(site, middles, 200, rng, spread=1.0))
        predictions = pd.concat(parts, ignore_index=True).assign(recipe="one")
        table = compare_recipes(predictions).set_index("site")
        assert list(table.index) == ["same", "shifted"]
        assert (table["auc"] > 0.99).all()
        assert table.loc["same", "balanced_accuracy"] > 0.95
        assert table.loc["shifted", "balanced_accuracy"] < 0.6
        assert table.loc["shifted", "clean"] > 0.9


class TestShippedModel:
    def test_it_is_small_and_says_what_it_is(self):
        folder = default_model()
        assert sum(p.stat().st_size for p in folder.iterdir()) < MEGABYTES * 1e6
        facts = json.loads((folder / "model.json").read_text())
        assert (facts["voxel_mm"], facts["slab_mm"]) == SHAPE
        assert (folder / facts["card"]).read_text().startswith("# Model card")

    def test_its_card_is_computed_from_its_description_and_tables(self):
        folder = default_model()
        text = (folder / "card.md").read_text()
        assert text == card(folder)
        table = pd.read_csv(folder / "accuracy.csv")
        for site in table["site"].unique():
            assert f"{site} {balanced_accuracy(table, site):.2f}" in text
            assert f"{site} {balanced_accuracy(table, site, 2):.2f}" in text

    def test_patients_it_never_saw_are_judged_rightly(self, tmp_path):
        """Three unseen heads: still and resampled ones are kept, TorchIO's motion is excluded."""
        if not os.environ.get("MOTIONLIB_DATA"):
            pytest.skip("MOTIONLIB_DATA is not set")
        heads = still_heads("ixi", tmp_path).query("role == 'test'")
        assert set(heads["fold"]) == set(TESTED)
        for scan in heads.head(3).itertuples():
            volume, affine = read_array(scan.path)
            for name in ("clean", "resampled", "torchio_n4_6-8"):
                copy = make_test_copy(torch.from_numpy(volume), affine, name, 11)
                save_volume(copy, affine, tmp_path / "scans" / f"{scan.scan_id}-{name}.nii.gz")
        out = tmp_path / "scores.tsv"
        assert main(["score", str(tmp_path / "scans"), "--out", str(out), "--no-report"]) == 0
        rows = pd.read_csv(out, sep="\t")
        moved = rows["scan_id"].str.contains("torchio")
        assert (rows.loc[moved, "decision"] == "exclude").all()
        assert (rows.loc[~moved, "decision"] != "exclude").all()


def test_a_model_folder_is_whole(tmp_path):
    """Weights, description, card and table, from a run folder and test scores."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "weights.safetensors").write_bytes(b"x" * 1000)
    (run / "model.json").write_text(json.dumps({"network": "Conv5FC3", "shape": [25, 104, 90]}))
    variants = ["clean@native", "resampled@native"]
    variants += ["torchio_n4_4-6@native", "torchio_n2_4-6@native"]
    rows = pd.DataFrame(
        {"site": "ixi", "variant": variants, "y_true": [0, 0, 1, 1],
         "score": [0.1, 0.2, 0.9, 0.3]}
    )  # fmt: skip
    chosen = {
        "calibration": {"temperature": 1.0, "bias": 0.0}, "threshold": 0.5, "review": [0.4, 0.5],
        "n_held": 2, "n_still": 12, "still_called": 0.0,
    }  # fmt: skip
    trained = pd.DataFrame(
        {"cohort": "ixi", "source_participant_id": ["a", "a", "b", "b"], "y_true": [0, 1, 0, 1]}
    )
    out = ship(run, chosen, rows, trained, tmp_path / "model")
    assert {p.name for p in out.iterdir()} == {
        "weights.safetensors", "model.json", "card.md", "accuracy.csv"
    }  # fmt: skip
    text = Path(out / "card.md").read_text()
    assert "ixi 1.00." in text
    assert "With two moves, TorchIO's default: ixi 0.50." in text
    assert "IXI (2 patients); 1 moved and 1 still copies of each head" in text
    assert "## What each ingredient does" not in text
