"""Tables of measures: a row for every scan, a reason for every fault, nothing measured twice."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from motionlib.iqms import image_quality, measures, noisy_template, tables


class TestTable:
    @pytest.fixture
    def scans(self, head, tmp_path) -> pd.DataFrame:
        np.save(tmp_path / "a.npy", head.astype(np.float16))
        nib.save(nib.Nifti1Image(head.astype(np.int16), np.eye(4)), tmp_path / "b.nii.gz")
        (tmp_path / "c.nii.gz").write_bytes(b"not an image")
        np.save(tmp_path / "d.npy", np.zeros((6, 6, 6)))
        names = ["a.npy", "b.nii.gz", "c.nii.gz", "d.npy", "missing.npy"]
        paths = [str(tmp_path / name) for name in names]
        return pd.DataFrame({"scan_id": list("abcde"), "path": paths})

    def test_every_scan_has_a_row_and_every_fault_a_reason(self, scans):
        table = tables.add_measures(scans)
        assert table.scan_id.tolist() == list("abcde")
        assert table.columns.tolist() == [
            *("scan_id", "path"),
            *measures.MEASURES,
            "slices",
            "slices_used",
            "reason",
        ]
        assert table.reason.str.len().gt(0).tolist() == [False, False, True, True, True]
        assert table.MEAN.notna().tolist() == [True, True, False, False, False]

    def test_a_second_call_measures_nothing(self, scans, tmp_path, monkeypatch):
        cache = tmp_path / "cache.json"
        first = tables.add_measures(scans, cache=cache)
        monkeypatch.setattr(tables, "_measure_file", lambda item: pytest.fail("measured again"))
        pd.testing.assert_frame_equal(tables.add_measures(scans, cache=cache), first)

    def test_a_file_with_its_right_name_is_measured_again(self, head, tmp_path):
        """What could not be read as it was called is not remembered of the content."""
        wrong, right, cache = (tmp_path / n for n in ("a_T1w.nii", "b_T1w.nii.gz", "c.json"))
        nib.save(nib.Nifti1Image(head, np.eye(4)), right)
        right.rename(wrong)
        for path, read in ((wrong, False), (right, True)):
            if read:
                wrong.rename(right)
            (row,) = tables.measure_files([("a", path)], cache=cache)
            assert (row["slices"] > 0) == read

    def test_an_unreadable_file_is_a_row(self, head, tmp_path, monkeypatch):
        paths = [tmp_path / f"{name}_T1w.nii" for name in "ab"]
        for path in paths:
            nib.save(nib.Nifti1Image(head, np.eye(4)), path)
        may = tables.os.access
        monkeypatch.setattr(
            tables.os, "access", lambda path, mode: "b_T1w" not in str(path) and may(path, mode)
        )
        known = tables.sha256_file

        def opened(path):
            assert "b_T1w" not in str(path)  # nobody may
            return known(path)

        monkeypatch.setattr(tables, "sha256_file", opened)
        rows = tables.measure_files([("a", paths[0]), ("b", paths[1])], cache=tmp_path / "c.json")
        assert len(rows) == 2

    def test_a_changed_file_is_measured_again(self, scans, tmp_path, head):
        first = tables.add_measures(scans, cache=tmp_path / "cache.json")
        np.save(scans.path[0], (2 * head).astype(np.float16))
        second = tables.add_measures(scans, cache=tmp_path / "cache.json")
        assert second.MEAN[0] != first.MEAN[0]
        assert second.MEAN[1] == first.MEAN[1]

    def test_fber_of_a_study_s_head_is_that_of_the_stored_scan(self, tmp_path):
        # heads scaled to about one have air whose energy MRQy takes for none
        volume, _ = noisy_template(seed=3)
        stored = volume * (1000 / volume.max())
        np.save(tmp_path / "head.npy", (stored / 1000).astype(np.float16))
        np.save(tmp_path / "stored.npy", stored.astype(np.float32))
        head, scan = (image_quality(tables.read_stored(tmp_path / f"{name}.npy")[0])
                      for name in ("head", "stored"))  # fmt: skip
        assert scan["FBER"] > 0
        assert head["FBER"] == pytest.approx(scan["FBER"], rel=0.01)

    def test_a_scale_slope_makes_float32_as_in_mrqy_s_reader(self, head, tmp_path):
        image = nib.Nifti1Image(head, np.eye(4))
        image.set_data_dtype(np.uint8)
        nib.save(image, tmp_path / "scaled.nii")
        assert tables.read_stored(tmp_path / "scaled.nii")[0].dtype == np.float32
