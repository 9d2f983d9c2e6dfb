"""Figures: what they draw, and that they leave no trace in pyplot or the settings."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from synthetic_study import METHODS, write_study

from motionlib.cohorts.selection import count_scans
from motionlib.figures import cohort, motion, results
from motionlib.figures.cohort import to_ras
from motionlib.figures.theme import COLOURS, DASHES, MARKERS
from motionlib.paper.tables import build_table
from motionlib.stats.rates import controls_table
from motionlib.tasks import TASK_WORDS
from motionlib.typeset import label as title_of


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def predictions(study):
    return pd.read_csv(study / "predictions.csv")


def curves_of(axes) -> dict:
    """ROC curves of a panel by their words; the line of chance and the raters are none."""
    lines = [line for line in axes.lines if ": 0." in str(line.get_label())]
    return {line.get_label(): line.get_xydata() for line in lines}


def named(predictions, names) -> pd.DataFrame:
    """Copies of one experiment under other names."""
    rows = predictions.query("experiment == 'warehouse/from_scratch' and task == 'mov01vs2'")
    return pd.concat([rows.assign(experiment=name) for name in names], ignore_index=True)


def texts(figure) -> str:
    """All words of a figure."""
    found = [t.get_text() for axes in figure.axes for t in axes.texts]
    found += [axes.get_title() for axes in figure.axes]
    found += [axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes]
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    found += [t.get_text() for legend in [*legends, *figure.legends] for t in legend.get_texts()]
    return " | ".join(found)


def every_figure(predictions) -> dict:
    """One figure of each kind."""
    warehouse = predictions[predictions["experiment"].str.startswith("warehouse/")]
    controls = named(predictions, ["control/paper/clean", "control/paper/motion_2-4"])
    curve = named(
        predictions, [f"labels/{m}/{n}" for m in ("fine_tuned", "from_scratch") for n in (5, 9)]
    )
    flow = pd.DataFrame({"step": ["read", "kept"], "n_in": [9, 9], "n_out": [9, 7]})
    board = pd.DataFrame(
        {"task": "mov01vs2", "label": ["a", "b"], "paper": [0.8, 0.6], "ours": [0.7, np.nan]}
    )
    board = board.assign(low=board["ours"] - 0.1, high=board["ours"] + 0.1)
    reach = {"label": ["a"], "p_low": [1e-9], "p_high": [0.1], "p_printed": [1e-12]}
    volume = np.random.default_rng(0).random((24, 28, 24), dtype=np.float32)
    return {
        "roc": results.plot_roc(warehouse, n_boot=20),
        "calibration": results.plot_calibration(named(predictions, ["a"])),
        "confusion": results.plot_confusion([0, 0, 1, 1], [0, 1, 1, 1]),
        "controls": results.plot_controls(controls_table(controls, n_boot=20)),
        "curve": results.plot_learning_curve(curve, n_boot=20),
        "flow": cohort.plot_flow(flow),
        "scoreboard": results.plot_scoreboard(board),
        "range": results.plot_mcnemar_range(pd.DataFrame(reach)),
        "slices": cohort.show_slices([volume, volume], ["still", "moved"], np.eye(4)),
    }


class TestEveryFigure:
    def test_none_leaves_a_trace_and_all_can_be_drawn(self, predictions, tmp_path):
        before = dict(matplotlib.rcParams)
        made = every_figure(predictions)
        import matplotlib.pyplot as plt

        assert plt.get_fignums() == []
        assert dict(matplotlib.rcParams) == before
        for name, figure in made.items():
            figure.savefig(tmp_path / f"{name}.png", dpi=60)
            assert (tmp_path / f"{name}.png").stat().st_size > 1000

    def test_a_notebook_shows_it_without_pyplot(self):
        assert results.plot_confusion([0, 1], [0, 1])._repr_png_().startswith(b"\x89PNG")

    def test_the_same_input_gives_the_same_bytes(self, predictions):
        rows = named(predictions, ["warehouse/from_scratch"])
        first, second = (results.plot_roc(rows, n_boot=20)._repr_png_() for _ in range(2))
        assert first == second

    def test_colours_differ_in_grey_or_in_form(self):
        assert len(set(COLOURS)) == len(DASHES) == len(MARKERS) == len(set(MARKERS))


class TestRoc:
    def test_legend_gives_area_and_interval_and_raters_are_points(self, predictions):
        rows = predictions[predictions["experiment"].str.startswith("warehouse/")]
        figure = results.plot_roc(rows, n_boot=20)
        words = texts(figure)
        assert "fine-tuned: 0.9" in words
        assert "[0." in words
        assert "rater 1, against the consensus" in words
        titles = [axes.get_title().splitlines()[0] for axes in figure.axes if axes.get_title()]
        assert list(dict.fromkeys(titles)) == list(TASK_WORDS.values())

    def test_no_panel_has_more_than_four_curves(self, predictions):
        rows = predictions[predictions["experiment"].str.startswith("warehouse/")]
        figure = results.plot_roc(rows, n_boot=20)
        curves = [curves_of(axes) for axes in figure.axes]
        assert max(map(len, curves)) <= 4
        assert sum(map(len, curves)) == 2 * len(METHODS)

    def test_the_area_is_table_iv_s_and_the_drawn_curve_has_it(self, study, predictions):
        rows = predictions[predictions["experiment"].str.startswith("warehouse/")]
        figure = results.plot_roc(rows, n_boot=200, seed=3)
        table = build_table("table_4", study, n_boot=200, seed=3).set_index(["task", "method"])
        tasks = {words: task for task, words in TASK_WORDS.items()}
        checked = 0
        for axes in filter(curves_of, figure.axes):
            task = tasks[axes.get_title().splitlines()[0]]
            for label, line in curves_of(axes).items():
                method = next(m for m in METHODS if label.startswith(f"{title_of(m)}:"))
                row = table.loc[(task, method)]
                ours = f"{row.auc_ours:.2f} [{row.auc_low:.2f}, {row.auc_high:.2f}]"
                assert label.endswith(ours)
                assert np.trapezoid(line[:, 1], line[:, 0]) == pytest.approx(row.auc_ours)
                checked += 1
        assert checked == 2 * len(METHODS)

    def test_two_raters_in_one_point_do_not_cover_each_other(self, predictions):
        rows = predictions[predictions["experiment"] == "warehouse/annotators"]
        rows = rows[rows["task"] == "mov01vs2"].assign(y_pred=lambda r: r["y_true"])
        axes = results.plot_roc(rows, n_boot=20).axes[0]
        marks = [line for line in axes.lines if "rater" in line.get_label()]
        assert [mark.get_xydata().tolist() for mark in marks] == [[[0, 1]]] * 2
        paths = [m.get_path().transformed(m.get_transform())
                 for m in (mark._marker for mark in marks)]  # fmt: skip
        assert (
            not paths[0]
            .get_extents()
            .shrunk(0.99, 1)
            .overlaps(paths[1].get_extents().shrunk(0.99, 1))
        )

    def test_curves_start_and_end_in_the_corners(self, predictions):
        figure = results.plot_roc(named(predictions, ["warehouse/from_scratch"]), n_boot=20)
        curve = next(line for line in figure.axes[0].lines if "from scratch" in line.get_label())
        assert curve.get_xydata()[0].tolist() == [0, 0]
        assert curve.get_xydata()[-1].tolist() == [1, 1]

    def test_nothing_to_draw_is_refused(self, predictions):
        with pytest.raises(ValueError, match="no predictions"):
            results.plot_roc(predictions.iloc[:0])


class TestSlices:
    def test_sides_and_millimetres_are_written(self):
        volume = np.zeros((10, 12, 14), dtype=np.float32)
        words = texts(cohort.show_slices([volume], ["a"], np.diag([3.0, 3, 3, 1])))
        for word in ("L", "R", "A", "P", "sagittal (mm)", "mm"):
            assert word in words

    def test_left_stays_left_whatever_the_storage(self):
        volume = np.zeros((6, 5, 4), dtype=np.float32)
        volume[0] = 1  # with this affine the first sagittal slice is the rightmost
        affine = np.diag([-2.0, 2, 2, 1])
        turned, new_affine = to_ras(volume, affine)
        assert turned[-1].min() == 1
        assert turned[0].max() == 0
        assert new_affine[0, 0] == 2
        corner = affine @ [0, 0, 0, 1]
        np.testing.assert_allclose(new_affine @ [5, 0, 0, 1], corner)

    def test_slices_are_taken_at_the_same_world_position(self):
        first, second = np.zeros((9, 9, 9), np.float32), np.zeros((9, 9, 18), np.float32)
        first[:, :, 4] = second[:, :, 8] = 1
        affines = [np.diag([2.0, 2, 2, 1]), np.diag([2.0, 2, 1, 1])]
        figure = cohort.show_slices([first, second], ["a", "b"], affines, planes=("axial",))
        assert [ax.images[0].get_array().min() for ax in figure.axes] == [1, 1]

    def test_batches_of_one_channel_are_accepted(self):
        assert len(cohort.show_slices([np.zeros((1, 5, 5, 5))]).axes) == 3

    def test_rows_of_panels_hold_many_volumes(self):
        volumes = [np.zeros((4, 4, 4))] * 5
        figure = cohort.show_slices(volumes, planes=("axial",), n_columns=2)
        assert len(figure.axes) == 6

    def test_wrong_calls_are_refused(self):
        volume = np.zeros((4, 4, 4))
        with pytest.raises(ValueError, match="plane 'oblique'"):
            cohort.show_slices(volume, planes=("oblique",))
        with pytest.raises(ValueError, match="1 volumes, 2 labels"):
            cohort.show_slices([volume], ["a", "b"])
        with pytest.raises(ValueError, match=r"shape \(4, 4\)"):
            to_ras(np.zeros((4, 4)), np.eye(4))


class TestComparisons:
    def test_controls_without_motion_stand_above_those_with(self, predictions):
        names = [f"control/paper/{c}" for c in ("motion_2-4", "clean", "motion_4-6", "blurred")]
        figure = results.plot_controls(controls_table(named(predictions, names), n_boot=10))
        labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
        assert labels == ["clean", "blurred", "motion 2-4", "motion 4-6"]


class TestDiagrams:
    def test_flow_counts_what_leaves(self):
        flow = pd.DataFrame(
            {
                "step": ["graded", "kept"],
                "cohort": ["adni", "adni"],
                "n_in": [100, 90],
                "n_out": [90, 60],
                "reason": ["no grade", "motion"],
            }
        )
        words = texts(cohort.plot_flow(flow))
        for word in (
            "candidates\nn = 100",
            "graded\nn = 90",
            "-10: no grade",
            "kept\nn = 60",
            "-30: motion",
            "adni",
        ):
            assert word in words

    def test_rows_of_one_step_are_one_box_that_continues_the_count(self):
        lost = {"step": "centring", "n_in": 1, "n_out": 0, "reason": "no head found"}
        flow = pd.DataFrame([{"step": "read", "n_in": 9, "n_out": 9, "reason": ""}, lost, lost])
        words = texts(cohort.plot_flow(flow))
        assert "read\nn = 9" in words
        assert "centring\nn = 7" in words
        assert "-2: no head found" in words

    def test_a_cohort_s_real_motion_test_is_counted_by_itself(self):
        manifest = pd.DataFrame({"cohort": "adni", "role": ["research"] * 5 + ["real_motion"] * 3})
        manifest["straight_reject"] = [1, 0, None, 0, 0, 0, 0, 0]
        failed = [{"cohort": "adni", "reason": "no head"}]
        words = texts(cohort.plot_flow(count_scans(manifest, "read", "BIDS", failed)))
        assert "-1: no head" in words
        for word in ("candidates\nn = 6", "read\nn = 5", "straight rejects removed\nn = 4"):
            assert word in words
        assert "adni, motion test" in words
        assert "read\nn = 3" in words

    def test_many_cohorts_start_a_new_row(self):
        flow = pd.DataFrame({"step": "read", "cohort": list("abcdef"), "n_in": 2, "n_out": 2})
        assert len(cohort.plot_flow(flow).axes) == 6

    def test_an_empty_flow_is_refused(self):
        with pytest.raises(ValueError, match="flow of 0 rows"):
            cohort.plot_flow(pd.DataFrame({"step": []}))

    def test_confusion_writes_counts_and_shares_of_rows(self):
        words = texts(results.plot_confusion([0, 0, 0, 1], [0, 0, 1, 1], names=("a", "b")))
        assert "2\n67%" in words
        assert "1\n100%" in words


class TestRealMotion:
    def test_the_air_is_drawn_in_units_of_the_head_over_two_decades(self, rng):
        volume = np.zeros((20, 24, 20), np.float32)
        volume[5:15, 5:19, 5:15] = 500
        volume[:3] = 5  # a ghost of a hundredth of the head
        figure = cohort.show_air(
            [volume, volume], ["0 of 8 votes", "8 of 8 votes"], [np.eye(4)] * 2
        )
        panels = np.array(figure.axes[:12]).reshape(2, 6)
        assert [a.get_ylabel() for a in panels[:, 0]] == ["0 of 8 votes", "8 of 8 votes"]
        assert panels[0, 5].get_title() == "axial, logarithm"
        shown = panels[0, 5].images[0]
        assert shown.get_clim() == pytest.approx(np.log10(cohort.AIR))
        assert np.isclose(shown.get_array(), -2).sum() == 3 * 24
        assert panels[0, 2].images[0].get_array().max() == 1

    def test_detectors_need_no_paper_beside_them(self):
        rows = [("votes3", "air_spread", 0.8), ("votes3", "forest_mrqy", 0.7)]
        table = pd.DataFrame(rows, columns=["task", "label", "ours"]).assign(low=0.6, high=0.9)
        (axes,) = results.plot_scoreboard(table, metric="AUC").axes
        assert (axes.get_title(), axes.get_xlabel()) == ("3 votes or more", "AUC")
        assert [t.get_text() for t in axes.get_yticklabels()][1] == "forest, MRQy's 13"

    def test_a_method_stands_in_the_same_row_of_every_panel(self):
        rows = [("mov01vs2", "a"), ("mov01vs2", "b"), ("mov01vs2", "c"), ("mov0vs1", "a"),
                ("mov0vs1", "c")]  # fmt: skip
        table = pd.DataFrame(rows, columns=["task", "label"]).assign(ours=0.7, low=0.6, high=0.8)
        first, second = results.plot_scoreboard(table).axes
        assert [t.get_text() for t in first.get_yticklabels()] == ["a", "b", "c"]
        assert second.lines[0].get_ydata().tolist() == [0, 2]
        assert first.get_ylim() == second.get_ylim()

    def test_what_is_absent_is_said_in_one_sentence(self):
        missing = pd.DataFrame({"reason": ["no rated scans here"]})
        assert "no rated scans here" in texts(results.plot_scoreboard(missing))
        assert "none at hand" in texts(cohort.show_air([], [], [], absent="none at hand"))


def test_fig_2_moves_the_head_alike_through_both_simulators(monkeypatch):
    seen = {}

    def remember(name):
        def simulate(volume, trajectory, *, affine, axis):
            seen.setdefault(name, []).append((trajectory, axis))
            return volume

        return simulate

    for name in ("kspace_motion", "image_motion"):
        monkeypatch.setattr(motion, name, remember(name))
    head = np.ones((8, 9, 10), np.float32)
    motion.plot_severities(head, np.eye(4), amounts=(3, 6))
    for (one, axis), (other, other_axis) in zip(*seen.values(), strict=True):
        assert axis == other_axis
        np.testing.assert_array_equal(one.translation_mm, other.translation_mm)
        np.testing.assert_array_equal(one.times, other.times)
    small, large = (trajectory for trajectory, _ in seen["kspace_motion"])
    np.testing.assert_allclose(2 * small.rotation_deg, large.rotation_deg)
