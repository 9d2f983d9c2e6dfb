"""MRQy's measures: MRQy's own values, closed forms, invariances, bad input."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from motionlib.iqms import measures, tables
from motionlib.iqms.measures import _MERGE, _median_5x5, slice_measures

# float32 volumes: MRQy adds up in float32 (relative error about 1e-7), we in float64
TOLERANCE = {"i": 1e-12, "f": 1e-6}
VOLUMES = (
    "ds000011_sub-02_3p2mm_int16",
    "ds000011_sub-02_3p2mm_float32",
    "ds000011_sub-02_3p2mm_motion_float32",
    "mni152_3mm_unit_float32",
    "mni152_3mm_uint8_slope",
)


def close(one: dict, other: dict, rel: float) -> list[str]:
    """Measures whose values differ by more than `rel`."""
    return [
        name
        for name in one
        if not np.isclose(one[name], other[name], rtol=rel, atol=1e-12, equal_nan=True)
    ]


class TestAgainstMRQy:
    @pytest.mark.parametrize("name", VOLUMES)
    def test_volume_values_are_mrqy_s(self, reference_root, name):
        table = pd.read_csv(reference_root / "mrqy/reference_mrqy.tsv", sep="\t")
        expected = table.set_index("volume").loc[name]
        volume, _ = tables.read_stored(reference_root / f"mrqy/{name}.nii.gz")
        assert volume.dtype == expected["loaded_dtype"]
        expected = expected[list(measures.MEASURES)].astype(float).to_dict()
        assert close(tables.image_quality(volume), expected, TOLERANCE[volume.dtype.kind]) == []

    @pytest.mark.parametrize("name", VOLUMES[1::2])
    def test_every_slice_has_mrqy_s_foreground_and_values(self, reference_root, name):
        table = pd.read_csv(reference_root / "mrqy/reference_mrqy_per_slice.tsv", sep="\t")
        expected = table[table.volume == name].set_index("slice").drop(columns="volume")
        volume, _ = tables.read_stored(reference_root / f"mrqy/{name}.nii.gz")
        ours = measures.measure(volume).table().set_index("slice")
        assert ours.index.tolist() == expected.index.tolist()
        assert (ours.foreground_voxels == expected.foreground_voxels).all()
        ours = ours.where(np.isfinite(ours))
        # per slice, float32 sums of MRQy lose up to one more digit than their mean over slices
        np.testing.assert_allclose(ours, expected.astype(float), rtol=2e-6, atol=1e-9)

    @pytest.mark.parametrize("name", VOLUMES)
    def test_as_many_slices_enter_each_mean(self, reference_root, name):
        table = pd.read_csv(reference_root / "mrqy/reference_mrqy_slices_used.tsv", sep="\t")
        expected = table.set_index("volume").loc[name, list(measures.MEASURES)]
        volume, _ = tables.read_stored(reference_root / f"mrqy/{name}.nii.gz")
        assert measures.measure(volume).slices_used == expected.to_dict()


class TestMedian:
    def test_the_pruned_network_is_right_on_all_sorted_zero_one_columns(self):
        columns = np.array(list(product(range(6), repeat=5)))
        wires = [5 - rank <= columns[:, column] for rank in range(5) for column in range(5)]
        for low, high in _MERGE:
            wires[low], wires[high] = wires[low] & wires[high], wires[low] | wires[high]
        assert (wires[12] == (columns.sum(axis=1) >= 13)).all()

    @pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8"])
    def test_it_equals_scipy_s(self, rng, dtype):
        from scipy.ndimage import median_filter

        image = (rng.random((61, 17)) * 250).astype(dtype)
        assert (_median_5x5(image) == median_filter(image, 5, mode="nearest")).all()

    def test_negative_floats_keep_their_order(self, rng):
        from scipy.ndimage import median_filter

        image = rng.normal(size=(20, 20)).astype(np.float32)
        assert (_median_5x5(image) == median_filter(image, 5, mode="nearest")).all()


class TestClosedForms:
    """One slice: a disc of two known halves in air of two known halves, off the frame."""

    @pytest.fixture
    def slice_and_mask(self):
        image = np.zeros((40, 40))
        image[:, ::2], image[:, 1::2] = 1.0, 3.0
        mask = np.zeros((40, 40), bool)
        mask[10:30, 10:30] = True
        image[mask] = np.where(np.indices((40, 40))[0][mask] % 2, 100.0, 300.0)
        return image, mask

    def test_corrected_measures_of_two_level_regions(self, slice_and_mask):
        image, mask = slice_and_mask
        ours = slice_measures(image, mask, compat=False)
        rms = np.sqrt(400 * (100**2 + 300**2) / 2 / 1600)
        share = np.array([100, 300]) / (rms * 40)
        patch = image[8:13, 8:13] * mask[8:13, 8:13]  # centred on the first maximum, (10, 10)
        air = np.zeros((5, 5))
        air[2:, [1, 3]], air[2:, [0, 2, 4]] = [3, 3], [1, 1, 1]  # rows -2..2, columns -1..3
        air = np.array([[0, 0, 0, 0, 0]] * 2 + [[0, 1, 3, 1, 3]] * 3, float)
        expected = {
            "MEAN": 200, "RNG": 200, "VAR": 100**2, "CV": 50, "CPP": 0,
            "PSNR": 20 * np.log10(300 / rms), "SNR1": 100, "SNR2": patch.mean(),
            "SNR3": patch.mean() / patch.std(), "SNR4": patch.mean() / air.std(),
            "CNR": (patch.mean() - air.mean()) / air.std(), "CVP": patch.std() / patch.mean(),
            "CJV": 101 / 198, "FBER": (100**2 + 300**2) / 2 / ((1 + 9) / 2),
            "EFC": -(share * np.log(share) * 200).sum() / (40 * np.log(40)),
        }  # fmt: skip
        assert close({name: ours[name] for name in expected}, expected, 1e-12) == []

    def test_entropy_is_one_for_a_flat_slice(self):
        image, mask = np.full((16, 16), 7.0), np.ones((16, 16), bool)
        image[0, 0], mask[0, 0] = 6.999999, True
        entropy = slice_measures(image, mask, compat=False)["EFC"]
        assert entropy == pytest.approx(1, abs=1e-6)

    def test_contrast_per_pixel_sees_only_the_frame(self, slice_and_mask):
        image, mask = slice_and_mask
        mask[:, 10:30] = True
        ours = slice_measures(image, mask, compat=False)["CPP"]
        front = np.where(mask, image, 0)
        assert ours == pytest.approx(3 * (front[0].sum() + front[-1].sum()) / 8 / 1600)

    def test_a_constant_foreground_is_skipped(self):
        assert slice_measures(np.zeros((8, 8)), np.zeros((8, 8), bool)) is None


class TestInvariance:
    @pytest.mark.parametrize("factor", [2.0**-10, 8.0])
    def test_corrected_values_ignore_the_unit_of_intensity(self, head, factor):
        before = tables.image_quality(head, compat=False)
        after = tables.image_quality(head * np.float32(factor), compat=False)
        assert close(before, after, 1e-6) == []

    def test_corrected_values_ignore_zero_padding(self, head):
        before = tables.image_quality(head, compat=False)
        assert close(before, tables.image_quality(np.pad(head, 6), compat=False), 1e-6) == []

    def test_corrected_values_ignore_the_order_of_stored_axes(self, head):
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        turned, at = head.transpose(2, 0, 1), affine[:, [2, 0, 1, 3]]
        before = tables.image_quality(head, compat=False, affine=affine)
        assert close(before, tables.image_quality(turned, compat=False, affine=at), 1e-9) == []

    def test_corrected_values_ignore_a_shift_of_the_field_of_view(self, head):
        shifted = np.pad(head, ((3, 0), (0, 2), (1, 4)))
        before = tables.image_quality(head, compat=False)
        assert close(before, tables.image_quality(shifted, compat=False), 1e-6) == []

    def test_the_sign_of_a_real_part_does_not_matter(self, head):
        signed = head * np.where(np.indices(head.shape).sum(axis=0) % 2, 1, -1)
        before = tables.image_quality(head, compat=False)
        assert close(before, tables.image_quality(signed, compat=False), 1e-9) == []

    def test_mrqy_s_values_do_depend_on_the_unit(self, head):
        before, after = tables.image_quality(head), tables.image_quality(head * 100)
        assert {"CV", "EFC", "SNR1"} & set(close(before, after, 0.01))


class TestImageQuality:
    def test_it_returns_mrqy_s_fifteen_names(self, head):
        assert tuple(tables.image_quality(head)) == measures.MEASURES
        assert len(tables.PAPER_MEASURES) == 13

    def test_threads_do_not_change_a_bit(self, head):
        assert tables.image_quality(head, threads=3) == tables.image_quality(head)

    def test_tensors_and_channels_are_taken_and_left_alone(self, phantom):
        before = phantom.clone()
        one, other = tables.image_quality(phantom), tables.image_quality(phantom[0].numpy())
        assert close(one, other, 0) == []
        assert (phantom == before).all()

    @pytest.mark.parametrize(
        ("volume", "word"),
        [
            (np.zeros((8, 8, 8)), "none of the 8 slices"),
            (np.full((8, 8, 8), 3, np.int16), "none of the 8 slices"),
            (np.zeros((4, 8, 8, 8)), r"shape \(4, 8, 8, 8\)"),
            (np.full((8, 8, 8), np.nan), "512 voxels that are NaN"),
            (np.zeros((8, 8, 8), complex), "dtype complex128"),
        ],
    )
    def test_a_volume_that_is_no_head_is_refused_in_one_sentence(self, volume, word):
        with pytest.raises(ValueError, match=word):
            tables.image_quality(volume)

    def test_a_constant_volume_is_refused_by_the_corrected_way_too(self):
        with pytest.raises(ValueError, match="no foreground"):
            tables.image_quality(np.zeros((8, 8, 8)), compat=False)

    def test_a_stripped_brain_has_no_air_and_says_so(self, head):
        stripped = np.where(head > 100, head, 0)
        quality = measures.measure(stripped)
        row = tables.quality_row(quality)
        assert np.isnan(row["SNR4"])
        assert "SNR4 CNR" in row["reason"]
        assert np.isfinite(row["MEAN"])
