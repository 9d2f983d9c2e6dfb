"""A finished scan goes in; the oblique reformat that was archived in its place comes out."""

from __future__ import annotations

import numpy as np


def reformat(volume: np.ndarray, affine: np.ndarray, tilt_deg) -> tuple[np.ndarray, np.ndarray]:
    """Cut a scan anew along tilted planes, as consoles do for reading.

    Parameters
    ----------
    volume : ndarray, shape (I, J, K)
        Magnitude image.
    affine : ndarray, shape (4, 4)
        Voxel indices to RAS mm.
    tilt_deg : sequence of 3 float
        Rotation of the new planes about R, A and S; all zero gives the scan back.

    Returns
    -------
    volume : ndarray, shape (I, J, K), float32
        On voxels of the same size about the same centre, interpolated linearly; zero outside.
    affine : ndarray, shape (4, 4)
        Of the new voxels: the head stays where it is in the scanner.

    Notes
    -----
    Source: ours. Routine scans are often read, and archived, in other planes than the acquired
    ones; interpolation then is no sign of motion. The tilt is drawn at random (`sample_scanner`)
    and does not follow the head's own pose, as a technician's would.
    """
    from scipy import ndimage

    if not np.any(tilt_deg):
        return volume, affine
    turned = _rotation(tilt_deg).as_matrix() @ affine[:3, :3]
    step = np.linalg.solve(affine[:3, :3], turned)  # from new voxels to old ones
    centre = (np.array(volume.shape) - 1) / 2
    offset = centre - step @ centre
    moved = affine.copy()
    moved[:3, :3] = turned
    moved[:3, 3] += affine[:3, :3] @ offset
    new = ndimage.affine_transform(volume, step, offset=offset, order=1, output=np.float32)
    return new, moved


def tilt_size_deg(tilt_deg) -> float:
    """Angle in degrees between the acquired planes and the reformat."""
    return float(np.rad2deg(_rotation(tilt_deg).magnitude()))


def _rotation(tilt_deg):
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", tilt_deg, degrees=True)
