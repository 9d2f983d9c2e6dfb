"""The runner, tried on tiny stand-in notebooks: skip, resume, and one sentence per fault."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from motionlib import files
from motionlib.cli import main
from motionlib.study import runner
from motionlib.study.notebooks import Parameter, coerce, from_words, read_parameters
from motionlib.study.runner import duration, only_one

PARAMETERS = """profile: str = "smoke"  # scale of the run
seed: int = 20  # master seed
engine: str = "inline"  # where it computes
n: int = 3  # number of rows
rate: float = 0.5  # a rate
"""
OPEN = """import os
import sys
import pandas as pd
from motionlib.study.run import Run
run = Run("{stem}", profile, seed)
"""
TABLE = 'run.save_table(pd.DataFrame({{"row": range(n), "rate": rate}}), "table_{number}")'
TASKS = """import time
for task in range(6):
    if not (run.models / f"{task}.done").exists():
        time.sleep(0.2)
        with open(run.models / "trained.log", "a") as log:
            log.write(f"{task} ")
        (run.models / f"{task}.done").write_text("done")
"""
WAIT = """import time
(run.folder / "{stem}.started").touch()
time.sleep(0.7)
"""


def write_notebook(folder: Path, stem: str, *cells: str) -> Path:
    """Write a notebook: title, parameters, the opening of the run, and the given code."""
    sources = [("markdown", f"# {stem}", []), ("code", PARAMETERS, ["parameters"])]
    sources += [("code", OPEN.format(stem=stem), [])]
    sources += [("code", cell.format(stem=stem, number=int(stem[:2])) if "{" in cell and
                 cell is not TASKS else cell, []) for cell in cells]  # fmt: skip
    whole = []
    for index, (kind, source, tags) in enumerate(sources):
        cell = {"cell_type": kind, "id": f"cell{index}", "metadata": {"tags": tags}}
        cell["source"] = source
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        whole.append(cell)
    spec = {"name": "somebody_elses", "display_name": "x", "language": "python"}
    notebook = {"cells": whole, "metadata": {"kernelspec": spec}, "nbformat": 4}
    path = folder / f"{stem}.ipynb"
    path.write_text(json.dumps({**notebook, "nbformat_minor": 5}))
    return path


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A repository of two notebooks and the profile smoke."""
    monkeypatch.delenv("MOTIONLIB_DATA", raising=False)
    monkeypatch.delenv("MAKELEVEL", raising=False)
    notebooks = tmp_path / "notebooks"
    (notebooks / "profiles").mkdir(parents=True)
    (tmp_path / "data_manifests").mkdir()
    (tmp_path / "package").mkdir()  # stands for motionlib, which may change under a developer
    plan = runner.plan
    monkeypatch.setattr(runner, "plan", lambda one: plan(one, package=tmp_path / "package"))
    write_notebook(notebooks, "01_first", TABLE, 'run.note("rows", n)')
    write_notebook(notebooks, "02_second", TABLE)
    (notebooks / "profiles" / "smoke.yml").write_text("description: tiny\nall:\n  seed: 21\n")
    return tmp_path


def words(place: Path, *more: str) -> list[str]:
    """Arguments of a call on the stand-in repository."""
    folders = ["--notebooks", str(place / "notebooks"), "--runs", str(place / "runs")]
    more = more if "--profile" in more else ("--profile", "smoke", *more)
    return ["study", *folders, *more]


def ran(said: str) -> list[str]:
    """Stems of the notebooks that a call ran to their end."""
    return re.findall(r"^\[\d+/\d+\] (\w+) done", said, flags=re.MULTILINE)


@pytest.fixture
def by_hand(place, monkeypatch):
    """Call that executes a notebook of the stand-in repository with papermill, as anybody may."""
    import papermill

    (place / "motionlib").mkdir()  # which makes it a repository
    monkeypatch.setenv("MOTIONLIB_RUNS", str(place / "runs"))

    def execute(stem, **parameters):
        path = place / "notebooks" / f"{stem}.ipynb"
        with runner.kernel_environment(place / ".jupyter", {}):
            done = papermill.execute_notebook(
                path, place / "by_hand.ipynb", parameters, kernel_name="python3",
                cwd=path.parent, progress_bar=False,
            )  # fmt: skip
        return "".join(str(cell.outputs) for cell in done.cells if cell.cell_type == "code")

    return execute


@pytest.fixture
def no_report(monkeypatch):
    """Leave the report out, which has its own tests."""
    monkeypatch.setattr("motionlib.commands.study._report", lambda folder: folder / "report")


@pytest.mark.usefixtures("no_report")
class TestRunAndSkip:
    def test_it_runs_in_order_then_skips_then_runs_what_changed(self, place, capsys):
        assert main(words(place)) == 0
        said = capsys.readouterr().out
        assert ran(said) == ["01_first", "02_second"]
        assert "02_second · profile smoke · seed 21" in said  # what a notebook prints is seen
        assert "rows: 3" in said
        folder = place / "runs" / "smoke"
        assert sorted(p.name for p in (folder / "notebooks").iterdir()) == [
            "01_first.ipynb",
            "02_second.ipynb",
        ]
        notebooks = [path.read_text() for path in (folder / "notebooks").iterdir()]
        assert not any(str(place) in text for text in notebooks)  # not in the metadata either
        made = (folder / "tables" / "table_2.csv").stat().st_mtime_ns

        for path in (place / "notebooks").glob("*.ipynb"):
            os.utime(path)  # a checkout touches files; only their content counts
        assert main(words(place)) == 0
        assert ran(capsys.readouterr().out) == []
        assert (folder / "tables" / "table_2.csv").stat().st_mtime_ns == made

        assert main(words(place, "--engine", "local:2", "--dry-run")) == 0
        assert "0 of 2 notebooks to run" in capsys.readouterr().out

        assert main(words(place, "--set", "02.n=4")) == 0
        assert ran(capsys.readouterr().out) == ["02_second"]
        assert len((folder / "tables" / "table_2.csv").read_text().splitlines()) == 5

        (folder / "tables" / "table_1.csv").unlink()
        assert main(words(place, "--set", "02.n=4", "--dry-run")) == 0
        said = capsys.readouterr().out
        assert "01_first  runs: tables/table_1.csv is not there" in said
        assert not (folder / "tables" / "table_1.csv").exists()

        provenance = json.loads((folder / "provenance.json").read_text())
        assert provenance["parameters"]["02_second"] == {"seed": 21, "profile": "smoke", "n": 4}
        assert set(provenance["durations_s"]) == {"01_first", "02_second"}

    def test_braces_in_a_path_are_no_template(self, place, capsys):
        (place / "notebooks").rename(place / "{seed} notebooks {x}")
        folders = ["--notebooks", str(place / "{seed} notebooks {x}")]
        folders += ["--runs", str(place / "{runs} of {profile}")]
        assert main(["study", "--profile", "smoke", "--only", "01", *folders]) == 0
        assert ran(capsys.readouterr().out) == ["01_first"]
        assert (place / "{runs} of {profile}" / "smoke" / "tables" / "table_1.csv").is_file()

    def test_the_outcome_is_there_as_json_and_in_a_log(self, place, capsys):
        assert main(words(place, "--only", "01", "--json")) == 0
        printed = capsys.readouterr()
        outcome = json.loads(printed.out)
        folder = place / "runs" / "smoke"
        assert (outcome["profile"], outcome["status"]) == ("smoke", 0)
        assert outcome["folder"] == str(folder)
        assert outcome["report"] == str(folder / "report")  # of the stand-in
        assert outcome["rows"] > 0
        assert ran(printed.err) == ["01_first"]
        assert "01_first done in" in (folder / "study.log").read_text()

    def test_what_a_killed_run_left_half_written_is_removed(self, place, left_aside):
        halves = [place / "runs" / "smoke" / part / left_aside("fig_a2.png")
                  for part in ("models", "figures", "tables", "stamps")]  # fmt: skip
        for half in halves:
            half.parent.mkdir(parents=True)
            half.write_bytes(b"half")
        assert main(words(place, "--only", "01")) == 0
        assert not any(half.exists() for half in halves)

    def test_an_earlier_notebook_that_changes_brings_the_later_ones_with_it(self, place, capsys):
        main(words(place))
        write_notebook(place / "notebooks", "01_first", TABLE)
        capsys.readouterr()
        main(words(place, "--dry-run"))
        said = capsys.readouterr().out
        assert "01_first  runs: its cells have changed" in said
        assert "02_second  runs: an earlier notebook runs again or has run since" in said

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ("data_manifests/splits.csv", "data_manifests has changed"),
            ("package/room.py", "motionlib has changed"),
        ],
    )
    def test_the_reason_is_told(self, place, changed, reason, capsys):
        main(words(place, "--only", "01"))
        (place / changed).write_text("x = 1\n")
        capsys.readouterr()
        main(words(place, "--only", "01", "--dry-run"))
        assert reason in capsys.readouterr().out

    def test_skipping_imports_neither_papermill_nor_torch(self, place):
        main(words(place, "--only", "01"))
        (place / "runs" / "smoke" / "report").mkdir()
        (place / "runs" / "smoke" / "report" / "index.html").touch()
        package = str(place / "package")
        code = (
            "import pathlib, sys; from motionlib.study import runner; "
            "from motionlib.cli import main; "
            f"plan = runner.plan; package = pathlib.Path({package!r}); "
            "runner.plan = lambda one: plan(one, package=package); "
            f"status = main({words(place, '--only', '01')!r}); "
            "print(status, {'papermill', 'torch', 'nbconvert'} & set(sys.modules))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert ran(done.stdout) == []
        assert done.stdout.strip().splitlines()[-1] == "0 set()"

    def test_the_kernel_is_this_interpreter_with_absolute_folders(self, place, monkeypatch):
        other = place / "jupyter" / "kernels" / "python3"
        other.mkdir(parents=True)
        spec = {"argv": ["/nowhere/python"], "display_name": "x", "language": "python"}
        (other / "kernel.json").write_text(json.dumps(spec))
        monkeypatch.setenv("JUPYTER_PATH", str(place / "jupyter"))
        monkeypatch.setenv("MOTIONLIB_DATA", "data_manifests")
        monkeypatch.chdir(place)
        facts = '(run.folder / "facts").write_text("|".join([sys.executable, os.getcwd(), '
        facts += 'os.environ["MOTIONLIB_DATA"], os.environ["MOTIONLIB_RUNS"]]))'
        write_notebook(place / "notebooks", "01_first", facts)
        assert main(words(place, "--only", "01")) == 0
        expected = [
            sys.executable,
            *(str(place / n) for n in ("notebooks", "data_manifests", "runs")),
        ]
        assert (place / "runs" / "smoke" / "facts").read_text().split("|") == expected
        assert os.environ["MOTIONLIB_DATA"] == "data_manifests"


@pytest.mark.usefixtures("no_report")
class TestFailures:
    @pytest.mark.parametrize(
        ("code", "cause"),
        [
            ("raise ValueError('the scan\\nis odd.')", "ValueError: the scan is odd; resume"),
            ("sys.exit(0)", "left by sys.exit"),
            ("sys.exit(3)", "SystemExit: 3"),
            ("import signal; os.kill(os.getpid(), signal.SIGKILL)", "kernel died"),
        ],
    )
    def test_a_notebook_that_stops_is_told_in_one_sentence(self, place, code, cause, capfd):
        write_notebook(place / "notebooks", "02_second", TABLE, code, "late = 1")
        assert main(words(place, "--only", "02")) == 1
        said = capfd.readouterr()
        fault = said.err.strip().splitlines()[-1]
        assert "02_second stopped at cell 5 of 6" in fault
        assert cause in fault
        assert f"resume: motionlib study --profile smoke --only 02 --runs {place}/runs" in fault
        assert ran(said.out) == []
        folder = place / "runs" / "smoke" / "notebooks"
        assert (folder / "02_second.partial.ipynb").is_file()
        assert not (folder / "02_second.ipynb").exists()

    def test_a_notebook_that_stopped_is_run_again_and_no_other(self, place, capfd):
        write_notebook(place / "notebooks", "02_second", TABLE, "1 / 0")
        assert main(words(place)) == 1
        assert ran(capfd.readouterr().out) == ["01_first"]
        folder = place / "runs" / "smoke" / "notebooks"
        write_notebook(place / "notebooks", "02_second", TABLE)
        assert main(words(place)) == 0
        assert ran(capfd.readouterr().out) == ["02_second"]
        assert not (folder / "02_second.partial.ipynb").exists()

    def test_under_make_the_command_to_resume_is_make_s(self, place, capsys, monkeypatch):
        monkeypatch.setenv("MAKELEVEL", "1")
        write_notebook(place / "notebooks", "01_first", "1 / 0")
        assert main(words(place)) == 1
        assert "resume: make study PROFILE=smoke ARGS=" in capsys.readouterr().err

    def test_a_second_runner_is_turned_away(self, place, capsys):
        with only_one(place / "runs" / "smoke"):
            assert main(words(place)) == 1
        fault = capsys.readouterr().err
        assert f"is being run by process {os.getpid()}" in fault

    def test_a_lock_whose_holder_died_holds_nobody(self, place):
        folder = place / "runs" / "smoke"
        code = "import os, sys, pathlib; from motionlib.study.runner import only_one\n"
        code += "with only_one(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
        subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
        assert "process" in (folder / ".lock-holder").read_text()
        with only_one(folder):
            assert (folder / ".lock-holder").read_text() == f"process {os.getpid()}"


class TestWrongCalls:
    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            (["--profile", "smok"], "no profile smok; did you mean smoke?"),
            (["--profile", "../x"], "no profile ../x"),
            (["--only", "07"], "no notebook '07'; known: 01, 02"),
            (["--set", "rat=1"], "no notebook has the parameter rat; did you mean rate?"),
            (["--set", "rate"], "--set rate has no value; expected NAME=VALUE"),
            (["--set", "n=many"], "parameter n is 'many' (str); expected int, such as 3"),
            (["--set", "n=1.5"], "parameter n is 1.5 (float); expected int, such as 3"),
            (["--set", "profile=demo"], "use --profile"),
            (["--engine", "cluster"], "Engine 'cluster' is not known; use inline, local"),
            (["--engine", "slurm:no.yaml"], "names no file"),
            (["--colour"], "unrecognised arguments: --colour"),
        ],
    )
    def test_each_gives_one_sentence_and_status_two(self, place, more, expected, capsys):
        assert main(words(place, *more)) == 2
        said = capsys.readouterr()
        assert expected in said.err
        assert len(said.err.strip().splitlines()) == 1
        assert not (place / "runs").exists()

    @pytest.mark.parametrize(
        ("profile", "expected"),
        [
            ("all:\n  sed: 1\n", "sets sed for all, which no notebook has; did you mean seed?"),
            ("01_first:\n  nn: 1\n", "sets nn, which 01_first does not have; did you mean n?"),
            ("01_frist:\n  n: 1\n", "block 01_frist, which is no notebook; did you mean 01_first?"),
            ("01_first: 3\n", "block 01_first is 3; expected NAME: VALUE lines"),
            ("01_first:\n  n: true\n", "parameter n is True (bool); expected int"),
            ("all: [\n", "smoke.yml is not valid YAML near line 2"),
            ("- a\n", "smoke.yml holds a list; expected blocks by notebook"),
            ("needs: [MOTIONLIB_DATA]\n", "needs MOTIONLIB_DATA, which is not set"),
        ],
    )
    def test_a_faulty_profile_gives_one_sentence(self, place, profile, expected, capsys):
        (place / "notebooks" / "profiles" / "smoke.yml").write_text(profile)
        assert main(words(place)) == 2
        assert expected in capsys.readouterr().err

    def test_data_that_are_away_are_named(self, place, capsys, monkeypatch):
        monkeypatch.setenv("MOTIONLIB_DATA", str(place / "away"))
        profile = place / "notebooks" / "profiles" / "smoke.yml"
        profile.write_text("needs: [MOTIONLIB_DATA/ixi]\n")
        assert main(words(place)) == 2
        assert "that folder is not there; correct MOTIONLIB_DATA" in capsys.readouterr().err

    def test_a_runs_folder_that_cannot_be_written_is_named(self, place, capsys):
        (place / "file").touch()
        runs = str(place / "file" / "runs")
        assert main([*words(place)[:3], "--runs", runs, "--profile", "smoke"]) == 2
        fault = capsys.readouterr().err
        assert f"cannot write into the runs folder {runs}/smoke (Not a directory)" in fault

    @pytest.mark.parametrize("mark", [None, {"layout": 1}])
    @pytest.mark.parametrize("more", [(), ("--dry-run",)])
    def test_a_run_of_another_version_is_left_alone(self, place, capsys, mark, more):
        folder = place / "runs" / "smoke"
        files.write_json(folder / "stamps" / "01.json", {"notebook": "01_first", "key": "abc"})
        if mark:
            files.write_json(folder / "layout.json", mark)
        before = sorted(folder.rglob("*"))
        assert main(words(place, *more)) == 2
        fault = capsys.readouterr().err
        assert "run smoke was made by another version of motionlib" in fault
        assert "delete its folder, or name another one with --runs" in fault
        assert sorted(folder.rglob("*")) == before

    def test_a_folder_without_notebooks_is_named(self, tmp_path, capsys):
        assert main(["study", "--notebooks", str(tmp_path), "--profile", "smoke"]) == 2
        assert "no notebook such as 01_name.ipynb" in capsys.readouterr().err

    def test_a_notebook_with_two_parameter_cells_is_refused(self, place, capsys):
        path = place / "notebooks" / "01_first.ipynb"
        whole = json.loads(path.read_text())
        whole["cells"].append(whole["cells"][1])
        path.write_text(json.dumps(whole))
        assert main(words(place)) == 2
        assert "01_first.ipynb has 2 cells tagged 'parameters'" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no SIGKILL")
class TestKill:
    def test_a_study_killed_three_times_ends_like_an_undisturbed_one(self, place):
        for stem in ("01_first", "03_third"):
            write_notebook(place / "notebooks", stem, WAIT, TABLE)
        write_notebook(place / "notebooks", "02_second", TASKS, TABLE)
        killed, calm = place / "killed", place / "calm"
        moments = ("01_first.started", "models/2.done", "03_third.started")
        for moment in moments:
            run_and_kill(place, killed, killed / "smoke" / moment)
            (killed / "smoke" / moment).unlink()
            if moment == "models/2.done":  # a finished task stays finished
                (killed / "smoke" / moment).write_text("done")
        for runs in (killed, calm):
            done = subprocess.run(command(place, runs), capture_output=True, text=True, check=True)
        assert ran(done.stdout) == ["01_first", "02_second", "03_third"]
        assert contents(killed) == contents(calm)
        trained = (killed / "smoke" / "models" / "trained.log").read_text().split()
        assert sorted(set(trained)) == [str(task) for task in range(6)]
        assert len(trained) <= 7  # only the task that was under way when the power went


def command(place: Path, runs: Path) -> list[str]:
    """Words that run the stand-in study in a process of its own, without the report."""
    notebooks = str(place / "notebooks")
    arguments = ["study", "--profile", "smoke", "--notebooks", notebooks, "--runs", str(runs)]
    code = (
        "import sys; from motionlib.commands import study; study._report = lambda folder: folder\n"
    )
    code += f"from motionlib.cli import main; sys.exit(main({arguments!r}))"
    return [sys.executable, "-c", code]


def run_and_kill(place: Path, runs: Path, moment: Path) -> None:
    """Start the study and kill it without warning once a file appears."""
    process = subprocess.Popen(command(place, runs), stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 120
    while not moment.exists():
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < limit, f"{moment.name} did not appear"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()


def contents(runs: Path) -> dict[str, bytes]:
    """Bytes of all tables of a run."""
    return {path.name: path.read_bytes() for path in (runs / "smoke" / "tables").iterdir()}


class TestParameters:
    @pytest.mark.parametrize(
        ("kind", "value", "expected"),
        [
            ("float", 1, 1.0),
            ("float", "1e-4", 1e-4),
            ("str", "2-4", "2-4"),
            ("bool", False, False),
        ],
    )
    def test_a_value_that_fits_is_taken_in_its_type(self, kind, value, expected):
        found = coerce(Parameter("x", kind, None), value)
        assert (found, type(found)) == (expected, type(expected))

    @pytest.mark.parametrize(
        ("kind", "value"),
        [("int", True), ("int", "3"), ("str", 3), ("float", "fast"), ("bool", 1), ("int", None),
         ("float", True), ("str", [])],
    )  # fmt: skip
    def test_a_value_of_another_type_is_refused(self, kind, value):
        with pytest.raises(ValueError, match="parameter x is"):
            coerce(Parameter("x", kind, None), value)

    @pytest.mark.parametrize(
        ("kind", "said", "expected"),
        [("str", "20", "20"), ("int", "20", 20), ("float", "1e-3", 1e-3), ("bool", "false", False),
         ("str", "a: b", "a: b")],
    )  # fmt: skip
    def test_words_are_read_by_the_declared_type(self, kind, said, expected):
        assert from_words(Parameter("x", kind, None), said) == expected

    def test_a_cell_that_computes_is_refused(self):
        with pytest.raises(ValueError, match="flat literals"):
            read_parameters("n: int = 3\nm: int = 2 * n\n")

    def test_an_unknown_type_is_refused(self):
        with pytest.raises(ValueError, match=r"parameter n of x.ipynb is a list\[int\]; use str"):
            read_parameters("n: list[int] = [3]\n", "x.ipynb")

    def test_types_and_defaults_are_read(self):
        assert read_parameters(PARAMETERS)["rate"] == Parameter("rate", "float", 0.5)


class TestProgress:
    @pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (95, "1 min 35 s"),
                                                  (7260, "2 h 01 min")])  # fmt: skip
    def test_times_are_said_in_words(self, seconds, said):
        assert duration(seconds) == said


@pytest.mark.usefixtures("no_report")
class TestOtherParametersThanTheRuns:
    """A notebook that somebody runs by hand never leaves a folder half of one run."""

    def test_they_make_a_run_apart_that_the_study_goes_on_with(self, place, by_hand, capsys):
        main(words(place))
        said = by_hand("02_second", n=9, seed=21)
        (apart,) = set(os.listdir(place / "runs")) - {"smoke"}
        assert f"n = 9: not as in the run smoke, so this is a run apart, {apart}." in said
        tables = {name: len((place / "runs" / name).read_text().splitlines()) - 1 for name in
                  ("smoke/tables/table_2.csv", f"{apart}/tables/table_2.csv",
                   f"{apart}/tables/table_1.csv")}  # fmt: skip
        assert [*tables.values()] == [3, 9, 3]  # what comes before is the same
        capsys.readouterr()
        main(words(place, "--dry-run"))
        assert "0 of 2 notebooks to run" in capsys.readouterr().out
        main(words(place, "--profile", apart))
        assert ran(capsys.readouterr().out) == ["02_second"]
        table = (place / "runs" / apart / "tables" / "table_2.csv").read_text()
        assert len(table.splitlines()) == 10
        assert set(os.listdir(place / "runs")) == {"smoke", apart}

    def test_of_the_first_notebook_they_begin_with_nothing(self, place, by_hand):
        main(words(place))
        by_hand("01_first", n=9, seed=21)
        (apart,) = set(os.listdir(place / "runs")) - {"smoke"}
        assert os.listdir(place / "runs" / apart / "tables") == ["table_1.csv"]

    def test_what_the_study_was_set_to_is_the_folders_own(self, place, by_hand):
        main(words(place, "--set", "n=4"))
        by_hand("02_second", n=4, seed=21)
        assert os.listdir(place / "runs") == ["smoke"]
        by_hand("02_second", seed=21)  # with 3, as the profile has it
        assert len(os.listdir(place / "runs")) == 2

    def test_a_manifest_put_in_place_of_another_runs_them_again(self, place, capsys):
        main(words(place))
        (place / "runs" / "smoke" / "cohort" / "manifest.tsv").write_text("scan_id\n")
        capsys.readouterr()
        main(words(place, "--dry-run"))
        reason = "runs: the cohort's manifest is not the one that it ran with"
        assert capsys.readouterr().out.count(reason) == 2
