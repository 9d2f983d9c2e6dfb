"""What both simulators promise: identity, poses in mm, ghosts along one axis, clear refusals."""

import moving_heads
import numpy as np
import pytest
import torch
from moving_heads import NUFFT, NUFFT_NOISE, ROUNDING, affine_of, blob, centroid, distance

from motionlib.motion.image_based import image_motion
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.sampling import sample_segments, sample_time_course
from motionlib.motion.trajectory import Trajectory, rotation_matrices


@pytest.fixture(scope="module")
def texture():
    return moving_heads.texture()


class TestIdentity:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("output", ["magnitude", "real"])
    def test_zero_motion_changes_nothing(self, texture, axis, output):
        still = Trajectory(np.linspace(0, 1, 5), np.zeros((5, 3)), np.zeros((5, 3)))
        where = {"affine": affine_of(1.3, (5, -9, 40), (4, -8, 3)), "axis": axis, "output": output}
        assert distance(image_motion(texture, still, **where), texture) < ROUNDING
        for pad in (0, "auto", (1, 0, 3)):
            moved = kspace_motion(texture, still, pad_vox=pad, **where)
            assert distance(moved, texture) < NUFFT_NOISE

    @pytest.mark.parametrize("simulate", [image_motion, kspace_motion])
    def test_input_is_untouched_and_shape_dtype_kept(self, simulate, texture):
        before = texture.clone()
        course = sample_segments(rng=1)
        for volume in (texture, texture[0], texture.double()):
            moved = simulate(volume, course, affine=np.eye(4), axis=1)
            assert (moved.shape, moved.dtype) == (volume.shape, volume.dtype)
            assert moved.data_ptr() != volume.data_ptr()
        assert torch.equal(texture, before)

    @pytest.mark.parametrize("simulate", [image_motion, kspace_motion])
    def test_same_trajectory_same_bits(self, simulate, texture):
        course = sample_segments(rng=1)
        one, two = (simulate(texture, course, affine=np.eye(4), axis=1) for _ in range(2))
        assert torch.equal(one, two)


class TestConstantPose:
    @pytest.mark.parametrize("shift", [(2, 0, 0), (0, -3, 0), (1, 2, -1)])
    def test_integer_translation_is_a_roll(self, shift):
        head = blob(width=2.0)  # below 1e-6 at the edges, where linear interpolation stops
        course = Trajectory.constant(shift, (0, 0, 0))
        expected = torch.roll(head, shift, (0, 1, 2))
        assert distance(image_motion(head, course, affine=np.eye(4), axis=0), expected) < ROUNDING
        for pad in (0, "auto"):
            moved = kspace_motion(head, course, affine=np.eye(4), axis=1, pad_vox=pad)
            assert distance(moved, expected) < NUFFT

    def test_translation_is_in_mm_along_ras_axes(self):
        head = blob(width=2.0)
        flipped = affine_of((2.0, 1.5, 3.0), (7, -30, 11), flip=(-1, 1, 1))
        course = Trajectory.constant((4, 3, -6), (0, 0, 0))
        expected = torch.roll(head, (-2, 2, -2), (0, 1, 2))
        for simulate, limit in ((image_motion, ROUNDING), (kspace_motion, NUFFT)):
            assert distance(simulate(head, course, affine=flipped, axis=1), expected) < limit

    def test_quarter_turn_is_rot90(self, rng):
        cube = torch.from_numpy(rng.random((15, 15, 15), dtype=np.float32))
        course = Trajectory.constant((0, 0, 0), (0, 0, 90))
        expected = torch.rot90(cube, 1, (0, 1))  # moves the first axis onto the second
        assert distance(image_motion(cube, course, affine=np.eye(4), axis=0), expected) < 1e-5
        moved = kspace_motion(cube, course, affine=np.eye(4), axis=0, pad_vox=0)
        assert distance(moved, expected) < NUFFT_NOISE

    @pytest.mark.parametrize("origin", [(0, 0, 0), (-80, -110, -60), (500, 3, -9)])
    @pytest.mark.parametrize("simulate", [image_motion, kspace_motion])
    def test_rotation_keeps_a_centred_blob_whatever_the_origin(self, simulate, origin):
        affine = affine_of(1.2, origin, tilt=(10, 0, -5))
        course = Trajectory.constant((0, 0, 0), (8, -6, 10))
        moved = simulate(blob(), course, affine=affine, axis=1)
        np.testing.assert_allclose(centroid(moved), centroid(blob()), atol=5e-3)

    def test_world_centre_moves_the_blob_as_the_map_says(self):
        affine = affine_of(2.0, (-30, -20, -35))
        course = Trajectory.constant((3, 0, 0), (0, 0, 12))
        point = affine[:3, :3] @ centroid(blob(width=2.0)) + affine[:3, 3]
        moved_point = rotation_matrices([[0, 0, 12]])[0] @ point + [3, 0, 0]
        expected = np.linalg.inv(affine[:3, :3]) @ (moved_point - affine[:3, 3])
        for simulate in (image_motion, kspace_motion):
            moved = simulate(blob(width=2.0), course, affine=affine, axis=1, center="world")
            np.testing.assert_allclose(centroid(moved), expected, atol=5e-3)

    def test_both_simulators_agree_on_a_smooth_head(self):
        affine = affine_of((1.0, 1.4, 0.8), (10, -20, 5), tilt=(15, -10, 20))
        head = blob((30, 26, 33), width=3.0)
        course = Trajectory.constant((1.3, -2.1, 0.7), (7, -9, 4))
        one, two = (s(head, course, affine=affine, axis=1) for s in (image_motion, kspace_motion))
        assert distance(one, two) < 0.05  # linear interpolation flattens a blob of 3 voxels by 4 %
        np.testing.assert_allclose(centroid(one), centroid(two), atol=0.01)


class TestPhysics:
    @pytest.mark.parametrize("simulate", [image_motion, kspace_motion])
    def test_brighter_head_gives_brighter_scan(self, simulate, phantom):
        course = sample_segments(rng=2)
        one, two = (simulate(v, course, affine=np.eye(4), axis=1) for v in (phantom, 2 * phantom))
        assert distance(two, 2 * one) < ROUNDING

    @pytest.mark.parametrize("simulate", [image_motion, kspace_motion])
    def test_later_steps_hurt_less_and_the_last_not_at_all(self, simulate, phantom):
        still = simulate(phantom, Trajectory.identity(), affine=np.eye(4), axis=1)
        options = {"keep_center": False} if simulate is image_motion else {"pad_vox": 0}
        errors = []
        for time in (0.55, 0.65, 0.75, 0.85, 0.95, 1.0):
            step = Trajectory([0, time], [[0, 0, 0], [0, 5, 0]], np.zeros((2, 3)), "hold")
            moved = simulate(phantom, step, affine=np.eye(4), axis=1, **options)
            errors.append(distance(moved, still))
        assert errors == sorted(errors, reverse=True)
        assert errors[0] > 4 * errors[-2]
        assert errors[-1] < (ROUNDING if simulate is image_motion else NUFFT)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("simulate", [image_motion, kspace_motion])
    def test_ghosts_run_along_the_axis_and_no_other(self, simulate, axis, phantom):
        shift = 3.0 * np.eye(3)[axis]
        course = Trajectory([0, 0.4, 0.7], [0 * shift, shift, -shift], np.zeros((3, 3)), "hold")
        head = torch.zeros(28, 28, 28)
        head[10:18, 10:18, 10:18] = 1
        moved = simulate(head, course, affine=np.eye(4), axis=axis, output="real")
        change = (moved - head).abs()
        outside = [d for d in range(3) if d != axis]
        shadow = head.amax(dim=axis).bool()  # lines along the axis that cross the cube
        lines = change.amax(dim=axis)
        assert float(lines[shadow].min()) > 0.1
        assert float(lines[~shadow].max()) < 2e-3 * float(lines.max())
        assert len(outside) == 2
        # all other planes keep their projection: no mixing across lines
        assert distance(moved.sum(dim=axis), head.sum(dim=axis)) < 5e-3

    def test_gliding_course_runs_through_both_simulators(self, phantom):
        course = sample_time_course(50, rng=1)
        one, two = (
            simulate(phantom, course, affine=np.eye(4), axis=1, output="real")
            for simulate in (image_motion, kspace_motion)
        )
        assert distance(one, two) < 0.25  # linear against band-limited interpolation, 28 lines
        assert distance(one, phantom) > distance(one, two)


class TestBadInput:
    @pytest.mark.parametrize("simulate", [image_motion, kspace_motion])
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda v: v.index_fill(1, torch.tensor([3]), float("nan")), "NaN"),
            (lambda v: v.index_fill(1, torch.tensor([3]), float("inf")), "infinite"),
            (lambda v: v.expand(2, -1, -1, -1), "one 3-D scan"),
            (lambda v: v[None], "one 3-D scan"),
            (lambda v: v[:, :0], "empty"),
            (lambda v: torch.ones_like(v), "constant"),
            (lambda v: v[0, 0], "one 3-D scan"),
            (lambda v: v[:, :1], "flat"),
            (lambda v: v - 0.5, "negative"),
            (lambda v: v.half(), "float32"),
            (lambda v: v.to("meta"), "device"),
            (lambda v: v.numpy(), "tensor"),
        ],
    )  # fmt: skip
    def test_unusable_volumes_are_refused_in_one_sentence(self, simulate, spoil, message, texture):
        with pytest.raises(ValueError, match=message) as fault:
            simulate(spoil(texture), sample_segments(rng=0), affine=np.eye(4), axis=1)
        assert "\n" not in str(fault.value)

    @pytest.mark.parametrize("simulate", [image_motion, kspace_motion])
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"affine": np.zeros((4, 4))}, "cannot be inverted"),
            ({"affine": np.eye(3)}, "4, 4"),
            ({"axis": 3}, "axis is 3"),
            ({"output": "phase"}, "output"),
            ({"center": "nose"}, "center"),
            ({"direction": "up"}, "direction"),
        ],
    )
    def test_unusable_options_are_refused(self, simulate, options, message, texture):
        options = {"affine": np.eye(4), "axis": 1, **options}
        with pytest.raises(ValueError, match=message):
            simulate(texture, sample_segments(rng=0), **options)


@pytest.mark.gpu
class TestCuda:
    @pytest.mark.parametrize("simulate", [image_motion, kspace_motion])
    def test_equals_the_cpu(self, simulate, phantom):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        course = sample_segments(rng=2)
        here = simulate(phantom, course, affine=np.eye(4), axis=1)
        there = simulate(phantom.cuda(), course, affine=np.eye(4), axis=1).cpu()
        assert distance(there, here) < (1e-5 if simulate is image_motion else 1e-3)
