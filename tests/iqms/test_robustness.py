"""Harmless changes: they move MRQy's measures and leave the corrected ones."""

import numpy as np

from motionlib.figures import iqms
from motionlib.iqms import measures, robustness


class TestFragility:
    def test_harmless_changes_move_mrqy_and_leave_the_corrected_measures(self, head):
        table = robustness.fragility(head, np.eye(4))
        wild = table[table.change.isin(["intensities × 10", "8 voxels of zeros around"])]
        largest = wild.percent.abs().groupby(wild.definitions).max()
        assert largest["MRQy"] > 50
        assert largest["corrected"] < 1e-3

    def test_figures_are_drawn(self, head):
        table = robustness.fragility(head, np.eye(4), moved=head[::-1].copy())
        assert len(iqms.plot_fragility(table).axes) == 3
        assert len(iqms.show_foreground(measures.measure(head), n_slices=3).axes) == 3
