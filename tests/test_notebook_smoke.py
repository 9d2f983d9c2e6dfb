"""The whole study at its smallest: run once as a user would, then read what it has written."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from motionlib.files import repository
from motionlib.metrics import classification_metrics
from motionlib.paper.transcription import published
from motionlib.predictions import PREDICTION_COLUMNS, load_predictions

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
HOW = {
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "text": True,
    "cwd": repository(),
    "env": {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")},
}


def study(runs, *more) -> subprocess.CompletedProcess:
    """Call the command line in a process of its own."""
    return subprocess.run([*COMMAND, "--runs", str(runs), *more], check=False, **HOW)


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

    def test_executed_notebooks_name_no_folder_of_this_computer(self, folder):
        named = []
        for path in sorted((folder / "notebooks").glob("*.ipynb")):
            for cell in json.loads(path.read_text())["cells"]:
                shown = json.dumps([cell["source"], cell.get("outputs", [])])
                if str(folder.parent) in shown or str(repository()) in shown:
                    named.append((path.stem, cell["id"]))
        assert named == []

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
