"""MR-ART-like scans: subjects kept whole, the protocol beside, reasons where tables are missing."""

import numpy as np
import pandas as pd
import pytest

from motionlib.iqms import forest, mr_art
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


def test_repeats_keep_subjects_whole_and_change_the_folds(art, monkeypatch):
    few = {**forest.SEARCH_SPACE, "n_estimators": (2, 4)}
    monkeypatch.setattr(forest, "SEARCH_SPACE", few)
    rows = mr_art.predict_mr_art(art, models=["logistic", "search"], seeds=[0, 1], n_iter=1)
    severe = rows[(rows.task == "mov01vs2") & (rows.model != "protocol")]
    assert severe.groupby(["model", "seed"]).size().tolist() == [90] * 4
    assert severe.groupby(["model", "seed", "participant_id"]).fold.nunique().max() == 1
    one, two = (severe[(severe.seed == s) & (severe.model == "logistic")].fold for s in (0, 1))
    assert one.tolist() != two.tolist()


def test_the_protocol_alone_predicts_from_its_name(art):
    mild = art[art.motion_grade < 2].rename(columns={"motion_grade": "y_true"})
    rows = mr_art.protocol_alone(mild, "mov0vs1")
    assert (rows.score == (mild.protocol != "standard")).all()
    assert (rows.y_true == mild.y_true).all()


def test_one_table_holds_all_beside_the_reference_and_predictions_are_valid(art):
    predictions = mr_art.predict_mr_art(art, models=["logistic"], seeds=[0, 1])
    table = mr_art.judge_mr_art(predictions, art, n_boot=30).set_index(["task", "model"])
    assert table.loc[("mov0vs1", "protocol"), "reference_balanced_accuracy"] == 0.833
    assert table.loc[("mov01vs2 within", "logistic"), "n"] == 60
    assert ("mov01vs2 within", "protocol") not in table.index
    assert table.n_seeds.to_dict()["mov01vs2", "logistic"] == 2
    assert (table.auc_low.fillna(0) <= table.auc_high.fillna(1)).all()
    rows = mr_art.first_seed(predictions)
    assert len(check_predictions(rows)) == len(rows)
    assert set(rows.model) == {"logistic", "protocol"}


def test_without_tables_the_result_says_why():
    predictions = mr_art.predict_mr_art(None, models=["logistic"], seeds=[0])
    table = mr_art.judge_mr_art(predictions, None)
    assert table.reason.str.contains("motionlib fetch mr-art").all()
    assert mr_art.first_seed(predictions).empty
