"""The image-based simulator: TorchIO's to rounding, and exact where it is assembled."""

import moving_heads
import numpy as np
import pytest
import torch
from moving_heads import ROUNDING, affine_of, distance

from motionlib.motion import image_based
from motionlib.motion.image_based import combine_poses, image_motion, resample_once, waves
from motionlib.motion.resampling import pull_trilinear, sampling_maps
from motionlib.motion.sampling import sample_segments
from motionlib.motion.trajectory import Trajectory

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


@pytest.fixture(scope="module")
def texture():
    return moving_heads.texture()


class TestPeer:
    @pytest.mark.parametrize("case", TORCHIO_CASES)
    def test_image_motion_is_torchio(self, case, reference_root):
        stored = np.load(reference_root / "motion" / f"torchio_{case}.npz")
        course = Trajectory.from_torchio(
            stored["times"], stored["translation_mm"], stored["degrees"]
        )
        clean = torch.from_numpy(stored["input"])
        ours = image_motion(clean, course, affine=stored["affine"], **TORCHIO)
        assert distance(ours, stored["output"]) < ROUNDING

    @pytest.mark.parametrize("n", [48, 97])
    def test_counts_at_which_torchio_crashes_work(self, n, phantom):
        long = torch.nn.functional.interpolate(phantom[None], size=(24, 28, 100))[0]
        course = sample_segments(n, translation_mm=(0, 1), rotation_deg=(0, 1), rng=0)
        assert image_motion(long, course, affine=np.eye(4), axis=2).shape == long.shape


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
            lines = torch.as_tensor(owner == pose)
            full.movedim(axis, 0)[lines] = spectrum[lines]
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


class TestPhysics:
    def test_constant_motion_is_one_resampling(self, phantom):
        pose = ((1.3, -0.6, 0.4), (3, -2, 5))
        affine = affine_of(1.1, (3, 4, 5))
        once = resample_once(phantom, *pose, affine=affine)
        still = image_motion(phantom, Trajectory.constant(*pose), affine=affine, axis=2)
        assert distance(still, once) < ROUNDING

    def test_resting_centre_keeps_the_mean(self, phantom):
        course = sample_segments(rng=6)
        moved = image_motion(phantom, course, affine=np.eye(4), axis=1, output="real")
        assert float(moved.mean()) == pytest.approx(float(phantom.mean()), rel=1e-5)

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


class TestBadInput:
    def test_more_segments_than_lines_are_refused(self, texture):
        with pytest.raises(ValueError, match="21 segments do not fit into 15 lines"):
            image_motion(texture, sample_segments(20, rng=0), affine=np.eye(4), axis=1)

    def test_real_output_takes_negative_voxels(self, texture):
        moved = image_motion(
            texture - 0.5, sample_segments(rng=0), affine=np.eye(4), axis=1, output="real"
        )
        assert torch.isfinite(moved).all()
