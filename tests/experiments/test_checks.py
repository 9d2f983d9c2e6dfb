"""Checks of the study: the leaky split, and which motion is missed."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from motionlib.experiments import checks


@pytest.fixture
def visits(rng):
    """Twelve patients, three visits each, alike but for noise."""
    heads = rng.uniform(size=(12, 16, 16, 16))
    volumes = [head + rng.normal(0, 0.05, head.shape) for head in heads for _ in range(3)]
    return volumes, [f"p{i}" for i in range(12) for _ in range(3)]


class TestCoinLesson:
    def test_splitting_by_image_finds_what_is_not_there_and_by_patient_does_not(self, visits):
        table = checks.coin_lesson(*visits, n_repeats=10, n_folds=4)
        mean = table.groupby("split").accuracy.mean()
        assert mean["by image"] > 0.9
        assert 0.3 < mean["by patient"] < 0.65

    def test_one_scan_a_patient_is_refused(self, visits):
        with pytest.raises(ValueError, match="several visits"):
            checks.coin_lesson(visits[0][::3], [f"p{i}" for i in range(12)])


class TestMistakes:
    @pytest.mark.parametrize(("task", "kind"), [("mov01vs2", "severe"), ("mov0vs1", "mild")])
    def test_a_scan_without_severe_motion_is_not_said_to_be_still(
        self, tiny_predictions, task, kind
    ):
        """It may have mild motion: a label says which motion the consensus does not see."""
        rows = tiny_predictions.query("experiment == 'warehouse/fine_tuned'").assign(task=task)
        rows = rows[rows["fold"] == 0].assign(fold=-1)
        wrong = checks.mistakes(rows, "warehouse/fine_tuned", task)
        score = rows.groupby("y_true")["score"]
        assert wrong["label"].to_list() == [
            f"no {kind} motion by consensus, score {score.max()[0]:.2f}",
            f"{kind} motion by consensus, score {score.min()[1]:.2f}",
        ]


class TestPositiveRateBySeverity:
    def test_each_rung_is_averaged_over_scans_and_folds(self, monkeypatch):
        monkeypatch.setattr(checks, "control_set", lambda cohort, rung: rung)
        monkeypatch.setattr(checks, "read_prepared", lambda cohort, prepared: prepared)
        monkeypatch.setattr(
            checks, "pretrained", lambda run, *cell, stage: [(cell[-1], 0), (cell[-1], 1)]
        )

        def evaluate(evaluations, *, engine):
            """Both scans still, or one moved, and both by the second fold."""
            parts = []
            for each in evaluations:
                model, fold = each.folder
                calls = [0, 0] if each.scans in ("clean", "resampled") else [1, fold]
                rows = pd.DataFrame({"y_pred": calls, "experiment": each.experiment})
                parts.append(rows.assign(model=model, fold=fold))
            return pd.concat(parts)

        monkeypatch.setattr(checks, "evaluate", evaluate)
        cohort, networks = SimpleNamespace(engine="inline"), ["ViT3D", "Conv5FC3"]
        rates = checks.positive_rate_by_severity(None, cohort, "kspace", networks)
        assert list(rates.columns) == list(checks.RUNGS)
        assert list(rates.index) == networks
        assert rates.loc["ViT3D"].tolist() == [0, 0, 0.75, 0.75, 0.75]


@pytest.fixture
def warehouse(rng):
    """Sixty patients: scores that see motion, scores that see age, and how each scan was made."""
    n = 60
    y_true = np.arange(n) % 3 == 2
    age = rng.uniform(20, 90, n)
    scans = [f"s{i}" for i in range(n)]
    common = {"task": "mov01vs2", "model": "m", "fold": 0, "scan_id": scans}
    common |= {"participant_id": scans, "y_true": y_true.astype(int)}
    tilted = np.arange(n) % 2 == 0
    scores = {
        "sees_motion": np.where(y_true, 0.9, 0.1) + rng.uniform(-0.05, 0.05, n),
        "sees_age": age / 100,
        "sees_tilt": np.where(tilted | y_true, 0.9, 0.1),
    }
    rows = pd.concat(
        pd.DataFrame(common | {"experiment": f"warehouse/{name}", "score": score})
        for name, score in scores.items()
    )
    rows["y_pred"] = (rows["score"] >= 0.5).astype(int)
    made = pd.DataFrame({"scan_id": scans, "tilt_deg": tilted * 9.0, "blur_mm": np.arange(n) / 10})
    manifest = pd.DataFrame({"scan_id": scans, "age": age, "motion_grade": y_true * 2})
    return rows, made, manifest


class TestByKindOfScan:
    def test_who_mistakes_a_reformat_for_motion_fails_on_reformats_only(self, warehouse, tmp_path):
        rows, made, _ = warehouse
        (tmp_path / "images").mkdir()
        made.to_csv(tmp_path / "images" / "truth.tsv", sep="\t", index=False)
        run = SimpleNamespace(cohort=tmp_path)
        table = checks.by_kind_of_scan(run, rows, ["sees_motion", "sees_tilt"], "mov01vs2")
        table = table.set_index(["experiment", "part"])
        assert table.loc[("sees_tilt", "tilted reformats"), "specificity"] == 0
        assert table.loc[("sees_tilt", "acquired planes"), "specificity"] == 1
        assert (table.loc["sees_motion", "balanced_accuracy"] == 1).all()
        part = table.loc[("sees_motion", "acquired planes, least smoothed")]
        assert (part["n"], part["n_motion"]) == (10, 3)

    def test_scans_that_nobody_generated_have_no_parts(self, warehouse, tmp_path):
        run = SimpleNamespace(cohort=tmp_path)
        assert checks.by_kind_of_scan(run, warehouse[0], ["sees_motion"], "mov01vs2").empty


class TestLearntAge:
    def test_only_a_score_that_follows_age_is_found_to(self, warehouse):
        rows, _, manifest = warehouse
        cohort = SimpleNamespace(manifest=manifest, seed=20)
        table = checks.learnt_age(cohort, rows, ["sees_motion", "sees_age"], "mov01vs2")
        table = table.set_index("method")
        assert table.loc["sees_age", "age_correlation"] == pytest.approx(1)
        low, high = table.loc["sees_motion", ["age_correlation_low", "age_correlation_high"]]
        assert low < 0 < high
        assert table.loc["age alone", "auc"] == table.loc["sees_age", "auc"]
        assert table.loc["sees_motion", "n_still"] == 40

    def test_without_ages_there_is_nothing_to_ask(self, warehouse):
        rows, _, manifest = warehouse
        cohort = SimpleNamespace(manifest=manifest.assign(age=np.nan), seed=20)
        assert checks.learnt_age(cohort, rows, ["sees_motion"], "mov01vs2").empty
