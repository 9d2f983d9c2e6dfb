"""Splits: every scan once, no patient twice, the same whatever the order of the rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionlib.manifest import complete
from motionlib.splits import (
    PAPER_TEST_SIZES,
    assign_splits,
    check_no_leakage,
    partition_clean_corrupted,
)


def cohort(sizes, *, name="adni", grades=(0,), seed=0):
    """A manifest of one patient per size, grades drawn at random."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(len(sizes)), sizes)
    table = pd.DataFrame({"participant_id": [f"sub-{name}{p:04d}" for p in patients]})
    table["scan_id"] = [f"{p}_scan-{i}" for i, p in enumerate(table["participant_id"])]
    table["path"] = table["scan_id"] + ".nii.gz"
    table["motion_grade"] = rng.choice(grades, len(table))
    return complete(table.assign(cohort=name))


@st.composite
def manifests(draw):
    """Adversarial patients: many small, a few huge, mixed grades, one to three cohorts."""
    parts = []
    for name in draw(st.sampled_from([("adni",), ("adni", "bite"), ("adni", "bite", "aphp")])):
        sizes = draw(st.lists(st.integers(1, 6), min_size=6, max_size=25))
        sizes += draw(st.lists(st.integers(20, 80), max_size=2))
        grades = draw(st.sampled_from([(0,), (0, 1), (0, 0, 0, 1, 2)]))
        seed = draw(st.integers(0, 99))
        parts.append(cohort(sizes, name=name, grades=grades, seed=seed))
    return pd.concat(parts, ignore_index=True)


class TestProperties:
    @given(manifests(), st.integers(2, 5), st.floats(0, 0.3), st.integers(0, 5))
    @settings(max_examples=40, deadline=None)
    def test_every_scan_once_no_patient_twice_and_balance(self, table, n_folds, fraction, seed):
        out = assign_splits(table, test_fraction=fraction, n_folds=n_folds, seed=seed)
        check_no_leakage(out)
        assert list(out["scan_id"]) == list(table["scan_id"])
        assert set(out["role"]) <= {"train", "test"}
        train = out[out["role"] == "train"]
        assert train["fold"].between(0, n_folds - 1).all()
        assert out.loc[out["role"] == "test", "fold"].isna().all()
        # the stated bound, with all training patients in place of those left over
        label = train["cohort"] + train["motion_grade"].astype("string")
        by_patient = pd.crosstab(train["participant_id"], label)
        bound = np.sqrt((by_patient.to_numpy() ** 2).sum())
        by_fold = pd.crosstab(train["fold"].astype(int), label).reindex(range(n_folds)).fillna(0)
        assert (by_fold - by_fold.mean()).abs().to_numpy().max() <= bound + 1e-9
        # the test set misses its size by less than the largest patient, grades counted apart
        if train["participant_id"].nunique() == n_folds:
            return
        for _, part in out.groupby("cohort"):
            n_test = (part["role"] == "test").sum()
            largest = part["participant_id"].value_counts().max()
            n_grades = part["motion_grade"].nunique()
            assert abs(n_test - round(fraction * len(part))) <= largest * n_grades

    @given(manifests(), st.integers(0, 1000))
    @settings(max_examples=20, deadline=None)
    def test_the_order_of_the_rows_does_not_matter(self, table, seed):
        shuffled = table.sample(frac=1, random_state=seed)
        one = assign_splits(table, test_fraction=0.15, n_folds=3, seed=4)
        other = assign_splits(shuffled, test_fraction=0.15, n_folds=3, seed=4)
        pd.testing.assert_frame_equal(one, other.loc[one.index])
        pd.testing.assert_series_equal(
            partition_clean_corrupted(one, seed=1),
            partition_clean_corrupted(other, seed=1).loc[one.index],
        )

    @given(manifests(), st.integers(0, 5))
    @settings(max_examples=20, deadline=None)
    def test_half_of_every_set_and_fold_is_corrupted(self, table, seed):
        out = assign_splits(table, test_fraction=0.2, n_folds=3, seed=seed)
        corrupted = partition_clean_corrupted(out, seed=seed).astype(int)
        groups = out.assign(
            difference=1 - 2 * corrupted, fold=out["fold"].fillna(-1), patient=out["participant_id"]
        )
        for keys in (["cohort", "role"], ["cohort", "role", "fold"], ["patient"]):
            assert groups.groupby(keys)["difference"].sum().abs().max() <= 1


class TestAssignSplits:
    def test_one_scan_a_patient_is_balanced_within_one(self):
        table = cohort([1] * 103, grades=(0, 0, 1, 2), seed=3)
        out = assign_splits(table, test_fraction=0.1, n_folds=5, seed=0)
        counts = pd.crosstab(out["fold"].astype("float"), out["motion_grade"])
        assert (counts.max() - counts.min()).max() <= 1
        totals = counts.sum(axis=1)
        assert totals.max() - totals.min() <= 2

    def test_the_sizes_of_table_a1(self):
        rng = np.random.default_rng(1)
        sizes = rng.choice([1, 2], 700, p=[0.367, 0.633])
        sizes[: 1143 - sizes.sum()] += 1
        sizes[: max(0, sizes.sum() - 1143)] = np.maximum(1, sizes[: max(0, sizes.sum() - 1143)] - 1)
        table = pd.concat(
            [cohort(sizes), cohort([1] * 53, name="msseg"), cohort([2] * 13, name="bite")],
            ignore_index=True,
        )
        wanted = {name: PAPER_TEST_SIZES[name] for name in ("adni", "msseg", "bite")}
        out = assign_splits(table, test_sizes=wanted, seed=20)
        got = out[out["role"] == "test"]["cohort"].value_counts().to_dict()
        assert got == wanted
        corrupted = partition_clean_corrupted(out, seed=20)
        test = out["role"] == "test"
        table_a1 = out[test].groupby(["cohort", corrupted[test]]).size().unstack()
        assert table_a1.loc["adni"].tolist() == [86, 85]
        assert table_a1.loc["msseg"].tolist() == [4, 3]
        assert table_a1.loc["bite"].tolist() == [2, 2]

    def test_the_sizes_of_table_a2(self):
        grades = np.repeat([0, 1, 2], [2319, 1196, 530])
        table = cohort([1] * 4045, name="aphp")
        table["motion_grade"] = pd.array(grades, dtype="Int64")
        out = assign_splits(table, test_sizes={"aphp": 385}, seed=20)
        test = out[out["role"] == "test"]["motion_grade"].value_counts().sort_index()
        assert test.sum() == 385
        assert np.abs(test.to_numpy() - [210, 118, 57]).max() <= 11

    def test_seeds_give_other_splits(self):
        table = cohort([2] * 40)
        one, same, other = (
            assign_splits(table, test_fraction=0.2, seed=seed)["role"] for seed in (1, 1, 2)
        )
        assert one.equals(same)
        assert not one.equals(other)

    def test_roles_set_before_are_kept(self):
        table = cohort([1] * 30)
        table.loc[0:1, "role"] = "real_motion"
        table.loc[2, "straight_reject"] = 1
        out = assign_splits(table, test_fraction=0.2, n_folds=2, seed=0)
        assert list(out.loc[0:2, "role"]) == ["real_motion", "real_motion", "excluded"]
        assert out.loc[0:2, "fold"].isna().all()

    def test_copies_follow_their_source(self):
        table = cohort([1] * 60)
        table["source_participant_id"] = [f"head-{row // 3}" for row in range(60)]
        out = assign_splits(table, test_fraction=0.2, n_folds=4, seed=0)
        sides = out.groupby("source_participant_id")[["role", "fold"]].nunique(dropna=False)
        assert (sides == 1).all().all()

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({}, "either"),
            ({"test_fraction": 0.1, "test_sizes": {}}, "either"),
            ({"test_fraction": 1.0}, "must be in"),
            ({"test_sizes": {"oasis": 3}}, "no cohorts"),
            ({"test_sizes": {"adni": 99}}, "asks for 99 of 10"),
            ({"test_fraction": 0.0, "n_folds": 11}, "10 patients are left for 11 folds"),
        ],
    )
    def test_wrong_calls_are_refused(self, options, said):
        with pytest.raises(ValueError, match=said):
            assign_splits(cohort([1] * 10), seed=0, **options)

    def test_the_test_set_leaves_a_patient_for_every_fold(self):
        out = assign_splits(cohort([1] * 6 + [20, 20]), test_fraction=0.15, n_folds=3, seed=0)
        assert set(out["fold"].dropna()) == {0, 1, 2}

    def test_scans_without_a_patient_are_refused(self):
        table = cohort([1] * 10)
        table.loc[3, "source_participant_id"] = pd.NA
        with pytest.raises(ValueError, match="1 scans have no source_participant_id"):
            assign_splits(table, test_fraction=0.1, n_folds=2, seed=0)


class TestCheckNoLeakage:
    def test_a_patient_on_two_sides(self):
        out = assign_splits(cohort([3] * 12), test_fraction=0.25, n_folds=3, seed=0)
        row = out.index[out["role"] == "test"][0]
        out.loc[row, "role"] = "train"
        with pytest.raises(ValueError, match="1 patients stand in more than one role"):
            check_no_leakage(out)

    def test_one_image_under_two_names(self):
        out = assign_splits(cohort([1] * 12), test_fraction=0.25, n_folds=3, seed=0)
        out["sha256"] = [f"{row:064x}" for row in range(12)]
        check_no_leakage(out)
        test, train = (out.index[out["role"] == role][0] for role in ("test", "train"))
        out.loc[test, "sha256"] = out.loc[train, "sha256"]
        with pytest.raises(ValueError, match="1 images stand"):
            check_no_leakage(out)
