"""The spread of the air beside the head: exact on a ball in noise, larger with ghosts."""

import numpy as np
import pytest
from scipy import ndimage

from motionlib.iqms import air, air_spread

LEVEL, NOISE = 200.0, 3.0
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def ball(size=72, *, noise=NOISE, seed=0):
    """A head of one brightness, with a dark hole, in Gaussian noise about 8."""
    x = np.indices((size,) * 3) - (size - 1) / 2
    radius = np.sqrt((x**2).sum(axis=0))
    volume = np.where((radius < size / 3) & (radius > 5), LEVEL, 8.0)
    rng = np.random.default_rng(seed)
    return (volume + rng.normal(0, noise, volume.shape)).astype(np.float32)


def test_it_is_the_noise_of_the_air_in_units_of_the_head():
    found = air_spread(ball(), AFFINE)
    assert found == pytest.approx(NOISE / LEVEL, rel=0.02)
    assert air_spread(ball()[None] * 7, AFFINE) == pytest.approx(found, rel=1e-5)


def test_a_ghost_beside_the_head_raises_it_and_one_below_does_not():
    clean = ball()
    place = np.indices(clean.shape)
    for upper, rises in ((True, True), (False, False)):
        ghost = 8 * np.sin(place[0]) * ((place[2] >= 36) == upper)
        more = air_spread(clean + ghost, AFFINE) / air_spread(clean, AFFINE)
        assert (more > 1.5) == rises, upper


def test_finer_voxels_are_averaged_to_two_millimetres():
    smooth = ndimage.gaussian_filter(ball(noise=0), 1)
    ghost = 10 * np.sin(np.indices(smooth.shape)[0] / 3)
    coarse = smooth + ghost
    fine = ndimage.zoom(coarse, 2, order=1, grid_mode=True, mode="nearest")
    half = np.diag([1.0, 1.0, 1.0, 1.0])
    assert air_spread(fine, half) == pytest.approx(air_spread(coarse, AFFINE), rel=0.1)


def test_distances_are_exact_up_to_the_farthest_that_is_looked_at():
    head = np.random.default_rng(0).random((24, 20, 22)) > 0.999
    exact = ndimage.distance_transform_edt(~head) ** 2
    square = air._squared_distance(head)
    near = exact <= air.FAR**2
    np.testing.assert_allclose(square[near], exact[near], atol=1e-6)
    assert (square[~near] > air.FAR**2).all()


@pytest.mark.parametrize(
    ("volume", "words"),
    [(np.zeros((20, 20, 20)), "expected a head"), (np.ones((20, 20, 20)), "no air lies")],
)
def test_without_head_or_air_it_says_so(volume, words):
    with pytest.raises(ValueError, match=words):
        air_spread(volume, AFFINE)


def test_ghosts_are_found_in_their_direction():
    clean = ball(noise=0) - 8
    ghost = np.zeros_like(clean)
    ghost[1:8, 30:42, 36:48] = 10.0  # left of the ball, 3 to 12 voxels from it
    found = air.air_by_direction(clean + ghost, AFFINE)
    assert list(found) == [f"{name} {far}" for name in air.DIRECTIONS for far in (3, 10)]
    assert found["left-right 10"] > 0.001
    assert all(found[name] == 0 for name in found if not name.startswith("left-right"))
    no_air = air.air_by_direction(clean[24:-24], AFFINE)
    assert np.isnan(no_air["left-right 3"])
    assert no_air["up-down 3"] == 0
