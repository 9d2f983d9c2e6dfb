"""`make bench` calls every benchmark without a word: none may insist on one."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

import pandas as pd
import pytest

from motionlib.files import write_json

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("bench_*.py"))


class Parsed(Exception):  # noqa: N818
    """The words of the call were taken; nothing is measured."""


@pytest.fixture
def load(monkeypatch):
    """Load a benchmark as a module."""

    def from_path(path):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)  # dataclasses look there
        spec.loader.exec_module(module)
        return module

    return from_path


@pytest.fixture
def stop_after_parsing(monkeypatch):
    """Stop a program as soon as it has parsed its words."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_it_can_be_called_without_arguments(load, stop_after_parsing, monkeypatch, path):
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    with pytest.raises(Parsed):
        load(path).main()


def test_scoring_takes_the_sets_that_are_there(load, monkeypatch, tmp_path):
    bench = load(ROOT / "benchmarks" / "bench_score.py")
    monkeypatch.setenv("MOTIONLIB_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="holds none of ixi-2mm"):
        bench.default_sets(tmp_path / "heads")
    (tmp_path / "ds000011").mkdir()
    assert bench.default_sets(tmp_path / "heads") == [f"ds000011={tmp_path / 'ds000011'}:12"]


def test_scoring_makes_heads_where_there_are_no_data(load, monkeypatch, tmp_path):
    bench = load(ROOT / "benchmarks" / "bench_score.py")
    asked = {}
    monkeypatch.setattr("motionlib.cohorts.read_cohort", lambda name, root, **k: asked.update(k))
    monkeypatch.delenv("MOTIONLIB_DATA", raising=False)
    assert bench.default_sets(tmp_path) == [f"virtual={tmp_path}:24", f"virtual={tmp_path}:240"]
    assert asked["n_research"] == (0, 24, 0)


class TestTwoStates:
    """An earlier commit beside the present tree; here the tree stands beside itself."""

    @pytest.fixture
    def bench(self, load):
        return load(ROOT / "benchmarks" / "bench_speed.py")

    def test_a_work_is_timed_in_both_and_told_by_its_functions(self, bench):
        work = "MRQy's measures of a 2 mm scan"
        trees = {"before": bench.Tree(ROOT), "now": bench.Tree(ROOT)}
        row = bench.compare(trees, work, 2)
        for tree in trees.values():
            tree.process.communicate()
        assert row["before"] > 0
        assert row["now"] > row["in_libraries"] > 0
        assert "%" in row["where_it_goes"]  # which functions, depends on the machine

    def test_a_commit_that_is_not_there_is_no_tree(self, bench, tmp_path):
        assert bench.unpacked("0" * 40, tmp_path) is None

    def test_what_a_tree_cannot_do_is_told_in_words(self, bench, monkeypatch):
        monkeypatch.delenv("MOTIONLIB_DATA", raising=False)
        assert bench.prepared("t1-linear, full-size scan") == "no data"
        assert bench.tried(lambda: 1 / 0) == "ZeroDivisionError: division by zero"


class TestKillStudy:
    """The comparison of two runs, on small folders; the kills themselves are the benchmark."""

    @pytest.fixture
    def bench(self, load):
        return load(ROOT / "benchmarks" / "kill_study.py")

    @pytest.mark.parametrize(
        ("name", "quiet", "killed", "verdict"),
        [
            ("a.csv", "x,seconds\n1,2\n", "x,seconds\n1,2\n", "same"),
            ("metrics.csv", "x,seconds\n1,2\n", "x,seconds\n1,3\n", "differs only in durations"),
            ("metrics.csv", "x,seconds\n1,2\n", "x,seconds\n2,2\n", "differs"),
            ("table_2.csv", "x,seconds\n1,2\n", "x,seconds\n1,3\n", "differs"),
            ("metrics.csv", "x,seconds\n1,2\n", None, "differs"),
            ("a.svg", "<svg/>", "<svg />", "differs"),
            ("fig_cost.svg", "<svg/>", "<svg />", "draws durations"),
            ("t.tsv", "a\tb\n1\t\n", "b\ta\n\t1\n", "differs only in the order of columns"),
            ("t.tsv", "a\tb\n1\t2\n", "b\ta\n1\t2\n", "differs"),
        ],
    )
    def test_two_files(self, bench, tmp_path, name, quiet, killed, verdict):
        for side, text in (("quiet", quiet), ("killed", killed)):
            (tmp_path / side).mkdir()
            if text is not None:
                (tmp_path / side / name).write_text(text)
        assert bench.compare(tmp_path / "quiet" / name, tmp_path / "killed" / name) == verdict

    @pytest.mark.parametrize(
        ("metric", "verdict"),
        [("training_minutes", "differs only in durations"), ("auc", "differs")],
    )
    def test_of_the_scoreboard_only_timed_rows_may_differ(self, bench, tmp_path, metric, verdict):
        paths = []
        for ours in ("1", "2"):
            paths.append(tmp_path / ours / "scoreboard.csv")
            paths[-1].parent.mkdir()
            head = "metric,paper,ours,low,high,difference,same_order"
            paths[-1].write_text(f"{head}\n{metric},9,{ours},,,,True\n")
        assert bench.compare(*paths) == verdict

    def test_the_real_tables_have_the_durations_that_are_left_out(self, bench):
        tables = ROOT / "results" / "real" / "tables"
        for name in ("timing.csv", "table_3.csv"):
            assert set(bench.COLUMNS[name]) <= set(pd.read_csv(tables / name).columns)
        board = pd.read_csv(tables / "scoreboard.csv")
        assert set(bench.TIMED) <= set(board["metric"])
        assert set(bench.SCOREBOARD) <= set(board.columns)

    def training(self, folder, name, *, rows, done):
        """A training's folder, with so many epochs."""
        one = folder / "models" / name
        (one / "last").mkdir(parents=True, exist_ok=True)
        history = [{"epoch": n, "seconds": seconds} for n, seconds in enumerate(rows, 1)]
        pd.DataFrame(history).to_csv(one / "metrics.csv", index=False)
        write_json(one / "last" / "state.json", {"history": history})
        if done:
            (one / "weights.safetensors").write_bytes(b"w")
            (one / "DONE").write_text("")
        return one

    def test_a_training_that_went_on_is_none_that_was_repeated(self, bench, tmp_path):
        finished = self.training(tmp_path, "Conv5FC3-a", rows=[0.1], done=True)
        begun = self.training(tmp_path, "Conv5FC3-b", rows=[0.1, 0.2], done=False)
        state = bench.state_of(tmp_path)
        self.training(tmp_path, begun.name, rows=[0.1, 0.2, 0.3], done=True)
        assert bench.repeated(state, tmp_path) == []
        self.training(tmp_path, begun.name, rows=[0.1, 0.25, 0.3], done=True)
        assert bench.repeated(state, tmp_path) == [begun.name]
        os.utime(finished / "DONE", ns=(1, 1))
        assert bench.repeated(state, tmp_path) == [finished.name, begun.name]

    def test_kills_fall_early_in_the_middle_and_late(self, bench):
        for seed in range(20):
            early, middle, late = bench.moments(seed)
            assert 0 < early < 0.35 < middle < 0.7 < 0.75 < late < 1

    def test_a_pattern_that_matches_nothing_is_no_agreement(self, bench, tmp_path):
        rows = bench.compared(tmp_path / "a", tmp_path / "b")
        assert {row["verdict"] for row in rows} == {"differs"}


@pytest.mark.slow
def test_forty_scans_survive_killed_workers_and_a_killed_program(load, tmp_path):
    bench = load(ROOT / "benchmarks" / "bench_scale.py")
    row = bench.measure(tmp_path, 40, ["worker", "program", "worker"], 8)
    assert (row["worker_kills"], row["program_kills"]) == (2, 1)
    assert (row["lost"], row["repeated"], row["differing"], row["left_aside"]) == (0, 0, 0, 0)
    assert 37 <= row["made"] <= 40  # a kill can fall between a scan's last byte and its note


class TestSeeds:
    def test_their_mean_is_surer_than_one(self, load):
        bench = load(ROOT / "benchmarks" / "seeds.py")
        names = ["what", "balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high"]
        names += ["auc", "auc_low", "auc_high"]
        rows = [("x", 0.1, -0.02, 0.2, 0.6, 0.5, 0.7), ("x", 0.2, 0.08, 0.3, 0.8, 0.7, 0.9)]
        mean = bench.over_seeds(pd.DataFrame(rows, columns=names)).iloc[0]
        assert mean["balanced_accuracy"] == pytest.approx(0.15)
        width = mean["balanced_accuracy"] - mean["balanced_accuracy_low"]
        assert width == pytest.approx(0.12 / 2**0.5)

    def test_the_published_run_is_judged_as_table_iv_has_it(self, load):
        bench = load(ROOT / "benchmarks" / "seeds.py")
        folder = ROOT / "results" / "demo"
        table = bench.judge(bench.load_predictions(folder), 20).set_index("what")
        printed = pd.read_csv(folder / "tables" / "table_4.csv")
        printed = printed[printed["task"] == "mov01vs2"].set_index("method")
        for method, words in bench.METHODS.items():
            ours = printed.loc[method, "balanced_accuracy_ours"]
            assert table.loc[words, "balanced_accuracy"] == pytest.approx(ours, abs=1e-9)
