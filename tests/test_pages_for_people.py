"""Sliders and buttons: what a control changes, and that no click is lost."""

from __future__ import annotations

import importlib
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from motionlib.files import repository
from motionlib.manifest import write_manifest
from motionlib.metrics import classification_metrics
from motionlib.predictions import load_predictions
from motionlib.preprocess import save_volume
from motionlib.preprocess.images import phantom
from motionlib.scoring.own_scans import read_graded
from motionlib.stats import weighted_kappa
from motionlib.study.notebooks import notebooks_folder

sys.path.append(str(notebooks_folder()))  # as for a kernel, which works there
pages = importlib.import_module("pages")
AFFINE = np.diag([8.0, 8.0, 8.0, 1.0])


@pytest.fixture
def head():
    return np.asarray(phantom((24, 28, 26)))[0]


@pytest.fixture
def scans(head, tmp_path):
    rows = []
    for number in range(8):
        path = tmp_path / f"sub-{number:02d}_T1w.nii.gz"
        save_volume(np.roll(head, number, axis=1), AFFINE, path)
        rows.append(
            (f"sub-{number:02d}_ses-01", f"sub-{number:02d}", str(path), f"verdict {number}")
        )
    return pd.DataFrame(rows, columns=["scan_id", "participant_id", "path", "verdict"])


def picture(panel) -> str:
    """The image below the controls, with its text."""
    (tag,) = re.findall(r"<img [^>]+>", panel.children[1].value)
    assert len(re.search(r'alt="([^"]+)"', tag)[1].split()) > 5
    return tag


def buttons(page) -> list:
    """The three grades of a rating page."""
    return list(page.children[3].children)[:3]


def scan_shown(page) -> str:
    """The picture of the scan that is to be graded."""
    return picture(page.children[2].children[0])


def take_back(page) -> None:
    """Click the button that undoes a grade."""
    page.children[3].children[3].click()


@pytest.fixture
def at_leisure(monkeypatch):
    """A rater who looks at each scan: no click comes too soon."""
    monkeypatch.setattr(pages, "PAUSE_S", 0)


class TestExploreMove:
    def test_every_control_changes_the_picture(self, head):
        panel = pages.explore_move(head, AFFINE)
        seen = [picture(panel)]
        others = {"move (mm)": 9, "nod (degrees)": 1, "moment": 0.3, "k-space axis": 2,
                  "order of lines": "centric"}  # fmt: skip
        for control in panel.children[0].children:
            control.value = others.pop(control.description)
            seen.append(picture(panel))
        assert others == {}
        assert len(set(seen)) == len(seen)

    def test_no_move_is_a_still_head_and_a_late_one_touches_few_lines(self, head):
        still, _, _ = pages.one_move(head, AFFINE, mm=0, degrees=0)
        moved, _, later = pages.one_move(head, AFFINE, moment=0.9, axis=2)
        assert np.abs(still - head).max() < 0.01 * head.max()
        assert np.abs(moved - head).max() > 0.02 * head.max()
        assert 1 <= later.sum() <= 4
        assert later.shape == (26,)


class TestGradedScores:
    """Notebook 0 shows a curve, whichever notebooks have run."""

    @pytest.fixture
    def runs(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MOTIONLIB_RUNS", str(tmp_path))
        (tmp_path / "own" / "cohort").mkdir(parents=True)
        return tmp_path

    @pytest.fixture
    def published(self):
        return load_predictions(repository() / "results" / "demo")

    def test_before_any_notebook_the_published_ones_are_shown(self, runs, capsys):
        rows = pages.graded_scores("own")
        assert len(rows) > 100
        assert set(rows["y_true"]) == {0, 1}
        assert "Notebook 4 makes these scores" in capsys.readouterr().out

    def test_so_they_are_where_only_notebook_2_has_run(self, runs, published, capsys):
        early = published[published["experiment"].str.startswith(("pretrain/", "control/"))]
        assert len(early) > 0
        early.to_csv(runs / "own" / "predictions.csv", index=False)
        assert len(pages.graded_scores("own")) == len(pages.graded_scores("none"))
        assert capsys.readouterr().out.count("has not run in the profile own") == 1

    def test_after_notebook_4_they_are_the_run_s_with_their_scans(self, runs, published, capsys):
        own = published[published["experiment"] == pages.TUNED].copy()
        own["score"] = 0.25
        own.to_csv(runs / "own" / "predictions.csv", index=False)
        scans = pd.DataFrame({"scan_id": own["scan_id"].unique()})
        scans = scans.assign(participant_id="a", cohort="virtual-warehouse")
        scans["path"] = "b/" + scans["scan_id"] + ".nii.gz"
        write_manifest(scans, runs / "own" / "cohort" / "manifest.tsv")
        rows = pages.graded_scores("own")
        assert set(rows["score"]) == {0.25}
        assert rows["scan_id"].is_unique
        assert rows["path"].iloc[0].endswith(f"b/{rows['scan_id'].iloc[0]}.nii.gz")
        assert capsys.readouterr().out == ""


class TestExploreThreshold:
    @pytest.fixture
    def rows(self):
        rng = np.random.default_rng(3)
        y_true = np.arange(60) % 3 == 0
        score = np.clip(0.25 + 0.3 * y_true + 0.2 * rng.standard_normal(60), 0, 1)
        return pd.DataFrame({"scan_id": range(60), "y_true": y_true.astype(int), "score": score})

    @pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
    def test_its_counts_and_its_point_are_those_of_the_metrics(self, rows, threshold):
        figure = pages.plot_threshold(rows, threshold, before=0.4)
        words = "\n".join(text.get_text() for ax in figure.axes for text in ax.texts)
        measured = classification_metrics(rows.y_true, rows.score, threshold=threshold)
        hits = round(measured["sensitivity"] * measured["n_positive"])
        alarms = round((1 - measured["specificity"]) * (60 - measured["n_positive"]))
        assert f"20 scans with motion: {hits} called motion, {20 - hits} not" in words
        assert f"40 scans without motion: {alarms} called motion, {40 - alarms} not" in words
        changed = rows.score.between(*sorted((threshold, 0.4)), inclusive="left").sum()
        assert f"{changed} change sides" in words
        (point,) = [line for ax in figure.axes for line in ax.lines if line.get_marker() == "o"]
        assert point.get_xydata()[0] == pytest.approx(
            [1 - measured["specificity"], measured["sensitivity"]]
        )

    def test_the_curve_s_area_is_the_auc(self, rows):
        figure = pages.plot_threshold(rows, 0.5, before=0.5)
        curve = max((line for ax in figure.axes for line in ax.lines),
                    key=lambda line: len(line.get_xydata())).get_xydata()[::-1]  # fmt: skip
        area = np.trapezoid(curve[:, 1], curve[:, 0])
        assert area == pytest.approx(classification_metrics(rows.y_true, rows.score)["auc"])

    def test_the_scans_that_change_sides_are_shown_where_they_lie(self, rows, scans):
        few = rows.head(8).assign(path=list(scans.path), score=np.linspace(0.1, 0.8, 8))
        figure = pages.plot_threshold(few, 0.25, before=0.55)
        titles = [ax.get_title() for ax in figure.axes if ax.images]
        assert titles == ["no motion, 0.30", "motion, 0.40", "no motion, 0.50"]

    def test_the_slider_changes_the_picture(self, rows):
        panel = pages.explore_threshold(rows)
        before = picture(panel)
        panel.children[0].children[0].value = 0.2
        assert picture(panel) != before


class TestBrowse:
    def test_each_slider_moves_its_plane_within_the_scan(self, head):
        panel = pages.browse(head, AFFINE)
        sliders, seen = panel.children[0].children, [picture(panel)]
        assert [round(slider.max - slider.min) for slider in sliders] == [23 * 8, 27 * 8, 25 * 8]
        for slider in sliders:
            slider.value = slider.min + 40
            seen.append(picture(panel))
        assert len(set(seen)) == 4


@pytest.fixture
def undrawn(monkeypatch):
    """Scans are not drawn, where a test looks at clicks alone."""
    monkeypatch.setattr(pages, "plot_planes", lambda *scan: None)
    monkeypatch.setattr(pages, "_image", lambda figure, alt: alt)


@pytest.mark.usefixtures("at_leisure")
class TestRate:
    def test_every_click_is_on_disk_at_once_and_the_table_goes_into_finetune(self, scans, tmp_path):
        page = pages.rate(scans, tmp_path / "ratings", raters=["Ann", "Ben"])
        for count, grade in enumerate((0, 2, 0, 2, 0, 2), start=1):
            buttons(page)[grade].click()
            lines = (tmp_path / "ratings" / "clicks.tsv").read_text().splitlines()
            assert len(lines) == 1 + count  # a header and a row a click
            assert lines[-1].split("\t")[3] == str(grade)
        read = read_graded(tmp_path / "ratings" / "grades.tsv", "mov01vs2")
        assert sorted(read.y_true) == [0, 0, 0, 1, 1, 1]
        assert set(read.path) <= set(scans.path)

    @pytest.mark.usefixtures("undrawn")
    def test_it_goes_on_where_it_was_left(self, scans, tmp_path):
        first = pages.rate(scans, tmp_path, raters=["Ann", "Ben"], seed=4)
        whole = pages.rate(scans, tmp_path / "whole", raters=["Ann", "Ben"], seed=4)
        for page in (first, whole):
            for _ in range(3):
                buttons(page)[1].click()
        again = pages.rate(scans, tmp_path, raters=["Ann", "Ben"], seed=4)
        assert "3 of 8" in again.children[1].value
        for page in (again, whole):
            for _ in range(9):  # more often than there are scans
                buttons(page)[0].click()
        columns = ["rater", "scan_id", "grade"]
        resumed = pages.read_clicks(tmp_path)[columns]
        assert len(resumed) == 8
        assert resumed.equals(pages.read_clicks(tmp_path / "whole")[columns])

    def test_the_whole_scan_can_be_looked_through_and_none_is_left_open(self, scans, tmp_path):
        page = pages.rate(scans, tmp_path, raters=["Ann", "Ben"])
        former = page.children[2].children[0]
        middle = scan_shown(page)
        former.children[0].children[2].value += 16
        assert scan_shown(page) != middle
        for _ in scans.index:
            buttons(page)[0].click()
        assert page.children[2].children == ()
        assert former.comm is None

    def test_raters_have_orders_of_their_own_and_see_no_name(self, scans, tmp_path):
        page = pages.rate(scans, tmp_path, raters=["Ann", "Ben"])
        shown = page.children[1].value + scan_shown(page)
        assert not any(name in shown for name in (*scans.scan_id, *scans.participant_id))
        assert "verdict" not in shown + page.children[4].value
        for rater in ("Ann", "Ben"):
            page.children[0].value = rater
            for _ in scans.index:
                buttons(page)[0].click()
                assert "verdict" in page.children[4].value
        clicks = pages.read_clicks(tmp_path)
        orders = [list(rows.scan_id) for _, rows in clicks.groupby("rater")]
        assert orders[0] != orders[1]
        assert sorted(orders[0]) == sorted(orders[1]) == sorted(scans.scan_id)

    @pytest.mark.usefixtures("undrawn")
    def test_kappa_is_told_as_soon_as_there_is_one(self, scans, tmp_path):
        page = pages.rate(scans, tmp_path, raters=["Ann", "Ben"])
        assert "none yet" in page.children[1].value
        rng = np.random.default_rng(0)
        for rater in ("Ann", "Ben"):
            page.children[0].value = rater
            for _ in scans.index:
                buttons(page)[rng.integers(3)].click()
        grades = pages.collect_grades(tmp_path, scans, ["Ann", "Ben"])
        kappa = weighted_kappa(grades.rater_1, grades.rater_2, n_boot=100).estimate
        assert f"{kappa:.2f} (8 scans)" in page.children[1].value

    def test_a_second_click_on_a_scan_replaces_the_first(self, scans, tmp_path):
        for grade in (0, 2):
            pages.append_click(tmp_path, "Ann", "sub-03_ses-01", grade)
        (row,) = pages.collect_grades(tmp_path, scans, ["Ann", "Ben"]).itertuples()
        assert (row.scan_id, row.rater_1, pd.isna(row.rater_2)) == ("sub-03_ses-01", 2, True)
        assert len(pages.read_clicks(tmp_path)) == 2


@pytest.mark.usefixtures("at_leisure")
class TestTakeBack:
    @pytest.fixture
    def page(self, scans, tmp_path):
        return pages.rate(scans, tmp_path, raters=["Ann", "Ben"])

    def test_the_scan_comes_back_and_every_click_is_kept(self, page, tmp_path):
        first = scan_shown(page)
        buttons(page)[2].click()
        assert scan_shown(page) != first
        take_back(page)
        assert scan_shown(page) == first
        assert "graded 0 of 8" in page.children[1].value
        assert "verdict" not in page.children[4].value
        buttons(page)[1].click()
        rows = pages.read_clicks(tmp_path)
        assert rows["scan_id"].nunique() == 1
        assert [None if pd.isna(grade) else int(grade) for grade in rows["grade"]] == [2, None, 1]
        grades = pd.read_csv(tmp_path / "grades.tsv", sep="\t")
        assert list(grades["rater_1"]) == [1]

    def test_before_the_first_grade_there_is_nothing_to_take_back(self, page, scans, tmp_path):
        assert page.children[3].children[3].disabled
        take_back(page)
        assert not list(tmp_path.glob("*.tsv"))

    def test_a_grade_taken_back_is_no_grade_for_finetune(self, page, tmp_path):
        buttons(page)[2].click()
        take_back(page)
        assert len(pd.read_csv(tmp_path / "grades.tsv", sep="\t")) == 0

    def test_it_goes_back_step_by_step_also_after_a_pause_and_no_further(
        self, page, scans, tmp_path
    ):
        seen = [scan_shown(page)]
        for number in range(3):
            buttons(page)[number].click()
            seen.append(scan_shown(page))
        page = pages.rate(scans, tmp_path, raters=["Ann", "Ben"])
        for before in (seen[2], seen[1], seen[0]):
            assert not page.children[3].children[3].disabled
            take_back(page)
            assert scan_shown(page) == before
        assert page.children[3].children[3].disabled
        take_back(page)
        assert len(pages.read_clicks(tmp_path)) == 6

    def test_only_a_rater_s_own_grade_is_taken_back(self, page, tmp_path):
        buttons(page)[0].click()
        page.children[0].value = "Ben"
        assert page.children[3].children[3].disabled
        buttons(page)[1].click()
        page.children[0].value = "Ann"
        take_back(page)
        grades = pd.read_csv(tmp_path / "grades.tsv", sep="\t")
        assert grades["rater_1"].isna().all()
        assert list(grades["rater_2"]) == [1]

    @pytest.mark.usefixtures("undrawn")
    def test_kappa_forgets_it(self, page, scans, tmp_path):
        rng = np.random.default_rng(1)
        for rater in ("Ann", "Ben"):
            page.children[0].value = rater
            for _ in scans.index:
                buttons(page)[rng.integers(3)].click()
        whole = page.children[1].value
        assert "(8 scans)" in whole
        take_back(page)
        grades = pages.collect_grades(tmp_path, scans, ["Ann", "Ben"]).dropna()
        kappa = weighted_kappa(grades.rater_1, grades.rater_2, n_boot=100).estimate
        assert f"{kappa:.2f} (7 scans)" in page.children[1].value
        said = pages.read_clicks(tmp_path)["grade"].dropna().iloc[-1]
        buttons(page)[said].click()
        assert page.children[1].value == whole


class TestDoubleClick:
    def test_it_grades_one_scan_and_says_so(self, scans, tmp_path, monkeypatch):
        clock = iter([10.0, 10.4, 10.6, 11.5, 12.0])
        monkeypatch.setattr(pages, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        page = pages.rate(scans, tmp_path, raters=["Ann", "Ben"])
        buttons(page)[1].click()  # asks the clock twice: when it came, when the next scan was there
        shown = scan_shown(page)
        buttons(page)[1].click()
        assert scan_shown(page) == shown
        assert len(pages.read_clicks(tmp_path)) == 1
        assert page.children[4].value.startswith("You said 1: some motion. verdict")
        assert page.children[4].value.count("was not counted") == 1
        buttons(page)[2].click()
        assert list(pages.read_clicks(tmp_path)["grade"]) == [1, 2]
        assert "not counted" not in page.children[4].value

    def test_one_on_the_way_back_takes_back_one_grade(self, scans, tmp_path, monkeypatch):
        with monkeypatch.context() as leisurely:
            leisurely.setattr(pages, "PAUSE_S", 0)
            page = pages.rate(scans, tmp_path, raters=["Ann", "Ben"])
            for _ in range(2):
                buttons(page)[0].click()
        for _ in range(2):
            take_back(page)
        assert len(pages.last_clicks(tmp_path)) == 1


class TestRatingPage:
    """The page of notebook 8 keeps what people graded."""

    def test_a_rater_may_be_called_na(self, tmp_path):
        pages.append_click(tmp_path, "NA", "s1", 2)
        scans = pd.DataFrame({"scan_id": ["s1"], "participant_id": ["p1"], "path": ["a.nii"]})
        (row,) = pages.collect_grades(tmp_path, scans, ["NA", "b"]).to_dict("records")
        assert row["rater_1"] == 2

    @pytest.mark.parametrize("raters", [["a", "a"], ["a", ""], ["a"]])
    def test_two_raters_have_two_names(self, tmp_path, raters):
        with pytest.raises(ValueError, match="two different names"):
            pages.rate(pd.DataFrame({"scan_id": ["s1"]}), tmp_path, raters=raters)

    def test_grades_made_by_hand_are_not_overwritten(self, tmp_path):
        (tmp_path / "grades.tsv").write_text("scan_id\tmotion_grade\ns1\t2\n")
        with pytest.raises(ValueError, match="not made by clicks"):
            pages.rate(pd.DataFrame({"scan_id": ["s1"]}), tmp_path, raters=["a", "b"])
        assert "s1\t2" in (tmp_path / "grades.tsv").read_text()
