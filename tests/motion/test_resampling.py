"""The trilinear pull: ITK's border rule, the same by every route and number of threads."""

import moving_heads
import numpy as np
import pytest
import torch
from moving_heads import distance

from motionlib.motion.resampling import _pull_torch, pull_trilinear, sampling_maps


@pytest.fixture(scope="module")
def texture():
    return moving_heads.texture()


class TestPull:
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
        matrix = sampling_maps(
            np.array([[1.2, -2.3, 0.4]]), np.array([[9.0, -4.0, 6.0]]), np.eye(4), texture.shape
        )[0]
        numba_result = pull_trilinear(texture[0], matrix, fill=0.25)
        torch_result = _pull_torch(texture[0], matrix, 0.25, torch.empty_like(texture[0]), None)
        assert distance(torch_result, numba_result) < 1e-5  # float32 coordinates

    def test_compiled_and_torch_routes_agree_on_any_map(self, rng):
        """Poses from none to far outside, odd shapes, output grids of another size."""
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
