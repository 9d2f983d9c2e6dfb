"""Real motion: agreement of raters, detectors judged by votes, never on a patient they learnt from.

The verdicts and measures are made up, so that what must come out is known; the shared ratings are
read where `MOTIONLIB_DATA` has them.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from motionlib.cohorts.ratings import find_ixi_ratings, read_ixi_mriqc, read_ixi_verdicts
from motionlib.networks.slices import SliceNet, joined
from motionlib.predictions import check_predictions
from motionlib.scoring import real_motion
from motionlib.scoring.real_motion import (
    ABSENT,
    VOTE_TASKS,
    against_others,
    forest_rows,
    judge_votes,
    rated_scans,
    rater_agreement,
    vote_rows,
)


@pytest.fixture
def scans(rng) -> pd.DataFrame:
    """Sixty scans; the more votes, the lower the grade."""
    votes = np.tile([0, 0, 1, 3, 4, 8], 10)
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{k:02d}" for k in range(60)],
            "scan_id": [f"sub-{k:02d}_T1w" for k in range(60)],
            "motion_votes": votes,
            "quality_rating": 4 - votes / 4 + rng.normal(0, 0.1, 60),
        }
    )


@pytest.fixture
def looks(scans, rng) -> pd.DataFrame:
    """Three raters, two versions: the third ticks at random, the others where there is motion."""
    rows = []
    for place, scan in scans.iterrows():
        for rater in ("rater_01", "rater_02", "rater_03"):
            for defaced in ("0", "1"):
                vote = int(scan.motion_votes >= 3) if rater != "rater_03" else place % 2
                row = {"participant_id": scan.participant_id, "rater_id": rater, "vote": vote}
                rows += [row | {"defaced": defaced, "repeat": k, "rating": 4.0 - 2 * vote}
                         for k in (1, 2)]  # fmt: skip
    return pd.DataFrame(rows)


def perfect(scans: pd.DataFrame) -> pd.DataFrame:
    return vote_rows(scans, "air_spread", lambda rows, seed: rows["motion_votes"] / 8, model="x")


class TestVoteRows:
    def test_every_task_has_its_scans_and_leaves_out_those_between(self, scans):
        rows = check_predictions(perfect(scans))
        counts = rows.groupby("task")["y_true"].agg(["size", "sum"])
        assert counts.loc["votes5"].to_list() == [60, 10]
        assert counts.loc["votes3"].to_list() == [60, 30]
        assert counts.loc["votes3vs0"].to_list() == [50, 30]

    def test_a_threshold_is_never_chosen_on_the_patient_that_it_calls(self, scans):
        rows = perfect(scans)
        kept = rows[rows["task"] == "votes3"]
        # relabelling one fold's patients must not change how that fold is called
        folds = [real_motion.seed_from("votes", name) % 5 for name in kept["participant_id"]]
        changed = kept["y_true"].where(np.array(folds) != 0, 1 - kept["y_true"])
        again = real_motion._call(kept.assign(y_true=changed))
        inside = np.array(folds) == 0
        assert (again["y_pred"] == kept["y_pred"])[inside].all()
        assert kept["y_pred"].eq(kept["y_true"]).all()

    def test_without_scans_there_are_no_rows_and_the_table_says_why(self):
        rows = perfect(None)
        assert rows.empty
        assert judge_votes(rows)["reason"].to_list() == [ABSENT]
        assert rater_agreement(None)["reason"].to_list() == [ABSENT]
        assert against_others(None, rows).empty
        assert real_motion.measure_air(None) is None


class TestForests:
    @pytest.fixture(autouse=True)
    def few_trees(self, monkeypatch):
        """Forty trees would give a patient away as well as five hundred do, in a tenth the time."""
        whole = real_motion.make_model

        def few(*given, **named):
            return whole(*given, **named).set_params(n_estimators=40)

        monkeypatch.setattr(real_motion, "make_model", few)

    def test_a_patient_is_scored_by_forests_that_have_not_seen_him(self, scans, rng):
        noise = pd.DataFrame(rng.normal(size=(60, 3)), index=scans["participant_id"])
        signal = noise.assign(motion=scans["motion_votes"].to_numpy())
        rows = pd.concat(
            [
                forest_rows(scans, signal, "signal", seeds=(0, 1)),
                forest_rows(scans, noise, "noise", seeds=(0, 1)),
            ]
        )
        judged = judge_votes(rows, n_boot=20).set_index(["task", "detector"])["auc"]
        assert judged["votes3", "signal"] == 1
        assert judged["votes3", "noise"] < 0.75  # a forest that knew the patient would have 1

    def test_another_version_of_the_scan_is_scored_by_what_was_learnt_on_the_first(
        self, scans, rng
    ):
        signal = pd.DataFrame(
            {"motion": scans["motion_votes"].to_numpy()}, index=scans["participant_id"]
        )
        rows = forest_rows(scans, signal, "turned", seeds=(0,), tested=-signal)
        assert judge_votes(rows, n_boot=20)["auc"].max() <= 0.5


class TestJudge:
    def test_differences_are_paired_and_seeds_are_listed(self, scans, rng):
        blur = rng.normal(0, 0.4, (2, 60)).clip(-0.5, 0.5)
        noisy = vote_rows(
            scans, "noisy", lambda rows, seed: 0.5 + blur[seed][: len(rows)], model="x",
            seeds=(0, 1),
        )  # fmt: skip
        rows = pd.concat([perfect(scans), noisy])
        ratings = scans.set_index("scan_id")["quality_rating"]
        judged = judge_votes(rows, ratings=ratings, n_boot=50).set_index(["task", "detector"])
        one, other = (judged.loc[("votes3", name)] for name in ("air_spread", "noisy"))
        assert (one["auc"], one["balanced_accuracy"]) == (1, 1)
        assert np.isnan(one["difference"])
        assert other["difference"] == pytest.approx(other["auc"] - 1)
        assert other["difference_low"] <= other["difference"] <= other["difference_high"] < 0
        assert one["rank"] < -0.9
        assert one["rank_low"] <= one["rank"] <= one["rank_high"]
        assert len(other["each_seed"].split()) == 2
        assert one["each_seed"] == ""

    def test_a_person_is_judged_by_the_votes_of_the_others(self, scans, looks):
        rows = check_predictions(against_others(looks, perfect(scans).query("task == 'votes3'")))
        judged = judge_votes(rows, n_boot=20).set_index(["task", "detector", "model"])
        # half of the others' votes are one reliable rater's, the others' half is a coin
        assert judged.loc[("others5", "rater", "rater_03"), "auc"] < 0.7
        assert judged.loc[("others5", "rater", "rater_01"), "auc"] > 0.8
        assert judged.loc[("others5", "air_spread", "rater_03"), "auc"] == 1


class TestAgreement:
    def test_raters_who_tick_alike_have_kappa_one_and_coins_about_none(self, looks):
        table = rater_agreement(looks, n_boot=50).set_index("looks")
        assert table.loc["rater_01 and rater_02", "kappa"] == 1
        assert abs(table.loc["rater_01 and rater_03", "kappa"]) < 0.35
        assert table.loc["rater_03, the same version again", "kappa"] == 1
        assert len(table) == 3 + 2 * 3


class TestSharedRatings:
    def test_the_published_agreement_and_the_scans_are_found(self, data_root):
        table = rater_agreement(read_ixi_verdicts(find_ixi_ratings()), n_boot=50)
        pairs = table[table["looks"].str.contains(" and rater")]["kappa"]
        assert len(pairs) == 6
        assert pairs.between(0.2, 0.55).all()
        assert table["low"].lt(table["kappa"]).all()
        scans = rated_scans()
        assert len(scans) == 150
        assert scans["path"].notna().all()
        assert set(VOTE_TASKS) == {"votes5", "votes3", "votes3vs0"}

    def test_mriqc_measured_every_rated_scan_with_its_face_and_without(self, data_root):
        table = read_ixi_mriqc(find_ixi_ratings())
        rated = table[table["participant_id"].isin(rated_scans()["participant_id"])]
        assert (
            rated.groupby("participant_id")["defaced"].agg(["size", "nunique"]).eq(2).all(axis=None)
        )
        assert rated["participant_id"].nunique() == 150

    def test_without_data_there_are_no_scans(self, monkeypatch):
        monkeypatch.delenv("MOTIONLIB_DATA", raising=False)
        assert find_ixi_ratings() is None
        assert rated_scans() is None


class TestNetworks:
    def test_no_network_is_given_a_head_of_the_fold_that_it_judges(self, tmp_path, monkeypatch):
        scans = pd.DataFrame(
            {
                "scan_id": [f"s{k}" for k in range(9)],
                "source_participant_id": [f"p{k}" for k in range(9)],
                "path": "",
                "motion_votes": np.arange(9) % 5,
                "n_verdicts": 8,
            }
        )
        folds = {f"p{k}": k % 3 for k in range(9)}
        learnt = {}

        def learn(item):
            learnt[item[-1]] = item[2]
            return item[-1]

        def judge(item):
            scan, files = item
            for path in files:  # what a network has learnt from, by its file
                assert scan not in learnt.get(path, path)
            return [float(scan[1:]) + k for k in range(len(files))]

        members = {(fold, seed): f"{fold} {seed}" for fold in range(3) for seed in range(2)}
        monkeypatch.setattr(real_motion, "unpack_members", lambda *_: (members, folds))
        monkeypatch.setattr(real_motion, "_judge", judge)
        monkeypatch.setattr(real_motion, "_store", lambda item: item[0])
        monkeypatch.setattr(real_motion, "_learn_votes", learn)
        scores = real_motion.vote_networks(scans, tmp_path, seeds=2)
        assert len(learnt) == 3 * 2 * 2
        assert all(len(files) == 6 for files in learnt.values())
        assert {name: table.shape for name, table in scores.items()} == dict.fromkeys(
            ("research_only", "fine_tuned", "from_scratch"), (9, 2)
        )
        # each fold is on its own scale: the middle scan of three is at one half in all of them
        assert scores["fine_tuned"].loc[["s3", "s4", "s5"], 1].to_list() == [0.5] * 3
        with pytest.raises(ValueError, match="expected at most 2"):
            real_motion.vote_networks(scans, tmp_path, seeds=3)

    def test_a_head_is_judged_by_the_mean_over_its_planes(self, tmp_path, rng):
        """As the shipped network does it: `networks.slices.joined`."""
        torch.manual_seed(0)
        nets, files = [SliceNet().eval() for _ in range(2)], []
        for place, net in enumerate(nets):
            files.append(str(tmp_path / f"{place}.safetensors"))
            save_file(net.state_dict(), files[-1])
        head = np.zeros((24, 24, 24), np.float16)
        head[4:20, 4:20, 4:20] = 1 + 0.2 * rng.random((16, 16, 16))
        np.save(tmp_path / "head.npy", head)
        logits = real_motion._judge((str(tmp_path / "head.npy"), files))
        with torch.inference_mode():
            classes = joined(head.shape, nets)(torch.from_numpy(head).float()[None, None])[0]
        assert np.mean(logits) == pytest.approx(float(classes[1] - classes[0]), abs=1e-4)

    def test_votes_are_learnt_from_what_the_planes_show(self, tmp_path, rng):
        files, share = [], [0.0, 1.0] * 4
        for place, votes in enumerate(share):
            head = np.ones((16, 16, 16)) + 0.5 * votes * (np.indices((16, 16, 16)).sum(0) % 2)
            files.append(str(tmp_path / f"{place}.npy"))
            np.save(files[-1], (head + rng.normal(0, 0.02, head.shape)).astype(np.float16))
        out = str(tmp_path / "learnt.safetensors")
        item = ("from_scratch", "", files[:6], share[:6], 3, out)
        assert real_motion._learn_votes(item) == out
        net = real_motion.read_member(out)
        planes = torch.from_numpy(np.stack([np.load(f)[8] for f in files[6:]]))[:, None].float()
        with torch.inference_mode():
            still, moved = net(planes)
        assert moved > 0 > still
        before = Path(out).stat().st_mtime_ns
        real_motion._learn_votes(item)
        assert Path(out).stat().st_mtime_ns == before
