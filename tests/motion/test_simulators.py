"""The two simulators: equal to their peers to rounding, and right where the physics is known.

Tolerances: image-based results are float32 sums of about 50 terms, so a relative L2 error of 1e-6
is rounding. The NUFFT is asked for 1e-3 and measured at 1.3e-4 on heads (limit 3e-4) and at 4e-4 on
white noise, whose spectrum does not fall (limit 1e-3).
"""

import json

import numpy as np
import pytest
import torch

from motionlib.motion import image_based
from motionlib.motion.image_based import (
    combine_poses,
    image_motion,
    resample_once,
    waves,
)
from motionlib.motion.kspace_based import kspace_motion, type_2_torch
from motionlib.motion.resampling import pull_trilinear, sampling_maps
from motionlib.motion.sampling import sample_segments, sample_time_course
from motionlib.motion.trajectory import Trajectory, rotation_matrices

ROUNDING, NUFFT, NUFFT_NOISE = 1e-6, 3e-4, 1e-3
TORCHIO = {"axis": 2, "center": "world", "direction": "pull", "output": "real"}
TORCHIO_CASES = [
    *(
        f"motion_n{n}_{grid}"
        for n in ("01_early", "01_late", "04", "16")
        for grid in ("even", "odd")
    ),
    *("motion_n04_even_las", "motion_n04_even_oblique"),
    *("random_n02_seed7_even", "random_n04_seed42_even"),
]
FORK_CASES = [
    *(f"{what}_{grid}" for what in ("identity", "rotation_const", "rotation_course",
      "translation_const", "translation_course", "given_ov00", "given_ov03",
      "given_ov00_axis2", "course_default_ov00") for grid in ("even", "odd")),
    *("given_ov00_axis0_even", "course_default_even", "course_unscaled_ov00_even"),
]  # fmt: skip


def distance(one, two) -> float:
    """Relative L2 distance from `two`."""
    one, two = (torch.as_tensor(x).double().flatten() for x in (one, two))
    return float((one - two).norm() / two.norm())


def affine_of(spacing=1.0, origin=(0, 0, 0), tilt=(0, 0, 0), flip=(1, 1, 1)):
    """Affine with a voxel size, an origin in mm, a tilt in degrees and flipped axes."""
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrices([tilt])[0] @ np.diag(np.multiply(spacing, flip))
    affine[:3, 3] = origin
    return affine


def blob(shape=(24, 28, 24), width=3.0, centre=None):
    """Smooth ball with a known centre, (I, J, K) float32."""
    centre = [(n - 1) / 2 for n in shape] if centre is None else centre
    lines = [np.arange(n) - c for n, c in zip(shape, centre, strict=True)]
    axes = np.meshgrid(*lines, indexing="ij")
    return torch.from_numpy(np.exp(-sum(x**2 for x in axes) / (2 * width**2)).astype(np.float32))


def centroid(volume):
    """Centre of mass in voxels."""
    weights = volume.double().reshape(volume.shape[-3:])
    profiles = [weights.sum([e for e in range(3) if e != d]) for d in range(3)]
    return np.array([float((p * torch.arange(len(p))).sum() / p.sum()) for p in profiles])


@pytest.fixture(scope="module")
def texture():
    """Random positive voxels: nothing smooth to hide an error behind; (1, 12, 15, 14)."""
    return torch.from_numpy(np.random.default_rng(3).random((1, 12, 15, 14), dtype=np.float32))


class TestPeers:
    @pytest.mark.parametrize("case", TORCHIO_CASES)
    def test_image_motion_is_torchio(self, case, reference_root):
        stored = np.load(reference_root / "motion" / f"torchio_{case}.npz")
        course = Trajectory.from_torchio(
            stored["times"], stored["translation_mm"], stored["degrees"]
        )
        clean = torch.from_numpy(stored["input"])
        ours = image_motion(clean, course, affine=stored["affine"], **TORCHIO)
        assert distance(ours, stored["output"]) < ROUNDING

    @pytest.mark.parametrize("case", FORK_CASES)
    def test_kspace_motion_is_the_fork_in_double(self, case, reference_root):
        stored = np.load(reference_root / "motion" / f"fork_{case}.npz")
        options = json.loads(str(stored["params_json"]))
        clean = torch.from_numpy(stored["input"])
        where = {
            "affine": stored["affine"],
            "axis": options["phase_axis"],
            "pad_vox": options["pad_each_side"],
            "half_sample_grid": True,
        }
        course = Trajectory.from_fork(stored["trajectory_given"])
        single = kspace_motion(clean, course, **where)
        assert distance(single, stored["output"]) < NUFFT
        if max(options["pad_each_side"]) == 0:
            double = kspace_motion(clean.double(), course, eps=1e-9, **where)
            assert distance(double, stored["output"]) < 1e-7

    @pytest.mark.parametrize("n", [48, 97])
    def test_counts_at_which_torchio_crashes_work(self, n, phantom):
        long = torch.nn.functional.interpolate(phantom[None], size=(24, 28, 100))[0]
        course = sample_segments(n, translation_mm=(0, 1), rotation_deg=(0, 1), rng=0)
        assert image_motion(long, course, affine=np.eye(4), axis=2).shape == long.shape


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

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("shape", [(24, 28, 24), (23, 27, 21)])
    def test_zero_motion_of_a_head_stays_within_the_measured_accuracy(self, phantom, shape, axis):
        head = phantom[:, : shape[0], : shape[1], : shape[2]]
        moved = kspace_motion(head, Trajectory.identity(), affine=np.eye(4), axis=axis)
        assert distance(moved, head) < NUFFT

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

    def test_pull_undoes_push(self):
        course = Trajectory.constant((2, -1, 1), (5, 3, -4))
        pushed = kspace_motion(blob(), course, affine=np.eye(4), axis=1)
        back = kspace_motion(pushed, course, affine=np.eye(4), axis=1, direction="pull")
        assert distance(back, blob()) < 5e-3  # two magnitudes and two folded corners

    def test_constant_motion_is_one_resampling(self, phantom):
        pose = ((1.3, -0.6, 0.4), (3, -2, 5))
        affine = affine_of(1.1, (3, 4, 5))
        once = resample_once(phantom, *pose, affine=affine)
        still = image_motion(phantom, Trajectory.constant(*pose), affine=affine, axis=2)
        assert distance(still, once) < ROUNDING

    def test_both_simulators_agree_on_a_smooth_head(self):
        affine = affine_of((1.0, 1.4, 0.8), (10, -20, 5), tilt=(15, -10, 20))
        head = blob((30, 26, 33), width=3.0)
        course = Trajectory.constant((1.3, -2.1, 0.7), (7, -9, 4))
        one, two = (s(head, course, affine=affine, axis=1) for s in (image_motion, kspace_motion))
        assert distance(one, two) < 0.05  # linear interpolation flattens a blob of 3 voxels by 4 %
        np.testing.assert_allclose(centroid(one), centroid(two), atol=0.01)


class TestResample:
    def test_border_is_clamped_for_half_a_voxel_then_filled(self):
        line = torch.arange(2 * 2 * 4, dtype=torch.float32).reshape(2, 2, 4)
        for shift, expected in ((-0.4, 0.0), (-0.6, -7.0)):
            matrix = np.eye(4)
            matrix[2, 3] = shift
            assert float(pull_trilinear(line, matrix, fill=-7.0)[0, 0, 0]) == expected

    def test_threads_give_the_same_bits(self, phantom):
        matrix = sampling_maps(np.ones((1, 3)), np.full((1, 3), 4.0), np.eye(4), phantom.shape)[0]
        one = pull_trilinear(phantom[0], matrix, fill=0.0)
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            three = pull_trilinear(phantom[0], matrix, fill=0.0)
        finally:
            torch.set_num_threads(before)
        assert torch.equal(one, three)

    def test_torch_route_has_the_same_rule(self, texture):
        from motionlib.motion.resampling import _pull_torch

        matrix = sampling_maps(
            np.array([[1.2, -2.3, 0.4]]), np.array([[9.0, -4.0, 6.0]]), np.eye(4), texture.shape
        )[0]
        numba_result = pull_trilinear(texture[0], matrix, fill=0.25)
        torch_result = _pull_torch(texture[0], matrix, 0.25, torch.empty_like(texture[0]), None)
        assert distance(torch_result, numba_result) < 1e-5  # float32 coordinates

    def test_compiled_and_torch_routes_agree_on_any_map(self, rng):
        """Poses from none to far outside, odd shapes, output grids of another size."""
        from motionlib.motion.resampling import _pull_torch

        for trial in range(60):
            shape, out_shape = (tuple(rng.integers(2, 12, 3)) for _ in range(2))
            volume = torch.from_numpy(rng.random(shape))
            sizes = rng.choice([0, 0.5, 40], 2) * (1, 4)
            maps = sampling_maps(
                rng.normal(size=(1, 3)) * sizes[0], rng.normal(size=(1, 3)) * sizes[1],
                np.diag([1, 1.5, 0.7, 1]), shape,
            )  # fmt: skip
            out = volume.new_empty(shape if trial % 2 else out_shape)
            one = pull_trilinear(volume, maps[0], fill=0.3, out=out)
            two = _pull_torch(volume, maps[0], 0.3, torch.empty_like(out), None)
            assert float((one - two).abs().max()) < 1e-6  # 32 fractional bits


class TestCombine:
    def test_matrices_are_symmetric_and_add_up_to_one(self, rng):
        owner = rng.integers(0, 4, 21)
        rows = [waves(np.flatnonzero(owner == p) - 10, 21) for p in range(4)]
        matrices = [row.T @ row / 21 for row in rows]
        assert distance(sum(matrices), torch.eye(21)) < 1e-14
        for matrix in matrices:
            assert torch.allclose(matrix, matrix.T, atol=1e-15)

    @pytest.mark.parametrize("n_poses", [3, 12])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_one_axis_is_the_full_transform(self, texture, axis, n_poses, rng):
        grid = texture[0].double()
        maps = sampling_maps(
            rng.normal(size=(n_poses, 3)), rng.normal(size=(n_poses, 3)) * 5, np.eye(4), grid.shape
        )
        owner = np.sort(rng.integers(0, n_poses, grid.shape[axis]))
        full = torch.zeros(grid.shape, dtype=torch.complex128)
        for pose, matrix in enumerate(maps):
            image = pull_trilinear(grid, matrix, fill=float(grid.min()))
            spectrum = torch.fft.fftshift(torch.fft.fftn(image)).movedim(axis, 0)
            own = torch.as_tensor(owner == pose)
            full.movedim(axis, 0)[own] = spectrum[own]
        expected = torch.fft.ifftn(torch.fft.ifftshift(full))
        actual = combine_poses(grid, maps, owner, axis, "complex")
        assert distance(torch.view_as_real(actual), torch.view_as_real(expected)) < 1e-12
        real = combine_poses(grid, maps, owner, axis, "real")
        assert distance(real, expected.real) < 1e-12

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_threads_give_the_same_bits_and_are_put_back(self, phantom, axis):
        course = sample_segments(5, rng=1)
        maps = sampling_maps(course.translation_mm, course.rotation_deg, np.eye(4), phantom.shape)
        owner = course.line_owners(phantom.shape[1 + axis])
        before = torch.get_num_threads()
        results = []
        try:
            for threads in (1, 3):
                torch.set_num_threads(threads)
                results.append(combine_poses(phantom[0], maps, owner, axis, "magnitude"))
                assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        assert distance(*results) < 1e-7

    def test_no_volume_transform_is_taken(self, phantom, monkeypatch):
        def forbidden(*_, **__):
            raise AssertionError("a three-dimensional FFT was taken")

        for name in ("fftn", "ifftn", "rfftn", "irfftn"):
            monkeypatch.setattr(torch.fft, name, forbidden)
        image_motion(phantom, sample_segments(16, rng=0), affine=np.eye(4), axis=1)

    def test_volumes_in_memory_do_not_grow_with_the_poses(self, phantom, monkeypatch):
        written, original = set(), image_based.pull_trilinear

        def spy(*args, out=None, **kwargs):
            moved = original(*args, out=out, **kwargs)
            written.add(moved.data_ptr())
            return moved

        monkeypatch.setattr(image_based, "pull_trilinear", spy)
        for n in (6, 20):
            written.clear()
            image_motion(phantom, sample_segments(n, rng=0), affine=np.eye(4), axis=1)
            assert len(written) <= 2  # the base and one buffer


class TestDirectReference:
    """The O(N^2) sum, written from the definition: s(k) = sum_x I(x) exp(-i k (R x + t))."""

    @pytest.mark.parametrize("shape", [(12, 12, 12), (11, 12, 9)])
    def test_kspace_motion_is_the_direct_sum(self, shape, rng):
        volume = rng.random(shape)
        course = sample_time_course(30, translation_mm=(3, 3), rotation_deg=(9, 9), rng=4)
        axis, affine = 1, affine_of(1.5, (4, 5, 6))
        shifts, angles = course.at_lines(shape[axis], rule="linear")
        places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
        middle = (np.array(shape) - 1) / 2
        lines = [np.arange(n) - n // 2 for n in shape]
        spectrum = np.zeros(shape, dtype=complex)
        for m in range(shape[axis]):
            moved = (places - middle) @ rotation_matrices(angles[m : m + 1])[0].T
            moved += middle + shifts[m] / 1.5
            k0, k2 = (2 * np.pi * lines[d] / shape[d] for d in (0, 2))
            k1 = 2 * np.pi * lines[1][m] / shape[1]
            waves = [np.exp(-1j * np.outer(k, moved[:, d])) for d, k in ((0, k0), (2, k2))]
            weighted = volume.reshape(-1) * np.exp(-1j * k1 * moved[:, 1])
            spectrum[:, m] = (waves[0] * weighted) @ waves[1].T
        expected = np.fft.ifftn(np.fft.ifftshift(spectrum))
        where = {"affine": affine, "axis": axis, "pad_vox": 0}
        double = torch.from_numpy(volume)
        actual = kspace_motion(double, course, eps=1e-10, output="complex", **where)
        assert (
            distance(torch.view_as_real(actual), np.stack([expected.real, expected.imag], -1))
            < 1e-9
        )
        single = kspace_motion(double.float(), course, **where)
        assert distance(single, np.abs(expected)) < 1e-3

    def test_accuracy_follows_eps(self, texture):
        course = sample_time_course(30, rng=4)
        where = {"affine": np.eye(4), "axis": 1, "pad_vox": 0}
        exact = kspace_motion(texture.double(), course, eps=1e-11, **where)
        errors = [
            distance(kspace_motion(texture, course, eps=eps, **where), exact)
            for eps in (1e-1, 1e-2, 1e-3, 1e-4, 1e-7)
        ]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 1e-6

    @pytest.mark.parametrize(("eps", "limit"), [(1e-3, 1e-3), (1e-6, 1e-6)])
    def test_torch_route_is_finufft(self, texture, eps, limit, rng):
        import finufft

        modes = texture[0].to(torch.complex128)
        points = [torch.from_numpy(rng.uniform(-np.pi, np.pi, 500)) for _ in range(3)]
        expected = finufft.nufft3d2(
            *(p.numpy() for p in points), modes.numpy(), eps=1e-12, isign=-1
        )
        actual = type_2_torch(modes, points, eps, chunk=200).numpy()
        assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < limit


class TestPhysics:
    def test_kspace_motion_is_linear_in_the_image(self, texture, rng):
        other = torch.from_numpy(rng.random(texture.shape, dtype=np.float32))
        course = sample_time_course(30, rng=4)
        where = {"affine": np.eye(4), "axis": 1, "output": "complex", "eps": 1e-5}
        parts = [kspace_motion(v, course, **where) for v in (texture, other, 2 * texture + other)]
        assert float((2 * parts[0] + parts[1] - parts[2]).norm() / parts[2].norm()) < 2e-5

    @pytest.mark.parametrize("simulate", [image_motion, kspace_motion])
    def test_brighter_head_gives_brighter_scan(self, simulate, phantom):
        course = sample_segments(rng=2)
        one, two = (simulate(v, course, affine=np.eye(4), axis=1) for v in (phantom, 2 * phantom))
        assert distance(two, 2 * one) < ROUNDING

    def test_translation_only_keeps_every_kspace_magnitude(self, texture):
        course = sample_time_course(30, rotation_deg=(0, 0), translation_mm=(5, 5), rng=4)
        moved = kspace_motion(
            texture, course, affine=np.eye(4), axis=1, pad_vox=0, output="complex", eps=1e-6
        )
        before, after = (torch.fft.fftn(v[0]).abs() for v in (texture, moved))
        assert distance(after, before) < 1e-5

    def test_rotation_keeps_the_energy_roughly(self, phantom):
        course = sample_time_course(60, translation_mm=(2, 2), rotation_deg=(2, 2), rng=4)
        moved = kspace_motion(phantom, course, affine=np.eye(4), axis=1, pad_vox=0)
        assert float(moved.square().sum() / phantom.square().sum()) == pytest.approx(1, abs=0.01)

    def test_resting_centre_keeps_the_mean(self, phantom):
        course = sample_segments(rng=6)
        moved = image_motion(phantom, course, affine=np.eye(4), axis=1, output="real")
        assert float(moved.mean()) == pytest.approx(float(phantom.mean()), rel=1e-5)

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

    def test_magnitude_and_real_differ_only_without_symmetry(self, phantom):
        pose, zero = [0.0, 1.5, 0.0], [0.0, 0.0, 0.0]
        n = phantom.shape[2]
        edges = np.array([0, n // 2 - 4, n // 2 + 5]) / n
        symmetric = Trajectory(edges, [zero, pose, zero], np.zeros((3, 3)), "hold")
        lopsided = Trajectory(edges[:2], [zero, pose], np.zeros((2, 3)), "hold")
        where = {"affine": np.eye(4), "axis": 2, "keep_center": False}
        imaginary = [
            float(image_motion(phantom[..., 1:], c, output="complex", **where).imag.norm())
            for c in (symmetric, lopsided)
        ]
        # 23 lines: bins -11..11; the middle block of nine lines is its own mirror image
        assert imaginary[0] < 1e-4 * float(phantom.norm())
        assert imaginary[1] > 1e-2 * float(phantom.norm())

    def test_error_grows_with_severity(self, phantom):
        means = []
        for low in (0.5, 2, 4, 6):
            bounds = {"translation_mm": (low, low + 1), "rotation_deg": (low, low + 1)}
            moved = [
                image_motion(
                    phantom, sample_segments(rng=s, **bounds), affine=affine_of(6.0), axis=1
                )
                for s in range(20)
            ]
            means.append(np.mean([distance(m, phantom) for m in moved]))
        assert means == sorted(means)

    def test_gliding_course_runs_through_both_simulators(self, phantom):
        course = sample_time_course(50, rng=1)
        one, two = (
            simulate(phantom, course, affine=np.eye(4), axis=1, output="real")
            for simulate in (image_motion, kspace_motion)
        )
        assert distance(one, two) < 0.25  # linear against band-limited interpolation, 28 lines
        assert distance(one, phantom) > distance(one, two)

    def test_masking_corners_removes_only_folded_frequencies(self, texture):
        where = {"affine": np.eye(4), "axis": 1, "pad_vox": 0}
        turn = Trajectory.constant((0, 0, 0), (0, 0, 20))
        whole, masked = (
            kspace_motion(texture, turn, mask_corners=m, **where) for m in (False, True)
        )
        assert 0 < float(masked.square().sum()) < float(whole.square().sum())
        still = kspace_motion(texture, Trajectory.identity(), mask_corners=True, **where)
        assert distance(still, texture) < NUFFT_NOISE


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

    def test_more_segments_than_lines_are_refused(self, texture):
        with pytest.raises(ValueError, match="21 segments do not fit into 15 lines"):
            image_motion(texture, sample_segments(20, rng=0), affine=np.eye(4), axis=1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"eps": 2}, "eps"),
            ({"pad_vox": -1}, "pad_vox"),
            ({"pad_vox": "some"}, "pad_vox"),
            ({"half_sample_grid": True, "output": "real"}, "magnitudes"),
        ],
    )
    def test_unusable_kspace_options_are_refused(self, options, message, texture):
        with pytest.raises(ValueError, match=message):
            kspace_motion(texture, sample_segments(rng=0), affine=np.eye(4), axis=1, **options)

    def test_real_output_takes_negative_voxels(self, texture):
        moved = image_motion(
            texture - 0.5, sample_segments(rng=0), affine=np.eye(4), axis=1, output="real"
        )
        assert torch.isfinite(moved).all()


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


@pytest.mark.parametrize("seed", range(4))
def test_nothing_beyond_the_volume_is_read_along_lines_that_graze_its_faces(seed):
    rng = np.random.default_rng(seed)
    shape = (7, 6, 9)
    n = int(np.prod(shape))
    memory = torch.full((3 * n,), float("nan"))  # whoever reads beyond the volume finds this
    memory[n : 2 * n] = torch.from_numpy(rng.normal(size=n).astype(np.float32))
    volume = memory[n : 2 * n].view(shape)
    for _ in range(500):
        matrix = np.eye(3, 4)
        matrix += rng.choice([-1, 0, 1], (3, 4)) * 10.0 ** rng.uniform(-18, -9, (3, 4))
        matrix[:, 3] += rng.choice([0, 0, 1, -1], 3)
        moved = pull_trilinear(volume, matrix, fill=0.0)
        nearest = pull_trilinear(volume, np.round(matrix), fill=0.0)
        assert torch.isfinite(moved).all()
        inside = torch.from_numpy(np.round(matrix)[:, 3]).abs().max() == 0
        if inside:
            assert torch.allclose(moved, nearest, atol=1e-6)
