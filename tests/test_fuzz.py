"""Damaged and hostile files: read, or refused in one sentence; no crash, no hang, no memory."""

import gzip
import json
import os
import struct
import time
import tracemalloc
import warnings

import fuzz_readers
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scoring_set import write_model

from motionlib.cohorts import bids
from motionlib.files import read_json, read_table
from motionlib.iqms.measures import MEASURES
from motionlib.iqms.tables import measure_files
from motionlib.manifest import ManifestError, read_manifest
from motionlib.motion.trajectory import Trajectory
from motionlib.predictions import check_predictions, load_predictions
from motionlib.preprocess.images import read_array, read_image
from motionlib.scoring.model import read_rule
from motionlib.scoring.score import Journal
from motionlib.study.notebooks import read_profile
from motionlib.training.checkpoints import load_model

KINDS = fuzz_readers.kinds()
MIB = 2**20


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_read_or_refused(name, tmp_path):
    kind = KINDS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row = fuzz_readers.fuzz(kind, 60 if kind.share > 10 else 12, 7, tmp_path)
    assert row["faults"] == []
    assert row["refused"] > 0 or name in ("scan_T1w.json", "a.journal")  # which name no fault


def test_a_reader_that_fails_hangs_or_mumbles_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_readers, "LIMIT_S", 0.05)

    def reader(path):
        if len(seen) == 0:  # the whole file
            return seen.append(path)
        seen.append(path)
        if len(seen) == 2:
            raise KeyError("fault")
        if len(seen) == 3:
            while True:
                pass
        raise ValueError("two\nlines" if len(seen) == 4 else "one line")

    seen = []
    kind = fuzz_readers.Kind("a.txt", (b"whole",), fuzz_readers.bytes_damaged, reader, 1)
    row = fuzz_readers.fuzz(kind, 4, 0, tmp_path)
    assert (row["read"], row["refused"], row["fault"]) == (0, 1, 3)
    words = ("KeyError", "more than", "no sentence")
    assert all(word in line for word, line in zip(words, row["faults"], strict=True))


def test_every_kind_has_its_share():
    assert sum(kind.share for kind in KINDS.values()) == 1000


def image_bytes(shape=(12, 12, 12), **fields) -> bytearray:
    """A small image, some fields of whose header are changed."""
    image = nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), np.eye(4))
    content = bytearray(image.to_bytes())
    places = {"dim": (40, "<8h"), "vox_offset": (108, "<f"), "extension": (348, "<4B2i")}
    for name, values in fields.items():
        place, form = places[name]
        struct.pack_into(form, content, place, *values)
    return content


def peak_mib(function) -> float:
    """Memory that a call takes, whether it is refused or not."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="cannot be read as an image"):
            function()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


class TestImages:
    def test_of_a_gzip_bomb_no_more_is_unpacked_than_its_header_declares(self, tmp_path):
        path = tmp_path / "bomb.nii.gz"
        path.write_bytes(gzip.compress(bytes(image_bytes()) + bytes(64 * MIB), 1))
        assert path.stat().st_size < MIB
        assert peak_mib(lambda: read_array(path)) < 16
        with pytest.raises(ValueError, match="more voxels than its header says"):
            read_array(path)

    def test_an_extension_that_never_ends_is_not_unpacked(self, tmp_path):
        path = tmp_path / "bomb.nii.gz"
        for size in (0, -16, 2**31 - 16):  # read to the end, the same, two gigabytes
            offset = (2.0**30,)
            head = image_bytes(vox_offset=offset, extension=(1, 0, 0, 0, size, 6))
            path.write_bytes(gzip.compress(bytes(head) + bytes(32 * MIB), 1))
            assert peak_mib(lambda: read_image(path, header_only=True)) < 16

    def test_declared_voxels_that_are_not_there_fill_no_memory(self, tmp_path):
        path = tmp_path / "thin.nii.gz"
        path.write_bytes(gzip.compress(bytes(image_bytes(dim=(3, 600, 600, 600, 1, 1, 1, 1)))))
        before = fuzz_readers.peak_mib()
        with pytest.raises(ValueError, match="fewer voxels than its header says"):
            read_array(path)
        assert fuzz_readers.peak_mib() - before < 64

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    @pytest.mark.parametrize("offset", [0, 351, -1e9, 3e38, np.inf, np.nan])
    def test_voxels_that_begin_nowhere_are_not_read(self, tmp_path, name, offset):
        content = bytes(image_bytes(vox_offset=(offset,)))
        (tmp_path / name).write_bytes(gzip.compress(content) if name[-1] == "z" else content)
        with pytest.raises(ValueError, match="its voxels begin at byte"):
            read_array(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_bytes_behind_the_voxels_do_no_harm(self, tmp_path, name):
        content = bytes(image_bytes()) + bytes(1000)
        (tmp_path / name).write_bytes(gzip.compress(content) if name[-1] == "z" else content)
        assert read_array(tmp_path / name)[0].ravel()[:3].tolist() == [0, 1, 2]

    def test_another_format_takes_no_memory_for_voxels_that_are_not_there(self, tmp_path):
        content = bytearray(fuzz_readers._mgh())
        struct.pack_into(">3i", content, 4, 600, 600, 600)
        (tmp_path / "a.mgh").write_bytes(content)
        before = fuzz_readers.peak_mib()
        with pytest.raises(ValueError, match="too short for its voxels"):
            read_array(tmp_path / "a.mgh")
        assert fuzz_readers.peak_mib() - before < 64


class TestTables:
    def test_predictions_with_words_for_numbers_are_refused(self, tmp_path):
        content = fuzz_readers._predictions().replace(b"0.25", b"0.2x", 1)
        (tmp_path / "predictions.csv").write_bytes(content)
        with pytest.raises(ValueError, match="words in score; expected numbers"):
            check_predictions(load_predictions(tmp_path))

    def test_a_line_of_commas_is_refused_at_once(self, tmp_path):
        path = tmp_path / "wide.csv"
        path.write_text("," * 300_000 + "\n")
        begun = time.monotonic()
        with pytest.raises(ValueError, match="more than 10000 columns"):
            read_table(path)
        assert time.monotonic() - begun < 5

    def test_lines_may_end_as_on_an_old_macintosh(self, tmp_path):
        (tmp_path / "mac.csv").write_bytes(b"a,b\r" + b"1,2\r" * 12_000)
        assert read_table(tmp_path / "mac.csv").shape == (12_000, 2)

    @pytest.mark.parametrize("grade", ["1e300", "-1e19", "99999999999999999999"])
    def test_a_grade_beyond_all_integers_is_a_fault_of_its_row(self, tmp_path, grade):
        path = tmp_path / "m.tsv"
        names = ("scan_id", "participant_id", "source_participant_id", "path")
        table = pd.DataFrame({name: ["a", "b"] for name in names} | {"cohort": "bids"})
        table.assign(motion_grade=["0", grade]).to_csv(path, sep="\t", index=False)
        with pytest.raises(ManifestError) as caught:
            read_manifest(path)
        faults = caught.value.faults
        assert 1 in faults.loc[faults["column"] == "motion_grade", "row"].tolist()


class TestJson:
    DEEP = "[" * 100_000

    def test_a_file_too_deep_to_read_is_refused_by_name(self, tmp_path):
        (tmp_path / "deep.json").write_text(self.DEEP)
        with pytest.raises(ValueError, match=r"deep\.json is no JSON"):
            read_json(tmp_path / "deep.json")

    def test_a_sidecar_that_is_deep_or_a_pipe_is_noted(self, tmp_path):
        (tmp_path / "deep_T1w.json").write_text(self.DEEP)
        os.mkfifo(tmp_path / "pipe_T1w.json")
        faults = []
        for name in ("deep", "pipe"):
            assert bids._read_sidecar(tmp_path / f"{name}_T1w.json", faults) == {}
        assert "recursion" in faults[0]
        assert "no regular file" in faults[1]

    def test_a_journal_gives_back_only_what_was_written(self, tmp_path):
        entry = {"fault": "", "note": "", "air": None, "logit": 1.25}
        journal = Journal(tmp_path / "j")
        journal.add({"a": entry, "b": entry})
        lines = journal.path.read_text().splitlines()
        journal.path.write_text("\n".join([lines[0].replace("1.25", "1.75"), lines[1], self.DEEP]))
        assert Journal(journal.path).entries == {"b": entry}

    def test_a_file_that_is_no_cache_of_measures_is_not_written_over(self, tmp_path):
        for content in ([1], {"k": {"MEAN": 1}}, {"k": 1}, {"k": dict.fromkeys(MEASURES, 1.0)}):
            (tmp_path / "c.json").write_text(json.dumps(content))
            with pytest.raises(ValueError, match=r"c\.json is no cache of measures"):
                measure_files([], cache=tmp_path / "c.json")

    @pytest.mark.parametrize("values", [None, [], 5, {"times": {}}, "times"])
    def test_what_is_no_trajectory_is_told(self, values):
        if isinstance(values, dict):
            values |= {"translation_mm": [[0, 0, 0]], "rotation_deg": [[0, 0, 0]]}
        with pytest.raises(ValueError, match=r"The trajectory (is none|lacks)"):
            Trajectory.from_dict(values)


class TestModels:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("shape", 5),
            ("slab_mm", "wide"),
            ("slab_mm", float("inf")),
            ("field_mm", [[1], 2, 3]),
            ("field_mm", [1e308 * 10] * 3),
            ("calibration", [1]),
        ],
    )
    def test_a_value_of_another_kind_is_told(self, tmp_path, name, value):
        folder = write_model(tmp_path / "m")
        facts = read_json(folder / "model.json") | {name: value}
        (folder / "model.json").write_text(json.dumps(facts))
        with pytest.raises(ValueError, match="m has a value of a wrong kind"):
            read_rule(folder)

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("n_classes", 2_000_000_000, "not those of"),  # ten terabytes
            ("options", {"hidden": [2_000_000_000, 50]}, "above 4096"),
            ("options", {"hidden": [4_000, 50]}, "not those of"),
            ("n_classes", -1, "describes no network"),
            ("n_classes", None, "does not take these options"),
            ("options", [1], "describes no network"),
            ("network", ["Conv5FC3"], "describes no network"),
        ],
    )
    def test_a_description_takes_no_memory_before_it_fits(self, tmp_path, name, value, said):
        folder = write_model(tmp_path / "m")
        facts = read_json(folder / "model.json") | {name: value}
        (folder / "model.json").write_text(json.dumps(facts))
        with pytest.raises(ValueError, match=said):
            load_model(folder)


class TestProfiles:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("a: &a [1]\nb: [*a, *a]\n", "an alias"),
            ("all: {seed: !!bool x}\n", "not valid YAML"),
            ("all: {seed: !!timestamp x}\n", "not valid YAML"),
            ("all: " + "[" * 50_000, "more brackets"),
            ("all: {1: 2, seed: 3}\n", "expected NAME: VALUE lines"),
            ("needs: 5\n", "expected a list"),
            ("all: {x: !!python/object/apply:os.getcwd []}\n", "not valid YAML"),
        ],
    )
    def test_what_is_no_plain_profile_is_refused(self, tmp_path, text, said):
        (tmp_path / "p.yml").write_text(text)
        with pytest.raises(ValueError, match=said):
            read_profile(tmp_path / "p.yml", ["01_data"])
