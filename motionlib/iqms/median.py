"""An image goes in; its exact 5 x 5 median comes out, by compare-and-exchange on whole arrays."""

from __future__ import annotations

import re

import numpy as np

# Five sorted values: the classical network of nine exchanges.
_SORT_5 = ((0, 1), (3, 4), (2, 4), (2, 3), (0, 3), (0, 2), (1, 4), (1, 3), (1, 2))

# Wire 5 r + c holds the r-th smallest value of column c. What is left of "sort each rank, then sort
# the 13 candidates" after every exchange that no sorted-column 0-1 input needs was deleted; the
# median leaves on wire 12. All 6**5 such inputs were tried (0-1 principle), and a test tries again.
_MERGE_TEXT = """
0-1 3-4 2-4 2-3 0-3 1-4 1-3 5-6 8-9 7-9 7-8 5-8 6-9 6-8 6-7 10-11 13-14 12-14 12-13 10-13 10-12
11-14 11-13 11-12 15-16 18-19 17-18 15-18 15-17 16-19 16-18 16-17 20-21 23-24 22-24 22-23 20-23
20-22 21-22 7-20 11-3 12-4 16-8 9-13 20-15 3-12 20-3 15-12 21-4 15-11 21-3 8-17 21-11 3-12 9-8
11-16 3-9 12-16 3-12
"""
_MERGE = tuple((int(low), int(high)) for low, high in re.findall(r"(\d+)-(\d+)", _MERGE_TEXT))


def _plan() -> tuple[tuple[int, int, bool, bool], ...]:
    """List the exchanges with the halves of each that reach the median."""
    live, plan = {12}, []
    for low, high in reversed(_MERGE):
        plan.append((low, high, low in live, high in live))
        live |= {low, high}
    return tuple(reversed(plan))


_PLAN = _plan()
_BLOCK_ROWS = 48  # keeps the 25 wires in a second-level cache; no effect on the numbers


def median_5x5(image: np.ndarray) -> np.ndarray:
    """Median of the 25 pixels around each pixel; the frame is continued by its nearest pixel.

    Parameters
    ----------
    image : ndarray, shape (I, J)
        Any real dtype, no NaN.

    Returns
    -------
    ndarray, shape (I, J)
        Same dtype; the exact medians.

    Examples
    --------
    >>> median_5x5(np.eye(7))[3, 3]
    np.float64(0.0)
    """
    padded = np.pad(image, 2, mode="edge")
    if image.dtype.kind == "f" and padded.min() >= 0:
        # bit patterns of non-negative floats sort like the floats, and integers compare faster
        padded = (padded + image.dtype.type(0)).view(f"i{image.dtype.itemsize}")
    medians = np.empty(image.shape, padded.dtype)
    for top in range(0, image.shape[0], _BLOCK_ROWS):
        block = padded[top : top + _BLOCK_ROWS + 4]
        medians[top : top + _BLOCK_ROWS] = _median_of_block(block)
    return medians.view(image.dtype)


def _median_of_block(padded: np.ndarray) -> np.ndarray:
    """Medians of the windows that fit whole: (I + 4, J + 4) in, (I, J) out."""
    rows, columns = padded.shape[0] - 4, padded.shape[1] - 4
    ranks = [padded[r : r + rows] for r in range(5)]
    for low, high in _SORT_5:
        a, b = ranks[low], ranks[high]
        ranks[low], ranks[high] = np.minimum(a, b), np.maximum(a, b)
    wires = [ranks[w // 5][:, w % 5 : w % 5 + columns] for w in range(25)]
    owned = [False] * 25  # the first exchange of a wire must not write into the shared columns
    spare: list[np.ndarray] = []
    for low, high, need_low, need_high in _PLAN:
        a, b = wires[low], wires[high]
        smaller = larger = None
        if need_low:
            smaller = np.minimum(a, b, out=spare.pop() if spare else None)
        if need_high:
            larger = np.maximum(a, b, out=spare.pop() if spare else None)
        spare.extend(wires[w] for w in (low, high) if owned[w])
        wires[low], wires[high] = smaller, larger
        owned[low], owned[high] = need_low, need_high
    return wires[12]
