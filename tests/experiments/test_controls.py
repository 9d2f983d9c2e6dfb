"""The table of controls."""

import pandas as pd
import pytest

from motionlib.stats.rates import controls_table


def _rows(recipe, control, called, site=""):
    return pd.DataFrame(
        {
            "experiment": f"control/{recipe}/{control}{site}",
            "scan_id": [f"s{i}" for i in range(len(called))],
            "participant_id": [f"p{i}" for i in range(len(called))],
            "y_pred": called,
        }
    )


class TestControlsTable:
    def test_share_is_counted_by_recipe_and_control(self):
        rows = pd.concat(
            [
                _rows("paper", "clean", [0, 0, 0, 0]),
                _rows("paper", "resampled", [1, 1, 1, 0]),
                _rows("paper", "motion_2-4", [1, 1, 1, 1]),
            ]
        )
        table = controls_table(rows, n_boot=200).set_index("control")
        assert table.called_motion.to_dict() == {"clean": 0, "resampled": 0.75, "motion_2-4": 1}
        assert table.still.to_dict() == {"clean": True, "resampled": True, "motion_2-4": False}

    def test_no_event_still_has_an_upper_limit(self):
        table = controls_table(_rows("paper", "clean", [0] * 20), n_boot=50)
        assert table.low[0] == 0
        assert table.high[0] == pytest.approx(1 - 0.025 ** (1 / 20))

    def test_other_sites_have_their_own_rows(self):
        rows = pd.concat(
            [_rows("paper", "clean", [0, 1]), _rows("paper", "clean", [1, 1], "/other-site")]
        )
        table = controls_table(rows, n_boot=50)
        assert table.set_index("site").called_motion.to_dict() == {
            "same site": 0.5,
            "other-site": 1.0,
        }

    def test_without_controls_it_says_what_to_run(self):
        with pytest.raises(ValueError, match="run notebook 02"):
            controls_table(pd.DataFrame({"experiment": ["warehouse/x"]}))
