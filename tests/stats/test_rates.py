"""Tables of the controls and of the learning curve."""

import numpy as np
import pandas as pd
import pytest

from motionlib.stats.rates import controls_table, learning_curve


def control(recipe, name, called, site="", fold=0):
    """Rows of one control: a patient a scan, called motion or not."""
    names = [f"s{i}" for i in range(len(called))]
    rows = {"experiment": f"control/{recipe}/{name}{site}", "model": "m", "fold": fold}
    rows |= {"scan_id": names, "participant_id": names, "y_true": 0}
    return pd.DataFrame(rows | {"score": np.array(called, float), "y_pred": called})


class TestControlsTable:
    def test_share_is_counted_by_recipe_and_control(self):
        rows = pd.concat(
            [
                control("paper", "clean", [0, 0, 0, 0]),
                control("paper", "resampled", [1, 1, 1, 0]),
                control("paper", "motion_2-4", [1, 1, 1, 1]),
            ]
        )
        table = controls_table(rows, n_boot=200).set_index("control")
        assert table.called_motion.to_dict() == {"clean": 0, "resampled": 0.75, "motion_2-4": 1}
        assert table.still.to_dict() == {"clean": True, "resampled": True, "motion_2-4": False}

    def test_the_mean_is_over_the_folds_and_the_interval_holds_it(self):
        folds = [[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
        rows = [control("paper", "blurred", called, fold=k) for k, called in enumerate(folds)]
        row = controls_table(pd.concat(rows), n_boot=200).iloc[0]
        assert row.called_motion == 0.25
        assert row.low < 0.25 < row.high
        assert (row.n, row.n_patients) == (6, 6)

    def test_no_event_still_has_an_upper_limit(self):
        table = controls_table(control("paper", "clean", [0] * 20), n_boot=50)
        assert table.low[0] == 0
        assert table.high[0] == pytest.approx(1 - 0.025 ** (1 / 20))

    def test_other_sites_have_their_own_rows(self):
        rows = [control("paper", "clean", [0, 1]), control("paper", "clean", [1, 1], "/other")]
        table = controls_table(pd.concat(rows), n_boot=50)
        assert table.set_index("site").called_motion.to_dict() == {"same site": 0.5, "other": 1.0}


class TestLearningCurve:
    def test_it_is_sorted_by_patients(self, rng):
        y_true = np.arange(40) % 2
        names = [f"s{i}" for i in range(40)]
        rows = []
        for experiment in ("labels/fine_tuned/90", "labels/fine_tuned/10", "labels/30"):
            score = np.clip(rng.normal(0.4 + 0.2 * y_true, 0.2), 0, 1)
            part = {"experiment": experiment, "task": "t", "model": "m", "fold": 0}
            part |= {"scan_id": names, "participant_id": names, "y_true": y_true, "score": score}
            rows.append(pd.DataFrame(part | {"y_pred": (score >= 0.5).astype(int)}))
        table = learning_curve(pd.concat(rows), n_boot=10).query("metric == 'auc'")
        assert table["n_patients"].tolist() == [10, 30, 90]
        assert (table["low"] <= table["mean"]).all()


@pytest.mark.parametrize("table", [controls_table, learning_curve])
def test_without_such_rows_it_says_what_to_run(table):
    with pytest.raises(ValueError, match=r"no experiment named (control|labels)/.*notebook 0[24]"):
        table(pd.DataFrame({"experiment": ["warehouse/x"]}))
