"""Tests of `motionlib.cohorts.virtual.cohort`, its plans and its store."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from motionlib.cohorts.virtual import cohort as virtual
from motionlib.cohorts.virtual import plans, store
from motionlib.files import sha256_file
from motionlib.manifest import COLUMNS, read_manifest

SIZES = {"n_research": (5, 2, 2), "n_real_motion": 2, "n_warehouse": 12}


def make(root, **options):
    return virtual.make_cohort(root, spacing_mm=8.0, **{**SIZES, **options})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("virtual")
    manifest, flow = make(root)
    return root, manifest, flow


def checksums(root):
    return {path.name: sha256_file(path) for path in root.glob("sub-*/*/anat/*.nii.gz")}


class TestManifest:
    def test_file_on_disk_is_valid_and_has_exactly_the_interface_s_columns(self, cohort):
        root, manifest, _ = cohort
        assert list(manifest.columns) == list(COLUMNS)
        read_manifest(root / "manifest.tsv", check_files=True)

    def test_research_patients_come_in_the_three_cohorts_with_their_scanners(self, cohort):
        research = cohort[1].query("role == 'research'")
        sizes = research.groupby("cohort").size().to_dict()
        assert sizes == {"virtual-adni": 8, "virtual-msseg": 2, "virtual-bite": 4}
        contrast = research.groupby("cohort")["contrast_agent"].first().to_dict()
        assert contrast == {"virtual-adni": 0, "virtual-msseg": 1, "virtual-bite": 1}
        assert set(research.query("cohort == 'virtual-adni'")["field_strength"]) == {1.5}
        assert set(research.query("cohort == 'virtual-bite'")["manufacturer"]) == {"GE"}

    def test_some_patients_return_and_keep_one_identity(self, cohort):
        adni = cohort[1].query("cohort == 'virtual-adni' and role == 'research'")
        visits = adni.groupby("source_participant_id").size()
        assert len(visits) == 5
        assert visits.max() >= 2

    def test_no_research_patient_is_in_the_warehouse_or_the_motion_test(self, cohort):
        patients = cohort[1].groupby("role")["source_participant_id"].agg(set)
        assert not patients["research"] & patients["real_motion"]
        assert not patients["research"] & patients["warehouse"]
        assert not patients["real_motion"] & patients["warehouse"]

    def test_real_motion_holds_both_classes_of_the_same_patients(self, cohort):
        motion = cohort[1].query("role == 'real_motion'")
        grades = motion.groupby("source_participant_id")["motion_grade"].agg(sorted)
        assert all(list(pair) == [0, 1] for pair in grades)

    def test_consensus_is_the_larger_grade_and_rejects_have_none(self, cohort):
        manifest = cohort[1]
        graded = manifest.query("role == 'warehouse'")
        np.testing.assert_array_equal(
            graded["consensus"], graded[["rater_1", "rater_2"]].max(axis=1)
        )
        rejects = manifest.query("straight_reject == 1")
        assert set(rejects["role"]) == {"excluded"}
        assert rejects[["rater_1", "rater_2", "motion_grade"]].isna().all().all()
        assert len(rejects) == round(12 * 1455 / 5500)

    def test_truth_is_kept_apart_and_research_scans_never_move(self, cohort):
        root, manifest, _ = cohort
        truth = pd.read_csv(root / "truth.tsv", sep="\t").set_index("scan_id")["severity_mm"]
        assert not any("severity" in column for column in manifest.columns)
        assert (truth[manifest.query("role == 'research'")["scan_id"]] == 0).all()
        moved = manifest.query("role == 'real_motion' and motion_grade == 1")["scan_id"]
        assert (truth[moved] > 0.5).all()

    def test_only_graded_warehouse_scans_are_reformats_and_their_headers_say_so(self, cohort):
        root, manifest, _ = cohort
        tilt_deg = pd.read_csv(root / "truth.tsv", sep="\t").set_index("scan_id")["tilt_deg"]
        graded = manifest.set_index("scan_id")["motion_grade"].notna()
        warehouse = manifest.set_index("scan_id")["role"] == "warehouse"
        assert (tilt_deg[~warehouse] == 0).all()
        assert 0.2 < (tilt_deg[graded & warehouse] > 0).mean() < 0.8
        for row in manifest.itertuples():
            axes = nib.load(root / row.path).affine[:3, :3]
            axes = axes / np.linalg.norm(axes, axis=0)
            found = np.rad2deg(np.arccos(np.clip((np.trace(axes) - 1) / 2, -1, 1)))
            assert found == pytest.approx(tilt_deg[row.scan_id], abs=0.1)

    def test_flow_counts_add_up(self, cohort):
        _, manifest, flow = cohort
        assert list(flow.columns) == ["step", "cohort", "n_in", "n_out", "reason"]
        made = flow[flow["step"] == "generated"].set_index("cohort")["n_out"]
        assert made.sum() == len(manifest)
        real = manifest["role"] == "real_motion"
        assert made["virtual-adni, motion test"] == real.sum()
        assert made["virtual-adni"] == (manifest["cohort"][~real] == "virtual-adni").sum()
        left = flow[flow["step"] == "straight rejects removed"]["n_out"].item()
        assert left == (manifest["role"] == "warehouse").sum()

    def test_cohort_json_says_what_the_images_are(self, cohort):
        facts = json.loads((cohort[0] / "cohort.json").read_text())
        assert facts["kind"] == "virtual"
        assert "not the paper's images" in facts["caption"]


class TestTasks:
    def test_same_seed_same_files_other_seed_other_files(self, cohort, tmp_path):
        small = {"n_research": (2, 0, 0), "n_real_motion": 0, "n_warehouse": 0}
        make(tmp_path / "again", **small)
        make(tmp_path / "other", seed=21, **small)
        first, other = checksums(tmp_path / "again"), checksums(tmp_path / "other")
        known = checksums(cohort[0])
        shared = set(first) & set(known)
        assert shared
        assert all(first[name] == known[name] for name in shared)
        assert not any(first[name] == other[name] for name in set(first) & set(other))

    def test_killed_run_resumes_and_gives_the_same_files(self, tmp_path):
        sizes = {"n_research": (2, 1, 1), "n_real_motion": 1, "n_warehouse": 6}
        make(tmp_path, **sizes)
        before, table = checksums(tmp_path), (tmp_path / "manifest.tsv").read_bytes()
        images = sorted(tmp_path.glob("sub-*/*/anat/*.nii.gz"))
        kept = {path: path.stat().st_mtime_ns for path in images[::2]}
        for path in images[1::2]:
            path.unlink()
        (tmp_path / "manifest.tsv").unlink()
        make(tmp_path, **sizes)
        assert checksums(tmp_path) == before
        assert (tmp_path / "manifest.tsv").read_bytes() == table
        assert all(path.stat().st_mtime_ns == time for path, time in kept.items())

    def test_single_scan_made_alone_is_identical(self, cohort, tmp_path):
        plan = plans.plan_warehouse(SIZES["n_warehouse"], 20)
        item = next(item for item in plan if not item["reject"])
        alone = virtual.make_scan(item | {"spacing_mm": 8.0, "seed": 20, "root": str(tmp_path)})
        manifest = cohort[1].set_index("scan_id")
        assert alone["manifest"]["sha256"] == manifest.loc[store.scan_id(item), "sha256"]

    def test_other_settings_in_the_same_folder_are_not_reused(self, tmp_path):
        small = {"n_research": (1, 0, 0), "n_real_motion": 0, "n_warehouse": 0}
        make(tmp_path, **small)
        before = checksums(tmp_path)
        virtual.make_cohort(tmp_path, spacing_mm=9.0, **small)
        after = checksums(tmp_path)
        assert not any(after[name] == before[name] for name in before)

    def test_scan_that_fails_is_a_row_with_its_reason(self, tmp_path, monkeypatch):
        make_scan, seen = virtual.make_scan, []

        def breaks_once(item):
            seen.append(item)
            if len(seen) == 1:
                raise ValueError("coil unplugged")
            return make_scan(item)

        monkeypatch.setattr(virtual, "make_scan", breaks_once)
        manifest, flow = make(tmp_path, n_research=(2, 0, 0), n_real_motion=0, n_warehouse=0)
        assert len(manifest) == len(seen) - 1
        assert flow["reason"].str.contains("coil unplugged").sum() == 1
        assert flow["n_in"].sum() == len(seen)
        assert flow["n_out"].sum() == len(manifest)

    def test_negative_numbers_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="none may be negative"):
            make(tmp_path, n_warehouse=-1)


class TestPlans:
    def test_paper_s_patients_and_images_keep_their_ratio(self):
        plan = plans.plan_warehouse(550, 20)
        assert len(plan) == 550
        assert len({item["participant_id"] for item in plan}) == pytest.approx(418, abs=1)
        assert sum(bool(item["reject"]) for item in plan) == 146  # 26.45 %

    def test_ages_and_sexes_follow_table_1(self):
        plan = pd.DataFrame(plans.plan_warehouse(1500, 1))
        assert plan["age"].between(18, 96).all()
        assert plan["age"].mean() == pytest.approx(55.15, abs=2)
        assert (plan["sex"] == "F").mean() == pytest.approx(0.5539, abs=0.05)
        adni = pd.DataFrame(plans.plan_research((200, 0, 0), 1))
        assert adni["age"].mean() == pytest.approx(74.31, abs=2)

    def test_scan_ids_are_unique(self):
        plan = [*plans.plan_research((9, 3, 3), 1), *plans.plan_real_motion(4, 1)]
        plan += plans.plan_warehouse(60, 1)
        assert len({store.scan_id(item) for item in plan}) == len(plan)


def test_scans_are_made_on_one_thread(tmp_path):
    seen = []
    item = {"cohort": "x", "participant_id": "sub-1", "session": "ses-1", "root": str(tmp_path)}

    def make(item):
        seen.extend(library["num_threads"] for library in threadpool_info())
        return {}

    with threadpool_limits(2):
        store.make_all(make, [item], engine="inline", label="heads")
    assert set(seen) == {1}
