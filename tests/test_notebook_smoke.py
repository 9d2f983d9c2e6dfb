"""The whole study at its smallest: run once as a user would, then read what it has written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest

from motionlib.files import repository
from motionlib.metrics import classification_metrics
from motionlib.paper.transcription import published
from motionlib.predictions import PREDICTION_COLUMNS, load_predictions
from motionlib.study.notebooks import notebooks_folder, read_study
from motionlib.study.runner import kernel_environment

pytestmark = [pytest.mark.notebook, pytest.mark.timeout(1800)]
TABLES = (
    *("table_1", "table_2", "table_3", "table_4", "table_a1", "table_a2", "table_a3", "table_a4"),
    *("timing", "agreement", "mcnemar", "scoreboard", "paper_audit"),
)
PUBLISHED = ("table_1", "table_2", "table_3", "table_4", "table_a1", "table_a2", "table_a3")
RATED = ("table_sites", "table_transfer", "table_thresholds", "table_mr_art", "table_raters")
RATED += ("table_people", "table_directions", "table_votes", "table_real_motion")
FIGURES = ("fig_1", "fig_2", "fig_3", "fig_a1", "fig_a2")
METHODS = ("annotators", "fine_tuned", "research_only", "from_scratch")
METHODS += ("forest_research", "forest_clinical")


COMMAND = [sys.executable, "-m", "motionlib.cli", "study", "--profile", "smoke"]
CUT = Path(__file__).parent / "cut_network"  # the study asks no other computer
HOW = {
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "text": True,
    "cwd": repository(),
    "env": {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")},
}


def study(runs, *more) -> subprocess.CompletedProcess:
    """Call the command line in a process of its own."""
    paths = filter(None, [str(CUT), os.environ.get("PYTHONPATH")])
    cut = {"PYTHONPATH": os.pathsep.join(paths), "NETWORK_ASKED": str(runs / "asked")}
    how = HOW | {"env": HOW["env"] | cut}
    return subprocess.run([*COMMAND, "--runs", str(runs), *more], check=False, **how)


@pytest.fixture(scope="session")
def first(tmp_path_factory):
    """The study's first call, its folder, and what it said."""
    runs = tmp_path_factory.mktemp("smoke_runs")
    done = study(runs)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return runs, done


@pytest.fixture(scope="session")
def folder(first):
    """Folder of the run."""
    return first[0] / "smoke"


class TestTables:
    @pytest.mark.parametrize("name", [*TABLES, *RATED])
    def test_it_is_written_with_rows(self, folder, name):
        assert len(pd.read_csv(folder / "tables" / f"{name}.csv")) > 0

    @pytest.mark.parametrize("name", TABLES)
    def test_it_is_typeset_too(self, folder, name):
        assert "<table" in (folder / "tables" / f"{name}.html").read_text()
        assert r"\toprule" in (folder / "tables" / f"{name}.tex").read_text()

    @pytest.mark.parametrize("name", PUBLISHED)
    def test_no_row_of_the_paper_is_left_out(self, folder, name):
        assert len(pd.read_csv(folder / "tables" / f"{name}.csv")) >= len(published(name))

    @pytest.mark.parametrize("name", ["table_2", "table_3", "table_4"])
    def test_measures_are_fractions(self, folder, name):
        table = pd.read_csv(folder / "tables" / f"{name}.csv")
        measures = ("balanced_accuracy", "specificity", "sensitivity", "auc")
        ends = ("_sd", "_difference")
        columns = [c for c in table if c.startswith(measures) and not c.endswith(ends)
                   and "difference" not in c]  # fmt: skip
        values = table[columns].apply(pd.to_numeric, errors="coerce").stack().dropna()
        assert len(values) > 0
        assert values.between(0, 1).all()


class TestFigures:
    @pytest.mark.parametrize("name", FIGURES)
    def test_it_is_there_as_picture_and_drawing_with_a_text(self, folder, name):
        for suffix in (".png", ".svg"):
            assert (folder / "figures" / name).with_suffix(suffix).stat().st_size > 1000
        text = (folder / "figures" / name).with_suffix(".txt")
        assert text.is_file()
        assert len(text.read_text().split()) >= 5


class TestPredictions:
    @pytest.fixture(scope="class")
    def rows(self, folder):
        return load_predictions(folder)

    def test_columns_and_scores_are_as_agreed(self, rows):
        assert tuple(rows.columns) == PREDICTION_COLUMNS
        assert rows["score"].between(0, 1).all()
        assert set(rows["y_true"]) == {0, 1}

    def test_every_kind_of_experiment_is_there(self, rows):
        kinds = set(rows["experiment"].str.partition("/")[0])
        assert {"pretrain", "control", "warehouse", "ratings"} <= kinds

    @pytest.mark.parametrize("method", METHODS)
    def test_both_tasks_are_predicted_by_each_method(self, rows, method):
        found = rows.loc[rows["experiment"] == f"warehouse/{method}", "task"]
        assert {"mov01vs2", "mov0vs1"} <= set(found)

    def test_models_of_one_task_meet_the_same_scans(self, rows):
        chosen = rows[rows["experiment"].isin([f"warehouse/{m}" for m in METHODS])]
        for _, task in chosen[chosen["task"] == "mov01vs2"].groupby("task"):
            sets = {frozenset(group["scan_id"]) for _, group in task.groupby(["experiment"])}
            assert len(sets) == 1

    def test_the_raters_agree_with_their_consensus_more_often_than_not(self, rows):
        raters = rows[(rows["experiment"] == "warehouse/annotators") & (rows["task"] == "mov01vs2")]
        measured = classification_metrics(raters["y_true"], raters["score"])
        assert measured["balanced_accuracy"] > 0.5


class TestRun:
    def test_the_report_and_the_provenance_are_there(self, folder):
        assert (folder / "report" / "index.html").stat().st_size > 10_000
        assert (folder / "provenance.json").is_file()

    def test_every_page_says_that_its_networks_have_learnt_nothing(self, folder):
        pages = {path.stem: path.read_text() for path in (folder / "report").glob("*.html")}
        assert len(pages) == 8
        assert {
            n for n, text in pages.items() if "have learnt nothing" not in text.lower()
        } == set()

    def test_no_output_of_a_notebook_is_an_error_or_a_warning(self, folder):
        import nbformat

        noisy = []
        for path in sorted((folder / "notebooks").glob("*.ipynb")):
            for cell in nbformat.read(path, as_version=4).cells:
                for output in cell.get("outputs", []):
                    said = output.get("text", "") if output.output_type == "stream" else ""
                    if output.output_type == "error" or "Warning" in said:
                        noisy.append((path.stem, cell.id, said[:200]))
        assert noisy == []

    def test_every_figure_that_a_notebook_makes_is_seen_in_it(self, folder):
        unseen, seen = [], 0
        for path in sorted((folder / "notebooks").glob("*.ipynb")):
            for cell in json.loads(path.read_text())["cells"]:
                made = "".join(cell["source"]).count("run.save_figure(")
                if made and cell["cell_type"] == "code":
                    shown = sum("image/png" in out.get("data", {}) for out in cell["outputs"])
                    seen += shown
                    unseen += [(path.stem, cell["id"])] * (shown < made)
        assert unseen == []
        assert seen >= len(FIGURES)

    def test_it_asks_no_other_computer(self, first):
        assert not (first[0] / "asked").exists()

    def test_no_text_of_the_run_names_a_folder_or_a_user_of_this_computer(self, folder):
        packed = (".npy", ".gz", ".png", ".safetensors")
        named, seen = [], 0
        for path in sorted(folder.rglob("*")):
            # Jupyter's own files for the run, which name the interpreter, are no result
            if path.is_file() and path.suffix not in packed and ".jupyter" not in path.parts:
                text, seen = path.read_text("utf-8", "replace"), seen + 1
                places = (str(folder.parent), str(repository()), f"{Path.home()}{os.sep}")
                named += [path.relative_to(folder) for place in places if place in text]
        assert named == []
        assert seen > 300

    def test_only_provenance_and_the_log_of_a_notebook_hold_a_date(self, folder):
        day = re.compile(r"(?<![\d-])(?:19|20)\d\d-[01]\d-[0-3]\d(?!\d)")
        kinds = (".csv", ".tsv", ".json", ".html", ".txt", ".tex", ".svg")
        dated = {
            path.relative_to(folder).parts[0]
            for path in folder.rglob("*")
            if path.suffix in kinds and day.search(path.read_text())
        }
        assert dated == {"provenance"}

    def test_the_same_call_again_runs_nothing(self, first):
        again = study(first[0])
        assert again.returncode == 0
        assert "profile smoke: 0 of 7 notebooks to run" in again.stdout

    def test_it_says_nothing_on_the_error_stream(self, first):
        assert first[1].stderr == ""

    def test_every_network_is_trained_once_a_fold(self, folder):
        made = len(list((folder / "models").glob("*/DONE")))
        # two folds of 8 networks in notebook 2 and 6 more in 3, three outer folds of 12 in 4: five
        # depths, four ways to begin a task; the depth that is chosen is among the five
        assert made == 2 * (8 + 6) + 3 * (5 + 2 * 4 - 1)


class TestByHand:
    """Notebooks that somebody opens, on a copy of the run."""

    @pytest.fixture(scope="class")
    def execute(self, first, tmp_path_factory):
        runs = shutil.copytree(first[0], tmp_path_factory.mktemp("by_hand") / "runs")

        def executed(path, **parameters):
            output = runs.parent / path.name
            with kernel_environment(runs.parent / ".jupyter", {"MOTIONLIB_RUNS": str(runs)}):
                options = {"kernel_name": "python3", "cwd": notebooks_folder()}
                papermill.execute_notebook(
                    path, output, parameters=parameters, progress_bar=False, **options
                )
            return nbformat.read(output, as_version=4).cells

        executed.runs = runs
        return executed

    @staticmethod
    def shown(cells, name, kind="text/plain"):
        """What a cell shows as its value."""
        (cell,) = [cell for cell in cells if cell.id == name]
        return "".join(out["data"][kind] for out in cell.outputs if "data" in out)

    def test_the_start_tells_that_the_study_has_run_and_leaves_it_alone(self, execute):
        before = {path: path.stat().st_mtime_ns for path in execute.runs.rglob("*")}
        cells = execute(notebooks_folder() / "00_start.ipynb", profile="smoke")
        assert self.shown(cells, "overview", "text/html").count("has run") == 7
        assert "runs/smoke/report/index.html" in self.shown(cells, "report", "text/markdown")
        assert all(self.shown(cells, name, "image/png") for name in ("head", "grid", "rows"))
        assert {path: path.stat().st_mtime_ns for path in execute.runs.rglob("*")} == before

    def test_the_rating_page_makes_scans_and_waits_for_a_click(self, execute, monkeypatch):
        monkeypatch.delenv("MOTIONLIB_DATA", raising=False)
        few = {"n_scans": 4, "engine": "inline"}
        cells = execute(notebooks_folder() / "08_rate_scans.ipynb", **few)
        assert int(self.shown(cells, "scans")) >= 1
        assert self.shown(cells, "examples", "image/png")
        assert not list(execute.runs.rglob("clicks.tsv"))

    def test_the_students_edition_stops_at_the_first_empty_cell(self, execute, tmp_path):
        path = shutil.copy(notebooks_folder() / "01_data_selection.ipynb", tmp_path)
        command = ["nbstripout", "--keep-id", "--drop-tagged-cells", "solution", str(path)]
        subprocess.run([sys.executable, "-m", *command], check=True)
        study = read_study("smoke", notebooks=notebooks_folder(), runs=execute.runs)
        values = study.parameters["01_data_selection"]
        with pytest.raises(papermill.PapermillExecutionError) as stopped:
            execute(tmp_path / "01_data_selection.ipynb", **values)
        assert stopped.value.evalue == "Exercise 1.1: put your answer in the place of the dots"


def test_every_exercise_is_solved_and_checked(folder):
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        checks = [cell for cell in cells if "check" in cell.metadata.get("tags", [])]
        assert len(checks) >= 2
        assert all(cell.outputs for cell in checks)
