"""``motionlib score``: one row a scan whatever it is, the same after a kill, and a page to read."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from scoring_set import HEAD_MM, Page, head, write_broken, write_heads, write_model

from motionlib.cli import main
from motionlib.preprocess.grid import Grid, resample_to_grid
from motionlib.preprocess.images import read_array, save_volume, zscore
from motionlib.preprocess.registration import load_target
from motionlib.scoring import score
from motionlib.scoring.check import check_scan
from motionlib.scoring.model import model_input, read_rule
from motionlib.scoring.reports import SHOWN, middle_slices, picture_uri
from motionlib.scoring.score import COLUMNS, Journal, examine, file_key, score_scans


def run(*words) -> int:
    """Exit status of the command line."""
    return main([str(word) for word in words])


def table(path) -> pd.DataFrame:
    """Scores by scan, every cell as text."""
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).set_index("scan_id")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Twelve heads and eight broken files in one folder, and a word of each reason."""
    folder = tmp_path_factory.mktemp("mixed")
    write_heads(folder, 12)
    return folder, write_broken(folder)


@pytest.fixture(scope="module")
def scored(mixed, model, tmp_path_factory):
    """The mixed folder scored once: status and table."""
    out = tmp_path_factory.mktemp("scored") / "scores.tsv"
    return run("score", mixed[0], "--model", model, "--out", out), out


class TestDryRun:
    """``--dry-run`` counts what a call would do, and writes nothing."""

    def told(self, capsys, *words) -> dict:
        capsys.readouterr()
        assert run("score", *words, "--dry-run", "--json") == 0
        return json.loads(capsys.readouterr().out)

    def test_it_counts_what_would_be_read_and_what_could_not(self, model, tmp_path, capsys):
        path = write_heads(tmp_path / "in", 1)[0]
        rows = [("a", path), ("b", path.with_name("gone.nii.gz")), ("a", path), ("", path)]
        lines = ["scan_id\tparticipant_id\tpath", *(f"{n}\tsub-1\t{p}" for n, p in rows)]
        manifest = tmp_path / "m.tsv"
        manifest.write_text("\n".join(lines) + "\n")
        path.write_bytes(b"no image, which nobody looks at")
        found = self.told(capsys, manifest, "--model", model, "--out", tmp_path / "out" / "s.tsv")
        counts = {"to read": 1, "scored": 0, "without score": 0, "not there": 1, "refused": 2}
        assert counts.items() <= found.items()
        assert found["scans"] == 4
        assert not (tmp_path / "out").exists()

    def test_it_knows_what_an_earlier_call_has_finished(self, scored, mixed, model, capsys):
        before = {path: path.stat().st_mtime_ns for path in scored[1].parent.iterdir()}
        found = self.told(capsys, mixed[0], "--model", model, "--out", scored[1])
        # an empty file says nothing that a journal could keep
        counts = {"to read": 0, "scored": 12, "without score": 7, "not there": 1, "refused": 0}
        assert counts.items() <= found.items()
        assert {path: path.stat().st_mtime_ns for path in scored[1].parent.iterdir()} == before

    def test_another_model_would_read_all_again(self, scored, mixed, model, tmp_path, capsys):
        other = shutil.copytree(model, tmp_path / "other")
        facts = json.loads((other / "model.json").read_text())
        (other / "model.json").write_text(json.dumps(facts | {"threshold": 0.9}))
        found = self.told(capsys, mixed[0], "--model", other, "--out", scored[1])
        assert (found["to read"], found["scored"], found["not there"]) == (19, 0, 1)


class TestTable:
    def test_a_broken_file_is_a_row_with_its_reason_and_the_status_is_one(self, scored, mixed):
        status, out = scored
        found = table(out)
        assert status == 1
        assert len(found) == 20
        assert (found["abstained"] == "true").sum() == 8
        for name, word in mixed[1].items():
            row = found.loc[name]
            assert (row["p_motion"], row["decision"]) == ("", "review"), name
            assert word in row["reason"], name
            assert row["reason"], name

    def test_columns_come_in_the_order_of_the_interface(self, scored):
        header = scored[1].read_text().splitlines()[0]
        names = "scan_id p_motion grade decision abstained reason model threshold air_spread"
        assert header == names.replace(" ", "\t")
        assert header.split("\t") == list(COLUMNS)

    def test_a_score_is_the_networks_probability_for_the_training_input(self, scored, model):
        import torch

        from motionlib.training.checkpoints import load_model

        array, affine = head(2)
        path = scored[1].parent / "again.nii.gz"
        save_volume(array, affine, path, dtype="int16")
        x = zscore(model_input(*read_array(path), 16.0).astype(np.float32))[None, None]
        with torch.inference_mode():
            p = load_model(model).network(torch.from_numpy(x)).softmax(1)[0, 1].item()
        assert float(table(scored[1]).loc["scan-02_T1w", "p_motion"]) == pytest.approx(p, abs=2e-6)

    def test_the_count_of_scans_without_a_score_is_told(
        self, scored, mixed, model, tmp_path, capsys
    ):
        shutil.copy(f"{scored[1]}.journal", tmp_path / "s.tsv.journal")
        run("score", mixed[0], "--model", model, "--out", tmp_path / "s.tsv", "--no-report")
        assert "8 of 20 scans have no score" in capsys.readouterr().err
        assert not (tmp_path / "s.html").exists()

    def test_the_outcome_is_there_as_json_and_in_a_log(self, mixed, model, tmp_path, capsys):
        folder, reasons = mixed
        scans = [folder / "scan-00_T1w.nii.gz", folder / "empty_T1w.nii.gz"]
        words = ("score", *scans, "--model", model, "--out", tmp_path / "s.tsv", "--json")
        assert run(*words) == 1
        outcome = json.loads(capsys.readouterr().out)
        assert outcome["scans"] == sum(outcome.get(k, 0) for k in ("keep", "review", "exclude")) + 1
        assert reasons["empty_T1w"] in outcome["without_score"]["empty_T1w"]
        assert outcome["report"] == str(tmp_path / "s.html")
        log = (tmp_path / "s.log").read_text()
        assert "1 of 2 scans scored" in log
        assert "empty_T1w: " in log

    def test_all_good_scans_give_status_zero(self, mixed, model, tmp_path):
        good = [mixed[0] / f"scan-0{n}_T1w.nii.gz" for n in range(2)]
        assert run("score", *good, "--model", model, "--out", tmp_path / "s.tsv") == 0

    def test_the_reason_names_no_file(self, model, tmp_path):
        path = tmp_path / "JaneDoe_T1w.nii.gz"
        path.write_text("nothing")
        manifest = tmp_path / "m.tsv"
        manifest.write_text(f"scan_id\tpath\nscan-1\t{path.name}\nscan-2\tgone/JaneDoe.nii.gz\n")
        assert run("score", manifest, "--model", model, "--out", tmp_path / "s.tsv") == 1
        assert "Jane" not in (tmp_path / "s.tsv").read_text()
        assert "Jane" not in (tmp_path / "s.html").read_text()
        assert table(tmp_path / "s.tsv").loc["scan-2", "reason"].startswith("the file is not there")

    def test_rows_that_no_table_can_hold_are_told_and_the_rest_goes_on(
        self, mixed, model, tmp_path, capsys
    ):
        good, manifest = sorted(mixed[0].glob("scan-0*"))[:2], tmp_path / "m.tsv"
        rows = [("a", good[0]), ("a", good[1]), ("", good[1]), ("b", ""), ("c", good[1])]
        lines = ["scan_id\tpath", *("\t".join(map(str, row)) for row in rows)]
        manifest.write_text("\n".join(lines) + "\n")
        expected = ["", "same id", "no scan_id or no path", "no scan_id or no path", ""]
        for command, more in (("score", ["--model", model, "--no-report"]), ("iqms", [])):
            out = tmp_path / f"{command}.tsv"
            assert run(command, manifest, "--out", out, *more) == 1
            found = pd.read_csv(out, sep="\t", dtype=str, keep_default_na=False)
            assert list(found["scan_id"]) == ["a", "a", "row 2", "b", "c"]
            for reason, words in zip(found["reason"], expected, strict=True):
                assert words in reason
                assert bool(words) == bool(reason)


class TestRegisteredScans:
    @pytest.fixture
    def registered(self, tmp_path):
        """Two heads, one on the grid of FSL's MNI152 at 2 mm, one beside it."""
        target = load_target("whole-head")
        for name, shift in (("on", 0), ("beside", 5)):
            affine = np.diag([2.0, 2, 2, 1])
            affine[:3, 3] = (-90, -126 - shift, -72)
            grid = Grid((91, 109, 91), tuple(map(tuple, affine.tolist())))
            array = resample_to_grid(target.array, target.affine, grid)
            array = np.abs(array + np.random.default_rng(0).normal(0, 0.01, array.shape))
            save_volume(array * 900, affine, tmp_path / f"{name}_T1w.nii.gz", dtype="int16")
        return [tmp_path / "beside_T1w.nii.gz", tmp_path / "on_T1w.nii.gz"]

    def test_they_are_abstained_with_the_reason(self, registered, model, tmp_path):
        out = tmp_path / "s.tsv"
        assert run("score", *registered, "--model", model, "--out", out, "--no-report") == 1
        assert list(table(out)["abstained"]) == ["false", "true"]
        assert "grid of the MNI152 template" in table(out).loc["on_T1w", "reason"]

    def test_a_model_that_has_seen_such_heads_scores_them(self, registered, tmp_path):
        own, out = write_model(tmp_path / "own", registered_seen=True), tmp_path / "s.tsv"
        assert run("score", *registered, "--model", own, "--out", out, "--no-report") == 0


class TestFolders:
    def test_a_bids_folder_gives_its_t1w_images_and_not_its_derivatives(self, model, tmp_path):
        for place in ("sub-1/anat", "sub-2/ses-1/anat", "derivatives/x/sub-1/anat"):
            write_heads(tmp_path / "bids" / place, 1)
        names = ("sub-1_T1w", "sub-2_ses-1_T1w", "sub-1_T1w")
        paths = sorted((tmp_path / "bids").rglob("*.nii.gz"))
        for path in paths:
            parts = [p for p in path.parts if p.startswith(("sub-", "ses-"))]
            path.rename(path.with_name("_".join(parts) + "_T1w.nii.gz"))
        assert run("score", tmp_path / "bids", "--model", model, "--out", tmp_path / "s.tsv") == 0
        assert set(table(tmp_path / "s.tsv").index) == set(names)

    def test_a_caps_folder_gives_the_cropped_images(self, model, tmp_path):
        from motionlib.preprocess.caps import caps_names

        names = caps_names("sub-1", "ses-M000")
        array, affine = head(0)
        for name in (names.cropped, names.whole):
            save_volume(array, affine, tmp_path / "caps" / name)
        assert run("score", tmp_path / "caps", "--model", model, "--out", tmp_path / "s.tsv") == 0
        assert list(table(tmp_path / "s.tsv").index) == ["sub-1_ses-M000_T1w"]

    def test_one_name_in_several_folders_gets_the_folder_into_its_id(self, model, tmp_path):
        for name in ("p1", "p2"):
            write_heads(tmp_path / "in" / name, 1)
        assert run("score", tmp_path / "in", "--model", model, "--out", tmp_path / "s.tsv") == 0
        assert list(table(tmp_path / "s.tsv").index) == ["p1_scan-00_T1w", "p2_scan-00_T1w"]

    def test_a_name_that_is_no_utf_8_is_one_row_of_every_table(self, model, tmp_path):
        write_heads(tmp_path / "in", 2)
        first = min((tmp_path / "in").glob("*.nii.gz"))
        os.rename(first, os.fsencode(tmp_path / "in") + b"/bad\xff_T1w.nii.gz")
        assert run("score", tmp_path / "in", "--model", model, "--out", tmp_path / "s.tsv") == 0
        assert len(table(tmp_path / "s.tsv")) == 2
        assert "bad?_T1w" in (tmp_path / "s.html").read_text(encoding="utf-8")
        assert run("iqms", tmp_path / "in", "--out", tmp_path / "q.tsv") == 0
        assert list(table(tmp_path / "q.tsv").index) == ["bad?_T1w", "scan-01_T1w"]


class TestResume:
    def test_a_second_call_reads_nothing_and_writes_the_same_bytes(
        self, scored, mixed, model, tmp_path, monkeypatch
    ):
        out = tmp_path / "s.tsv"
        shutil.copy(f"{scored[1]}.journal", f"{out}.journal")
        words = ("score", mixed[0], "--model", model, "--out", out, "--no-report")
        monkeypatch.setattr(score, "read_array", lambda path: pytest.fail(f"read {path}"))
        assert run(*words) == 1
        assert out.read_bytes() == scored[1].read_bytes()

    def test_a_killed_run_goes_on_and_gives_the_same_bytes(self, mixed, model, tmp_path):
        code = """
import os, sys
from motionlib.scoring import score
from motionlib.cli import main
score.CHUNK = 2
whole, done = score.examine, []
def examine(item):
    if len(done) == 5:
        os.kill(os.getpid(), 9)
    done.append(item)
    return whole(item)
score.examine = examine
main(sys.argv[1:])
"""
        out = tmp_path / "s.tsv"
        scans = sorted(map(str, mixed[0].iterdir()))[3:12]  # broken ones and heads
        words = ["score", *scans, "--model", str(model), "--out", str(out), "--no-report"]
        killed = subprocess.run([sys.executable, "-c", code, *words], capture_output=True)
        assert killed.returncode == -9
        assert not out.exists()
        assert len(Journal(f"{out}.journal").entries) == 4
        with open(f"{out}.journal", "a") as stream:
            stream.write('{"key": "torn')
        assert run(*words) == 1
        other = tmp_path / "other.tsv"
        assert run(*words[:-2], str(other), "--no-report") == 1
        assert out.read_bytes() == other.read_bytes()

    def test_a_changed_file_and_a_changed_model_are_scored_again(self, model, tmp_path):
        path = write_heads(tmp_path, 1)[0]
        rule = read_rule(model)
        before = file_key(path, rule.key)
        save_volume(*head(5), path)
        assert file_key(path, rule.key) != before
        other = write_model(tmp_path / "other", threshold=0.4)
        assert read_rule(other).key != rule.key

    def test_a_scan_replaced_by_one_of_its_size_and_time_is_scored_again(self, model, tmp_path):
        path, out = tmp_path / "scan.nii", tmp_path / "s.tsv"
        scores = []
        for moved in (False, True):
            save_volume(*head(3, moved=moved), path)
            os.utime(path, (1, 1))
            assert run("score", path, "--model", model, "--out", out, "--no-report") == 0
            scores.append(table(out).loc["scan", "p_motion"])
        assert scores[0] != scores[1]

    def test_a_digit_does_not_depend_on_the_engine_or_its_neighbours(self, scored, model, tmp_path):
        paths = write_heads(tmp_path, 3)[::-1]
        rows = score_scans(
            [(p.name[:-7], str(p)) for p in paths], model, tmp_path / "s.tsv", engine="local:1"
        )
        before = table(scored[1])["p_motion"]
        assert [f"{row['p_motion']:.6f}" for row in rows] == [before[r["scan_id"]] for r in rows]


class TestChecks:
    def check(self, array, affine, **options):
        return check_scan(array, affine, **{"spacing_mm": 4.0, "knows_stripped": True} | options)

    def test_a_whole_head_passes(self):
        assert self.check(*head(0)) == check_scan(*head(0), spacing_mm=4.0, knows_stripped=False)
        assert self.check(*head(0)).fault == ""

    @pytest.mark.parametrize(
        ("axis", "part", "word"),
        [
            (0, slice(0, 20), "right to left"),
            (1, slice(28, None), "front to back"),
            (2, slice(28, None), "top to bottom"),
            (2, slice(0, 42), "top"),
        ],
    )
    def test_a_cut_head_is_told_with_its_side(self, axis, part, word):
        array, affine = head(0)
        index = [slice(None)] * 3
        index[axis] = part
        assert word in self.check(array[tuple(index)], affine).fault

    def test_exchanged_contrast_is_no_t1w(self):
        array, affine = head(0)
        tissue = array > 200
        inverted = np.where(tissue, 1100 - array, array * 0.3)
        assert "contrast" in self.check(inverted, affine).fault

    def test_a_map_of_tissues_is_no_t1w(self):
        array, affine = head(0)
        assert "distinct" in self.check(np.digitize(array, [100, 400, 700]) * 1.0, affine).fault

    def test_coarse_voxels_are_refused(self):
        array, affine = head(0)
        assert "too coarse" in self.check(array, affine, spacing_mm=1.5).fault

    def test_wrong_voxel_sizes_are_told(self):
        array, affine = head(0)
        assert "voxel size" in self.check(array, affine @ np.diag([0.5, 0.5, 0.5, 1])).fault

    def test_a_stripped_brain_is_a_remark_unless_the_model_knows_such(self):
        from motionlib.preprocess.registration import load_target

        brain = load_target("stripped")
        known = self.check(brain.array, brain.affine)
        unknown = self.check(brain.array, brain.affine, knows_stripped=False)
        assert (known.fault, unknown.fault) == ("", "")
        assert "skull is removed" in unknown.note
        assert "skull" not in known.note

    def test_none_of_the_real_heads_is_refused(self, data_root):
        paths = sorted(data_root.glob("*/sub-*/anat/*_T1w.nii.gz"))[::12]
        assert len(paths) >= 12
        said = [self.check(*read_array(path)).fault for path in paths]
        assert said == [""] * len(paths)


class TestInput:
    def test_it_is_to_the_bit_what_the_study_prepares(self, tmp_path):
        from motionlib.experiments.cohort import centre_scan
        from motionlib.training.data import VolumeStore

        array, affine = head(3)
        path = save_volume(array, affine, tmp_path / "head.nii.gz")
        kept = np.load(
            centre_scan({"path": str(path), "out": str(tmp_path / "x.npy"), "spacing": HEAD_MM})
        )
        mine = model_input(array, affine, HEAD_MM)
        assert np.array_equal(mine, kept)
        store = VolumeStore(pd.DataFrame({"scan_id": ["a"], "path": [str(tmp_path / "x.npy")]}))
        assert np.array_equal(zscore(mine.astype(np.float32)), store.batch([0])[0, 0].numpy())

    @pytest.mark.parametrize(
        "shift",
        [lambda a: a - 1024, lambda a: a + 1000, lambda a: (a - a.mean()) / a.std()],
        ids=["-1024", "+1000", "z-scored"],
    )
    def test_shifted_intensities_are_put_to_rights(self, tmp_path, shift):
        array, affine = head(3)
        rule = read_rule(write_model(tmp_path / "model", spacing_mm=HEAD_MM))
        inputs = []
        for name, values in (("as-it-is", array), ("shifted", shift(array))):
            path = save_volume(values, affine, tmp_path / f"{name}.nii.gz")
            volume, check, air = score.prepare(str(path), rule)
            assert check.fault == ""
            assert air > 0
            inputs.append(volume.astype(np.float32))
        assert np.abs(inputs[0] - inputs[1]).mean() < 0.01

    def test_noise_for_air_is_told_as_what_it_is(self, tmp_path):
        array, affine = head(3)
        rng = np.random.default_rng(0)
        uniform = np.where(array > 100, array / array.max(), rng.random(array.shape)) - 0.5
        path = save_volume(uniform, affine, tmp_path / "uniform.nii.gz")
        rule = read_rule(write_model(tmp_path / "model", spacing_mm=HEAD_MM))
        assert "MP2RAGE" in score.prepare(str(path), rule)[1].fault


class TestDecisions:
    def rule(self, tmp_path, **changes):
        return read_rule(write_model(tmp_path / "model", **changes))

    def test_calibration_threshold_and_doubt_decide(self, tmp_path):
        changes = {"threshold": 0.6, "review": [0.5, 0.6], "grade_thresholds": [0.3, 0.8]}
        rule = self.rule(tmp_path, calibration={"temperature": 2.0, "bias": 1.0}, **changes)
        assert rule.probability(-2.0) == 0.5
        assert rule.probability(-1e6) == 0.0
        assert [rule.decision(p) for p in (0.49, 0.5, 0.6, 0.61, None)] == [
            "keep", "review", "review", "exclude", "review",
        ]  # fmt: skip
        assert [rule.grade(p) for p in (0.29, 0.3, 0.8)] == [0, 1, 2]

    def test_a_model_without_limits_gives_no_grade(self, tmp_path):
        assert self.rule(tmp_path).grade(0.9) is None

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"threshold": 2}, "threshold of the model"),
            ({"voxel_mm": 8.0}, "contradict"),
            ({"review": [0.9, 0.1]}, "low <= high"),
            ({"calibration": {"temperature": 0}}, "temperature of the model"),
        ],
    )
    def test_a_description_that_cannot_be_is_one_sentence(self, tmp_path, changes, said, capsys):
        model = write_model(tmp_path / "model", **changes)
        paths = write_heads(tmp_path, 1)
        assert run("score", *paths, "--model", model, "--out", tmp_path / "s.tsv") == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


class TestWrongCalls:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--out", "s.csv"), "does not end in .tsv"),
            (("--out", "s.tsv", "--engine", "magic"), "not known"),
            (("--out", "s.tsv", "--batch-size", "0"), "batch size"),
            (("--out", "s.tsv", "--report", "r.html", "--no-report"), "exclude each other"),
            (("--out", "s.tsv", "--device", "cuda"), "no GPU"),
        ],
    )
    def test_they_are_told_before_any_scan_is_read(
        self, mixed, model, tmp_path, monkeypatch, capsys, words, said
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        assert run("score", mixed[0], "--model", model, *words) == 2
        assert said in capsys.readouterr().err
        assert not Path("s.tsv").exists()

    def test_a_pickle_instead_of_safetensors_is_refused(self, model, tmp_path, capsys):
        import pickle

        folder = Path(shutil.copytree(model, tmp_path / "model"))
        (folder / "weights.safetensors").write_bytes(pickle.dumps({"a": 1}))
        paths = write_heads(tmp_path, 1)
        assert run("score", *paths, "--model", folder, "--out", tmp_path / "s.tsv") == 2
        assert "pickles are not read" in capsys.readouterr().err

    def test_no_shipped_model_is_one_sentence(self, monkeypatch, tmp_path, capsys):
        monkeypatch.setattr("motionlib.scoring.model.FOLDER", "no-such-folder")
        paths = write_heads(tmp_path, 1)
        assert run("score", *paths, "--out", tmp_path / "s.tsv") == 2
        assert "no shipped model" in capsys.readouterr().err


class TestReport:
    def test_it_loads_nothing_and_reads_aloud(self, scored, mixed):
        text = scored[1].with_suffix(".html").read_text()
        page = Page(text)
        assert all(one.startswith("data:") for one in page.loads)
        assert len(page.images) == 2 * SHOWN
        assert all(image["alt"].startswith("Three slices of scan-") for image in page.images)
        assert page.tables == page.captions == 2
        assert all("scope" in cell for cell in page.heads)
        assert page.headings == [1, 2, 2, 2, 2, 2]
        assert str(mixed[0]) not in text
        assert 'lang="en' in text

    def test_it_shows_the_card_and_every_reason(self, scored, mixed):
        text = scored[1].with_suffix(".html").read_text()
        assert "probabilities not calibrated. Trained on: nothing: fresh weights." in text
        assert "Read its card, CARD.md, before trusting it." in text
        for name in mixed[1]:
            assert name in text

    def test_a_picture_shows_the_head_in_proportion(self):
        array, affine = head(0)
        tall = middle_slices(array, affine)
        squeezed = middle_slices(array[:, :, ::2], affine @ np.diag([1, 1, 2, 1]))
        assert abs(tall.shape[0] - squeezed.shape[0]) <= 1
        assert tall.max() == 255

    def test_a_picture_is_those_slices(self, tmp_path):
        path = save_volume(*head(0), tmp_path / "head.nii.gz")
        kind, _, code = picture_uri(path).partition(",")
        assert kind == "data:image/png;base64"
        shown = imread(io.BytesIO(base64.b64decode(code)), format="png")
        assert np.allclose(shown, middle_slices(*read_array(path)) / 255, atol=1e-6)


def test_examine_takes_and_gives_plain_values(mixed, model):
    result = examine((str(mixed[0] / "scan-00_T1w.nii.gz"), str(model), "k", "cpu"))
    assert set(result) == {"fault", "note", "air", "logit"}
    assert isinstance(result["logit"], float)
