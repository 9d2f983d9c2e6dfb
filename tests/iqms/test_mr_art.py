"""MR-ART-like scans: subjects kept whole, confounds shown, reasons where tables are missing."""

import numpy as np
import pandas as pd
import pytest

from motionlib.iqms import mr_art
from motionlib.predictions import check_predictions


@pytest.fixture
def art(rng) -> pd.DataFrame:
    """30 subjects, three protocols each; grade and measure grow with the protocol."""
    protocol = np.tile(["standard", "headmotion1", "headmotion2"], 30)
    asked = np.tile([0, 1, 2], 30)
    grade = np.clip(asked + rng.choice([-1, 0, 0, 0, 1], 90), 0, 2)
    subject = np.repeat(np.arange(30), 3)
    level = np.repeat(rng.normal(0, 3, 30), 3)
    return pd.DataFrame(
        {"scan_id": [f"{s}_{p}" for s, p in zip(subject, protocol, strict=True)],
         "participant_id": [f"sub-{s}" for s in subject], "protocol": protocol,
         "motion_grade": grade, "cjv": grade + level + rng.normal(0, 0.3, 90),
         "efc": rng.normal(size=90), "fber": grade + rng.normal(0, 0.6, 90)}
    )  # fmt: skip


def test_repeats_keep_subjects_whole_and_change_the_folds(art):
    rows = mr_art.repeat_models(
        art, ["cjv", "fber"], "mov01vs2", models=["logistic", "stump"], seeds=[0, 1]
    )
    assert rows.groupby(["model", "seed"]).size().tolist() == [90] * 4
    assert rows.groupby(["model", "seed", "participant_id"]).fold.nunique().max() == 1
    one, two = (rows[(rows.seed == s) & (rows.model == "logistic")].fold for s in (0, 1))
    assert one.tolist() != two.tolist()


def test_models_joined_by_a_plus_are_averaged(art):
    models = ["logistic", "stump", "logistic+stump"]
    rows = mr_art.repeat_models(art, ["cjv", "fber"], "mov0vs1", models=models, seeds=[3])
    score = rows.pivot(index="scan_id", columns="model", values="score")
    mean = (score["logistic"] + score["stump"]) / 2
    np.testing.assert_allclose(score["logistic+stump"], mean, atol=1e-9)


def test_the_protocol_alone_predicts_from_its_name(art):
    rows = mr_art.protocol_alone(art, "mov0vs1").set_index("scan_id")
    kept = art[art.motion_grade < 2].set_index("scan_id")
    assert (rows.y_pred == (kept.protocol != "standard")).all()
    assert (rows.y_true == kept.motion_grade).all()


def test_a_subject_s_own_reference_removes_its_level(art):
    table, names = mr_art.with_own_reference(art, ["cjv"])
    assert names == ["cjv", "cjv_own"]
    assert table.groupby("participant_id").cjv_own.mean().abs().max() < 1e-12
    shifted = art.assign(cjv=art.cjv + 5 * (art.participant_id == "sub-3"))
    other, _ = mr_art.with_own_reference(shifted, ["cjv"])
    ratio = (other.cjv_own / table.cjv_own).dropna()
    assert ratio.std() < 1e-9


def test_all_parts_make_one_table_beside_the_reference_and_valid_predictions(art):
    options = {"models": ["logistic"], "seeds": range(2)}
    parts = mr_art.both_tasks(art, n_iter=1, **options) + mr_art.among_told(art, **options)
    table = mr_art.judge(parts, n_boot=30).set_index(["task", "model"])
    assert table.loc[("mov0vs1", "protocol"), "reference_balanced_accuracy"] == 0.833
    assert table.loc[("mov01vs2 within", "logistic"), "n"] == 60
    assert table.loc[("mov01vs2", "own: logistic"), "n"] == 60
    assert (table.auc_low.fillna(0) <= table.auc_high.fillna(1)).all()
    rows = pd.concat(mr_art.first_seed(parts), ignore_index=True)
    assert len(check_predictions(rows)) == len(rows)
    assert not rows.task.str.contains("within").any()


def test_without_tables_the_result_says_why():
    assert mr_art.both_tasks(None, models=["logistic"], seeds=[0], n_iter=1) == []
    table = mr_art.judge(mr_art.among_told(None, models=["logistic"], seeds=[0]))
    assert table.reason.str.contains("motionlib fetch mr-art").all()


def test_single_measures_are_ranked(art):
    table = mr_art.single_measures(art, ["efc", "fber"], "mov01vs2", seed=0)
    assert table.measure.tolist() == ["fber", "efc"]
    assert table.balanced_accuracy[0] > 0.65
