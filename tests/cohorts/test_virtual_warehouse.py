"""Tests of `motionlib.cohorts.virtual.warehouse`, its scanners, raters, motion and rejects."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from motionlib.cohorts.virtual import plans, raters, scanners, warehouse
from motionlib.cohorts.virtual.scanners import sample_scanner
from motionlib.motion.acquisition import Acquisition
from motionlib.motion.trajectory import Trajectory
from motionlib.preprocess.images import save_volume

AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])
AFFINE[:3, 3] = (-69, -81, -69)


@pytest.fixture
def head(phantom):
    return phantom[0].numpy().copy()


@pytest.fixture
def clean(phantom, tmp_path):
    rows = []
    for patient in range(6):
        path = tmp_path / "clean" / f"p{patient}_T1w.nii.gz"
        save_volume(phantom[0] * (1 + patient), AFFINE, path)
        rows.append({"participant_id": f"sub-{patient}", "source_participant_id": f"IXI{patient}"})
        rows[-1] |= {"path": str(path), "age": 30.0 + patient, "sex": "F"}
    return pd.DataFrame(rows)


def quiet(rng):
    """A scanner that adds nothing of its own."""
    from dataclasses import replace

    plain = {"blur_mm": 0.0, "noise_sd": 0.0, "bias": 0.0, "partial_fourier": 1.0}
    return replace(sample_scanner(rng), order="linear", phase_axis=1, slow_axis=1, **plain)


GRADE_SHARES = np.array([2319, 1196, 530]) / 4045  # of the consensus, §III-A.2
KAPPA = 0.68  # §III-A.2, taken as linearly weighted


def calibrate(severity_mm, seed=0):
    """Thresholds in mm and log-normal error of the raters that give the published figures."""
    error = np.random.default_rng(seed).normal(0, 1, (2, len(severity_mm)))

    def rated(noise):
        seen = severity_mm * np.exp(noise * error)
        # the consensus is a quantile of the larger impression
        cuts = np.quantile(seen.max(axis=0), np.cumsum(GRADE_SHARES)[:2])
        return cuts, cohen_kappa_score(*np.searchsorted(cuts, seen), weights="linear")

    noise = brentq(lambda noise: rated(noise)[1] - KAPPA, 0.02, 2.0, xtol=1e-3)
    return rated(noise)[0], noise


class TestRaters:
    severity = raters.severity_quantile((np.arange(40_000) + 0.5) / 40_000)

    def test_shares_and_kappa_are_the_paper_s(self):
        one, two = raters.rate(self.severity, np.random.default_rng(0))
        shares = np.bincount(np.maximum(one, two), minlength=3) / len(self.severity)
        np.testing.assert_allclose(shares, GRADE_SHARES, atol=0.02)
        assert cohen_kappa_score(one, two, weights="linear") == pytest.approx(KAPPA, abs=0.02)

    def test_constants_are_what_the_published_figures_ask_for(self):
        thresholds, noise = calibrate(self.severity)
        np.testing.assert_allclose(raters.THRESHOLDS_MM, thresholds, rtol=0.06)
        assert noise == pytest.approx(raters.RATER_NOISE, rel=0.05)

    def test_one_scan_can_be_graded_alone(self):
        grades = raters.rate(6.0, np.random.default_rng(0))
        assert all(isinstance(grade, int) for grade in grades)
        assert raters.rate(0.0, np.random.default_rng(0)) == (0, 0)


class TestScanners:
    def test_vendors_come_in_the_paper_s_shares_from_39_hospitals(self):
        rng = np.random.default_rng(0)
        drawn = [sample_scanner(rng) for _ in range(3000)]
        vendors = pd.Series([s.protocol.manufacturer for s in drawn]).value_counts(normalize=True)
        assert vendors["Siemens"] == pytest.approx(3752 / 5500, abs=0.03)
        assert vendors["GE"] == pytest.approx(1710 / 5500, abs=0.03)
        assert {s.hospital for s in drawn} <= set(range(1, 40))
        assert len(scanners.hospitals()) == 39

    def test_every_drawn_protocol_gives_a_t1w_contrast(self):
        from motionlib.cohorts.virtual.signal import tissue_signal

        rng = np.random.default_rng(1)
        for _ in range(200):
            signal = tissue_signal(sample_scanner(rng).protocol)
            assert signal[1] < signal[2] < signal[3]  # fluid, grey, white

    def test_half_of_the_scans_are_archived_as_tilted_reformats(self):
        rng = np.random.default_rng(2)
        tilts = np.array([sample_scanner(rng).tilt_deg for _ in range(3000)])
        tilted = tilts.any(axis=1)
        assert tilted.mean() == pytest.approx(0.5, abs=0.03)
        assert tilts[tilted].mean(axis=0) == pytest.approx((12, 0, 0), abs=0.7)

    def test_small_voxels_are_noisy(self):
        rng = np.random.default_rng(3)
        drawn = [sample_scanner(rng) for _ in range(3000)]
        volumes = [np.prod(s.protocol.voxel_ratio) for s in drawn]
        assert spearmanr(volumes, [s.noise_sd for s in drawn]).statistic < -0.3

    def test_unknown_hospital_is_refused(self):
        with pytest.raises(ValueError, match="1 to 39"):
            sample_scanner(np.random.default_rng(0), hospital=40)


class TestFates:
    @pytest.fixture(scope="class")
    def items(self):
        rng = np.random.default_rng(0)
        people = [(f"p{n}", rng.uniform(18, 95)) for n in range(1500)]
        items = [
            {"source_participant_id": name, "age": age} for name, age in people for _ in range(2)
        ]
        plans.assign_fates(items, seed=1)
        return pd.DataFrame(items)

    def test_rejects_and_severities_have_their_shares_whoever_moves(self, items):
        rejected = items["reject"] != ""
        assert rejected.sum() == round(plans.STRAIGHT_REJECTS * len(items))
        severities = np.sort(items.loc[~rejected, "severity_mm"])
        wanted = raters.severity_quantile((np.arange(len(severities)) + 0.5) / len(severities))
        np.testing.assert_allclose(severities, wanted)

    def test_the_old_move_more_and_who_moved_once_moves_again(self, items):
        graded = items[items["reject"] == ""]
        assert spearmanr(graded["age"], graded["severity_mm"]).statistic == pytest.approx(
            plans.AGE_WEIGHT, abs=0.05
        )
        two = graded.groupby("source_participant_id")["severity_mm"].agg(["first", "last", "size"])
        two = two[two["size"] == 2]
        again = plans.AGE_WEIGHT**2 + plans.PATIENT_WEIGHT**2
        assert spearmanr(two["first"], two["last"]).statistic == pytest.approx(again, abs=0.06)

    def test_heads_without_an_age_are_taken_as_they_are(self):
        items = [{"source_participant_id": f"p{n}", "age": None} for n in range(20)]
        plans.assign_fates(items, seed=1)
        assert sum(item["severity_mm"] > 0 for item in items) == 15


class TestMotion:
    @pytest.mark.parametrize("order", ["linear", "centric", "segmented"])
    def test_realised_severity_is_the_wanted_one(self, order):
        acquisition = Acquisition(order=order, n_segments=4 if order == "segmented" else 1)
        for seed, wanted in enumerate((0.1, 0.8, 3.0)):
            trajectory, info = warehouse.sample_motion(
                wanted, acquisition, np.random.default_rng(seed)
            )
            assert info["severity_mm"] == pytest.approx(wanted, rel=0.01)
            assert np.abs(trajectory.translation_mm).max() <= warehouse.MAX_TRANSLATION_MM * 1.001

    def test_a_head_that_rests_elsewhere_has_no_severity(self):
        still = Trajectory.constant((3, -2, 4), (5, 0, 1))
        assert warehouse.severity_mm(still, Acquisition()) == pytest.approx(0, abs=1e-9)

    def test_the_same_step_weighs_more_at_the_centre_of_k_space(self):
        def step(at):
            return Trajectory(
                [0, at, at + 0.001], np.eye(3)[[0, 0, 1]] * 3, np.zeros((3, 3)), "linear"
            )

        linear, centric = Acquisition(), Acquisition(order="centric")
        assert warehouse.severity_mm(step(0.5), linear) > 2 * warehouse.severity_mm(
            step(0.95), linear
        )
        assert warehouse.severity_mm(step(0.1), centric) > warehouse.severity_mm(step(0.1), linear)

    def test_more_severity_means_a_larger_error(self, head):
        scanner = quiet(np.random.default_rng(0))
        errors = []
        for severity in (0.0, 0.5, 2.0, 6.0):
            moved = [
                warehouse.emulate_scan(
                    head, AFFINE, scanner, severity=severity, rng=np.random.default_rng(seed)
                )[0]
                for seed in range(4)
            ]
            unit = head / warehouse.foreground_mean(head)
            errors.append(np.mean([np.abs(volume - unit).mean() for volume in moved]))
        assert errors[0] < 0.01
        assert errors == sorted(errors)
        assert errors[3] > 5 * errors[1]

    def test_noise_of_a_still_head_is_rayleigh_in_air(self):
        volume = np.zeros((30, 30, 30), np.float32)
        volume[8:22, 8:22, 8:22] = 2.0
        noisy = warehouse.still_noise(volume, 0.05, np.random.default_rng(0))
        assert noisy[:4].mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.03)


class TestRejects:
    @pytest.mark.parametrize("kind", plans.REJECT_KINDS)
    def test_every_kind_gives_a_readable_volume(self, head, kind, tmp_path):
        from motionlib.preprocess.images import read_array

        rng = np.random.default_rng(0)
        volume, affine = warehouse.reject_scan(head, AFFINE, kind, quiet(rng), rng)
        assert volume.min() >= 0
        if kind in ("truncated", "slab"):
            assert volume.size < 0.75 * head.size
        read_array(save_volume(volume, affine, tmp_path / "r.nii.gz"))

    def test_unknown_kind_is_refused(self, head):
        rng = np.random.default_rng(0)
        with pytest.raises(ValueError, match="unknown"):
            warehouse.reject_scan(head, AFFINE, "upside down", quiet(rng), rng)


class TestMakeWarehouse:
    def test_patients_keep_their_origin_and_scans_their_number(self, clean, tmp_path):
        manifest = warehouse.make_warehouse(clean, tmp_path / "w", n=9, seed=3)
        assert len(manifest) == 9
        assert set(manifest["source_participant_id"]) == set(clean["source_participant_id"])
        assert set(manifest["cohort"]) == {"ixi-warehouse"}
        assert manifest["scan_id"].is_unique
        assert (manifest["straight_reject"] == 1).sum() == round(9 * 1455 / 5500)
        graded = manifest[manifest["role"] == "warehouse"]
        assert graded["motion_grade"].notna().all()
        assert all(pd.Series(manifest["path"]).map(lambda p: p.startswith("/")))

    def test_the_flow_has_what_failed_and_what_was_rejected(self, clean, tmp_path, monkeypatch):
        emulate, seen = warehouse._emulate_item, []

        def breaks_once(item):
            seen.append(item)
            if len(seen) == 1:
                raise ValueError("coil unplugged")
            return emulate(item)

        monkeypatch.setattr(warehouse, "_emulate_item", breaks_once)
        manifest = warehouse.make_warehouse(clean, tmp_path / "w", n=9, seed=3)
        flow = pd.read_csv(tmp_path / "w" / "flow.tsv", sep="\t")
        made = flow[flow["step"] == "emulated"]
        assert made["reason"].str.contains("coil unplugged").sum() == 1
        assert (made["n_in"].sum(), made["n_out"].sum()) == (9, 8)
        rejected = flow[flow["step"] == "straight rejects removed"]
        assert rejected["n_out"].tolist() == [(manifest["role"] == "warehouse").sum()]

    def test_default_number_is_the_paper_s_per_patient(self, clean, tmp_path):
        manifest = warehouse.make_warehouse(clean, tmp_path / "w")
        assert len(manifest) == round(6 * 5500 / 4177)

    def test_twice_the_same_call_makes_nothing_new(self, clean, tmp_path):
        first = warehouse.make_warehouse(clean, tmp_path / "w", n=8)
        times = {p: p.stat().st_mtime_ns for p in (tmp_path / "w").rglob("*.nii.gz")}
        second = warehouse.make_warehouse(clean, tmp_path / "w", n=8)
        pd.testing.assert_frame_equal(first, second)
        assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "w").rglob("*.nii.gz")}

    def test_no_clean_scan_is_refused(self, clean, tmp_path):
        with pytest.raises(ValueError, match="no clean scan"):
            warehouse.make_warehouse(clean.iloc[:0], tmp_path)

    def test_coarser_voxels_keep_the_head_in_its_place(self, head):
        from dataclasses import replace

        scanner = quiet(np.random.default_rng(0))
        scanner = replace(scanner, protocol=replace(scanner.protocol, voxel_ratio=(1.0, 1.0, 2.0)))
        native, affine = warehouse.to_native(head, AFFINE, scanner)
        assert native.shape[2] == 12

        def centre(volume, matrix):
            at = np.argwhere(volume > 0.2).mean(axis=0)
            return matrix[:3, :3] @ at + matrix[:3, 3]

        np.testing.assert_allclose(centre(native, affine), centre(head, AFFINE), atol=3.0)
