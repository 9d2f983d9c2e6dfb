"""Volumes: grids, reading what is sound and refusing what is not, placing heads."""

import gzip
import os

import nibabel as nib
import numpy as np
import pytest
import torch

from motionlib.preprocess.grid import Grid, centre_on_grid, resample_to_grid, study_grid
from motionlib.preprocess.head import find_head
from motionlib.preprocess.images import load_volume, phantom, read_array, save_volume, zscore


@pytest.fixture
def big_head():
    """A phantom of the size of a head, 4 mm voxels, with air and a noise floor."""
    head = np.zeros((60, 64, 64), np.float32)
    inner = phantom((44, 50, 46))[0].numpy() * 100
    head[8:52, 7:57, 12:58] = inner
    noise = np.random.default_rng(3).normal(0, 2, (2, *head.shape))
    return np.hypot(head + noise[0], noise[1]).astype(np.float32), np.diag([4.0, 4, 4, 1])


class TestStudyGrid:
    def test_one_millimetre_is_clinicas_crop(self):
        grid = study_grid()
        assert grid.shape == (169, 208, 179)
        np.testing.assert_allclose(grid.matrix[:3, 3], [-84, -119, -78])

    def test_four_millimetres_cover_the_same_box_about_the_same_centre(self):
        grid = study_grid(4.0)
        assert grid.shape == (43, 52, 45)
        centre = grid.matrix[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.matrix[:3, 3]
        np.testing.assert_allclose(centre, [0, -15.5, 11])

    def test_an_impossible_spacing_is_refused(self):
        with pytest.raises(ValueError, match=r"between 0\.25 and 20"):
            study_grid(0)


class TestReadAndSave:
    def test_what_is_saved_is_read_back(self, tmp_path):
        volume, affine = phantom(), np.diag([2.0, 2, 2, 1])
        save_volume(volume, affine, tmp_path / "a.nii.gz")
        back, back_affine = load_volume(tmp_path / "a.nii.gz")
        assert back.shape == (1, 24, 28, 24)
        assert back.dtype == torch.float32
        torch.testing.assert_close(back, volume, rtol=0, atol=0)
        np.testing.assert_array_equal(back_affine, affine)

    def test_saving_twice_gives_the_same_bytes(self, tmp_path):
        for name in ("a.nii.gz", "b.nii.gz"):
            save_volume(phantom(), np.eye(4), tmp_path / name)
        assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()

    def test_whole_numbers_keep_a_slope(self, tmp_path):
        save_volume(phantom(), np.eye(4), tmp_path / "a.nii.gz", dtype="int16")
        back, _ = load_volume(tmp_path / "a.nii.gz")
        assert nib.load(tmp_path / "a.nii.gz").get_data_dtype() == np.int16
        np.testing.assert_allclose(back.numpy(), phantom().numpy(), atol=1e-4)

    def test_axes_are_turned_to_right_anterior_superior(self, tmp_path):
        array = phantom()[0].numpy()
        flipped = np.transpose(array[::-1], (2, 0, 1))
        affine = np.array([[0, -1.0, 0, 23], [0, 0, 2.0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
        nib.save(nib.Nifti1Image(flipped, affine), tmp_path / "a.nii.gz")
        back, back_affine = read_array(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(back, array)
        np.testing.assert_allclose(back_affine, np.diag([1.0, 2, 3, 1]))

    def test_a_fourth_axis_of_length_one_is_dropped(self, tmp_path):
        nib.save(nib.Nifti1Image(phantom()[0].numpy()[..., None], np.eye(4)), tmp_path / "a.nii")
        assert read_array(tmp_path / "a.nii")[0].shape == (24, 28, 24)

    def test_another_suffix_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"nii\.gz"):
            save_volume(phantom(), np.eye(4), tmp_path / "a.img")

    def test_real_scans_are_read_with_their_slope(self, data_root):
        path = next((data_root / "ixi-2mm").glob("*/anat/*_T1w.nii.gz"))
        array, affine = read_array(path)
        np.testing.assert_allclose(
            array, nib.as_closest_canonical(nib.load(path)).get_fdata(), rtol=1e-5, atol=1e-3
        )
        assert nib.aff2axcodes(affine) == ("R", "A", "S")


class TestResample:
    def test_the_same_grid_changes_nothing(self):
        volume = phantom()
        grid = Grid((24, 28, 24), tuple(map(tuple, np.eye(4).tolist())))
        np.testing.assert_allclose(resample_to_grid(volume, np.eye(4), grid), volume[0], atol=1e-6)

    def test_linear_ramps_stay_linear(self):
        ramp = np.broadcast_to(np.arange(24.0)[:, None, None], (24, 24, 24)).astype(np.float32)
        grid = Grid((5, 5, 5), ((3, 0, 0, 5.5), (0, 3, 0, 5), (0, 0, 3, 5), (0, 0, 0, 1)))
        out = resample_to_grid(ramp, np.eye(4), grid)
        np.testing.assert_allclose(out[:, 2, 2], 5.5 + 3 * np.arange(5), atol=1e-4)

    def test_frequencies_above_the_new_grid_vanish(self):
        wave = np.tile(np.array([0.0, 1.0], np.float32), 20)
        volume = np.broadcast_to(wave[:, None, None], (40, 40, 40))
        grid = Grid((8, 8, 8), ((4, 0, 0, 5), (0, 4, 0, 5), (0, 0, 4, 5), (0, 0, 0, 1)))
        smooth = resample_to_grid(volume, np.eye(4), grid)
        aliased = resample_to_grid(volume, np.eye(4), grid, antialias=False)
        assert abs(smooth - 0.5).max() < 0.01
        assert abs(aliased - 0.5).max() > 0.4

    def test_the_rotated_path_agrees_with_the_straight_one(self):
        volume = phantom((40, 44, 40))
        affine = np.diag([2.0, 2, 2, 1])
        tilted = np.array(affine)
        tilted[0, 1] = 1e-2  # enough to leave the separable path
        grid = Grid((12, 14, 12), ((6, 0, 0, 5), (0, 6, 0, 5), (0, 0, 6, 5), (0, 0, 0, 1)))
        straight, turned = (resample_to_grid(volume, matrix, grid) for matrix in (affine, tilted))
        assert abs(straight - turned).mean() < 0.02


class TestCentreOnGrid:
    def test_a_shifted_head_lands_in_the_same_place(self, big_head):
        volume, affine = big_head
        shifted = np.roll(volume, (3, -2, 2), axis=(0, 1, 2))
        grid = study_grid(4.0)
        one, other = (centre_on_grid(array, affine, grid) for array in (volume, shifted))
        assert one.shape == grid.shape
        assert one.dtype == np.float32
        assert abs(one - other).mean() < 0.05 * one.mean()

    def test_noise_alone_is_refused(self):
        noise = np.abs(np.random.default_rng(0).normal(size=(40, 40, 40))).astype(np.float32)
        with pytest.raises(ValueError, match="litres"):
            centre_on_grid(noise, np.eye(4), study_grid(4.0))

    def test_real_heads_are_whole_and_stripped_brains_are_stripped(self, data_root):
        kinds = {"ixi-2mm": False, "ds000011": False, "ds002748-1p5mm": True}
        for folder, stripped in kinds.items():
            for path in sorted((data_root / folder).glob("*/anat/*_T1w.nii.gz"))[:3]:
                assert find_head(*read_array(path)).stripped == stripped

    def test_real_brains_lie_where_the_template_lies(self, data_root):
        grid = study_grid(4.0)
        for folder in ("ixi-2mm", "ds000011", "ds002748-1p5mm"):
            path = sorted((data_root / folder).glob("*/anat/*_T1w.nii.gz"))[0]
            placed = centre_on_grid(*read_array(path), grid)
            left, right = placed[:21].mean(), placed[22:].mean()
            assert abs(left - right) < 0.1 * (left + right)
            assert placed[21, 26, 24] > 0.2 * np.percentile(placed, 99)


class TestZscore:
    def test_mean_is_zero_and_deviation_one(self):
        scored = zscore(phantom())
        assert abs(float(scored.mean())) < 1e-5
        assert float(scored.std(correction=0)) == pytest.approx(1, abs=1e-5)

    def test_arrays_stay_arrays(self):
        assert isinstance(zscore(phantom().numpy()), np.ndarray)

    def test_a_constant_volume_is_refused(self):
        with pytest.raises(ValueError, match="constant"):
            zscore(torch.ones(1, 4, 4, 4))


class TestPhantom:
    def test_it_is_a_head_in_air(self):
        volume = phantom()
        assert volume.shape == (1, 24, 28, 24)
        assert float(volume.min()) == 0
        assert float(volume[0, 0].max()) == 0
        assert float(volume[0, 12, 14, 12]) > 0

    def test_seeds_give_other_heads(self):
        torch.testing.assert_close(phantom(seed=4), phantom(seed=4))
        assert not torch.equal(phantom(seed=4), phantom(seed=5))


class TestRefusals:
    def test_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="not there"):
            load_volume(tmp_path / "a.nii.gz")

    def test_a_dangling_link(self, tmp_path):
        (tmp_path / "a.nii.gz").symlink_to(tmp_path / "gone")
        with pytest.raises(FileNotFoundError, match="link to nothing"):
            load_volume(tmp_path / "a.nii.gz")

    def test_a_pipe_does_not_block(self, tmp_path):
        os.mkfifo(tmp_path / "a.nii.gz")
        with pytest.raises(ValueError, match="no regular file"):
            load_volume(tmp_path / "a.nii.gz")


def stored(path, *, code=2, units=None, array=None, **fields):
    """Write a head stored as left, posterior, inferior, its header changed."""
    array = phantom()[0].numpy()[::-1, ::-1, ::-1] if array is None else array
    image = nib.Nifti1Image(array, np.diag([-2.0, -2.0, -2.0, 1.0]))
    image.header.set_sform(image.affine, code=code)
    image.header.set_qform(image.affine, code=code)
    for name, value in fields.items():
        image.header[name] = value
    if units is not None:
        image.header["xyzt_units"] = units
    content = image.header.binaryblock + bytes(4) + image.get_fdata(dtype=np.float32).tobytes("F")
    content = bytearray(content)
    content[108:112] = np.float32(352).tobytes()
    path.write_bytes(gzip.compress(bytes(content)) if path.name.endswith(".gz") else bytes(content))
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
class TestHeaders:
    def test_nothing_is_guessed_where_no_orientation_is_stated(self, tmp_path, name):
        path = stored(tmp_path / name, code=0)
        with pytest.raises(ValueError, match=r"states no orientation .* --assume-orientation"):
            read_array(path)
        array, affine = read_array(path, orientation="LPI")
        np.testing.assert_array_equal(array, phantom()[0].numpy())
        np.testing.assert_allclose(affine[:3, :3], np.diag([2.0, 2, 2]))
        with pytest.raises(ValueError, match="expected three letters such as RAS"):
            read_array(path, orientation="RAX")

    @pytest.mark.parametrize(("units", "scale"), [(1, 1e-3), (3, 1e3), (0, 1), (2, 1)])
    def test_micrometres_and_metres_become_millimetres(self, tmp_path, name, units, scale):
        image = nib.Nifti1Image(phantom()[0].numpy(), np.diag([2.0 * scale] * 3 + [1.0]))
        image.header.set_qform(image.affine, code=1)
        image.header["xyzt_units"] = units
        nib.save(image, tmp_path / name)
        affine = read_array(tmp_path / name)[1]
        np.testing.assert_allclose(affine, np.diag([2.0, 2, 2, 1]), rtol=1e-6)

    def test_a_quaternion_too_long_by_rounding_is_shortened(self, tmp_path, name):
        turn = {"quatern_b": 0, "quatern_c": 0, "quatern_d": np.sqrt(1 + 8e-7)}
        path = stored(tmp_path / name, sform_code=0, qform_code=1, pixdim=[1, *[2] * 7], **turn)
        np.testing.assert_allclose(read_array(path)[1][:3, :3], np.diag([2.0, 2, 2]), atol=1e-5)
        path = stored(tmp_path / name, sform_code=0, qform_code=1, quatern_b=1.5, quatern_d=0)
        with pytest.raises(ValueError, match=r"quaternion has the length 1\.5, expected up to 1"):
            read_array(path)

    def test_a_matrix_of_zeros_leaves_the_word_to_the_quaternion(self, tmp_path, name):
        rows = dict.fromkeys(("srow_x", "srow_y", "srow_z"), 0)
        affine = read_array(stored(tmp_path / name, **rows))[1]
        np.testing.assert_allclose(affine[:3, :3], np.diag([2.0, 2, 2]), atol=1e-5)

    def test_trailing_axes_of_one_are_dropped(self, tmp_path, name):
        nib.save(nib.Nifti1Image(phantom()[0].numpy()[..., None, None], np.eye(4)), tmp_path / name)
        assert read_array(tmp_path / name)[0].shape == (24, 28, 24)


def test_a_flipped_bit_in_a_packed_file_is_seen(tmp_path):
    save_volume(phantom(), np.eye(4), tmp_path / "a.nii.gz")
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    content[-6] ^= 1  # in the checksum
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_array(tmp_path / "a.nii.gz")


def test_analyze_states_no_orientation(tmp_path):
    image = nib.AnalyzeImage(phantom()[0].numpy().astype(np.float32), None)
    image.header.set_zooms((2, 2, 2))
    nib.save(image, tmp_path / "a.img")
    with pytest.raises(ValueError, match="states no orientation"):
        read_array(tmp_path / "a.img")
    assert read_array(tmp_path / "a.img", orientation="RAS")[0].shape == (24, 28, 24)
