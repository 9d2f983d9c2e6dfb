"""Every number of the audit, recomputed from the transcribed tables."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from printed_numbers import smallest_denominator, smallest_p_nearby
from scipy.optimize import brentq
from scipy.stats import norm

from motionlib.paper.reachable import (
    counts_that_print,
    exchange_fits,
    largest_sd,
    mcnemar_range,
    mcnemar_reach,
    nearest_count,
    set_sizes,
    smallest_sd,
    table4_rates,
)
from motionlib.paper.transcription import audit, in_text, printed, published_aucs
from motionlib.stats.agreement import kappa_of
from motionlib.stats.paired import auc_difference_p, hanley_mcneil_se

FITS = ("labelled", "exchanged", "pooled", "pooled_exchanged")
DATABASES = ["ADNI", "MSSEG", "MNI BITE"]


@pytest.fixture(scope="module")
def findings() -> pd.DataFrame:
    return audit()


def of(findings: pd.DataFrame, finding: str, topic: str = "", where: str = "") -> pd.DataFrame:
    """Rows of one finding whose topic and place hold some words."""
    rows = findings[findings["finding"] == finding]
    named = rows["topic"].str.contains(topic, regex=False)
    rows = rows[named & rows["where"].str.contains(where, regex=False)]
    assert len(rows)
    return rows


def fractions(text: str) -> list[tuple[int, int]]:
    """Every ``k/n`` of a cell."""
    return [(int(k), int(n)) for k, n in re.findall(r"(\d+)/(\d+)", text)]


def kinds(text: str) -> dict[tuple[int, int], str]:
    """Every ``k/n (how)`` of a cell: ``R`` if rounded, ``T`` if truncated."""
    return {
        (int(k), int(n)): how for k, n, how in re.findall(r"(\d+)/(\d+)[^()/]*\(([RT]+)\)", text)
    }


class TestTable:
    def test_every_finding_that_numbers_can_show_is_there(self, findings):
        columns = ["finding", "topic", "where", "printed", "recomputed", "verdict"]
        assert list(findings.columns) == columns
        numbers = {str(n) for n in range(1, 18)} - {"13"}  # 13 is a sentence without a number
        assert numbers | {"-", "McNemar", "precision", "annotators"} == set(findings["finding"])
        assert len(findings) == 95

    def test_no_verdict_calls_the_paper_wrong(self, findings):
        words = findings["verdict"].str.lower()
        assert not words.str.contains("wrong|error|mistake|false").any()
        assert words.str.contains("cannot come from").sum() > 20


class TestSums:
    def test_columns_grades_and_scanners_add_up(self, findings):
        grades = [int(in_text(f"consensus mov{g}")) for g in (0, 1, 2)]
        rejected = int(in_text("straight reject images (SR)"))
        images = int(in_text("images annotated in the warehouse"))
        makers = ("Siemens", "GE", "Philips", "Toshiba")
        recomputed = {
            "Table A.I columns": printed("table_a1")[DATABASES].sum().tolist(),
            "Table A.II": printed("table_a2")
            .groupby("label")["mov01vs2"]
            .sum()
            .astype(int)
            .tolist(),
            "graded": images - rejected,
            "scanners": sum(int(in_text(f"scanners {name}")) for name in makers),
        }
        one = printed("table_1").set_index("database").loc[DATABASES, "n_images"].tolist()
        expected = dict(zip(recomputed, (one, grades, sum(grades), images), strict=True))
        for topic, value in recomputed.items():
            row = of(findings, "-", topic).iloc[0]
            assert (row["recomputed"], row["printed"]) == (str(value), str(expected[topic]))
            assert (row["verdict"] == "adds up") == (value == expected[topic])

    def test_sizes_of_the_test_set_and_of_a_fold(self, findings):
        size = printed("table_a1").groupby("set")["total"].sum()
        images = int(printed("table_1").query("database_group == 'research'")["n_images"].sum())
        kept, folds = int(in_text("remaining images for CV")), int(in_text("CV folds"))
        row = of(findings, "1").iloc[0]
        assert (
            row["printed"] == f"{in_text('independent synthetic test set (text)'):.0f} test images"
        )
        text = f"{size['testing']} in Table A.I; {images} - {kept} = {images - kept}"
        assert row["recomputed"] == text
        assert row["verdict"].endswith(f"{size['validation']} is the validation set")
        row = of(findings, "2").iloc[0]
        average = f"{kept} / {folds} = {kept / folds:.0f} on average"
        assert row["recomputed"] == f"{average}; the table has {size['validation']}"
        assert f"({size['validation'] / kept:.1%})" in row["verdict"]

    def test_corrupted_and_clean_training_images_are_as_many(self, findings):
        rows = printed("table_a1").query("set == 'training'")[DATABASES].to_numpy()
        assert (rows[0] == rows[1]).all()
        total = printed("table_a1")["total"].sum()
        text = f"motion = no motion in training: True; all rows sum to {total}"
        assert of(findings, "-", "corrupted")["recomputed"].item() == text


class TestPatients:
    def test_images_a_subject(self, findings):
        adni = printed("table_1").set_index("database").loc["ADNI"]
        row = of(findings, "3").iloc[0]
        assert f"{adni['n_images'] / adni['n_patients']:.1f} images a subject" in row["recomputed"]
        assert f"({adni['n_images'] / 700:.1f} if 700)" in row["recomputed"]
        for k, n in fractions(row["recomputed"]):
            assert k in counts_that_print(adni["sex_f_pct"], n)

    def test_percentages_of_women(self, findings):
        table = printed("table_1").set_index("database")
        for name in ("MSSEG", "MNI BITE", "AP-HP"):
            n, percent = int(table.loc[name, "n_patients"]), float(table.loc[name, "sex_f_pct"])
            fits = counts_that_print(percent, n)
            row = of(findings, "4", name).iloc[0]
            assert row["printed"] == f"{percent} %"
            assert kinds(row["recomputed"]) == {(k, n): how for k, how in fits.items()}
            if not fits:
                expected = [(nearest_count(percent, n), n), smallest_denominator(percent)]
                assert fractions(row["recomputed"]) == expected
            assert row["verdict"].startswith("cannot") != bool(fits)

    def test_spread_of_age(self, findings):
        aphp = printed("table_1").set_index("database").loc["AP-HP"]
        low, high = ((aphp[f"age_{e}"] - aphp["age_mean"]) / aphp["age_sd"] for e in ("min", "max"))
        usual = norm.ppf(1 - 1 / aphp["n_patients"])
        text = f"range = {low:.1f} to +{high:.1f} SD; a normal sample this size: ±{usual:.1f}"
        assert of(findings, "15")["recomputed"].item() == text


class TestRates:
    def test_integer_fits_of_table_4(self, findings):
        fits = exchange_fits()
        assert len(of(findings, "5")) == len(fits)
        for row in fits.to_dict("records"):
            where = f"{row['method'].replace('_', ' ')} {row['task']}"
            cell = of(findings, "5", row["rate"], where).iloc[0]
            expected = [f"{name.replace('_', ' ')} {row[name]}" for name in FITS if row[name]]
            n, m = set_sizes()[row["task"]]
            text = "; ".join(expected) or f"no k/{n}, k/{m}, nor five times these"
            assert (cell["printed"], cell["recomputed"]) == (str(row["printed"]), text)
            assert cell["verdict"].startswith("fits as labelled") == bool(row["labelled"])
            only = "fits only if the rates are exchanged" in cell["verdict"]
            assert only == (bool(row["exchanged"]) and not row["labelled"])

    def test_truncated_and_rounded_rates(self, findings):
        fits = exchange_fits()
        text = fits["labelled"].where(fits["labelled"] != "", fits["exchanged"])
        one_kind = {
            how: fits.loc[text.str.endswith(f"({how})"), "printed"].tolist() for how in "TR"
        }
        aphp = printed("table_1").set_index("database").loc["AP-HP"]
        assert counts_that_print(aphp["sex_f_pct"], int(aphp["n_patients"])) == {2314: "T"}
        row = of(findings, "7").iloc[0]
        assert row["printed"] == f"truncated only: {[*one_kind['T'], float(aphp['sex_f_pct'])]}"
        assert row["recomputed"] == f"rounded only: {one_kind['R']}"

    def test_balanced_accuracy_is_the_mean_of_its_rates_but_for_some(self, findings):
        triples = set()
        for name in ("table_2", "table_3", "table_4", "table_a3"):
            rows = printed(name)[["ba", "specificity", "sensitivity"]].dropna()
            triples |= set(rows.itertuples(index=False, name=None))
        gap = {t: abs((t[1] + t[2]) / 2 - t[0]) for t in triples}
        off = {t for t in triples if gap[t] > 0.0075}  # more than rounding to two decimals explains
        rows = findings[
            findings["topic"].eq("BA = mean of the rates") & (findings["finding"] != "-")
        ]
        stated = {
            (float(row.printed), *map(float, re.findall(r"[\d.]+", row.recomputed)[:2]))
            for row in rows.itertuples()
        }
        assert stated == off
        for row in rows.itertuples():
            a, b, _, mean = map(float, re.findall(r"[\d.]+", row.recomputed))
            assert mean == pytest.approx((a + b) / 2, abs=5e-4)
            assert row.verdict.startswith(row.printed) == (abs(mean - float(row.printed)) > 0.0101)
        good = sum(g <= 0.01 + 1e-9 for g in gap.values())
        text = f"{good} of {len(gap)} distinct triples agree within 0.01"
        assert of(findings, "-", "BA = mean")["recomputed"].item() == text

    def test_which_rate_of_the_odd_row_is_misprinted(self, findings):
        row = table4_rates().loc[("mov0vs1", "research_only")]
        needed = round(2 * row["ba"] - row["sensitivity"], 2)
        text = of(findings, "6", "misprinted")["recomputed"].item()
        assert f"BA needs {needed} = " in text
        pooled = {(k, 590): how for k, how in counts_that_print(row["specificity"], 590).items()}
        single = {(k, 118): how for k, how in counts_that_print(needed, 118).items()}
        assert kinds(text) == single | pooled

    def test_standard_deviations_fit_neither_reading_or_one(self, findings):
        step = 100 / printed("table_a1").query("set == 'validation'")["total"].max()
        expected = []
        for name in ("table_2", "table_3"):
            for _, row in printed(name).iterrows():
                for metric in ("specificity", "sensitivity"):
                    mean, sd = row[metric], row[f"{metric}_sd"]
                    if 0 < sd < 0.5:
                        most, least = largest_sd(mean), smallest_sd(step)
                        verdict = "fits as a fraction only" if 100 * sd <= most else "cannot"
                        expected.append((f"{mean} ± {sd}", verdict, f"{most:.2f}", f"{least:.2f}"))
                        assert sd < least
        rows = of(findings, "9")
        assert rows["printed"].tolist() == [each[0] for each in expected]
        for row, (_, verdict, most, least) in zip(rows.itertuples(), expected, strict=True):
            assert row.verdict.startswith(verdict)
            assert f"steps of {step:.2f} is {least};" in row.recomputed
            assert row.recomputed.endswith(f"five values <= 100 is {most}")
        assert rows["verdict"].str.startswith("cannot").sum() == 5

    def test_denominators(self, findings):
        wanted = {
            name: ["specificity", "sensitivity"] for name in ("table_2", "table_3", "table_a3")
        }
        wanted["table_2"] = [*wanted["table_2"], "real_motion_accuracy"]
        values = {v for name, cs in wanted.items() for v in printed(name)[cs].to_numpy().ravel()}
        rows = of(findings, "10")
        assert rows["printed"].astype(float).tolist() == sorted(v for v in values if v < 100)
        for row in rows.itertuples():
            value = float(row.printed)
            fits = {(k, n): how for n in (90, 92, 450, 460)
                    for k, how in counts_that_print(value, n).items()}  # fmt: skip
            assert kinds(row.recomputed) == fits
            assert fractions(row.recomputed)[-1] == smallest_denominator(value)
            assert row.verdict.startswith("can come") == bool(fits)


class TestClaims:
    def test_balanced_accuracies_over_98(self, findings):
        ba = printed("table_2")["ba"]
        below = sorted(ba[ba < 98], reverse=True)
        row = of(findings, "11", "claim").iloc[0]
        assert row["recomputed"] == str(below)
        assert f"{len(below)} of {len(ba)} are below" in row["verdict"]

    def test_gains_in_the_text(self, findings):
        ba = table4_rates()["ba"]
        rows = findings[findings["topic"].str.startswith("gain over")]
        assert len(rows) == 4
        for row in rows.itertuples():
            rival, task = row.topic.removeprefix("gain over ").split(", ")
            ours, theirs = ba[task, "fine_tuned"], ba[task, rival.replace(" ", "_")]
            assert row.recomputed == f"{ours} - {theirs} = {ours - theirs:.2f}"
            stated = float(re.search(r"\d+", row.printed).group())
            assert (row.verdict == "fits") == (abs(ours - theirs - stated) < 1)

    def test_means_over_folds_stand_beside_best_folds(self, findings):
        three, best = (printed(name)["ba"].tolist() for name in ("table_3", "table_a3"))
        text = f"{three} are means over folds, {best} best folds"
        assert of(findings, "12")["recomputed"].item() == text

    def test_the_real_motion_set_has_no_negatives(self, findings):
        row = of(findings, "14").iloc[0]
        values = sorted(set(printed("table_2")["real_motion_accuracy"]))
        assert row["printed"] == f"real-motion accuracy {values}"
        specificity = table4_rates().loc[("mov01vs2", "research_only"), "specificity"]
        assert row["recomputed"].endswith(f"specificity is {specificity}")

    def test_architectures_cannot_differ_at_the_ceiling(self, findings):
        sizes = printed("table_a1").query("set == 'testing'").set_index("label")["total"]
        n = sizes[["no motion", "motion"]]
        rights = {
            row["architecture"]: [nearest_count(row[rate], size) for rate, size in
                                  zip(("specificity", "sensitivity"), n, strict=True)]
            for _, row in printed("table_3").iterrows()
        }  # fmt: skip
        names = list(rights)
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        best = min(
            mcnemar_range(list(zip(rights[a], rights[b], n, strict=True))).p_low for a, b in pairs
        )
        errors = ", ".join(f"{name} {n.sum() - sum(right)}" for name, right in rights.items())
        text = f"errors of {n.sum()}: {errors}; smallest exact p of any pair {best:.3f}"
        assert of(findings, "16")["recomputed"].item() == text


class TestTable4:
    def test_another_threshold_of_the_forest(self, findings):
        for task in set_sizes():
            rate = table4_rates().loc[(task, "forest_clinical")] / 100
            apart = norm.ppf(rate["sensitivity"]) + norm.ppf(rate["specificity"])
            row = of(findings, "17", where=task).iloc[0]
            said = f"BA {rate['ba']:.2%} at specificity {rate['specificity']:.2%}"
            assert row["printed"] == said
            text = f"AUC {norm.cdf(apart / 2**0.5):.2f}, best BA {norm.cdf(apart / 2):.1%}"
            assert row["recomputed"].endswith(text)

    def test_mcnemar_by_every_reading(self, findings):
        reach = mcnemar_reach()
        rows = of(findings, "McNemar", "McNemar,")
        assert len(rows) == len(reach)
        for cell, row in zip(rows.itertuples(), reach.to_dict("records"), strict=True):
            assert cell.topic == f"McNemar, {row['reading']}"
            assert cell.where.endswith(row["task"])
            assert float(cell.printed) == row["p_printed"]
            assert cell.recomputed == (
                f"right {row['correct_a']} / {row['correct_b']} of {row['n']}, b - c = "
                f"{row['difference']}, b + c = {row['discordant_low']}-{row['discordant_high']}: "
                f"exact p {row['p_low']:.1e} to {row['p_high']:.1e}, corrected "
                f"{row['chi2_p_low']:.1e} to {row['chi2_p_high']:.1e}"
            )
            assert cell.verdict.startswith("can come") == row["possible"]
            assert cell.verdict.endswith("chi-square only") == (row["forms"] == "corrected")

    def test_counts_moved_by_two(self, findings):
        nearest = smallest_p_nearby("mov0vs1")
        text = of(findings, "McNemar", "moved by 2")["recomputed"].item()
        assert text == f"smallest p, every count moved by up to 2: {nearest:.1e}"

    def test_precision_of_accuracies_and_areas(self, findings):
        for task, (negatives, positives) in set_sizes().items():
            parts = []
            for method in ("fine_tuned", "from_scratch", "forest_clinical"):
                rate = table4_rates().loc[(task, method)]
                rates, sizes = rate[["specificity", "sensitivity"]] / 100, (negatives, positives)
                half = norm.ppf(0.975) * np.sqrt((rates * (1 - rates) / sizes).sum()) / 2
                parts.append(f"{method.replace('_', ' ')} {rate['ba']} ± {100 * half:.1f}")
            assert of(findings, "precision", "BA", task)["recomputed"].item() == "; ".join(parts)
            areas = [published_aucs()[task, name] for name in ("fine_tuned", "from_scratch")]
            errors = [hanley_mcneil_se(area, positives, negatives) for area in areas]
            ps = {r: auc_difference_p(*areas, positives, negatives, r) for r in (0, 0.5, 0.7, 0.9)}
            text = f"SE {errors[0]:.3f} / {errors[1]:.3f}; p = "
            text += ", ".join(f"{p:.2g} (r = {r})" for r, p in ps.items())
            assert of(findings, "precision", "AUC", task)["recomputed"].item() == text


def mild_accuracy(weights: str, most_none: float) -> tuple[float, float]:
    """Mild balanced accuracy that the printed kappa implies, smallest and largest.

    Symmetric raters, the warehouse's consensus counts and the severe agreement that the printed
    accuracy implies; of the severe disagreements up to `most_none` are grade 2 against grade 0.
    """
    counts = [in_text(f"consensus mov{grade}") for grade in (0, 1, 2)]
    agree_severe = 4 * table4_rates().loc[("mov01vs2", "annotators"), "ba"] / 100 - 3

    def gap(agree_mild: float, share_none: float) -> float:
        severe, mild = counts[2] * (1 - agree_severe) / 2, counts[1] * (1 - agree_mild) / 2
        off = {(0, 1): mild, (1, 2): severe * (1 - share_none), (0, 2): severe * share_none}
        table = np.diag([counts[0], counts[1] * agree_mild, counts[2] * agree_severe])
        for (i, j), value in off.items():
            table[i, j] = table[j, i] = value
        return float(kappa_of(table, weights)) - in_text("weighted Cohen kappa between annotators")

    shares = [s for s in np.linspace(0, most_none, 51) if gap(0, s) < 0 < gap(1, s)]
    accuracies = [(3 + brentq(gap, 0, 1, args=(share,))) / 4 for share in shares]
    return min(accuracies), max(accuracies)


class TestAnnotators:
    def test_floor_of_two_raters_and_their_maximum(self, findings):
        rows = of(findings, "annotators", "consensus").set_index("where")
        for task in set_sizes():
            ba = table4_rates().loc[(task, "annotators"), "ba"]
            row = rows.loc[f"Table IV, annotators {task}"]
            sensitivity = 2 * ba / 100 - 1
            text = f"{ba} needs agreement on {2 * sensitivity - 1:.0%}"
            if ba >= 75:
                text = f"sensitivity {sensitivity:.1%}, both agree on {2 * sensitivity - 1:.0%}"
            assert row["printed"] == str(ba)
            assert text in row["recomputed"]
            assert row["verdict"].startswith("cannot") == (ba < 75)

    @pytest.mark.parametrize("weights", ["linear", "quadratic"])
    def test_kappa_implies_other_raters(self, findings, weights):
        low, high = mild_accuracy(weights, 0.25)
        widest = mild_accuracy(weights, 1.0)[1]
        text = of(findings, "annotators", f"{weights} weights")["recomputed"].item()
        assert text.startswith(f"mild BA {100 * low:.1f} to {100 * high:.1f} if")
        assert text.endswith(f"(up to {100 * widest:.1f} for any share)")
        assert low > table4_rates().loc[("mov0vs1", "annotators"), "ba"] / 100
