"""The k-space simulator: the fork's to rounding, and the sum that defines it."""

import json

import moving_heads
import numpy as np
import pytest
import torch
from moving_heads import NUFFT, affine_of, blob, distance

from motionlib.motion import kspace_based
from motionlib.motion.kspace_based import kspace_motion, type_2_torch
from motionlib.motion.sampling import sample_segments, sample_time_course
from motionlib.motion.trajectory import Trajectory, rotation_matrices

FORK_CASES = [
    *(f"{what}_{grid}" for what in ("identity", "rotation_const", "rotation_course",
      "translation_const", "translation_course", "given_ov00", "given_ov03",
      "given_ov00_axis2", "course_default_ov00") for grid in ("even", "odd")),
    *("given_ov00_axis0_even", "course_default_even", "course_unscaled_ov00_even"),
]  # fmt: skip


@pytest.fixture(scope="module")
def texture():
    return moving_heads.texture()


class TestPeer:
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
    def test_torch_route_is_finufft(self, texture, eps, limit, rng, monkeypatch):
        import finufft

        monkeypatch.setattr(kspace_based, "CHUNK", 200)
        modes = texture[0].to(torch.complex128)
        points = [torch.from_numpy(rng.uniform(-np.pi, np.pi, 500)) for _ in range(3)]
        expected = finufft.nufft3d2(
            *(p.numpy() for p in points), modes.numpy(), eps=1e-12, isign=-1
        )
        actual = type_2_torch(modes, points, eps).numpy()
        assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < limit


class TestPhysics:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("shape", [(24, 28, 24), (23, 27, 21)])
    def test_zero_motion_of_a_head_stays_within_the_measured_accuracy(self, phantom, shape, axis):
        head = phantom[:, : shape[0], : shape[1], : shape[2]]
        moved = kspace_motion(head, Trajectory.identity(), affine=np.eye(4), axis=axis)
        assert distance(moved, head) < NUFFT

    def test_pull_undoes_push(self):
        course = Trajectory.constant((2, -1, 1), (5, 3, -4))
        pushed = kspace_motion(blob(), course, affine=np.eye(4), axis=1)
        back = kspace_motion(pushed, course, affine=np.eye(4), axis=1, direction="pull")
        assert distance(back, blob()) < 5e-3  # two magnitudes and two folded corners

    def test_kspace_motion_is_linear_in_the_image(self, texture, rng):
        other = torch.from_numpy(rng.random(texture.shape, dtype=np.float32))
        course = sample_time_course(30, rng=4)
        where = {"affine": np.eye(4), "axis": 1, "output": "complex", "eps": 1e-5}
        parts = [kspace_motion(v, course, **where) for v in (texture, other, 2 * texture + other)]
        assert float((2 * parts[0] + parts[1] - parts[2]).norm() / parts[2].norm()) < 2e-5

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


class TestBadInput:
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
