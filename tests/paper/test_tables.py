"""Every table from the written predictions alone: all rows, no torch, reasons for empty cells."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from synthetic_study import write_study

from motionlib.files import write_table
from motionlib.metrics import classification_metrics
from motionlib.paper.beside import KEYS, METRICS_OF, beside_paper, same_order
from motionlib.paper.run_summary import RunSummary
from motionlib.paper.tables import TABLES, build_table, build_tables, headline, typeset_tables
from motionlib.paper.transcription import published
from motionlib.typeset import to_html, to_latex

NAMES = "table_1 table_2 table_3 table_4 table_a1 table_a2 table_a3 table_a4 timing agreement"
NAMES += " mcnemar scoreboard paper_audit"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def made(folder):
    return build_tables(folder, n_boot=100)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A run in which nothing but the list of scans was written."""
    folder = write_study(tmp_path_factory.mktemp("empty"))
    (folder / "predictions.csv").unlink()
    (folder / "durations.csv").unlink()
    return folder


class TestBuild:
    def test_every_table_of_the_interface_is_offered(self):
        assert list(TABLES) == NAMES.split()

    @pytest.mark.parametrize("name", KEYS)
    def test_every_published_row_is_there_in_its_order(self, made, name):
        keys = KEYS[name]
        paper = published(name)[keys].to_numpy().tolist()
        assert made[name][keys].to_numpy().tolist()[: len(paper)] == paper

    @pytest.mark.parametrize("name", KEYS)
    def test_every_published_row_is_there_when_nothing_was_measured(self, empty, name):
        table = build_table(name, empty, n_boot=10)
        assert len(table) >= len(published(name))
        first = METRICS_OF[name][0]
        unmeasured = table[f"{first}_ours"].isna()
        assert table.loc[unmeasured, "reason"].notna().all()
        assert not (table.loc[unmeasured, f"{first}_ours"] == 0).any()

    @pytest.mark.parametrize("name", KEYS)
    def test_paper_and_ours_and_difference_add_up(self, made, name):
        table = made[name]
        for metric in METRICS_OF[name]:
            expected = table[f"{metric}_ours"] - table[f"{metric}_paper"]
            np.testing.assert_allclose(
                table[f"{metric}_difference"].to_numpy(dtype=float), expected.to_numpy(dtype=float)
            )

    @pytest.mark.parametrize("name", ["table_2", "table_3", "table_4"])
    def test_intervals_hold_the_value_and_ours_is_the_mean(self, made, name):
        table = made[name]
        for metric in ("balanced_accuracy", "specificity", "sensitivity"):
            ours = table[f"{metric}_ours"]
            assert (ours == table[f"{metric}_mean"]).all()
            assert (table[f"{metric}_low"] <= ours + 1e-12).all()
            assert (ours <= table[f"{metric}_high"] + 1e-12).all()
        assert table["n"].notna().all()
        assert table["cohort"].str.startswith("virtual-").all()

    def test_a_cell_is_computed_from_its_predictions(self, folder, made):
        rows = pd.read_csv(folder / "predictions.csv")
        rows = rows.query("experiment == 'warehouse/from_scratch' and task == 'mov01vs2'")
        each = [
            classification_metrics(p["y_true"], p["score"], y_pred=p["y_pred"])["sensitivity"]
            for _, p in rows.groupby("fold")
        ]
        cell = made["table_4"].query("task == 'mov01vs2' and method == 'from_scratch'").iloc[0]
        assert cell["sensitivity_ours"] == pytest.approx(np.mean(each), abs=1e-12)

    def test_a_changed_prediction_changes_the_cell(self, tmp_path, made):
        folder = write_study(tmp_path)
        rows = pd.read_csv(folder / "predictions.csv")
        chosen = (rows["experiment"] == "warehouse/fine_tuned") & (rows["task"] == "mov01vs2")
        rows.loc[chosen, "y_pred"] = 1 - rows.loc[chosen, "y_pred"]
        rows.to_csv(folder / "predictions.csv", index=False)
        place = made["table_4"].query("task == 'mov01vs2' and method == 'fine_tuned'").index[0]
        changed = build_table("table_4", folder, n_boot=10).loc[place, "balanced_accuracy_ours"]
        before = made["table_4"].loc[place, "balanced_accuracy_ours"]
        assert changed == pytest.approx(1 - before, abs=1e-12)

    def test_a_missing_experiment_empties_its_row_and_says_so(self, tmp_path):
        folder = write_study(tmp_path)
        rows = pd.read_csv(folder / "predictions.csv")
        kept = rows[~rows["experiment"].str.startswith("pretrain/kspace/4-6")]
        kept.to_csv(folder / "predictions.csv", index=False)
        table = build_table("table_2", folder, n_boot=10)
        row = table.query("simulator == 'kspace' and severity == '4-6'").iloc[0]
        assert np.isnan(row["balanced_accuracy_ours"])
        assert row["reason"] == "no predictions of pretrain/kspace/4-6/paper in this run"
        assert row["balanced_accuracy_paper"] == 0.9777

    def test_raters_have_no_auc_and_the_paper_no_rates_for_them(self, made):
        rows = made["table_4"].query("method == 'annotators'")
        assert rows[["auc_ours", "specificity_paper", "sensitivity_paper"]].isna().all(axis=None)
        assert (rows["specificity_ours"] == 1).all()

    def test_real_motion_is_judged_on_both_classes(self, made):
        table = made["table_2"]
        for kind in ("real", "emulated"):
            assert table[f"{kind}_motion_specificity"].notna().all()
            assert table[f"{kind}_motion_n"].eq(20).all()
            auc = table[[f"{kind}_motion_auc{end}" for end in ("_low", "", "_high")]]
            assert auc.notna().all(axis=None)
            assert (auc.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)

    def test_emulated_motion_fills_no_cell_of_real_motion(self, tmp_path):
        folder = write_study(tmp_path)
        rows = pd.read_csv(folder / "predictions.csv")
        rows[~rows["experiment"].str.endswith("/real")].to_csv(
            folder / "predictions.csv", index=False
        )
        table = build_table("table_2", folder, n_boot=10)
        assert table["real_motion_accuracy_ours"].isna().all()
        assert table["emulated_motion_accuracy"].notna().all()
        assert table["reason"].str.endswith("/real in this run").all()

    def test_resampled_heads_stand_beside_every_synthetic_figure(self, folder, made):
        rows = pd.read_csv(folder / "predictions.csv").query("model == 'Conv5FC3'")
        for row in made["table_2"].itertuples():
            name = f"pretrain/{row.simulator}/{row.severity}/{row.recipe}/resampled"
            called = rows.loc[rows["experiment"] == name, "y_pred"].mean()
            assert row.resampled_called_motion == pytest.approx(called, abs=1e-12)
            assert row.resampled_called_motion_low <= called <= row.resampled_called_motion_high

    def test_counts_equal_the_scans(self, folder, made):
        scans = pd.read_csv(folder / "splits.csv")
        research = scans[scans["cohort"] != "virtual-warehouse"]
        assert made["table_a1"]["total_ours"].sum() == len(research)
        graded = scans.query("cohort == 'virtual-warehouse'")["motion_grade"].notna().sum()
        assert made["table_a2"]["mov01vs2_ours"].sum() == graded
        assert made["table_1"]["n_images_ours"].sum() == len(scans)

    def test_labels_of_table_a1_come_from_predictions_where_scans_have_none(self, tmp_path):
        folder = write_study(tmp_path)
        scans = pd.read_csv(folder / "splits.csv")
        with_labels = build_table("table_a1", folder)
        scans.drop(columns="y_true").to_csv(folder / "splits.csv", index=False)
        rows = pd.read_csv(folder / "predictions.csv")
        moved = rows["experiment"].str.startswith("pretrain/image/2-4/paper") & (
            rows["y_true"] == 1
        )
        rows.loc[moved, "scan_id"] += "_image_2-4_paper"
        rows.to_csv(folder / "predictions.csv", index=False)
        pd.testing.assert_frame_equal(build_table("table_a1", folder), with_labels)

    def test_durations_become_seconds_per_scan_and_minutes_per_network(self, made):
        timing = made["timing"].set_index("key")
        assert timing.loc["simulate/image/4", "seconds_ours"] == 2.0
        assert timing.loc["simulate/image/4", "ratio"] == pytest.approx(3.12 / 2)
        assert (made["table_3"]["training_minutes_ours"] == 2.0).all()

    def test_steps_are_those_of_the_longest_fold(self, made):
        steps = made["table_2"].set_index(["simulator", "severity"])["steps"]
        assert steps["image", "2-4"] == 31
        assert np.isnan(steps["kspace", "2-4"])  # none was recorded
        assert (made["table_3"]["steps"] == 40).all()

    def test_a_training_that_two_notebooks_recorded_counts_once(self, tmp_path, made):
        folder = write_study(tmp_path)
        once = pd.read_csv(folder / "durations.csv")
        pd.concat([once, once]).to_csv(folder / "durations.csv", index=False)
        pd.testing.assert_frame_equal(build_table("timing", folder), made["timing"])

    def test_unknown_names_and_folders_are_refused(self, folder, tmp_path):
        with pytest.raises(ValueError, match="table 'table_9'"):
            build_table("table_9", folder)
        with pytest.raises(FileNotFoundError, match="expected a run's folder"):
            build_table("table_4", tmp_path)


class TestPairedTables:
    def test_mcnemar_names_every_comparison_of_the_paper(self, made):
        table = made["mcnemar"]
        printed = table.dropna(subset=["p_paper"])
        assert printed["p_paper"].tolist() == [6.6e-17, 1.39e-8]
        assert (printed["second"] == "from_scratch").all()
        assert (table["task"] == "synthetic").sum() == 6
        assert ((table["second"] == "forest_clinical") & (table["b"] >= 0)).sum() == 2

    def test_holm_never_lowers_a_p(self, made):
        table = made["mcnemar"].dropna(subset=["p_by_patient"])
        assert (table["p_holm"] >= table["p_by_patient"] - 1e-15).all()

    def test_what_was_not_run_has_a_reason(self, made):
        rows = made["mcnemar"].query("first == 'fine_tuned_recommended'")
        assert rows["p_by_patient"].isna().all()
        assert (rows["reason"] == "one of the two was not run").all()

    def test_verdicts_are_compared_only_where_the_paper_gives_one(self, made):
        table = made["mcnemar"]
        given = table["p_paper"].notna() | (table["task"] == "synthetic")
        assert table.loc[~given, "same_verdict"].isna().all()
        assert table.loc[given, "same_verdict"].notna().all()

    def test_agreement_shows_what_the_consensus_hides(self, made):
        table = made["agreement"]
        assert len(table) == 6
        with_consensus = table[table["quantity"].str.endswith("consensus")]["ours"].to_numpy()
        left_out = table[table["quantity"].str.endswith("other rater")]["ours"].to_numpy()
        assert (with_consensus >= 0.75).all()
        assert (left_out < with_consensus).all()

    def test_without_a_test_set_the_raters_are_judged_on_every_graded_scan(self, tmp_path):
        folder = write_study(tmp_path)
        scans = pd.read_csv(folder / "splits.csv")
        scans.loc[scans["role"] == "test", ["role", "fold"]] = "train", 0
        scans.to_csv(folder / "splits.csv", index=False)
        table = build_table("agreement", folder, n_boot=20).set_index(["quantity", "task"])
        both = scans[scans["cohort"].eq("virtual-warehouse") & scans["role"].eq("train")]
        row = table.loc["balanced accuracy against the other rater", "mov01vs2"]
        assert row["n"] == len(both)
        assert row["ours"] < 0.95

    def test_nothing_measured_leaves_reasons(self, empty):
        assert build_table("mcnemar", empty)["reason"].notna().all()
        rows = build_table("agreement", empty).query("quantity.str.contains('consensus')")
        assert rows["reason"].notna().all()


class TestScoreboard:
    def test_every_printed_cell_has_a_row(self, made):
        board = made["scoreboard"]
        for name, metrics in METRICS_OF.items():
            expected = sum(int(published(name)[m].notna().sum()) for m in metrics)
            assert (board["table"] == name).sum() == expected
        assert {"in_text", "agreement", "mcnemar", "timing"} <= set(board["table"])
        assert board["paper"].notna().all()

    def test_an_empty_cell_has_a_reason_and_is_never_zero(self, empty):
        board = build_table("scoreboard", empty, n_boot=10)
        missing = board["ours"].isna()
        assert missing.sum() > 50
        assert board.loc[missing, "reason"].notna().all()

    def test_a_full_cell_names_its_cohort(self, made):
        board = made["scoreboard"]
        full = board["ours"].notna() & (board["table"] != "timing")
        assert board.loc[full, "cohort"].notna().all()


class TestBesidePaper:
    def test_own_rows_follow_the_published_ones(self):
        ours = pd.DataFrame(
            {
                "task": ["mov01vs2", "mov01vs2"],
                "method": ["mine", "fine_tuned"],
                "balanced_accuracy": [0.7, 0.8],
            }
        )
        table = beside_paper(ours, "table_4")
        assert len(table) == 13
        assert table.loc[12, "method"] == "mine"
        assert np.isnan(table.loc[12, "balanced_accuracy_paper"])
        row = table.query("method == 'fine_tuned' and task == 'mov01vs2'").iloc[0]
        assert row["balanced_accuracy_difference"] == pytest.approx(-0.0452, abs=1e-12)

    def test_wrong_frames_are_refused(self):
        with pytest.raises(ValueError, match="table 'nine'"):
            beside_paper(pd.DataFrame(), "nine")
        with pytest.raises(ValueError, match="no column method"):
            beside_paper(pd.DataFrame({"task": ["mov01vs2"]}), "table_4")
        twice = pd.DataFrame({"model": ["SECNN", "SECNN"], "balanced_accuracy": [1, 1]})
        with pytest.raises(ValueError, match=r"two rows of ours for .'SECNN'."):
            beside_paper(twice, "table_3")

    def test_same_order_is_missing_where_there_is_nothing_to_compare(self):
        assert same_order([0.5, np.nan], [0.4, 0.3]).isna().all()
        assert same_order([0.9, 0.8, 0.8], [0.6, 0.7, 0.5]).tolist() == [False, False, True]

    def test_equal_values_of_ours_do_not_repeat_an_order(self):
        assert same_order([0.9, 0.8], [0.5, 0.5]).tolist() == [False, False]
        assert same_order([0.9, 0.9], [0.5, 0.4]).tolist() == [True, True]


class TestTypeset:
    def test_html_stands_alone_and_shows_intervals(self, made):
        text = to_html(made["table_4"], title="Table IV", caption="emulated & virtual")
        assert "Table IV" in text
        assert "emulated &amp; virtual" in text
        assert "difference" in text
        assert "<script" not in text
        assert "http" not in text

    @pytest.mark.parametrize("name", ["table_2", "table_4", "mcnemar", "scoreboard", "paper_audit"])
    def test_latex_is_balanced_and_escaped(self, made, name):
        text = to_latex(made[name], caption="50 % of all", label="tab:x")
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
        assert r"50 \% of all" in text
        assert r"\toprule" in text
        body = text.split(r"\midrule")[1].replace(r"\_", "")
        assert "_" not in body

    def test_percent_and_spread_are_written_as_in_the_paper(self, made):
        text = to_latex(made["table_2"])
        assert "98.2 ± 1.4" in text


class TestHeadline:
    def test_every_method_of_both_tasks_is_there_with_its_interval(self, folder):
        whole = build_table("table_4", folder, n_boot=50)
        write_table(whole, folder / "tables" / "table_4.csv")
        table = headline(folder)
        assert len(table) >= 12
        cell = table.query("task == 'mov01vs2' and method == 'fine_tuned'").iloc[0]
        assert cell["ba_paper"] == "84.5"
        assert "[" in cell["ba_ours"]
        assert cell["cohort"] == "virtual-warehouse"
        low = whole.query("task == 'mov01vs2' and method == 'fine_tuned'")
        assert f"[{100 * low['balanced_accuracy_low'].item():.1f}," in cell["ba_ours"]


class TestWithoutTorch:
    def test_all_tables_in_a_minute_from_a_process_without_torch(self, folder):
        code = (
            "import sys\n"
            "class NoTorch:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.split('.')[0] == 'torch':\n"
            "            raise ImportError('torch is not wanted here')\n"
            "sys.meta_path.insert(0, NoTorch())\n"
            "from motionlib.paper.tables import build_tables\n"
            f"made = build_tables({str(folder)!r}, n_boot=100)\n"
            "assert len(made) == 13 and 'torch' not in sys.modules\n"
        )
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert time.perf_counter() - start < 60


class TestRunSummary:
    def test_manifest_of_the_cohort_serves_where_splits_are_missing(self, tmp_path):
        folder = write_study(tmp_path)
        scans = pd.read_csv(folder / "splits.csv")
        (folder / "cohort").mkdir()
        scans.to_csv(folder / "cohort" / "manifest.tsv", sep="\t", index=False)
        (folder / "splits.csv").unlink()
        assert len(RunSummary(folder).scans) == len(scans)

    def test_best_fold_is_chosen_on_validation_scans(self, tmp_path):
        folder = write_study(tmp_path)
        rows = pd.read_csv(folder / "predictions.csv")
        cv = (rows["experiment"] == "pretrain/image/2-4/paper/cv") & (rows["model"] == "Conv5FC3")
        rows.loc[cv & (rows["fold"] == 0), "y_pred"] = 0
        rows.to_csv(folder / "predictions.csv", index=False)
        run = RunSummary(folder)
        assert run.best_fold("pretrain/image/2-4/paper", model="Conv5FC3") == 1

    def test_scans_that_are_not_listed_are_said_to_be_so(self, folder):
        rows = pd.DataFrame({"participant_id": ["nobody"]})
        assert RunSummary(folder).cohort_of(rows) == "not in splits.csv"


class TestTypesetTables:
    def test_every_table_is_html_and_latex_beside_its_csv_and_the_same_again(self, made, tmp_path):
        assert typeset_tables(tmp_path, made, caption="Virtual heads.") == 2 * len(made)
        written = {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
        assert set(written) == {f"{name}.{kind}" for name in made for kind in ("html", "tex")}
        again = {name: made[name] for name in ("table_4", "mcnemar", "paper_audit")}
        typeset_tables(tmp_path / "again", again, caption="Virtual heads.")
        for path in (tmp_path / "again" / "tables").iterdir():
            assert path.read_bytes() == written[path.name]
        html, latex = written["table_4.html"].decode(), written["table_4.tex"].decode()
        assert "Virtual heads." in html
        assert "Virtual heads." in latex
        assert "http" not in html.replace("http://www.w3.org", "")
