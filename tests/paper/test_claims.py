"""Sentences about the paper's claims follow from the tables, the unwelcome ones too."""

import pandas as pd
import pytest

from motionlib.paper.claims import claims

METHODS = ("fine_tuned", "research_only", "fine_tuned_recommended", "research_only_recommended")


@pytest.fixture
def table_4():
    rows = [
        {"task": task, "method": method, "balanced_accuracy_paper": 0.603,
         "balanced_accuracy_ours": middle, "balanced_accuracy_low": middle - 0.05,
         "balanced_accuracy_high": middle + 0.05, "n": 471, "n_patients": 395, "n_positive": 66}
        for task, middle in (("mov01vs2", 0.7), ("mov0vs1", 0.55))
        for method in METHODS
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def mcnemar():
    rows = []
    for first, untuned in (METHODS[:2], METHODS[2:]):
        for second, low in ((untuned, 0.01), ("from_scratch", -0.02)):
            rows.append(
                {"task": "mov01vs2", "first": first, "second": second, "ba_difference": 0.08,
                 "ba_difference_low": low, "ba_difference_high": 0.15}
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_four_sentences_with_numbers_intervals_and_verdicts(table_4, mcnemar):
    research, recommended, paper, mild = claims(table_4, mcnemar)
    assert "70.0 % [65.0, 75.0] by the recommended recipe" in research
    assert "prints 60.3 % (471 scans, 395 patients, 66 scans with severe motion)" in research
    assert "+8.0 points [+1.0, +15.0] (shown) over no fine-tuning" in recommended
    assert "+8.0 points [-2.0, +15.0] (not shown) over from scratch" in paper
    assert "55.0 % [50.0, 60.0] against 70.0 % [65.0, 75.0]" in mild
    assert mild.endswith("(shown, the intervals part).")


def test_the_forest_is_told_by_both_measures(table_4, mcnemar):
    rows = table_4.query("method == 'fine_tuned'").assign(method="forest_clinical", auc_ours=0.84)
    both = pd.concat([table_4.assign(auc_ours=0.8), rows])
    pair = {"task": "mov01vs2", "first": "fine_tuned_recommended", "second": "forest_clinical",
            "ba_difference": 0.13, "ba_difference_low": 0.06, "ba_difference_high": 0.2,
            "auc_difference": -0.04, "auc_difference_low": -0.08,
            "auc_difference_high": -0.01}  # fmt: skip
    sentence = claims(both, pd.concat([mcnemar, pd.DataFrame([pair])]))[3]
    assert "+13.0 points [+6.0, +20.0] (shown) for the fine-tuned network over it" in sentence
    assert "AUC is 0.84 where the network has 0.80" in sentence
    assert sentence.endswith("-0.04 [-0.08, -0.01] (the opposite is shown).")


def test_a_loss_and_an_overlap_are_said(table_4, mcnemar):
    worse = mcnemar.assign(ba_difference=-0.1, ba_difference_low=-0.2, ba_difference_high=-0.01)
    same = table_4.assign(balanced_accuracy_low=0.5, balanced_accuracy_high=0.8)
    sentences = claims(same, worse)
    assert sentences[1].count("the opposite is shown") == 2
    assert sentences[-1].endswith("(not shown, the intervals overlap).")


def test_what_was_not_measured_is_left_out(table_4, mcnemar):
    some = table_4[table_4["method"] != "fine_tuned"]
    some.loc[some["task"] == "mov0vs1", "balanced_accuracy_ours"] = float("nan")
    assert len(claims(some, mcnemar)) == 2
    assert claims(table_4, mcnemar[["task", "first", "second"]])[1:] == [
        claims(table_4, mcnemar)[-1]
    ]
