"""Volumes with their affine go in; labelled anatomical panels in millimetres come out."""

from __future__ import annotations

from textwrap import fill

import numpy as np

from motionlib.figures.theme import new_figure, styled

PLANES = {"sagittal": (0, 1, 2), "coronal": (1, 0, 2), "axial": (2, 0, 1)}
TITLE_WIDTH = 22  # letters over a panel; longer headings are broken
SIDES = {0: ("L", "R"), 1: ("P", "A"), 2: ("I", "S")}


def to_ras(volume, affine) -> tuple[np.ndarray, np.ndarray]:
    """Turn a volume so that its axes run left-right, back-front, foot-head.

    Parameters
    ----------
    volume : array-like or Tensor, shape (I, J, K) or (1, I, J, K)
        Intensities.
    affine : array-like, shape (4, 4)
        Voxel to world (RAS, mm).

    Returns
    -------
    tuple of ndarray
        The turned volume (I, J, K) and its affine.

    Raises
    ------
    ValueError
        Not three-dimensional.
    """
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    array = np.asarray(volume, dtype=np.float32)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim != 3:
        raise ValueError(
            f"Found a volume of shape {np.shape(volume)}, expected (I, J, K) or (1, I, J, K): "
            "show one volume a panel."
        )
    affine = np.asarray(affine, dtype=float)
    turns = io_orientation(affine)
    return apply_orientation(array, turns), affine @ inv_ornt_aff(turns, array.shape)


def _panel(axes, array, affine, plane: str, at_mm, window, cmap: str) -> None:
    """Draw one slice with its sides and its position."""
    through, across, up = PLANES[plane]
    origin, spacing = affine[:3, 3], np.abs(np.diag(affine)[:3])
    index = int(np.clip(round((at_mm[through] - origin[through]) / spacing[through]), 0, None))
    index = min(index, array.shape[through] - 1)
    image = np.take(array, index, axis=through)
    low = [origin[i] - spacing[i] / 2 for i in (across, up)]
    high = [low[n] + spacing[i] * array.shape[i] for n, i in enumerate((across, up))]
    axes.imshow(
        image.T,
        origin="lower",
        extent=(low[0], high[0], low[1], high[1]),
        cmap=cmap,
        vmin=window[0],
        vmax=window[1],
        interpolation="nearest",
        aspect="equal",
    )
    axes.grid(False)
    axes.set_facecolor("black")
    box = {"boxstyle": "round,pad=0.1", "facecolor": "black", "edgecolor": "none", "alpha": 0.6}
    font = {"color": "white", "fontsize": 9, "fontweight": "bold", "bbox": box}
    sides = SIDES[across]
    axes.text(0.03, 0.5, sides[0], transform=axes.transAxes, ha="left", va="center", **font)
    axes.text(0.97, 0.5, sides[1], transform=axes.transAxes, ha="right", va="center", **font)
    where = origin[through] + spacing[through] * index
    text = f"{'xyz'[through]} = {where:.0f} mm"
    axes.text(0.97, 0.03, text, transform=axes.transAxes, ha="right", va="bottom", **font)


@styled
def show_slices(
    volumes,
    labels=None,
    affine=None,
    *,
    planes=("sagittal", "coronal", "axial"),
    at_mm=None,
    n_columns: int | None = None,
    window=None,
    cmap: str = "gray",
):
    """Show volumes side by side, labelled L and R and in millimetres.

    Parameters
    ----------
    volumes : array-like, Tensor, or sequence of them, each (I, J, K) or (1, I, J, K)
        One volume or several on the same grid or each on its own.
    labels : sequence of str, optional
        Heading of each volume.
    affine : array-like, shape (4, 4), or sequence of them, optional
        Voxel to world (RAS, mm); without it 1 mm voxels about the centre.
    planes : sequence of {'sagittal', 'coronal', 'axial'}
        One row a plane.
    at_mm : sequence of 3 float, optional
        World position of the slices; default the centre of the first volume.
    n_columns : int, optional
        Volumes in a row of panels; more volumes start a new row. Default: all in one row.
    window : tuple of float, optional
        Grey limits for all; default each volume's 1st to 99.5th percentile.
    cmap : str, default='gray'
        Colour map (``RdBu_r`` for differences).

    Returns
    -------
    Figure
        Left of the head on the left side of the panel (neurological).

    Raises
    ------
    ValueError
        Unknown plane, or unequal numbers of volumes, labels and affines.
    """
    single = not isinstance(volumes, list | tuple) and np.ndim(volumes) == 3
    volumes = [volumes] if single else list(volumes)
    unknown = [plane for plane in planes if plane not in PLANES]
    if unknown:
        raise ValueError(f"Found plane {unknown[0]!r}, expected one of {', '.join(PLANES)}.")
    affines = _affines(volumes, affine)
    labels = [""] * len(volumes) if labels is None else list(labels)
    if not len(volumes) == len(labels) == len(affines):
        raise ValueError(
            f"Found {len(volumes)} volumes, {len(labels)} labels and {len(affines)} affines, "
            "expected equal numbers: give one label a volume."
        )
    turned = [to_ras(v, a) for v, a in zip(volumes, affines, strict=True)]
    if at_mm is None:
        first, its_affine = turned[0]
        at_mm = (its_affine @ [*((np.array(first.shape) - 1) / 2), 1])[:3]
    n_columns = min(n_columns or len(volumes), len(volumes))
    n_bands = -(-len(volumes) // n_columns)
    figure, axes = new_figure(
        2.1 * n_columns, 2.3 * n_bands * len(planes), n_columns, n_bands * len(planes)
    )
    for each in axes.flat:
        each.set_axis_off()
    for number, ((array, its_affine), label) in enumerate(zip(turned, labels, strict=True)):
        band, column = divmod(number, n_columns)
        limits = window or np.percentile(array, [1, 99.5])
        for row, plane in enumerate(planes):
            each = axes[band * len(planes) + row, column]
            each.set_axis_on()
            each.tick_params(labelsize=6, length=2, pad=1)
            _panel(each, array, its_affine, plane, at_mm, limits, cmap)
            if column == 0:
                each.set_ylabel(f"{plane} (mm)", fontsize=8)
            if row == 0:
                each.set_title(fill(label, TITLE_WIDTH), fontsize=9)
    return figure


def _affines(volumes, affine) -> list[np.ndarray]:
    """Give every volume an affine."""
    if affine is None:
        affines = []
        for volume in volumes:
            matrix = np.eye(4)
            matrix[:3, 3] = -(np.array(np.shape(volume)[-3:]) - 1) / 2
            affines.append(matrix)
        return affines
    affine = np.asarray(affine, dtype=float)
    return list(affine) if affine.ndim == 3 else [affine] * len(volumes)
