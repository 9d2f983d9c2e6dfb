"""Counted parameters and operations."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from motionlib.experiments import copies
from motionlib.networks import NETWORKS, costs
from motionlib.paper.transcription import published


class TestCount:
    def test_conv5fc3_at_the_papers_size(self):
        found = costs.count("Conv5FC3", (169, 208, 179))
        assert found["parameters"] == 42_293_972
        assert found["gflop_forward"] == pytest.approx(13.30, rel=0.01)
        assert found["gflop_training"] == pytest.approx(37.2, rel=0.01)


class TestGroups:
    def test_the_papers_profile_is_what_is_counted(self):
        root = Path(costs.__file__).resolve().parents[2] / "notebooks"
        profile = yaml.safe_load((root / "profiles" / "paper.yml").read_text())
        assert profile["02_simulation_comparison"]["n_folds"] == costs.N_FOLDS
        assert profile["02_simulation_comparison"]["epochs"] == costs.EPOCHS
        severities = profile["02_simulation_comparison"]["recommended"].split(",")
        numbers = [int(n) for n in profile["04_fine_tuning"]["patients"].split(",")]
        assert costs.trainings() == costs.trainings(
            5, recommended=len(severities), patients=numbers
        )

    def test_copies_are_as_many_as_the_recommended_recipe_makes(self):
        assert costs.COPIES == 2 * copies.DRAWS

    def test_the_scans_are_those_of_the_papers_tables(self):
        research = published("table_a1").groupby("set", sort=False)["total"].sum()
        assert tuple(research[["training", "validation"]]) == costs.RESEARCH
        warehouse = published("table_a2").groupby("set", sort=False)[["mov01vs2", "mov0vs1"]].sum()
        assert tuple(warehouse.loc[["training", "validation"], "mov01vs2"]) == costs.SEVERE
        assert tuple(warehouse.loc[["training", "validation"], "mov0vs1"]) == costs.MILD


class TestPlan:
    def test_total_is_the_sum_and_says_that_nothing_was_measured(self, tmp_path):
        plan = costs.plan(["Conv5FC3"], epochs=10, measurements=tmp_path / "none.csv")
        assert plan.hours_on_one.iloc[-1] == pytest.approx(plan.hours_on_one.iloc[:-1].sum())
        assert not plan.measured.any()
        assert plan.hours_on_eight.iloc[0] == pytest.approx(plan.hours_on_one.iloc[0] / 8)

    def test_all_networks_give_every_training_of_the_study(self, tmp_path):
        plan = costs.plan(NETWORKS, measurements=tmp_path / "none.csv")
        assert plan.trainings.iloc[-1] == plan.trainings.iloc[:-1].sum() == costs.trainings()

    def test_frozen_blocks_and_more_copies_show_in_the_hours(self, tmp_path):
        plan = costs.plan(["Conv5FC3"], measurements=tmp_path / "none.csv").set_index("group")
        each = plan.hours_on_one / plan.trainings
        assert each["recommended recipe, 6 copies a head"] == pytest.approx(6 * each.iloc[0])
        frozen, free = (
            each[f"freeze study, {x}"] for x in ("some blocks frozen", "all blocks free")
        )
        assert frozen < free / 40
        one_gib = 2 * 169 * 208 * 179 / 2**30
        assert plan.scans_gib.iloc[0] == pytest.approx(1040 * one_gib)
        assert plan.scans_gib.iloc[1] == pytest.approx(6240 * one_gib)

    def test_a_measured_gpu_takes_the_place_of_the_assumption(self, tmp_path):
        rows = pd.DataFrame(
            {
                "network": ["Conv5FC3", "Conv5FC3", "SECNN"],
                "way": ["eager float32", "as shipped", "as shipped"],
                "images_per_s": [10.0, 100.0, None],
                "device": "a GPU",
            }
        )
        rows.to_csv(tmp_path / "gpu.csv", index=False)
        plan = costs.plan(["Conv5FC3", "SECNN"], epochs=1, measurements=tmp_path / "gpu.csv")
        first = plan.iloc[0]
        assert (first.measured, first.device, first.bound_by) == (True, "a GPU", "measured")
        assert first.seconds_per_epoch == pytest.approx((856 + 184 / 3) / 100)
        assert not plan[plan.model == "SECNN"].measured.any()  # it ran out of memory
        assert not plan.measured.iloc[-1]
