"""Reformats: the head stays in its place, the planes turn, linear interpolation smooths."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from motionlib.cohorts.virtual.scanners import reformat

AFFINE = np.array([[2.0, 0, 0, -40], [0, 3.0, 0, -45], [0, 0, 2.5, -30], [0, 0, 0, 1]])


@pytest.fixture
def blob():
    volume = np.zeros((40, 32, 28), np.float32)
    volume[14:20, 16:22, 9:14] = 1
    return ndimage.gaussian_filter(volume, 1.0)


def centre_mm(volume, affine):
    """Centre of mass in RAS mm."""
    return affine[:3, :3] @ ndimage.center_of_mass(volume) + affine[:3, 3]


def test_without_a_tilt_the_scan_is_given_back(blob):
    volume, affine = reformat(blob, AFFINE, (0.0, 0.0, 0.0))
    assert volume is blob
    assert affine is AFFINE


@pytest.mark.parametrize("tilt_deg", [(12, 0, 0), (0, 9, -4), (15, -6, 5)])
def test_the_head_stays_where_it_is(blob, tilt_deg):
    before = AFFINE.copy()
    volume, affine = reformat(blob, AFFINE, tilt_deg)
    assert np.allclose(centre_mm(volume, affine), centre_mm(blob, AFFINE), atol=0.05)
    assert volume.shape == blob.shape
    assert volume.dtype == np.float32
    assert np.array_equal(AFFINE, before)


def test_the_planes_turn_and_the_voxels_keep_their_size(blob):
    _, affine = reformat(blob, AFFINE, (12, 0, 0))
    turn = affine[:3, :3] @ np.linalg.inv(AFFINE[:3, :3])
    assert np.allclose(Rotation.from_matrix(turn).as_euler("xyz", degrees=True), (12, 0, 0))
    assert np.allclose(np.linalg.norm(affine[:3, :3], axis=0), (2, 3, 2.5))


def test_interpolation_smooths(rng):
    noise = rng.normal(size=(20, 20, 20)).astype(np.float32)
    volume, _ = reformat(noise, np.diag([2.0, 2, 2, 1]), (12, 3, -4))
    inside = (slice(5, 15),) * 3
    assert volume[inside].std() < 0.8 * noise[inside].std()
