"""A trajectory of the head, and its severity in mm."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motionlib.motion.sampling import sample_segments, sample_time_course
from motionlib.motion.trajectory import (
    Trajectory,
    displacement,
    pose_distance_mm,
    rotation_matrices,
)


class TestTrajectory:
    def test_arrays_cannot_be_changed(self):
        trajectory = Trajectory.identity()
        with pytest.raises(ValueError, match="read-only"):
            trajectory.times[0] = 1

    def test_survives_json(self):
        before = sample_time_course(rng=3)
        after = Trajectory.from_dict(json.loads(json.dumps(before.to_dict())))
        for name in ("times", "translation_mm", "rotation_deg"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert (after.interpolation, after.frame) == (before.interpolation, before.frame)

    def test_torchio_movements_follow_the_identity_in_ras(self):
        trajectory = Trajectory.from_torchio([0.4], [[1, 2, 3]], [[4, 5, 6]])
        np.testing.assert_array_equal(trajectory.times, [0, 0.4])
        np.testing.assert_array_equal(trajectory.translation_mm, [[0, 0, 0], [-1, -2, 3]])
        np.testing.assert_array_equal(trajectory.rotation_deg, [[0, 0, 0], [-4, -5, 6]])

    def test_lps_angles_become_the_same_rotation_in_ras(self):
        flip = np.diag([-1.0, -1.0, 1.0])
        angles = np.array([[11.0, -7.0, 5.0]])
        expected = flip @ rotation_matrices(angles)[0] @ flip
        ras = Trajectory.from_torchio([0.4], [[0, 0, 0]], angles).rotation_deg[1:]
        np.testing.assert_allclose(rotation_matrices(ras)[0], expected, atol=1e-15)

    def test_blocks_have_torchio_bounds(self):
        times = np.array([0.0, 0.164, 0.449, 0.604, 0.82])
        trajectory = Trajectory(times, np.zeros((5, 3)), np.zeros((5, 3)), "hold")
        edges = [0, *(44 * times[1:]).astype(int), 44]
        expected = np.repeat(np.arange(5), np.diff(edges))
        np.testing.assert_array_equal(trajectory.line_owners(44), expected)

    def test_step_after_the_last_line_owns_no_line(self):
        trajectory = Trajectory([0, 1], np.zeros((2, 3)), np.zeros((2, 3)), "hold")
        assert trajectory.line_owners(30).max() == 0

    def test_kept_centre_holds_the_first_pose_at_half_time(self):
        trajectory = sample_segments(4, rng=5).with_centre_kept()
        shifts, _ = trajectory.at_lines(101, rule="hold")
        np.testing.assert_array_equal(shifts[50], 0)
        assert np.abs(shifts[0]).min() > 0

    @pytest.mark.parametrize(
        ("times", "shape", "message"),
        [
            ([0.5, 0.2], (2, 3), "rise"),
            ([0, 2], (2, 3), "rise"),
            ([0, 1], (3, 3), "expected \\(2, 3\\)"),
            ([], (0, 3), "non-empty"),
            ([0, np.nan], (2, 3), "NaN"),
        ],
    )
    def test_impossible_courses_are_refused(self, times, shape, message):
        with pytest.raises(ValueError, match=message):
            Trajectory(times, np.zeros(shape), np.zeros(shape))

    def test_fork_courses_have_six_rows(self):
        with pytest.raises(ValueError, match="6, T"):
            Trajectory.from_fork(np.zeros((5, 10)))


class TestRotationMatrices:
    @given(st.lists(st.floats(-180, 180), min_size=3, max_size=3))
    @settings(max_examples=30, deadline=None)
    def test_are_rotations(self, angles):
        matrix = rotation_matrices([angles])[0]
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)

    def test_are_composed_z_x_y(self):
        x, y, z = (rotation_matrices([np.eye(3)[i] * 30])[0] for i in range(3))
        np.testing.assert_allclose(rotation_matrices([[30, 30, 30]])[0], z @ x @ y, atol=1e-15)

    def test_positive_angle_about_z_turns_x_towards_y(self):
        turned = rotation_matrices([[0, 0, 90]])[0] @ [1, 0, 0]
        np.testing.assert_allclose(turned, [0, 1, 0], atol=1e-15)


class TestDisplacement:
    def test_no_motion_is_zero_everywhere(self):
        measures = displacement(Trajectory.identity())
        assert measures.pop("motion_free_fraction") == 1
        assert set(measures.values()) == {0.0}

    def test_one_shift_is_measured_in_mm(self):
        step = Trajectory([0, 0.75], [[0, 0, 0], [3, 0, 4]], np.zeros((2, 3)), "hold")
        measures = displacement(step)
        assert measures["max_pairwise_mm"] == pytest.approx(5)
        assert measures["mean_mm"] == pytest.approx(1.25)
        assert measures["from_centre_mm"] == pytest.approx(1.25)
        assert measures["motion_free_fraction"] == pytest.approx(0.75)
        assert measures["framewise_power_mm"] == pytest.approx(7 / 199)

    def test_ball_distance_is_the_rms_over_a_ball(self, rng):
        points = rng.normal(size=(200_000, 3))
        points *= (64 * rng.uniform(size=(200_000, 1)) ** (1 / 3)) / np.linalg.norm(
            points, axis=1, keepdims=True
        )
        shift, angles = np.array([1.0, -2.0, 0.5]), np.array([3.0, -2.0, 4.0])
        moved = points @ rotation_matrices([angles])[0].T + shift
        expected = np.sqrt(((moved - points) ** 2).sum(1).mean())
        actual = pose_distance_mm(shift, angles, np.zeros(3), np.zeros(3))
        assert actual == pytest.approx(expected, rel=0.01)  # 200,000 points: about 0.1 %

    def test_same_step_weighs_more_near_the_centre_of_k_space(self):
        def severity(time):
            step = Trajectory([0, time], [[0, 0, 0], [0, 5, 0]], np.zeros((2, 3)), "hold")
            return displacement(step)["energy_weighted_mm"]

        values = [severity(t) for t in (0.5, 0.6, 0.7, 0.8, 0.9)]
        assert values == sorted(values, reverse=True)
        assert values[0] > 5 * values[-1]

    def test_centric_order_moves_the_sensitive_moment_to_the_start(self):
        late = Trajectory([0, 0.5], [[0, 0, 0], [0, 5, 0]], np.zeros((2, 3)), "hold")
        linear, centric = displacement(late), displacement(late, centre_time=0.0)
        assert centric["energy_weighted_mm"] < linear["energy_weighted_mm"] / 3

    def test_voxel_frame_has_no_mm(self):
        with pytest.raises(ValueError, match="RAS"):
            displacement(Trajectory.from_fork(np.zeros((6, 4))))
