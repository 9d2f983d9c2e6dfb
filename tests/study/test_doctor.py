"""The doctor tells what is there, not whose computer it is; only finished runs are published."""

import getpass
import gzip
import json
import platform
import tomllib
from pathlib import Path

import pytest

from motionlib import files
from motionlib.cli import main
from motionlib.files import repository
from motionlib.study import doctor
from motionlib.study.notebooks import find_notebooks, notebooks_folder
from motionlib.study.publish import publish
from motionlib.study.run import check_layout


@pytest.fixture
def findings(monkeypatch, tmp_path):
    """Findings on a computer with some data and no runs."""
    (tmp_path / "data" / "ixi-2mm").mkdir(parents=True)
    monkeypatch.setenv("MOTIONLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MOTIONLIB_REFERENCE", str(tmp_path / "away"))
    monkeypatch.setenv("MOTIONLIB_RUNS", str(tmp_path / "runs"))
    check_layout(tmp_path / "runs/demo", mark=True)
    files.write_json(tmp_path / "runs/old/stamps/01.json", {"key": "abc"})
    files.write_json(tmp_path / "runs/demo/stamps/01.json", {"key": "abc"})
    files.write_json(tmp_path / "runs/demo/stamps/02.json", {"key": None})
    return {(one.topic, one.name): one for one in doctor.examine()}


class TestExamine:
    def test_core_packages_are_as_required(self, findings):
        assert findings["packages", "core"].state == doctor.GOOD

    def test_every_extra_is_told_what_it_is_for(self):
        project = tomllib.loads((repository() / "pyproject.toml").read_text())["project"]
        assert set(doctor.EXTRAS_FOR) == set(project["optional-dependencies"])

    def test_data_are_named_by_their_folders(self, findings):
        assert findings["data", "MOTIONLIB_DATA"].detail == "ixi-2mm"

    def test_a_variable_that_names_nothing_is_told_and_fails_nobody_who_scores(self, findings):
        found = findings["data", "MOTIONLIB_REFERENCE"]
        assert (found.state, found.detail) == (doctor.ABSENT, "set, but no such folder: correct it")
        assert [one.name for one in findings.values() if one.state == doctor.BAD] == []

    def test_profiles_that_can_run_are_named_in_a_line(self, findings, capsys):
        assert main(["doctor"]) == 0
        (line,) = [t for t in capsys.readouterr().out.splitlines() if t.startswith("profiles")]
        assert {"demo", "smoke"} <= set(line.partition(": ")[2].split(", "))

    def test_runs_are_counted_by_finished_notebooks(self, findings):
        assert findings["study", "run demo"].detail == "1 of 2 notebooks finished"

    def test_a_run_of_another_version_is_told_apart(self, findings):
        assert findings["study", "run old"].state == doctor.ABSENT
        assert "another version of motionlib" in findings["study", "run old"].detail

    def test_the_engines_that_need_no_cluster_are_there(self, findings):
        assert findings["engines", "inline"].state == findings["engines", "local"].state == "ok"

    def test_code_that_cannot_be_kept_on_disk_is_told(self, findings, monkeypatch):
        assert findings["devices", "compiled code"].state == doctor.GOOD
        monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
        told = {finding.name: finding for finding in doctor.devices()}["compiled code"]
        assert told.state == doctor.ABSENT
        assert "NUMBA_CACHE_DIR" in told.detail

    def test_nothing_names_the_computer_its_user_or_a_path(self, findings, tmp_path):
        text = " ".join(f"{one.name} {one.detail}" for one in findings.values())
        assert str(tmp_path) not in text
        assert str(Path.home()) + "/" not in text
        assert platform.node() not in text.split()
        assert getpass.getuser() not in text.split()


class TestCommand:
    def test_it_fails_only_if_something_needed_is_missing(self, monkeypatch, capsys):
        good = doctor.Finding("data", "model", doctor.ABSENT, "none shipped")
        bad = doctor.Finding("devices", "torch", doctor.BAD, "not installed")
        monkeypatch.setattr(doctor, "examine", lambda: [good])
        assert main(["doctor", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["name"] == "model"
        monkeypatch.setattr(doctor, "examine", lambda: [good, bad])
        assert main(["doctor"]) == 1
        assert capsys.readouterr().out.splitlines()[-1] == "missing: torch"


class TestPublish:
    @pytest.fixture
    def run(self, tmp_path):
        run = tmp_path / "runs" / "real"
        check_layout(run, mark=True)
        for name in ("tables/table_2.csv", "figures/fig_1.png", "predictions.csv"):
            files.write_text(run / name, "a\n")
        files.write_text(run / "cohort" / "scan.npy", "never to be copied")
        files.write_json(run / "provenance.json", {})
        for notebook in find_notebooks(notebooks_folder()):
            stamp = {"notebook": notebook.stem, "key": "abc"}
            files.write_json(run / "stamps" / f"{notebook.stem[:2]}.json", stamp)
        return run

    def test_tables_figures_and_provenance_are_copied_and_no_scan(self, run, tmp_path):
        files.write_text(tmp_path / "results" / "tables" / "old.csv", "gone")
        publish(run, tmp_path / "results")
        names = {p.relative_to(tmp_path / "results").as_posix()
                 for p in (tmp_path / "results").rglob("*") if p.is_file()}  # fmt: skip
        assert names == {
            *("tables/table_2.csv", "figures/fig_1.png", "predictions.csv.gz", "provenance.json"),
        }
        packed = gzip.decompress((tmp_path / "results" / "predictions.csv.gz").read_bytes())
        assert packed == (run / "predictions.csv").read_bytes()

    def test_predictions_can_stay_at_home(self, run, tmp_path):
        assert "predictions.csv.gz" not in publish(run, tmp_path / "results", predictions=False)

    def test_an_unfinished_run_is_refused(self, run, tmp_path):
        stamp = {"notebook": "02_simulation_comparison", "key": None}
        files.write_json(run / "stamps" / "02.json", stamp)
        (run / "stamps" / "05.json").unlink()
        with pytest.raises(ValueError, match=r"not 02_simulation_comparison, 05_mrqy_rf_baseline"):
            publish(run, tmp_path / "results")

    def test_a_run_of_another_version_is_refused(self, run, tmp_path):
        (run / "layout.json").unlink()
        with pytest.raises(ValueError, match="another version of motionlib"):
            publish(run, tmp_path / "results")

    def test_the_smoke_profile_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="mean nothing"):
            publish(tmp_path / "smoke", tmp_path / "results")
