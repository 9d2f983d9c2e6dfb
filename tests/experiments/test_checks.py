"""Checks of the study: the leaky split, and which motion is missed."""

from types import SimpleNamespace

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
