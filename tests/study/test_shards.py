"""Shards of trainings: a share each, nothing twice, one sentence about what comes next."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from motionlib.cli import main
from motionlib.experiments import trainings
from motionlib.files import repository
from motionlib.study import runner
from motionlib.study.notebooks import read_notebook
from motionlib.study.runner import check_writable, only_one
from motionlib.study.shards import shared_cells

PARAMETERS = """profile: str = "smoke"  # scale of the run
seed: int = 20  # master seed
engine: str = "inline"  # where it trains
n: int = 5  # number of trainings
"""
OPEN = """from motionlib.study.run import Run
run = Run("{stem}", profile, seed)
"""
TRAIN = """from test_shards import Pretended
from motionlib import trainings
jobs = [Pretended(str(run.models), f"{stem}-{k}") for k in [*range(n), 0]]
made = trainings.train(jobs, engine=engine, label="train")
"""
NEXT = """need = trainings.is_done(run.models / "{stem}-{last}") or run.need("{stem}-{last}")
more = [Pretended(str(run.models), f"{stem}-more-{k}") for k in range(4)]
trainings.train(more, engine=engine, label="more")
"""
TABLE = """import pandas as pd
run.save_table(pd.DataFrame({"row": range(n)}), "table_2")
"""


@dataclass(frozen=True)
class Pretended:
    """A training that only leaves its mark."""

    models: str
    name: str
    device: str = "cpu"

    @property
    def folder(self) -> Path:
        return Path(self.models) / self.name


def leave_mark(job: Pretended, progress=None) -> str:
    """Stand for a training: note its name, refuse number 3, mark the folder done."""
    if trainings.is_done(job.folder):
        return str(job.folder)
    with open(Path(job.models) / "trained.log", "a") as log:
        log.write(f"{job.name}\n")
    if job.name.endswith("refused-3"):
        raise ValueError("the loss is not finite")
    job.folder.mkdir(parents=True)
    for name in ("weights.safetensors", "DONE"):
        (job.folder / name).touch()
    return str(job.folder)


def write_notebook(folder: Path, stem: str, *cells: tuple[str, bool]) -> None:
    """Write a notebook of the given cells; those with True are tagged for shards."""
    given = [(PARAMETERS, ["parameters"]), (OPEN, ["shard"])]
    given += [(source, ["shard"] if tagged else []) for source, tagged in cells]
    whole = []
    for index, (source, tags) in enumerate(given):
        source = source.replace("{stem}", stem).replace("{last}", "3")
        cell = {"cell_type": "code", "id": f"cell{index}", "metadata": {"tags": tags}}
        whole.append({**cell, "source": source, "execution_count": None, "outputs": []})
    spec = {"name": "python3", "display_name": "x", "language": "python"}
    notebook = {"cells": whole, "metadata": {"kernelspec": spec}, "nbformat": 4}
    notebook["nbformat_minor"] = 5
    (folder / f"{stem}.ipynb").write_text(json.dumps(notebook))


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Call the command on a stand-in repository: one notebook for the cohort, one that trains."""
    monkeypatch.setattr(trainings, "_train_one", leave_mark)
    monkeypatch.setattr("motionlib.commands.study._report", lambda folder: folder / "report")
    monkeypatch.delenv("MAKELEVEL", raising=False)
    monkeypatch.setenv("MOTIONLIB_RUNS", str(tmp_path / "runs"))  # put back afterwards
    monkeypatch.setenv("PYTHONPATH", str(repository()))
    for name in ("notebooks/profiles", "data_manifests", "package"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "notebooks" / "profiles" / "smoke.yml").write_text("description: tiny\n")
    plan = runner.plan
    for module in (runner, "motionlib.study.shards"):
        name = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{name}.plan", lambda one: plan(one, package=tmp_path / "package"))
    write_notebook(tmp_path / "notebooks", "01_first")
    write_notebook(tmp_path / "notebooks", "02_second", (TABLE, False), (TRAIN, True))
    folders = ["--notebooks", str(tmp_path / "notebooks"), "--runs", str(tmp_path / "runs")]

    def calling(*more: str) -> tuple[int, str, str]:
        code = main(["study", "--profile", "smoke", *folders, *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    calling.folder = tmp_path
    return calling


@pytest.fixture
def prepared(call, monkeypatch):
    """The same with the cohort's notebook up to date; notebook 01 has no trainings."""
    path = call.folder / "notebooks" / "01_first.ipynb"
    path.write_text(path.read_text().replace('["shard"]', "[]"))
    code, _, fault = call("--only", "01")
    assert (code, fault) == (0, "")
    return call


def trained(call) -> list[str]:
    """Names of what was trained, in order, each as often as that happened."""
    log = call.folder / "runs" / "smoke" / "models" / "trained.log"
    return log.read_text().splitlines() if log.exists() else []


class TestShares:
    def test_each_shard_trains_its_own_and_nothing_is_trained_twice(self, prepared):
        code, said, fault = prepared("--engine", "shard:0/2")
        assert (code, fault) == (0, "")
        assert trained(prepared) == [f"02_second-{k}" for k in (0, 2, 4)]
        assert "shard 0/2: 3 trainings done, 3 of them now; 2 are left to the other shards" in said
        code, said, fault = prepared("--engine", "shard:1/2")
        assert (code, fault) == (0, "")
        assert "shard 1/2: 2 trainings done, 2 of them now; none is left" in said
        code, said, _ = prepared("--engine", "shard:0/2")
        assert "3 trainings done, 3 of them before" in said
        assert sorted(trained(prepared)) == [f"02_second-{k}" for k in range(5)]

    def test_only_tagged_cells_run_and_no_record_of_the_notebook_is_left(self, prepared):
        prepared("--engine", "shard:0/2")
        folder = prepared.folder / "runs" / "smoke"
        assert not (folder / "tables" / "table_2.csv").exists()
        assert not (folder / "provenance" / "02_second.json").exists()
        assert not (folder / "stamps" / "02.json").exists()

    def test_parameters_reach_the_cells(self, prepared):
        prepared("--engine", "shard:0/1", "--set", "02.n=2")
        assert len(trained(prepared)) == 2

    def test_a_failure_is_told_and_the_rest_of_the_share_is_trained(self, prepared):
        refusing = TRAIN.replace('"{stem}-{k}"', '"{stem}-refused-{k}"')
        write_notebook(prepared.folder / "notebooks", "02_second", (refusing, True))
        code, _, fault = prepared("--engine", "shard:1/2")
        assert code == 1
        assert trained(prepared) == ["02_second-refused-1", "02_second-refused-3"]
        assert "1 of 2 tasks failed, the first with ValueError: the loss is not finite" in fault
        assert fault.count("\n") == 1
        assert "resume: motionlib study --profile smoke --engine shard:1/2" in fault

    def test_what_depends_on_other_shards_waits_for_the_next_time(self, prepared):
        write_notebook(prepared.folder / "notebooks", "02_second", (TRAIN, True), (NEXT, True))
        code, said, _ = prepared("--engine", "shard:0/2")
        assert code == 0
        assert "further trainings need those of the other shards, so run all shards" in said
        assert not any("more" in name for name in trained(prepared))
        prepared("--engine", "shard:1/2")
        _, said, _ = prepared("--engine", "shard:0/2")
        assert "none is left" in said
        more = [name for name in trained(prepared) if "more" in name]
        assert sorted(more) == [f"02_second-more-{k}" for k in range(4)]

    def test_a_cell_that_misses_something_else_is_a_fault(self, prepared):
        write_notebook(prepared.folder / "notebooks", "02_second", ("absent", True))
        code, _, fault = prepared("--engine", "shard:0/2")
        assert code == 1
        assert "02_second stopped: NameError: name 'absent' is not defined" in fault


class TestCalls:
    def test_the_cohort_must_be_there_first(self, call):
        code, _, fault = call("--engine", "shard:0/2")
        assert code == 2
        assert "01_first must run before shards can train (it has not run yet)" in fault

    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            (("--only", "01", "--engine", "shard:0/2"), "notebook 01 has no trainings to share"),
            (("--engine", "shard:2/2"), "expected shard:I/N with I from 0 to N-1"),
            (("--engine", "shard:"), "expected shard:I/N"),
            (("--set", "02.engine=shard:0/2"), "02_second was given engine shard:0/2; give it as"),
        ],
    )
    def test_a_wrong_call_is_one_sentence(self, prepared, more, expected):
        code, _, fault = prepared(*more)
        assert code == 2
        assert expected in fault
        assert fault.count("\n") == 1
        assert trained(prepared) == []

    def test_a_dry_run_trains_nothing(self, prepared):
        code, said, _ = prepared("--engine", "shard:0/2", "--dry-run")
        assert code == 0
        assert "shard 0/2 would make its share of the trainings of 02_second" in said
        assert trained(prepared) == []


class TestLock:
    def test_shards_hold_a_run_together_but_each_number_once(self, prepared):
        folder = prepared.folder / "runs" / "smoke"
        with only_one(folder, shard="0/2"):
            assert prepared("--engine", "shard:1/2")[0] == 0
            code, _, fault = prepared("--engine", "shard:0/2")
        assert code == 1
        assert f"shard 0/2 of profile smoke is being run by process {os.getpid()}" in fault

    @pytest.mark.skipif(os.name == "nt", reason="that system has no shared locks")
    @pytest.mark.parametrize("other", ["00/2", "0/4", "3/4"])
    def test_shards_of_another_count_or_spelling_would_overlap(self, prepared, other):
        folder = prepared.folder / "runs" / "smoke"
        with (
            only_one(folder, shard="0/2"),
            pytest.raises(BlockingIOError, match="being run"),
            only_one(folder, shard=other),
        ):
            pytest.fail("two shards train the same")
        with only_one(folder, shard=other):
            pass

    def test_many_that_start_at_once_find_the_folder_writable(self, tmp_path):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(check_writable, [tmp_path] * 200))

    @pytest.mark.skipif(os.name == "nt", reason="that system has no shared locks")
    def test_a_whole_run_and_a_shard_keep_each_other_out(self, prepared):
        folder = prepared.folder / "runs" / "smoke"
        with only_one(folder, shard="0/2"):
            code, _, fault = prepared("--only", "01")
        assert code == 1
        assert "is being run by shards of its trainings" in fault
        with only_one(folder):
            code, _, fault = prepared("--engine", "shard:0/2")
        assert code == 1
        assert f"is being run by process {os.getpid()}" in fault


class TestNotebooks:
    @pytest.mark.parametrize("number", ["02", "03", "04"])
    def test_cells_that_train_are_tagged_and_define_all_that_they_use(self, number):
        (path,) = (repository() / "notebooks").glob(f"{number}_*.ipynb")
        cells = shared_cells(read_notebook(path))
        trains = ("experiments.pretrain(", "freeze_study(", "compare_ways(", "label_curve(")
        whole = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in whole if cell["cell_type"] == "code"]
        assert [c for c in code if any(word in c for word in trains) and c not in cells] == []
        assert any(word in cell for word in trains for cell in cells)
