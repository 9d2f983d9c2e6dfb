"""Which motion is missed: false alarms and sensitivity by rung, averaged over folds."""

from types import SimpleNamespace

import pandas as pd

from motionlib.experiments import checks


def test_each_rung_is_averaged_over_scans_and_folds(monkeypatch):
    monkeypatch.setattr(checks, "control_set", lambda cohort, rung: rung)
    monkeypatch.setattr(checks, "read_prepared", lambda cohort, prepared: prepared)
    monkeypatch.setattr(checks, "pretrained", lambda *cell: [0, 1])

    def predict_all(pairs, *, device, engine):
        still = ("clean", "resampled")
        return [pd.DataFrame({"y_pred": [0, 0] if r in still else [1, f]}) for f, r in pairs]

    monkeypatch.setattr(checks, "predict_all", predict_all)
    cohort, networks = SimpleNamespace(engine="inline"), ["Conv5FC3", "ViT3D"]
    rates = checks.positive_rate_by_severity(None, cohort, "kspace", networks)
    assert list(rates.columns) == list(checks.RUNGS)
    assert rates.loc["ViT3D"].tolist() == [0, 0, 0.75, 0.75, 0.75]
