"""The shipped model: how its copies are made, how its threshold is chosen, and what it does."""

import json
import os
from itertools import product
from pathlib import Path

import make_model
import numpy as np
import pandas as pd
import pytest
import torch
from make_model import (
    FIELD,
    FIGURES,
    FOLDS,
    RATERS,
    SEEDS,
    STILL_CALLED,
    VARIANTS,
    Copies,
    balanced_accuracy,
    calibrate,
    card,
    choose_decision,
    judge_head,
    keep_members,
    keep_test_copies,
    limits_of_sites,
    make_copy,
    make_test_copy,
    make_training_copies,
    rated_heads,
    real_figures,
    real_motion,
    shares_called_motion,
    ship,
    train_member,
    varied,
    what_grades_buy,
)
from safetensors.torch import load_file, save_file
from scipy import ndimage
from shortcut_gate import AFFINE, NOTHING_LEARNT, freeze, noisy_heads, told_apart

from motionlib.cli import main
from motionlib.files import read_json
from motionlib.networks.slices import SliceNet
from motionlib.preprocess.grid import slab_grid
from motionlib.preprocess.images import phantom, read_array, save_volume
from motionlib.scoring.model import default_model, model_grid, read_rule
from motionlib.scoring.real_motion import read_member, unpack_members

MEGABYTES = 6


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Intervals of three hundred draws; the card's have two thousand."""
    monkeypatch.setattr(make_model, "DRAWS", 300)


@pytest.fixture(scope="module")
def head():
    volume = np.asarray(phantom((40, 44, 40))).squeeze().astype(np.float32)
    return torch.from_numpy(np.clip(volume, 0, None)), np.diag([4.0, 4.0, 4.0, 1.0])


class TestGrid:
    def test_a_slab_is_the_middle_of_the_study_grid(self):
        whole, slab = slab_grid(2.0), slab_grid(2.0, 48.0)
        assert slab.shape == (25, *whole.shape[1:])
        middle = whole.matrix @ [whole.shape[0] // 2, 0, 0, 1]
        np.testing.assert_allclose(slab.matrix @ [12, 0, 0, 1], middle)

    def test_a_wider_field_has_the_centre_of_the_study_grid(self):
        grids = slab_grid(2.0), model_grid(*FIELD)
        centres = [g.matrix @ [*((np.array(g.shape) - 1) / 2), 1] for g in grids]
        np.testing.assert_allclose(*centres)
        assert grids[1].shape == (96, 120, 104)

    @pytest.mark.parametrize("slab_mm", [0.5, 400.0])
    def test_a_slab_that_does_not_fit_is_refused(self, slab_mm):
        with pytest.raises(ValueError, match="does not fit"):
            slab_grid(2.0, slab_mm)

    @pytest.mark.parametrize("field_mm", [(192.0, 240.0), (4.0, 200.0, 200.0)])
    def test_a_field_that_is_none_is_refused(self, field_mm):
        with pytest.raises(ValueError, match="three lengths"):
            model_grid(2.0, None, field_mm)


class TestCopies:
    @pytest.mark.parametrize("simulator", list(make_model.GROUPS))
    @pytest.mark.parametrize("moved", [False, True])
    def test_the_same_seed_gives_the_same_copy_and_the_head_is_not_changed(
        self, head, moved, simulator
    ):
        before = head[0].clone()
        for seed in range(2):
            (a, mm), (b, _) = (
                make_copy(*head, simulator, moved, np.random.default_rng(seed)) for _ in range(2)
            )
            assert torch.equal(a, b)
            assert torch.isfinite(a).all()
            assert (mm >= make_model.LEAST_MM) == moved
        assert torch.equal(head[0], before)

    @pytest.mark.parametrize("simulator", list(make_model.GROUPS))
    def test_only_motion_throws_ghosts_into_the_air(self, head, simulator):
        """Air is what lies so far from the head that no pose brings it there."""
        ghosts = []
        for seed in range(8):
            still, moved = (
                make_copy(*head, simulator, moved, np.random.default_rng(seed))[0]
                for moved in (False, True)
            )
            air = ndimage.binary_erosion(still < 0.03 * still.max(), iterations=3, border_value=1)
            assert air.sum() > 1000
            ghosts.append([float(copy[air].mean()) for copy in (still, moved)])
        ghosts = np.array(ghosts)
        assert (ghosts[:, 1] > ghosts[:, 0]).mean() > 0.7
        assert ghosts[:, 1].mean() > 1.3 * ghosts[:, 0].mean()

    @pytest.mark.parametrize("simulator", list(make_model.GROUPS))
    def test_without_motion_nothing_tells_the_classes_apart(self, monkeypatch, simulator):
        freeze(monkeypatch, make_model, ("_course", "_positions"))
        monkeypatch.setattr(make_model, "displacement", lambda *_, **__: {"from_centre_mm": np.inf})

        def make(head, moved, rng):
            return make_copy(head, AFFINE, simulator, moved, rng)[0]

        assert told_apart(noisy_heads(), make) <= NOTHING_LEARNT

    def test_copies_are_made_once_and_a_member_learns_from_them(self, tmp_path, monkeypatch):
        groups = {"scanner": 2, "image": 1}
        monkeypatch.setattr(make_model, "GROUPS", groups)
        monkeypatch.setattr(make_model, "STEPS", 3)
        monkeypatch.setattr(make_model, "PAIRS", 2)
        affine = np.diag([4.0, 4.0, 4.0, 1.0])
        path = save_volume(phantom((48, 60, 52)), affine, tmp_path / "head.nii.gz")
        item = ("scan-1", str(path), str(tmp_path / "copies"), 5)
        made = Path(make_training_copies(item))
        assert np.load(made).shape == (7, *model_grid(*FIELD).shape)
        assert (np.load(made.with_name("scan-1_mm.npy")) >= make_model.LEAST_MM).all()
        before = made.stat().st_mtime_ns
        make_training_copies(item)
        assert made.stat().st_mtime_ns == before
        weights = []
        for name in ("a", "b"):
            out = str(tmp_path / f"{name}.safetensors")
            weights.append(read_member(train_member(([str(made)], groups, 7, out))).state_dict())
        assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
        torch.manual_seed(0)
        fresh = SliceNet().state_dict()
        assert any(not torch.equal(fresh[k], weights[0][k]) for k in fresh)
        copies = Copies(str(made), [2, 1])
        pair = copies.pair(np.random.default_rng(0))
        assert pair.shape == (2, *make_model.CROP)
        assert not torch.equal(*pair)

    def test_both_planes_of_a_pair_are_changed_alike(self):
        plane = torch.rand(1, 1, 40, 48, generator=torch.Generator().manual_seed(0)).repeat(
            8, 2, 1, 1
        )
        changed = varied(plane, torch.Generator().manual_seed(1))
        level = changed.mean((2, 3))
        assert (changed - plane).abs().mean() > 0.05
        np.testing.assert_allclose(level[:, 0], level[:, 1], rtol=0.02)  # but for the noise


def scored(middles, n_people, rng, spread=1.5):
    """Scores of every variant about its middle log-odds, one a person."""
    parts = []
    for variant, middle in middles.items():
        rows = {"variant": variant, "y_true": int("torchio" in variant)}
        rows |= {"logit": rng.normal(middle, spread, n_people)}
        parts.append(pd.DataFrame(rows | {"participant_id": [str(k) for k in range(n_people)]}))
    return pd.concat(parts, ignore_index=True)


class TestChoice:
    MIDDLES = {  # noqa: RUF012
        "clean": -3, "resampled": -2, "torchio_n4_0.5-1": -2,
        "torchio_n4_2-4": 3, "torchio_n4_4-6": 4,
    }  # fmt: skip

    def test_the_threshold_seldom_calls_still_copies(self):
        rows = scored(self.MIDDLES, 2000, np.random.default_rng(0))
        chosen = choose_decision(rows)
        assert (chosen["n_held"], chosen["n_still"]) == (2000, 4000)
        assert chosen["still_called"] <= STILL_CALLED + 1e-3
        assert chosen["review"][0] < chosen["review"][1] == chosen["threshold"]
        p = calibrate(rows["logit"], chosen)
        called = pd.Series(p >= chosen["threshold"]).groupby(rows["variant"]).mean()
        assert called["torchio_n4_4-6"] > 0.9
        kept = rows["variant"] != "torchio_n4_0.5-1"
        assert np.abs(p[kept].mean() - rows["y_true"][kept].mean()) < 0.01

    def test_classes_far_apart_leave_a_threshold_between_them(self):
        middles = {"clean": -12, "torchio_n4_4-6": 12}
        chosen = choose_decision(scored(middles, 40, np.random.default_rng(0)))
        assert 0 < chosen["review"][0] <= chosen["threshold"] < 1
        assert chosen["still_called"] == 0

    def test_scores_that_fall_with_motion_are_refused(self):
        middles = {"clean": 3, "torchio_n4_4-6": -3}
        with pytest.raises(ValueError, match="learnt nothing"):
            choose_decision(scored(middles, 40, np.random.default_rng(0)))

    def test_shares_count_what_reaches_the_threshold(self):
        rows = pd.DataFrame(
            {"site": "here", "y_true": 0, "variant": "clean", "logit": [-2.0, -1.0, 0.0, 2.0]}
        )
        chosen = {"calibration": {"temperature": 1.0, "bias": 0.0}}
        chosen |= {"threshold": 0.5, "review": [0.25, 0.5]}
        shares = shares_called_motion(rows, chosen)
        assert (shares["called"].tolist(), shares["doubted"].tolist()) == ([0.5], [0.75])


class TestRealMotion:
    @pytest.fixture(scope="class")
    def rows(self):
        """Raters' votes that the logits follow, with a level of its own in every fold."""
        rng = np.random.default_rng(0)
        votes = np.r_[np.zeros(40), rng.integers(1, 3, 30), rng.integers(3, 9, 30)]
        rows = pd.DataFrame({"motion_votes": votes, "quality_rating": 4 - votes / 4})
        rows["fold"] = rng.permutation(np.arange(100) % FOLDS)
        for seed in range(2):
            rows[f"logit_{seed}"] = votes + rng.normal(0, 2, 100) + 30 * rows["fold"]
        rows["logit"] = rows[["logit_0", "logit_1"]].mean(axis=1)
        return rows.assign(air_spread=rng.random(100))

    def test_figures_are_those_of_a_perfect_and_of_a_blind_score(self, rows):
        votes, rating = rows["motion_votes"].to_numpy(), rows["quality_rating"].to_numpy()
        np.testing.assert_allclose(real_figures(votes, rating, votes), [1, 1, 1, -1])
        np.testing.assert_allclose(real_figures(votes, rating, -votes), [0, 0, 0, 1])

    def test_every_seed_their_mean_and_the_one_number_are_judged(self, rows):
        table = real_motion(rows).set_index("score")
        names = ["logit_0", "logit_1", "mean", "air_spread", "mean and air"]
        differences = ["mean - air_spread", "mean and air - air_spread"]
        assert list(table.index) == names + differences
        assert table.loc["mean", "auc_3"] > 0.85  # folds' levels do not count
        for figure in FIGURES:
            inside = table[f"{figure}_low"] <= table[figure]
            assert (inside & (table[figure] <= table[f"{figure}_high"])).all()
            assert table.loc["mean - air_spread", figure] == pytest.approx(
                table.loc["mean", figure] - table.loc["air_spread", figure]
            )
        assert table.loc["mean - air_spread", "auc_3_low"] > 0

    def test_grades_help_where_the_air_knows_what_the_networks_do_not(self, rows):
        """The air of these rows is the truth; the more grades, the more of it is used."""
        told = rows.assign(air_spread=np.exp(rows["motion_votes"] / 4))
        table = what_grades_buy(told).set_index("grades")
        assert list(table.index) == [0, 20, 50]  # of 100 scans
        assert table["auc"].is_monotonic_increasing
        assert table.loc[50, "auc"] > table.loc[0, "auc"] + 0.02
        nothing = rows.assign(air_spread=np.random.default_rng(1).random(len(rows)) + 0.5)
        assert what_grades_buy(nothing)["auc"].iloc[-1] < table.loc[50, "auc"]

    def test_a_site_s_limit_doubts_few_still_scans(self, rows, tmp_path):
        rule = read_rule(default_model())
        logit = (rows["logit"] - 30 * rows["fold"]) / 10 - 2
        table = limits_of_sites(rows.assign(logit=logit), rule).set_index("votes")
        assert table["n"].to_list() == [40, 30, 30, 70]
        assert table.loc["none", "doubted"] < 0.1 < 0.3 < table.loc["3 and more", "doubted"]
        right = (table.loc["3 and more", "doubted"] + 1 - table.loc["none", "doubted"]) / 2
        assert table.loc["balanced accuracy", "doubted"] == pytest.approx(right)
        assert (table["low"] <= table["doubted"]).all()

    def test_no_vote_changes_a_score(self, rows):
        """Exchanged verdicts give the figures of exchanged verdicts, nothing else."""
        mixed = rows.assign(motion_votes=rows["motion_votes"].to_numpy()[::-1])
        table = real_motion(mixed).set_index("score")
        assert table.loc["mean", "auc_3"] < 0.6


class TestShippedModel:
    def test_it_is_small_and_says_what_it_is(self):
        folder = default_model()
        assert sum(p.stat().st_size for p in folder.iterdir()) < MEGABYTES * 1e6
        facts = json.loads((folder / "model.json").read_text())
        assert (facts["voxel_mm"], facts["slab_mm"], tuple(facts["field_mm"])) == FIELD
        assert (folder / facts["card"]).read_text().startswith("# Model card")

    def test_its_networks_are_among_the_members_that_it_keeps(self, tmp_path):
        files, folds = unpack_members(default_model(), tmp_path)
        assert set(files) == set(product(range(FOLDS), range(SEEDS)))
        shipped = load_file(default_model() / "weights.safetensors")
        for seed in range(SEEDS):
            for name, value in load_file(files[seed % FOLDS, seed]).items():
                if name.startswith("blocks"):
                    joined = shipped[f"block1.nets.{seed}.{name}"].float()
                    assert torch.allclose(value, joined, rtol=2e-3, atol=1e-6)
        if os.environ.get("MOTIONLIB_DATA"):
            heads = rated_heads().set_index("source_participant_id")["fold"]
            assert heads.to_dict() == folds

    def test_its_card_is_computed_from_its_description_and_tables(self):
        folder = default_model()
        text = (folder / "card.md").read_text()
        assert text == card(folder)
        table = pd.read_csv(folder / "accuracy.csv")
        for site in set(table["site"]) - {RATERS}:
            assert f"{site} {balanced_accuracy(table, site):.2f}" in text
            assert f"{site} {balanced_accuracy(table, site, 2):.2f}" in text

    def test_patients_it_never_saw_are_judged_rightly(self, tmp_path):
        """Three unseen heads: still and resampled ones are kept, TorchIO's motion is excluded."""
        if not os.environ.get("MOTIONLIB_DATA"):
            pytest.skip("MOTIONLIB_DATA is not set")
        heads = rated_heads()
        for scan in heads[heads["motion_votes"] == 1].head(3).itertuples():  # not still: not learnt
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


def test_heads_with_a_vote_are_not_still_and_patients_have_one_fold():
    if not os.environ.get("MOTIONLIB_DATA"):
        pytest.skip("MOTIONLIB_DATA is not set")
    heads = rated_heads()
    assert (heads["still"] == (heads["motion_votes"] == 0)).all()
    assert heads.groupby("source_participant_id")["fold"].nunique().max() == 1
    assert heads.groupby("fold")["still"].sum().min() > 10
    assert heads["path"].map(os.path.isfile).all()


def test_every_member_is_kept_with_the_folds_it_is_judged_by(tmp_path):
    """What is read again is what was trained, but for half precision."""
    files = {fold: [] for fold in range(FOLDS)}
    for fold, seed in product(range(FOLDS), range(2)):
        torch.manual_seed(10 * fold + seed)
        files[fold].append(str(tmp_path / f"{fold}_{seed}.safetensors"))
        save_file(SliceNet().state_dict(), files[fold][-1])
    people = pd.DataFrame({"source_participant_id": ["a", "b", "b"], "fold": [0, 2, 2]})
    keep_members(files, people, tmp_path)
    found, folds = unpack_members(tmp_path, tmp_path / "found")
    assert folds == {"a": 0, "b": 2}
    assert set(found) == set(product(range(FOLDS), range(2)))
    for (fold, seed), path in found.items():
        kept, was = (read_member(p).state_dict() for p in (path, files[fold][seed]))
        assert all(
            torch.allclose(kept[k].float(), was[k].float(), rtol=1e-3, atol=1e-6) for k in was
        )


def test_a_model_folder_is_whole(tmp_path):
    """Heads judged by two members, and what is shipped: weights, description, tables, card."""
    files = []
    for seed in range(2):
        torch.manual_seed(seed)
        files.append(str(tmp_path / f"member_{seed}.safetensors"))
        save_file(SliceNet().state_dict(), files[-1])
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    path = save_volume(phantom((48, 60, 52)), affine, tmp_path / "head.nii.gz")
    head = {"scan_id": "scan", "participant_id": "sub", "path": str(path)}
    kept = keep_test_copies((head, VARIANTS, str(tmp_path / "tests")))
    judged = pd.DataFrame(judge_head((head, kept, files, VARIANTS, "ixi")))
    assert judged["variant"].tolist() == list(VARIANTS)
    assert judged["air_spread"].nunique() == 1
    parts, rng = [], np.random.default_rng(0)
    for number in range(24):  # the same head as 24 patients, its logits replaced
        z = judged["y_true"] * 6 - 3 + rng.normal(0, 1, len(judged))
        facts = {"participant_id": f"sub-{number}", "scan_id": f"scan-{number}"}
        facts |= {"fold": number % FOLDS, "motion_votes": np.clip(number - 11, 0, 8)}
        facts |= {"quality_rating": 4 - number / 12, "air_spread": rng.random()}
        parts.append(judged.assign(**facts, logit_0=z, logit_1=z))
    rows = pd.concat(parts, ignore_index=True)
    out = ship(files, rows, tmp_path / "model")
    assert {p.name for p in out.iterdir()} == {
        "weights.safetensors", "model.json", "card.md", "accuracy.csv", "real_motion.csv",
        "site_limits.csv", "grades.csv",
    }  # fmt: skip
    text = Path(out / "card.md").read_text()
    assert "ixi 1.00." in text
    assert "IXI (12 patients without a vote); 9 moved and 9 still copies of each head" in text
    assert text.index("## On real motion") < text.index("## On synthetic motion")
    for row in pd.read_csv(out / "real_motion.csv").itertuples():
        assert f"| {row.score.replace('logit_', 'seed ')} | {row.auc_5:.2f} [" in text
    assert read_json(out / "model.json")["options"] == {"members": 2}
    assert main(["score", str(path), "--model", str(out), "--out", str(tmp_path / "s.tsv")]) in (
        0,
        1,
    )
