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


class TestCompiledCounts:
    """The compiled histogram and interpolation give numpy's bits."""

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(
        "change",
        [
            lambda v: v,
            lambda v: np.round(10 * v),
            lambda v: np.exp(6 * v),
            lambda v: 1000 + 0.1 * v,
            lambda v: v.astype(np.float16) * 1000.0,
            lambda v: np.linspace(0, 256, v.size).reshape(v.shape),
        ],
        ids=["normal", "ties", "nearly all in one bin", "far from zero", "half", "on edges"],
    )
    def test_they_are_those_of_numpy(self, dtype, change):
        image = change(np.random.default_rng(3).standard_normal((60, 51))).astype(dtype)
        counts, edges = np.histogram(image.ravel(), bins=foreground.N_BINS)
        centres = (edges[:-1] + edges[1:]) / 2
        ours = foreground._histogram(image)
        assert np.array_equal(ours[0], counts)
        assert np.array_equal(ours[1], centres)
        share = np.cumsum(counts) / float(counts.sum())
        expected = np.interp(image.ravel(), centres, share.astype(dtype)).astype(dtype)
        found = foreground._equalise(image, counts, centres)
        assert np.array_equal(found, expected.reshape(image.shape))

    def test_intensities_without_room_for_bins_are_refused(self):
        image = np.float32(1e6) + np.arange(12, dtype=np.float32).reshape(3, 4) / 16
        with pytest.raises(ValueError, match="hardly differ"):
            foreground.slice_foreground(image)
