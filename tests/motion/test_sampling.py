"""Drawing motion: what is asked for is what is drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionlib.motion.sampling import (
    drift,
    sample_realistic,
    sample_segments,
    sample_time_course,
    sudden_steps,
    swallows,
)

SEEDS = range(20)


def furthest(points):
    """Largest distance between two points of a course."""
    return np.linalg.norm(points[:, None] - points[None], axis=-1).max()


class TestSampleSegments:
    @given(st.integers(1, 100), st.floats(0, 8), st.floats(0, 8), st.integers(0, 99))
    @settings(max_examples=30, deadline=None)
    def test_ranges_count_and_order_are_respected(self, n, low, extra, seed):
        bounds = (low, low + extra)
        drawn = sample_segments(n, translation_mm=bounds, rotation_deg=bounds, rng=seed)
        assert len(drawn) == n + 1
        assert (np.diff(drawn.times) > 0).all()
        for values in (drawn.translation_mm[1:], drawn.rotation_deg[1:]):
            assert (np.abs(values) >= low).all()
            assert (np.abs(values) <= low + extra).all()

    def test_signs_are_drawn_unless_told_otherwise(self):
        signed, positive = sample_segments(40, rng=1), sample_segments(40, signed=False, rng=1)
        assert 0.3 < (signed.translation_mm[1:] > 0).mean() < 0.7
        assert (positive.translation_mm[1:] > 0).all()
        assert (positive.rotation_deg[1:] > 0).all()

    def test_same_seed_same_bits(self):
        one, two = sample_segments(rng=9), sample_segments(rng=np.random.default_rng(9))
        np.testing.assert_array_equal(one.translation_mm, two.translation_mm)
        np.testing.assert_array_equal(one.times, two.times)

    @pytest.mark.parametrize("options", [{"translation_mm": (4, 2)}, {"jitter": 0.5}])
    def test_impossible_ranges_are_refused(self, options):
        with pytest.raises(ValueError, match=r"4\.0|\(4, 2\)|jitter"):
            sample_segments(4, rng=0, **options)


class TestSampleTimeCourse:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_pairwise_reading_bounds_the_whole_course(self, seed):
        course = sample_time_course(translation_mm=(2, 4), rotation_deg=(6, 8), rng=seed)
        assert len(course) == 200
        assert 2 <= furthest(course.translation_mm) <= 4 + 1e-9
        assert 6 <= furthest(course.rotation_deg) <= 8 + 1e-9

    def test_peak_to_peak_reading_is_the_drift_of_each_component(self):
        course = sample_time_course(
            translation_mm=(3, 3), rotation_deg=(5, 5), reading="peak_to_peak",
            swallow_count=(0, 1), sudden_count=(0, 1), rng=1,
        )  # fmt: skip
        np.testing.assert_allclose(np.ptp(course.translation_mm, axis=0), 3)
        np.testing.assert_allclose(np.ptp(course.rotation_deg, axis=0), 5)

    def test_zero_ranges_give_no_motion(self):
        course = sample_time_course(translation_mm=(0, 0), rotation_deg=(0, 0), rng=1)
        assert not course.translation_mm.any()
        assert not course.rotation_deg.any()

    @pytest.mark.parametrize(
        "options", [{"reading": "rms"}, {"n_times": 2}, {"swallow_count": (3, 3)}]
    )
    def test_impossible_options_are_refused(self, options):
        with pytest.raises(ValueError, match=r"use|needs|give"):
            sample_time_course(rng=0, **options)

    def test_statistics_resemble_the_forks(self, reference_root):
        path = reference_root / "motion" / "fork_trajectories.npz"
        theirs = np.load(path)["default_rescaled"].astype(float)
        ours = [sample_time_course(translation_mm=(1, 2), rng=s) for s in range(60)]
        for measure, tolerance in (
            (lambda t: np.ptp(t, axis=0).mean(), 0.15),  # mean 0.99 mm; SD of a course about 0.3
            (furthest, 0.1),
            (lambda t: np.abs(np.diff(t, axis=0)).max(), 0.2),
        ):
            expected = np.mean([measure(course[:3].T) for course in theirs])
            actual = np.mean([measure(course.translation_mm) for course in ours])
            assert actual == pytest.approx(expected, abs=tolerance)


class TestCourses:
    @pytest.mark.parametrize("seed", range(5))
    def test_drift_has_the_asked_peak_to_peak(self, seed):
        course = drift(200, 3.5, rng=np.random.default_rng(seed))
        np.testing.assert_allclose(np.ptp(course, axis=0), 3.5)

    def test_swallow_touches_superior_shift_and_pitch_only_and_returns(self):
        course = swallows(200, 1, (2, 6), rng=np.random.default_rng(3))
        moving = np.abs(course).max(axis=0) > 0
        np.testing.assert_array_equal(moving, [False, False, True, True, False, False])
        assert (course >= 0).all()
        assert np.sort(course[:, 2])[-20] < 0.01  # 1/e in two points: an impulse

    def test_single_step_has_one_jump_that_lasts(self):
        for seed in SEEDS:
            course = sudden_steps(50, 1, (2, 6), rng=np.random.default_rng(seed))
            jumps = np.flatnonzero(np.abs(np.diff(course, axis=0)).max(axis=1))
            assert jumps.size == 1
            assert np.abs(course[-1]).max() <= 6

    def test_no_events_no_motion(self):
        rng = np.random.default_rng(0)
        assert not swallows(200, 0, (2, 6), rng=rng).any()
        assert not sudden_steps(200, 0, (2, 6), rng=rng).any()


class TestSampleRealistic:
    @pytest.mark.parametrize("kind", [None, "drift", "nod", "steps", "spikes", "partial"])
    def test_size_is_within_its_range_and_the_scan_starts_at_rest(self, kind):
        for seed in SEEDS:
            course = sample_realistic(kind=kind, rng=seed)
            assert 0.2 - 1e-9 <= furthest(course.translation_mm) <= 3 + 1e-9
            assert 0.2 - 1e-9 <= furthest(course.rotation_deg) <= 3 + 1e-9
            np.testing.assert_array_equal(course.translation_mm[0], 0)

    def test_small_motion_is_common_and_signs_vary(self):
        sizes, ends = [], []
        for seed in range(200):
            course = sample_realistic(rng=seed)
            sizes.append(furthest(course.translation_mm))
            ends.append(course.translation_mm[np.abs(course.translation_mm).max(1).argmax(), 1])
        assert 0.35 < np.mean(np.array(sizes) < np.sqrt(0.2 * 3)) < 0.65  # log-uniform median
        assert 0.35 < np.mean(np.array(ends) > 0) < 0.65

    def test_nod_turns_mainly_about_right_left(self):
        pitch = np.zeros(3)
        for seed in range(40):
            pitch += np.ptp(sample_realistic(kind="nod", rng=seed).rotation_deg, axis=0)
        assert pitch[0] > 3 * max(pitch[1:])

    def test_partial_motion_leaves_most_of_the_scan_alone(self):
        for seed in SEEDS:
            course = sample_realistic(kind=["partial", "drift"], rng=seed)
            away = np.abs(course.translation_mm).max(axis=1) > 1e-9
            assert away.mean() < 0.6

    def test_unknown_kind_is_named(self):
        with pytest.raises(ValueError, match="sneeze"):
            sample_realistic(kind="sneeze", rng=0)

    def test_ranges_from_zero_are_refused(self):
        with pytest.raises(ValueError, match="above 0"):
            sample_realistic(translation_mm=(0, 2), rng=0)
