"""The run store: what a notebook saves is there whole, alike on every machine, and traceable."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from motionlib import files
from motionlib.files import runs_root
from motionlib.paper.transcription import published
from motionlib.predictions import PREDICTION_COLUMNS, load_predictions
from motionlib.study.run import MAKERS, Run, collect_provenance, headline


@pytest.fixture
def run(tmp_path) -> Run:
    return Run("02_simulation_comparison", "smoke", 20, tmp_path, quiet=True)


def curve(n=3):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot(np.arange(n))
    return figure


class TestRun:
    def test_greets_in_at_most_five_lines_without_a_path(self, tmp_path, capsys):
        Run("01_data_selection", "smoke", 20, tmp_path)
        said = capsys.readouterr().out
        assert len(said.strip().splitlines()) <= 5
        assert str(tmp_path) not in said
        assert "01_data_selection" in said

    def test_the_smallest_run_says_that_it_has_learnt_nothing(self, tmp_path, capsys):
        for profile in ("smoke", "demo"):
            Run("01_data_selection", profile, 20, tmp_path)
            told = "have learnt nothing" in capsys.readouterr().out.lower()
            assert told == (profile == "smoke")

    def test_a_notebook_that_the_study_has_not_run_says_what_it_takes(
        self, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.setattr("motionlib.study.run.repository", lambda: tmp_path)
        seconds = {"durations_s": {"01_data_selection": 425.0}}
        files.write_json(tmp_path / "results" / "demo" / "provenance.json", seconds)
        said = []
        for name in ("01_data_selection", "02_simulation_comparison", "01_data_selection"):
            Run(name, "demo", 20, tmp_path / "runs")
            said.append("Not run by the study yet: some 7 min" in capsys.readouterr().out)
            files.write_json(tmp_path / "runs" / "demo" / "stamps" / "01.json", {"parameters": {}})
        assert said == [True, False, False]

    @pytest.mark.parametrize("name", ["data", "1_data", "01-data", "01"])
    def test_a_name_that_is_no_notebook_stem_is_refused(self, name, tmp_path):
        with pytest.raises(ValueError, match="notebook's stem"):
            Run(name, "smoke", 20, tmp_path)

    @pytest.mark.parametrize("profile", ["../other", "a b", ""])
    def test_a_profile_cannot_leave_the_runs_folder(self, profile, tmp_path):
        with pytest.raises(ValueError, match="plain word"):
            Run("01_data", profile, 20, tmp_path)

    def test_importing_it_leaves_torch_alone(self):
        code = "import sys, motionlib.study.run; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_runs_root_prefers_argument_then_environment(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MOTIONLIB_RUNS", str(tmp_path / "env"))
        assert runs_root(tmp_path / "given") == tmp_path / "given"
        assert runs_root() == tmp_path / "env"


class TestLayout:
    @pytest.mark.parametrize("part", ["cohort/cohort.json", "predictions/01_data.csv"])
    def test_a_folder_of_another_version_is_refused(self, tmp_path, part):
        files.write_json(tmp_path / "smoke" / part, {})
        with pytest.raises(ValueError, match="made by another version of motionlib"):
            Run("01_data", "smoke", 20, tmp_path, quiet=True)

    def test_its_own_is_opened_again(self, run, tmp_path):
        files.write_json(run.cohort / "cohort.json", {"caption": "Heads."})
        assert Run(run.name, "smoke", 20, tmp_path, quiet=True).cohort_caption == "Heads."


class TestTables:
    def test_a_table_comes_back_as_it_was_saved(self, run):
        table = pd.DataFrame({"row": ["a", "b"], "ours": [0.5, np.nan]})
        assert run.save_table(table, "own") is table
        saved = pd.read_csv(run.folder / "tables" / "own.csv")
        pd.testing.assert_frame_equal(saved, table, check_dtype=False)

    def test_one_of_the_paper_is_made_saved_and_handed_back(self, run, tiny_predictions):
        run.save_predictions(tiny_predictions)
        table = run.table("table_2", n_boot=20)
        assert len(table) == len(published("table_2"))
        assert (run.folder / "tables" / "table_2.csv").is_file()
        with pytest.raises(ValueError, match="expected one of table_1"):
            run.table("table_9")

    @pytest.mark.parametrize("name", ["Table 2", "../table_2", "table_2.csv", ""])
    def test_a_name_that_is_no_plain_word_is_refused(self, run, name):
        with pytest.raises(ValueError, match="lower-case"):
            run.save_table(pd.DataFrame({"a": [1]}), name)

    def test_what_is_saved_stands_in_the_provenance(self, run):
        run.save_table(pd.DataFrame({"a": [1]}), "table_2")
        artefacts = collect_provenance(run.folder)["artefacts"]
        assert artefacts[run.name] == ["tables/table_2.csv"]


class TestFigures:
    def test_the_same_figure_gives_the_same_bytes(self, run):
        written = []
        for _ in range(2):
            run.save_figure(curve(), "fig_1")
            written.append(
                [(run.folder / f"figures/fig_1.{s}").read_bytes() for s in ("png", "svg")]
            )
        assert written[0] == written[1]

    def test_no_date_is_written_into_a_figure(self, run):
        run.save_figure(curve(), "fig_1")
        assert "<dc:date>" not in (run.folder / "figures/fig_1.svg").read_text()

    def test_the_alternative_text_is_kept_beside_it(self, run):
        run.save_figure(curve(), "fig_1", alt="A  rising\nline.")
        assert (run.folder / "figures/fig_1.txt").read_text() == "A rising line.\n"


class TestPredictions:
    def test_two_notebooks_join_in_their_order(self, run, tiny_predictions):
        later = Run("04_fine_tuning", "smoke", 20, run.folder.parent, quiet=True)
        half = tiny_predictions["task"] == "synthetic"
        later.save_predictions(tiny_predictions.loc[~half])
        run.save_predictions(tiny_predictions.loc[half])
        joined = load_predictions(run.folder)
        assert tuple(joined.columns) == PREDICTION_COLUMNS
        pd.testing.assert_frame_equal(joined, tiny_predictions, check_dtype=False)

    def test_saving_again_replaces_and_gives_the_same_bytes(self, run, tiny_predictions):
        run.save_predictions(tiny_predictions)
        first = (run.folder / "predictions.csv").read_bytes()
        run.save_predictions(tiny_predictions)
        assert (run.folder / "predictions.csv").read_bytes() == first

    def test_patterns_select_experiments(self, run, tiny_predictions):
        run.save_predictions(tiny_predictions)
        assert set(run.predictions("warehouse/*")["task"]) == {"mov01vs2"}
        assert set(run.predictions(task="synthetic")["task"]) == {"synthetic"}
        assert len(run.predictions("nothing/*")) == 0

    @pytest.mark.parametrize("score", [-0.1, 1.5, np.nan])
    def test_a_score_that_is_no_probability_is_refused(self, run, tiny_predictions, score):
        tiny_predictions.loc[3, "score"] = score
        with pytest.raises(ValueError, match="1 scores lie outside 0-1"):
            run.save_predictions(tiny_predictions)

    def test_a_scan_predicted_twice_is_refused(self, run, tiny_predictions):
        with pytest.raises(ValueError, match="stand twice"):
            run.save_predictions(pd.concat([tiny_predictions, tiny_predictions.tail(1)]))

    def test_a_missing_column_is_named(self, run, tiny_predictions):
        with pytest.raises(ValueError, match="lack y_pred"):
            run.save_predictions(tiny_predictions.drop(columns="y_pred"))


class TestNeed:
    @pytest.mark.parametrize(("what", "number"), [*MAKERS.items()])
    def test_what_is_missing_names_the_notebook_that_makes_it(self, run, what, number):
        with pytest.raises(FileNotFoundError, match=f"Run {number} first: make nb NB={number}"):
            run.need(what.replace("*", "1"))

    def test_a_whole_path_is_told_from_the_run_s_folder_on(self, run):
        with pytest.raises(FileNotFoundError, match=r"smoke has no cohort/manifest\.tsv yet"):
            run.need(run.cohort / "manifest.tsv")

    def test_the_profile_stands_in_the_command(self, tmp_path):
        run = Run("06_mcnemar_stats", "demo", 20, tmp_path, quiet=True)
        with pytest.raises(FileNotFoundError, match="make nb NB=04 PROFILE=demo"):
            run.need("predictions/04_fine_tuning.csv")

    def test_what_is_there_is_found_by_name_path_or_number(self, run):
        run.save_table(pd.DataFrame({"a": [1]}), "table_2")
        expected = run.folder / "tables" / "table_2.csv"
        assert run.need("table_2") == run.need("tables/table_2.csv") == expected
        assert run.need("02").name == "02_simulation_comparison.json"

    def test_the_cohort_tells_what_it_is(self, run):
        with pytest.raises(FileNotFoundError, match="NB=01"):
            _ = run.cohort_caption
        facts = {"caption": "Emulated heads, no patients.", "emulated": True}
        files.write_json(run.cohort / "cohort.json", facts)
        assert run.cohort_caption == "Emulated heads, no patients."


class TestDurations:
    def test_a_step_recorded_again_replaces_its_row(self, run):
        run.duration("train", 3.0, model="Conv5FC3", fold=0)
        run.duration("train", 4.0, model="Conv5FC3", fold=1)
        run.duration("train", 5.0, model="Conv5FC3", fold=0)
        assert sorted(run.durations()["seconds"]) == [4.0, 5.0]


class TestProvenance:
    def test_two_notebooks_and_their_seeds_are_told(self, run):
        Run("03_architecture_benchmark", "smoke", 7, run.folder.parent, quiet=True)
        whole = collect_provenance(run.folder)
        assert whole["seeds"] == {"02_simulation_comparison": 20, "03_architecture_benchmark": 7}
        assert {"versions", "git", "device", "manifest_sha256", "durations_s"} <= set(whole)

    def test_the_manifest_checksum_follows_the_file(self, run):
        assert collect_provenance(run.folder)["manifest_sha256"] is None
        (run.cohort / "manifest.tsv").write_text("scan_id\n")
        run.save_table(pd.DataFrame({"a": [1]}), "table_1")
        assert collect_provenance(run.folder)["manifest_sha256"] == run.manifest_sha256

    def test_a_published_copy_keeps_its_own(self, tmp_path):
        (tmp_path / "provenance.json").write_text('{"profile": "real"}')
        assert collect_provenance(tmp_path) == {"profile": "real"}

    def test_it_is_json_without_machine_paths(self, run):
        collect_provenance(run.folder)
        text = (run.folder / "provenance.json").read_text()
        json.loads(text)
        assert str(run.folder.parent) not in text

    def test_headline_numbers_of_all_notebooks_come_in_order(self, run):
        run.note("balanced accuracy", np.float64(0.9))
        Run("01_data_selection", "smoke", 20, run.folder.parent, quiet=True).note("scans", 12)
        assert headline(run.folder) == {"scans": 12, "balanced accuracy": 0.9}
