"""The transcription of the paper, guarded by the paper's own arithmetic."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from motionlib.paper.transcription import PUBLISHED, in_text, printed, published, published_aucs

SIZES = {"table_1": 4, "table_2": 6, "table_3": 4, "table_4": 12, "table_a1": 6, "table_a2": 9}
SIZES |= {"table_a3": 4, "table_a4": 2, "in_text": 49}
EXCEPTIONS = {(98.44, 97.22, 99.70), (53.18, 17.96, 88.57)}  # as printed


def triples() -> set[tuple]:
    """Every row of the paper that carries all three rates, percent."""
    found = set()
    for name in ("table_2", "table_3", "table_4", "table_a3"):
        rows = printed(name)[["ba", "specificity", "sensitivity"]].dropna()
        found |= {tuple(map(float, row)) for row in rows.to_numpy()}
    return found


class TestTranscription:
    @pytest.mark.parametrize(("name", "size"), SIZES.items())
    def test_every_row_is_there(self, name, size):
        assert len(printed(name)) == size

    def test_balanced_accuracy_is_the_mean_of_the_rates_but_for_two_rows(self):
        off = {t for t in triples() if abs((t[1] + t[2]) / 2 - t[0]) > 0.01 + 1e-9}
        assert off == EXCEPTIONS
        assert len(triples()) == 21

    def test_table_a1_sums_to_table_1(self):
        sums = printed("table_a1")[["ADNI", "MSSEG", "MNI BITE"]].sum().tolist()
        images = printed("table_1").query("database_group == 'research'")["n_images"].tolist()
        assert sums == images == [1143, 53, 26]

    def test_totals_of_table_a1_are_sums_of_their_row(self):
        table = printed("table_a1")
        assert (table[["ADNI", "MSSEG", "MNI BITE"]].sum(axis=1) == table["total"]).all()

    def test_table_a2_sums_to_the_grades_in_the_text(self):
        sums = printed("table_a2").groupby("label")["mov01vs2"].sum().tolist()
        assert sums == [in_text(f"consensus mov{grade}") for grade in (0, 1, 2)]

    def test_warehouse_counts_add_up(self):
        graded = sum(in_text(f"consensus mov{grade}") for grade in (0, 1, 2))
        assert graded == in_text("labelled images not SR")
        rejected = in_text("straight reject images (SR)")
        assert graded + rejected == in_text("images annotated in the warehouse") == 5500
        makers = ("Siemens", "GE", "Philips", "Toshiba")
        assert sum(in_text(f"scanners {name}") for name in makers) == 5500

    def test_test_sizes_in_the_text_are_those_of_table_a2(self):
        testing = printed("table_a2").query("set == 'testing'")
        assert testing["mov01vs2"].sum() == in_text("test images mov01vs2") == 385
        assert testing["mov0vs1"].sum() == in_text("test images mov0vs1") == 328

    def test_gains_in_the_text_follow_from_table_4(self):
        ba = printed("table_4").set_index(["task", "method"])["ba"]
        proposed = "Conv5FC3 fine-tuned on CDW (proposed)"
        forest = "Random forest trained on CDW"
        gains = [ba[task, proposed] - ba[task, forest] for task in ("mov01vs2", "mov0vs1")]
        np.testing.assert_allclose(gains, [22.58, 7.89], atol=1e-9)

    def test_derived_rows_of_table_a4_are_sums_of_printed_numbers(self):
        ba = printed("table_4").set_index(["task", "method"])["ba"]
        derived = printed("table_a4").set_index("task")["ba"]
        for task, word in (("mov01vs2", "severe"), ("mov0vs1", "mild")):
            gain = in_text(f"k-space pre-trained BA gain over scratch {word} (percent points)")
            scratch = ba[task, "Conv5FC3 trained from scratch on CDW"]
            assert derived[task] == pytest.approx(scratch + gain, abs=1e-9)

    def test_what_the_paper_leaves_blank_stays_blank(self):
        raters = printed("table_4").query("method == 'Manual annotations'")
        assert raters[["specificity", "sensitivity"]].isna().all(axis=None)
        assert printed("table_a2")["mov0vs1"].isna().sum() == 3


class TestPublished:
    @pytest.mark.parametrize("name", [name for name in PUBLISHED if name != "in_text"])
    def test_metrics_are_fractions(self, name):
        table = published(name)
        shown = [m for m in ("balanced_accuracy", "specificity", "sensitivity") if m in table]
        for metric in shown:
            assert table[metric].dropna().between(0, 1).all()

    def test_keys_are_those_of_the_study(self):
        assert set(published("table_2")["simulator"]) == {"image", "kspace"}
        assert set(published("table_2")["severity"]) == {"2-4", "4-6", "6-8"}
        assert published("table_4")["method"].notna().all()
        assert published("table_3")["model"].tolist() == ["Conv5FC3", "ResNet3D", "SECNN", "ViT3D"]

    def test_values_are_the_printed_ones_over_a_hundred(self):
        row = published("table_4").query("task == 'mov01vs2' and method == 'fine_tuned'").iloc[0]
        assert row["balanced_accuracy"] == 0.8452
        assert row["auc"] == 0.85

    def test_a_change_to_the_answer_leaves_the_next_answer_alone(self):
        for table in (published("table_1"), printed("table_1")):
            table.loc[0, "n_patients"] = -1
        assert published("table_1").loc[0, "n_patients"] == 70

    def test_training_times_are_minutes(self):
        assert published("table_3")["training_minutes"].tolist() == [232, 387, 378, 271]

    def test_areas_of_the_rivals_follow_from_the_gains(self):
        areas = published_aucs()
        assert areas["mov01vs2", "from_scratch"] == 0.80
        assert areas["mov01vs2", "research_only"] == 0.61
        assert ("mov0vs1", "research_only") not in areas

    def test_unknown_names_are_refused(self):
        with pytest.raises(ValueError, match="table 'table_9'"):
            published("table_9")
        with pytest.raises(ValueError, match="no quantity 'speed'"):
            in_text("speed")

    def test_sources_of_derived_rows_are_noted(self):
        assert published("table_a4")["note"].str.startswith("derived").all()
        assert isinstance(published("table_a4"), pd.DataFrame)
