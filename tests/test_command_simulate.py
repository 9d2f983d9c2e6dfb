"""`motionlib simulate`: header, range and affine kept, trajectory beside it, clear faults."""

import argparse
import json

import nibabel as nib
import numpy as np
import pytest

from motionlib.commands.simulate import add_arguments, main


def run(*words) -> int:
    """Parse and run the command."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def scan(tmp_path, phantom):
    """An int16 scan, stored LPS with a slope, in a gzipped NIfTI."""
    affine = np.array([[-2.0, 0, 0, 25], [0, -2, 0, 30], [0, 0, 2.5, -28], [0, 0, 0, 1]])
    raw = np.round(phantom[0].numpy() * 1000).astype(np.int16)
    image = nib.Nifti1Image(raw, affine)
    image.header.set_slope_inter(0.5, 10)
    image.header["descrip"] = b"kept"
    image.header.set_sform(affine, code=2)
    path = tmp_path / "in.nii.gz"
    nib.save(image, path)
    return path


class TestSimulate:
    @pytest.mark.parametrize("method", ["image", "kspace"])
    def test_keeps_header_type_range_and_affine(self, method, scan, tmp_path):
        out = tmp_path / "sub" / "out.nii.gz"
        words = ("--method", method, "--translation-mm", 2, 4, "--rotation-deg", 2, 4)
        assert run(scan, out, *words, "--seed", 5) == 0
        before, after = nib.load(scan), nib.load(out)
        assert after.get_data_dtype() == np.int16
        np.testing.assert_array_equal(before.affine, after.affine)
        assert after.header["descrip"] == before.header["descrip"]
        assert int(after.header["sform_code"]) == 2
        assert (after.dataobj.slope, after.dataobj.inter) == (0.5, 10)
        old, new = before.get_fdata(), after.get_fdata()
        assert new.shape == old.shape
        assert 0.01 < np.linalg.norm(new - old) / np.linalg.norm(old) < 1
        assert new.max() < 2 * old.max()

    def test_float_scans_stay_float(self, tmp_path, phantom):
        nib.save(nib.Nifti1Image(phantom[0].numpy(), np.eye(4)), tmp_path / "in.nii")
        assert run(tmp_path / "in.nii", tmp_path / "out.nii", "--translation-mm", 0, 0,
                   "--rotation-deg", 0, 0) == 0  # fmt: skip
        after = nib.load(tmp_path / "out.nii")
        assert after.get_data_dtype() == np.float32
        np.testing.assert_allclose(after.get_fdata(), phantom[0].numpy(), atol=1e-6)

    def test_same_seed_same_file_and_other_seed_another(self, scan, tmp_path):
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            run(scan, tmp_path / f"{name}.nii.gz", "--seed", seed)
        a, b, c = ((tmp_path / f"{n}.nii.gz").read_bytes() for n in "abc")
        assert a == b
        assert a != c

    def test_trajectory_is_written_and_can_be_replayed(self, scan, tmp_path):
        run(scan, tmp_path / "a.nii.gz", "--seed", 3, "--axis", 2)
        record = json.loads((tmp_path / "a.json").read_text())
        assert len(record["times"]) == 5
        assert record["severity"]["max_pairwise_mm"] > 2
        assert record["phase_encoding_axis"] == "S"
        assert record["seed"] == 3
        run(scan, tmp_path / "b.nii.gz", "--trajectory", tmp_path / "a.json", "--axis", 2)
        assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()

    def test_axis_is_anatomical_however_the_file_is_stored(self, scan, tmp_path):
        image = nib.load(scan)
        order = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt("PSR")
        )
        nib.save(image.as_reoriented(order), tmp_path / "psr.nii.gz")
        moved = []
        for source in (scan, tmp_path / "psr.nii.gz"):
            run(source, tmp_path / "out.nii.gz", "--axis", 1, "--method", "kspace")
            moved.append(nib.as_closest_canonical(nib.load(tmp_path / "out.nii.gz")).get_fdata())
        assert np.linalg.norm(moved[0] - moved[1]) / np.linalg.norm(moved[0]) < 0.05

    def test_realistic_and_real_part_options(self, scan, tmp_path):
        out = tmp_path / "out.nii.gz"
        words = ("--realistic", "--translation-mm", 0.3, 2, "--rotation-deg", 0.3, 2)
        assert run(scan, out, "--method", "kspace", "--part", "real", *words) == 0
        record = json.loads((tmp_path / "out.json").read_text())
        assert 0.3 <= record["severity"]["max_pairwise_translation_mm"] <= 2


class TestBadInput:
    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no file"):
            run(tmp_path / "no.nii.gz", tmp_path / "out.nii.gz")

    def test_output_must_be_nifti_and_another_file(self, scan, tmp_path):
        with pytest.raises(ValueError, match=r"\.nii"):
            run(scan, tmp_path / "out.png")
        with pytest.raises(ValueError, match="same file"):
            run(scan, scan)

    def test_broken_file(self, tmp_path):
        (tmp_path / "broken.nii.gz").write_bytes(b"not an image")
        with pytest.raises(ValueError, match="cannot be read"):
            run(tmp_path / "broken.nii.gz", tmp_path / "out.nii.gz")

    def test_truncated_file(self, scan, tmp_path):
        short = tmp_path / "short.nii.gz"
        short.write_bytes(scan.read_bytes()[:-400])
        with pytest.raises(ValueError, match="cannot be read"):
            run(short, tmp_path / "out.nii.gz")

    def test_time_series(self, tmp_path):
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4, 3), np.float32), np.eye(4)), tmp_path / "s.nii")
        with pytest.raises(ValueError, match="one 3-D scan"):
            run(tmp_path / "s.nii", tmp_path / "out.nii")

    def test_nothing_is_left_behind_by_a_refusal(self, scan, tmp_path):
        with pytest.raises(ValueError, match="translation_mm"):
            run(scan, tmp_path / "out.nii.gz", "--translation-mm", 4, 2)
        assert not list(tmp_path.glob("*out*"))
