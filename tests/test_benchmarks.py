"""`make bench` calls every benchmark without a word: none may insist on one."""

import argparse
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("bench_*.py"))


class Parsed(Exception):  # noqa: N818
    """The words of the call were taken; nothing is measured."""


@pytest.fixture
def load():
    """Load a benchmark as a module."""

    def from_path(path):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
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


@pytest.mark.slow
def test_forty_scans_survive_killed_workers_and_a_killed_program(load, tmp_path):
    bench = load(ROOT / "benchmarks" / "bench_scale.py")
    row = bench.measure(tmp_path, 40, ["worker", "program", "worker"], 8)
    assert (row["worker_kills"], row["program_kills"]) == (2, 1)
    assert (row["lost"], row["repeated"], row["differing"], row["left_aside"]) == (0, 0, 0, 0)
    assert 37 <= row["made"] <= 40  # a kill can fall between a scan's last byte and its note
