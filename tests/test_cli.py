"""The command line: which commands there are, what a fault looks like, and what it exits with."""

import argparse
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from motionlib import cli
from motionlib.cli import SUMMARIES, available, main
from motionlib.preprocess.images import phantom, save_volume


@pytest.fixture
def stand_in(monkeypatch):
    """Give the command ``iqms`` a body of the test's own."""

    def install(body):
        module = types.ModuleType("motionlib.commands.iqms")
        module.add_arguments = lambda parser: parser.add_argument("--n", type=int, default=1)
        module.main = body
        monkeypatch.setitem(sys.modules, "motionlib.commands.iqms", module)
        monkeypatch.setattr(cli, "available", lambda: ["iqms", "study"])

    return install


def python(*words: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def fail_with(error: Exception):
    """A command that raises."""

    def body(args):
        raise error

    return body


class TestCommands:
    def test_study_and_doctor_are_there(self):
        assert {"study", "doctor"} <= set(available())
        assert set(available()) <= set(SUMMARIES)

    @pytest.mark.parametrize("name", available())
    def test_each_explains_itself(self, name, capsys):
        assert main([name, "--help"]) == 0
        assert f"usage: motionlib {name}" in capsys.readouterr().out

    @pytest.mark.parametrize("name", available())
    def test_each_has_the_two_functions(self, name):
        module = __import__(f"motionlib.commands.{name}", fromlist=["main"])
        assert callable(module.main)
        module.add_arguments(argparse.ArgumentParser())

    def test_the_list_of_commands_imports_none_of_them_and_no_package(self):
        # so that a package that is missing is told in a sentence, not by a traceback
        code = "import sys; from motionlib.cli import main; main(['--help']); "
        code += "known = ('motionlib.commands.', 'lazy_loader', 'numpy'); "
        code += "print([m for m in sys.modules if m.startswith(known)])"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip().splitlines()[-1] == "[]"

    def test_it_runs_as_a_module_too(self):
        assert python("-m", "motionlib.cli", "--version") == "0.1.0"


class TestHelp:
    @pytest.mark.parametrize("name", available())
    def test_each_has_an_example_that_can_be_called(self, name, capsys):
        assert main([name, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        (example,) = [line.split() for line in lines if line.startswith(f"  motionlib {name}")]
        args = cli.build_parser(name).parse_args(example[1:])
        assert args.command == name

    def test_defaults_are_shown_once(self, capsys):
        main(["simulate", "--help"])
        text = " ".join(capsys.readouterr().out.split())
        for words in ("default: inline", "(default: 2 4)", "(default: 4)", "(default: 200)"):
            assert text.count(words) >= 1
        assert "None" not in text

    @pytest.mark.parametrize("name", available())
    def test_no_option_with_a_value_hides_its_default(self, name):
        parser = cli.build_parser(name)
        (choices,) = [a.choices for a in parser._actions if a.choices and a.dest == "command"]
        silent = [
            action.dest
            for action in choices[name]._actions
            if action.default not in (None, False, [], argparse.SUPPRESS)
            and "default" not in (action.help or "")
        ]
        assert silent == []

    def test_the_study_s_help_lists_the_profiles_and_explains_the_engines(self, capsys):
        main(["study", "--help"])
        text = " ".join(capsys.readouterr().out.split())
        for words in ("profiles: demo", "smoke", "paper", "N processes", "Dask scheduler"):
            assert words in text

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["scroe"], "invalid choice: 'scroe'; did you mean score?"),
            (["manifest", "bidz", "a", "--out", "b.tsv"], "did you mean bids?"),
            (["study", "--profile", "dmeo", "--dry-run"], "no profile dmeo; did you mean demo?"),
        ],
    )
    def test_a_mistyped_name_is_guessed(self, words, said, capsys):
        assert main(words) == 2
        assert said in capsys.readouterr().err


class TestLog:
    def install(self, stand_in, body):
        stand_in(body)
        module = sys.modules["motionlib.commands.iqms"]
        module.add_arguments = lambda parser: parser.add_argument("--out")

    def test_what_a_call_prints_is_kept_with_the_time(self, stand_in, tmp_path, capsys):
        def body(args):
            print("one scan measured")
            print("a\rb: no image", file=sys.stderr)
            Path(args.out).parent.mkdir()  # a log waits for the folder of the work
            return 1

        self.install(stand_in, body)
        assert main(["iqms", "--out", str(tmp_path / "new" / "m.tsv")]) == 1
        lines = (tmp_path / "new" / "m.log").read_text().splitlines()
        said = [line.partition(" ")[2] for line in lines]
        assert said[0].startswith("motionlib iqms --out ")
        assert said[1:] == ["one scan measured", "b: no image"]
        assert all(pd.Timestamp(line.split()[0]).tz is not None for line in lines)
        assert capsys.readouterr().out == "one scan measured\n"
        assert not isinstance(sys.stdout, cli.Logged)

    def test_a_fault_on_the_way_is_in_it_and_a_second_call_adds(self, stand_in, tmp_path):
        def body(args):
            print("begun")
            raise ValueError("n is 3; give 4")

        self.install(stand_in, body)
        for _ in range(2):
            assert main(["iqms", "--out", str(tmp_path / "m.tsv")]) == 2
        text = (tmp_path / "m.log").read_text()
        assert text.count("motionlib iqms: n is 3; give 4") == 2

    def test_a_place_that_cannot_be_written_to_stops_nothing(self, stand_in, tmp_path, capsys):
        (tmp_path / "file").write_text("in the way")
        self.install(stand_in, lambda args: print("done"))
        assert main(["iqms", "--out", str(tmp_path / "file" / "m.tsv")]) == 0
        assert capsys.readouterr().out == "done\n"

    def test_a_wrong_call_leaves_none(self, stand_in, tmp_path):
        self.install(stand_in, fail_with(ValueError("n is 3; give 4")))
        assert main(["iqms", "--out", str(tmp_path / "new" / "m.tsv")]) == 2
        assert list(tmp_path.iterdir()) == []


class TestWhatACallReads:
    """It is never what the call writes, and a place that cannot be written to is told first."""

    @pytest.mark.parametrize(
        ("words", "out", "said"),
        [
            (("score", "t.tsv"), "t.tsv", "t.tsv is read by this call"),
            (("iqms", "t.tsv"), "t.tsv", "t.tsv is read by this call"),
            (("finetune", "grades.csv", "--task", "mov01vs2"), ".", "grades.csv is read by this"),
            (("preprocess", "manifest.tsv"), ".", "manifest.tsv is read by this call"),
            (("simulate", "manifest.tsv"), None, "manifest.tsv is read by this call"),
            (("iqms", "t.tsv"), "folder.tsv", "folder.tsv is there and is no table"),
            (
                ("finetune", "t.tsv", "--task", "mov01vs2"),
                "grades.csv",
                "is there and is no folder",
            ),
        ],
    )
    def test_it_stays(self, words, out, said, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "folder.tsv").mkdir()
        for name in ("t.tsv", "grades.csv", "manifest.tsv"):
            (tmp_path / name).write_text("scan_id\tpath\n")
        assert main([*words, "--out", out] if out else [*words, "."]) == 2
        assert said in capsys.readouterr().err
        assert all(path.read_text() == "scan_id\tpath\n" for path in tmp_path.glob("*.?sv")
                   if path.is_file())  # fmt: skip
        assert len(list(tmp_path.iterdir())) == 4

    def test_a_manifest_does_not_name_other_images_than_those_it_was_made_of(
        self, tmp_path, monkeypatch, capsys
    ):
        for place in ("here", "there"):
            anat = tmp_path / place / "sub-01" / "anat"
            anat.mkdir(parents=True)
            save_volume(phantom((24, 28, 24)), np.diag([8.0, 8, 8, 1]), anat / "sub-01_T1w.nii.gz")
        monkeypatch.chdir(tmp_path / "here")
        monkeypatch.delenv("MOTIONLIB_DATA", raising=False)
        assert main(["manifest", "bids", "../there", "--out", "scans.tsv"]) == 2
        assert "sub-01/anat/sub-01_T1w.nii.gz lies beside --out too" in capsys.readouterr().err
        assert main(["manifest", "bids", "../there", "--out", "../there/scans.tsv"]) == 0

    def test_names_of_a_site_s_scans_are_no_more_in_the_log_than_those_of_the_others(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        for name in ("MuellerHans", "MeierEva"):
            save_volume(phantom((24, 28, 24)), np.diag([8.0, 8, 8, 1]), f"{name}_T1w.nii.gz")
        (tmp_path / "key").write_text("a key of thirty-two characters and more")
        call = ["score", "MuellerHans_T1w.nii.gz", "--pseudonymise", "key", "--out", "s.tsv"]
        main([*call, "--site-scans", "MeierEva_T1w.nii.gz"])
        log = (tmp_path / "s.log").read_text()
        assert "motionlib score" in log
        assert "Meier" not in log
        assert "Mueller" not in log


class TestStatus:
    @pytest.mark.parametrize(("given", "status"), [(None, 0), (0, 0), (1, 1), (2, 2)])
    def test_what_a_command_returns_is_the_status(self, stand_in, given, status):
        stand_in(lambda args: given)
        assert main(["iqms"]) == status

    @pytest.mark.parametrize(
        ("error", "status", "said"),
        [
            (ValueError("n is 3; give 4"), 2, "motionlib iqms: n is 3; give 4\n"),
            (FileNotFoundError(2, "No such file or directory", "a.nii"), 2,
             "motionlib iqms: No such file or directory: a.nii\n"),
            (PermissionError(13, "Permission denied", "out"), 2,
             "motionlib iqms: Permission denied: out\n"),
            (OSError(28, "No space left on device"), 1,
             "motionlib iqms: No space left on device; what is finished is kept, so free some "
             "space and repeat\n"),
            (RuntimeError("no memory"), 1,
             "motionlib iqms: no memory (MOTIONLIB_DEBUG=1 shows where)\n"),
            (IndexError("list index out of range"), 1,
             "motionlib iqms: an unexpected fault, list index out of range (MOTIONLIB_DEBUG=1 "
             "shows where)\n"),
            (ValueError(), 2, "motionlib iqms: an unexpected fault\n"),
            (ModuleNotFoundError("x", name="ants"), 1,
             "motionlib iqms: the package ants is not installed; motionlib doctor lists what is "
             "missing\n"),
            (KeyboardInterrupt(), 1,
             "motionlib iqms: interrupted; what is finished is kept, repeat to go on\n"),
        ],
    )  # fmt: skip
    def test_an_error_becomes_one_sentence(
        self, stand_in, error, status, said, capsys, monkeypatch
    ):
        monkeypatch.delenv("MOTIONLIB_DEBUG", raising=False)
        stand_in(fail_with(error))
        assert main(["iqms"]) == status
        assert capsys.readouterr().err == said

    def test_a_sentence_has_no_line_break(self, stand_in, capsys):
        stand_in(fail_with(ValueError("a\n  b")))
        main(["iqms"])
        assert capsys.readouterr().err == "motionlib iqms: a b\n"

    def test_faults_of_a_manifest_come_as_a_table_before_the_sentence(self, stand_in, capsys):
        error = ValueError("2 faults in the manifest; correct them")
        error.faults = pd.DataFrame({"row": [3, 5], "fault": ["twice", "unknown cohort"]})
        stand_in(fail_with(error))
        assert main(["iqms"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 4
        assert lines[-1] == "motionlib iqms: 2 faults in the manifest; correct them"

    def test_debugging_shows_where(self, stand_in, monkeypatch):
        monkeypatch.setenv("MOTIONLIB_DEBUG", "1")
        stand_in(fail_with(ValueError("here")))
        with pytest.raises(ValueError, match="here"):
            main(["iqms"])

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["unknown"], "invalid choice: 'unknown'"),
            (["iqms", "--n", "many"], "argument --n: invalid int value: 'many'"),
            (["iqms", "--m"], "unrecognised arguments: --m; see motionlib iqms --help"),
        ],
    )
    def test_a_wrong_call_is_one_sentence_that_points_at_the_help(
        self, stand_in, words, said, capsys
    ):
        stand_in(lambda args: 0)
        assert main(words) == 2
        fault = capsys.readouterr().err
        assert said in fault
        assert fault.strip().endswith("--help")
        assert fault.count("\n") == 1

    def test_no_command_shows_the_help(self, capsys):
        assert main([]) == 2
        assert "COMMAND" in capsys.readouterr().out
