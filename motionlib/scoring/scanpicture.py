"""A scan's path comes in; a small picture of its three middle slices goes out as a data URI."""

from __future__ import annotations

import base64
import os
import struct
import zlib

import numpy as np

from motionlib.preprocess.head import find_head
from motionlib.preprocess.images import read_array

SIDE_PX = 240  # largest side of a slice
MIDDLE_MM = 60.0  # below the top of the head: ventricles in the axial slice
PLANES = ("sagittal", "coronal", "axial")


def middle_slices(array: np.ndarray, affine) -> np.ndarray:
    """Cut a scan through the middle of its head.

    Parameters
    ----------
    array : ndarray, shape (I, J, K)
        RAS intensities.
    affine : array-like, shape (4, 4)
        Voxel indices to mm.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
        Sagittal, coronal and axial slice side by side, in proportion, head up or front up, left of
        the head on the left.
    """
    side = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    middle_mm = (np.array(array.shape) - 1) / 2 * side
    try:
        found = find_head(array, affine)
        middle_mm = np.array([*found.centre_mm, found.top_mm - MIDDLE_MM])
    except ValueError:  # shown as it is
        pass
    at = np.clip(np.round(middle_mm / side), 0, np.array(array.shape) - 1).astype(int)
    pixel = max(side.min(), (np.array(array.shape) * side).max() / SIDE_PX)
    panels = []
    for axis in range(3):
        across, up = (other for other in range(3) if other != axis)
        plane = np.take(array, at[axis], axis=axis)
        places = [
            np.minimum(np.arange(0, n * side[a], pixel) / side[a], n - 1).astype(int)
            for n, a in zip(plane.shape, (across, up), strict=True)
        ]
        panels.append(plane[np.ix_(*places)].T[::-1])
    tall = max(panel.shape[0] for panel in panels)
    bright = max(float(np.percentile(array, 99.5)), 1e-12)
    framed = [
        np.pad(panel, ((0, tall - panel.shape[0]), (0, 4)), constant_values=0) for panel in panels
    ]
    return (np.clip(np.concatenate(framed, axis=1) / bright, 0, 1) * 255).astype(np.uint8)


def png(grey: np.ndarray) -> bytes:
    """Write a grey picture as PNG.

    Parameters
    ----------
    grey : ndarray of uint8, shape (rows, columns)
        0 is black.

    Returns
    -------
    bytes
        The file's content, the same every time.
    """
    rows, columns = grey.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), grey], axis=1)  # no filter

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def picture_uri(path: str | os.PathLike) -> str:
    """Picture of a scan's middle slices as ``data:image/png;base64,...``.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file can no longer be read.
    """
    array, affine = read_array(path)
    return "data:image/png;base64," + base64.b64encode(png(middle_slices(array, affine))).decode()
