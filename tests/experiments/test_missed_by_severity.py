"""Which motion is missed: false alarms and sensitivity by rung, averaged over folds."""

from pathlib import Path

import pandas as pd

from motionlib.experiments import checks


def test_each_rung_is_averaged_over_scans_and_folds(monkeypatch):
    monkeypatch.setattr(checks.studydata, "control_set", lambda run, rung, engine: Path(rung))
    monkeypatch.setattr(checks, "read_prepared", lambda run, path: path.name)
    monkeypatch.setattr(checks, "pretrained", lambda *cell: [0, 1])

    def predict_all(pairs, *, device, engine):
        still = ("clean", "resampled")
        return [pd.DataFrame({"y_pred": [0, 0] if r in still else [1, f]}) for f, r in pairs]

    monkeypatch.setattr(checks, "predict_all", predict_all)
    found = checks.called_motion(None, "kspace", ["Conv5FC3", "ViT3D"])
    assert list(found.columns) == list(checks.RUNGS)
    assert found.loc["ViT3D"].tolist() == [0, 0, 0.75, 0.75, 0.75]
