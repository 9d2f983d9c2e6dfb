"""The foreground: Otsu's threshold, convex hulls, one head for a whole volume."""

import numpy as np
import pytest

from motionlib.iqms import foreground
from motionlib.iqms.foreground import convex_hull, hull_mask, otsu_centre, standardise


class TestForeground:
    def test_otsu_separates_two_levels(self):
        assert 10 <= otsu_centre(np.array([10, 10, 10, 90, 90])) < 90

    def test_a_hull_holds_its_pixels_and_the_segments_between_them(self, rng):
        mask = rng.random((15, 19)) < 0.05
        hull = convex_hull(mask)
        assert hull[mask].all()
        pixels = np.argwhere(mask)
        middle = (pixels[:, None] + pixels[None]).reshape(-1, 2)
        middle = middle[(middle % 2 == 0).all(axis=1)] // 2
        assert hull[tuple(middle.T)].all()

    def test_a_rectangle_is_its_own_hull(self):
        mask = np.zeros((31, 41), bool)
        mask[4:20, 7:40] = True
        assert (convex_hull(mask) == mask).all()

    def test_an_empty_mask_stays_empty(self):
        assert not convex_hull(np.zeros((4, 5), bool)).any()

    def test_the_head_mask_ignores_scale_and_zero_padding(self, head):
        mask = hull_mask(head)
        assert (hull_mask(head * np.float32(64)) == mask).all()
        padded = np.pad(head, 5)
        assert (hull_mask(padded)[5:-5, 5:-5, 5:-5] == mask).all()

    def test_the_standardised_head_has_its_median_at_1000_and_10_mm_of_air(self, head):
        volume, mask, box = standardise(np.pad(head, 20, constant_values=1), np.eye(4))
        assert np.median(volume[mask]) == pytest.approx(1000, rel=1e-5)
        inside = np.argwhere(mask)
        assert (inside.min(axis=0) == 10).all()
        assert (np.diff(box).ravel() == volume.shape).all()

    def test_wide_integers_give_the_mask_of_the_same_levels_close_together(self, head, monkeypatch):
        image = head[:, :, head.shape[2] // 2].astype(np.int64) * 1000
        sparse = foreground.slice_foreground(image)
        monkeypatch.setattr(foreground, "MOST_LEVELS", 2**62)
        assert (sparse == foreground.slice_foreground(image)).all()

    def test_one_hot_voxel_takes_no_more_memory_than_another(self, head):
        image = head[:, :, head.shape[2] // 2].astype(np.int32)
        image[0, 0] = 2**31 - 1
        assert foreground.slice_foreground(image).shape == image.shape
