"""`motionlib simulate`: header, range and affine kept, trajectory beside it, clear faults."""

import argparse
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from motionlib import compute
from motionlib.commands.simulate import add_arguments, main
from motionlib.files import seed_from
from motionlib.manifest import read_manifest
from motionlib.motion.on_disk import moved_id
from motionlib.preprocess.finder import find_scans


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
    image.header["descrip"] = b"DOE^JANE"
    image.header.set_sform(affine, code=2)
    path = tmp_path / "in.nii.gz"
    nib.save(image, path)
    return path


class TestSimulate:
    @pytest.mark.parametrize("method", ["image", "kspace"])
    def test_keeps_header_without_texts_type_range_and_affine(self, method, scan, tmp_path):
        out = tmp_path / "sub" / "out.nii.gz"
        words = ("--method", method, "--translation-mm", 2, 4, "--rotation-deg", 2, 4)
        assert run(scan, out, *words, "--seed", 5) == 0
        before, after = nib.load(scan), nib.load(out)
        assert after.get_data_dtype() == np.int16
        np.testing.assert_array_equal(before.affine, after.affine)
        assert after.header["descrip"] == b""
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

    def test_it_says_what_it_wrote(self, scan, tmp_path, capsys):
        out = tmp_path / "moved.nii.gz"
        run(scan, out, "--seed", "3")
        record = tmp_path / "moved.json"
        assert record.is_file()
        said = f"{out}: moved (image, seed 3); how is told in {record}\n"
        assert capsys.readouterr().out == said

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
        with pytest.raises(ValueError, match="expected three dimensions"):
            run(tmp_path / "s.nii", tmp_path / "out.nii")

    def test_a_wrong_checksum_and_colours_are_refused_in_words(self, scan, tmp_path):
        content = bytearray(scan.read_bytes())
        content[-6] ^= 1
        (tmp_path / "flipped.nii.gz").write_bytes(content)
        colours = np.zeros((9, 9, 9), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.save(nib.Nifti1Image(colours, np.eye(4)), tmp_path / "rgb.nii.gz")
        for name, words in (("flipped", "cannot be read"), ("rgb", "one real number")):
            with pytest.raises(ValueError, match=words):
                run(tmp_path / f"{name}.nii.gz", tmp_path / "out.nii.gz")

    def test_an_axis_is_not_guessed_where_no_orientation_is_stated(self, phantom, tmp_path):
        bare = nib.Nifti1Image(phantom[0].numpy().transpose(1, 2, 0), None)
        bare.header.set_zooms((2, 2, 2))
        nib.save(bare, tmp_path / "bare.nii.gz")
        with pytest.raises(ValueError, match="states no orientation"):
            run(tmp_path / "bare.nii.gz", tmp_path / "out.nii.gz")
        words = ("--assume-orientation", "ASR", "--axis", 1)
        assert run(tmp_path / "bare.nii.gz", tmp_path / "out.nii.gz", *words) == 0
        assert json.loads((tmp_path / "out.json").read_text())["array_axis"] == 0
        assert nib.aff2axcodes(nib.load(tmp_path / "out.nii.gz").affine) == ("A", "S", "R")

    def test_a_scan_in_metres_is_moved_as_far_as_the_same_in_millimetres(self, phantom, tmp_path):
        for name, scale, unit in (("mm", 2.0, "mm"), ("m", 0.002, "meter")):
            image = nib.Nifti1Image(phantom[0].numpy(), np.diag([scale] * 3 + [1.0]))
            image.header.set_xyzt_units(unit)
            nib.save(image, tmp_path / f"{name}.nii")
            run(tmp_path / f"{name}.nii", tmp_path / f"{name}_out.nii", "--seed", 3)
        first, second = (nib.load(tmp_path / f"{n}_out.nii") for n in ("mm", "m"))
        np.testing.assert_allclose(first.get_fdata(), second.get_fdata(), atol=1e-4)
        assert second.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(second.affine, first.affine, rtol=1e-6)

    def test_trailing_axes_of_one_are_kept_in_the_copy(self, phantom, tmp_path):
        nib.save(
            nib.Nifti1Image(phantom[0].numpy()[..., None, None], np.eye(4)), tmp_path / "a.nii"
        )
        assert run(tmp_path / "a.nii", tmp_path / "out.nii") == 0
        assert nib.load(tmp_path / "out.nii").shape == (24, 28, 24, 1, 1)

    def test_nothing_is_left_behind_by_a_refusal(self, scan, tmp_path):
        with pytest.raises(ValueError, match="translation_mm"):
            run(scan, tmp_path / "out.nii.gz", "--translation-mm", 4, 2)
        assert not list(tmp_path.glob("*out*"))


@pytest.fixture
def manifest(tmp_path, phantom):
    """Four phantoms; the third is no image, the fifth row has no file."""
    for n in range(4):
        scaled = phantom[0].numpy() * (n + 1)
        nib.save(nib.Nifti1Image(scaled, np.diag([8.0, 8, 8, 1])), tmp_path / f"{n}.nii.gz")
    (tmp_path / "2.nii.gz").write_bytes(b"not an image")
    rows = [f"sub-{n}_T1w\tsub-{n}\t{n}.nii.gz" for n in range(5)]
    path = tmp_path / "scans.tsv"
    path.write_text("\n".join(["scan_id\tparticipant_id\tpath", *rows]) + "\n")
    return path


def outcome(folder, name="outcome.tsv"):
    return pd.read_csv(folder / name, sep="\t", keep_default_na=False).set_index("scan_id")


class TestManifest:
    def test_after_a_run_in_which_all_failed_it_names_no_former_copy(self, scan, tmp_path):
        folder, out = tmp_path / "one", tmp_path / "moved"
        folder.mkdir()
        scan.rename(folder / "a_T1w.nii.gz")
        assert run(folder, out) == 0
        (folder / "a_T1w.nii.gz").write_bytes(b"")
        assert run(folder, out) == 1
        assert (out / "manifest.tsv").read_text().count("\n") == 1

    def test_every_scan_has_a_row_and_the_good_ones_an_image(self, manifest, tmp_path, capsys):
        out = tmp_path / "moved"
        assert run(manifest, out, "--seed", 3) == 1
        rows = outcome(out)
        assert list(rows.columns) == ["status", "path", "reason"]
        assert list(rows["status"]) == ["done", "done", "failed", "done", "failed"]
        assert "cannot be read" in rows.loc["sub-2_T1w", "reason"]
        assert "not there" in rows.loc["sub-4_T1w", "reason"]
        assert "3 done, 0 kept, 2 failed" in capsys.readouterr().out
        assert len(read_manifest(out / "manifest.tsv", check_files=True)) == 3
        names = {path.name for path in out.iterdir()}
        images = {f"sub-{n}_desc-moved_T1w{end}" for n in (0, 1, 3) for end in (".nii.gz", ".json")}
        assert names == {*images, "outcome.tsv", "manifest.tsv"}

    def test_copies_have_ids_of_their_own_so_that_all_can_be_scored(self, manifest, tmp_path):
        for name in ("moved 2 mm", "moved_6mm"):
            run(manifest, tmp_path / name)
        places = [manifest, tmp_path / "moved 2 mm" / "manifest.tsv", tmp_path / "moved_6mm"]
        ids = [scan for scan, _ in find_scans([str(place) for place in places])]
        assert len(ids) == 5 + 3 + 3
        assert {"sub-0_T1w", "sub-0_desc-moved2mm_T1w", "sub-0_desc-moved6mm_T1w"} <= set(ids)
        assert moved_id("scan", Path("/a/ä")) == "scan_desc-moved"

    def test_each_scan_moves_by_its_own_seed_whatever_its_place(self, manifest, tmp_path):
        run(manifest, tmp_path / "a")
        lines = manifest.read_text().splitlines()
        manifest.write_text("\n".join([lines[0], lines[4], lines[1]]) + "\n")
        assert run(manifest, tmp_path / "b") == 0
        records = [
            json.loads((tmp_path / f"a/sub-{n}_desc-a_T1w.json").read_text()) for n in (0, 3)
        ]
        assert records[0]["seed"] == seed_from(0, "sub-0_T1w")
        assert records[0]["rotation_deg"] != records[1]["rotation_deg"]
        for n in (0, 3):
            pair = [(tmp_path / k / f"sub-{n}_desc-{k}_T1w.nii.gz").read_bytes() for k in "ab"]
            assert pair[0] == pair[1]

    def test_a_second_run_repeats_only_what_changed(self, manifest, tmp_path):
        out = tmp_path / "moved"
        run(manifest, out)
        (out / "sub-1_desc-moved_T1w.nii.gz").unlink()
        before = (out / "sub-0_desc-moved_T1w.nii.gz").stat().st_mtime_ns
        run(manifest, out)
        assert list(outcome(out)["status"]) == ["kept", "done", "failed", "kept", "failed"]
        assert (out / "sub-0_desc-moved_T1w.nii.gz").stat().st_mtime_ns == before
        run(manifest, out, "--seed", 1)
        assert list(outcome(out)["status"])[:2] == ["done", "done"]

    def test_a_scan_replaced_by_one_of_its_size_and_time_is_moved_again(self, tmp_path, phantom):
        path, out = tmp_path / "scan.nii", tmp_path / "moved"
        (tmp_path / "m.tsv").write_text("scan_id\tparticipant_id\tpath\na\ts\tscan.nii\n")
        means = []
        for factor, status in ((1, "done"), (2, "done"), (2, "kept")):
            nib.save(nib.Nifti1Image(factor * phantom[0].numpy(), np.eye(4)), path)
            os.utime(path, (1, 1))
            assert run(tmp_path / "m.tsv", out) == 0
            assert list(outcome(out)["status"]) == [status]
            means.append(nib.load(out / "a_desc-moved.nii.gz").get_fdata().mean())
        assert means == pytest.approx([means[0], 2 * means[0], 2 * means[0]])

    def test_a_replaced_trajectory_moves_all_scans_again(self, scan, manifest, tmp_path):
        for seed in (1, 2):
            run(scan, tmp_path / "a.nii.gz", "--seed", seed)
            run(manifest, tmp_path / "moved", "--trajectory", tmp_path / "a.json")
            assert outcome(tmp_path / "moved").loc["sub-0_T1w", "status"] == "done"

    def test_half_written_files_of_a_killed_run_are_removed(self, manifest, tmp_path, left_aside):
        out = tmp_path / "moved"
        out.mkdir()
        for name in ("sub-0_desc-moved_T1w.nii.gz", "sub-1_desc-moved_T1w.json"):
            (out / left_aside(name)).write_bytes(b"half")
        run(manifest, out)
        assert not list(out.glob(".*"))

    def test_shards_share_the_scans(self, manifest, tmp_path):
        out = tmp_path / "moved"
        for shard in ("0/2", "1/2"):
            run(manifest, out, "--shard", shard)
        parts = [outcome(out, f"outcome_{n}-of-2.tsv") for n in (0, 1)]
        assert [len(part) for part in parts] == [3, 2]
        run(manifest, out)
        assert list(outcome(out)["status"]) == ["kept", "kept", "failed", "kept", "failed"]

    def test_an_engine_gives_the_same_bytes(self, manifest, tmp_path):
        run(manifest, tmp_path / "a")
        run(manifest, tmp_path / "b", "--engine", "local:1")
        compute.close()
        pair = [(tmp_path / k / f"sub-3_desc-{k}_T1w.nii.gz").read_bytes() for k in "ab"]
        assert pair[0] == pair[1]
        tables = [outcome(tmp_path / k).drop(columns="path") for k in "ab"]
        pd.testing.assert_frame_equal(*tables)

    def test_calls_that_do_not_fit(self, scan, manifest, tmp_path):
        with pytest.raises(ValueError, match="for a manifest"):
            run(scan, tmp_path / "out.nii.gz", "--shard", "0/2")
        with pytest.raises(ValueError, match="exclude each other"):
            run(manifest, tmp_path / "out", "--shard", "0/2", "--engine", "local")
