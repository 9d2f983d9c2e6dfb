"""Figures of the cohort: anatomical panels in millimetres, the flow of selection, ages, sexes."""

from textwrap import fill, wrap

import nibabel as nib
import numpy as np
import pandas as pd

from motionlib.figures.theme import COLOURS, new_figure, sentence_figure, style_of, styled

# plane: the axis through it, the one drawn across and the one drawn up
PLANES = {"sagittal": (0, 1, 2), "coronal": (1, 0, 2), "axial": (2, 0, 1)}
TITLE_WIDTH = 22  # letters over a panel; longer headings are broken
SIDES = {0: ("L", "R"), 1: ("P", "A"), 2: ("I", "S")}  # names of the two ends of each axis
AIR = (0.002, 0.2)  # of the head's median: noise lies at a few thousandths, ghosts above
WIDEST = 3  # columns of boxes side by side


@styled
def show_slices(
    volumes,
    labels=None,
    affine=None,
    *,
    planes=("sagittal", "coronal", "axial"),
    n_columns: int | None = None,
):
    """Show volumes side by side, labelled L and R and in millimetres.

    Parameters
    ----------
    volumes : array-like, Tensor, or sequence of them, each (I, J, K) or (1, I, J, K)
        One volume or several on the same grid or each on its own.
    labels, affine : sequence of str, array-like of shape (4, 4) or sequence of them, optional
        Heading of each volume; voxel to world (RAS, mm), without it 1 mm voxels about the centre.
    planes : sequence of {'sagittal', 'coronal', 'axial'}
        One row a plane, through the centre of the first volume.
    n_columns : int, optional
        Volumes in a row of panels, default all.

    Returns
    -------
    Figure
        Left of the head on the left side of the panel (neurological), each volume in grey from its
        1st to its 99.5th percentile. ValueError for an unknown plane, or unequal numbers of
        volumes, labels and affines.
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
    first, its_affine = turned[0]
    at_mm = (its_affine @ [*((np.array(first.shape) - 1) / 2), 1])[:3]
    n_columns = min(n_columns or len(volumes), len(volumes))
    n_bands = -(-len(volumes) // n_columns)
    figure, axes = new_figure(
        2.1 * n_columns, 2.3 * n_bands * len(planes), n_columns, n_bands * len(planes)
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for number, ((array, its_affine), label) in enumerate(zip(turned, labels, strict=True)):
        band, column = divmod(number, n_columns)
        limits = np.percentile(array, [1, 99.5])
        for row, plane in enumerate(planes):
            ax = axes[band * len(planes) + row, column]
            ax.set_axis_on()
            ax.tick_params(labelsize=6, length=2, pad=1)
            draw_plane(ax, array, its_affine, plane, at_mm, limits)
            if column == 0:
                ax.set_ylabel(f"{plane} (mm)", fontsize=8)
            if row == 0:
                ax.set_title(fill(label, TITLE_WIDTH), fontsize=9)
    return figure


@styled
def show_air(volumes, labels, affines, *, absent: str = "no scan to show"):
    """Show scans, one a row, first in grey, then their air by its logarithm.

    Intensities are in units of the median inside the head; the logarithmic panels run over `AIR`,
    so that ghosts of a hundredth of the head are seen. Arguments as for `show_slices`; without
    volumes the figure says `absent`.
    """
    if not len(volumes):
        return sentence_figure(absent)
    figure, axes = new_figure(10.5, 2.0 * len(volumes) + 0.3, 2 * len(PLANES), len(volumes))
    for row, (volume, label, affine) in enumerate(zip(volumes, labels, affines, strict=True)):
        array, its_affine = to_ras(volume, affine)
        head = array > 0.12 * np.percentile(array, 98)
        array = array / np.median(array[head])
        low, high = (f(np.argwhere(head), axis=0) for f in (np.min, np.max))
        place = low + np.array([0.5, 0.5, 0.7]) * (high - low)  # above the neck and the cut face
        at_mm = (its_affine @ [*place, 1])[:3]
        air = np.log10(np.maximum(array, AIR[0]))
        for column, plane in enumerate(PLANES):
            for ax, image, window in (
                (axes[row, column], array, (0, 1.8)),
                (axes[row, column + len(PLANES)], air, tuple(np.log10(AIR))),
            ):
                draw_plane(ax, image, its_affine, plane, at_mm, window)
                ax.set(xticks=[], yticks=[], anchor="N")
                if row == 0:
                    ax.set_title(plane if image is array else f"{plane}, logarithm", fontsize=9)
        axes[row, 0].set_ylabel(label, fontsize=9)
    ticks = [0.002, 0.01, 0.05, 0.2]
    bar = figure.colorbar(axes[0, -1].images[0], ax=axes[:, -1].tolist(), ticks=np.log10(ticks))
    bar.ax.set_yticklabels([f"{tick:g}" for tick in ticks], fontsize=7)
    bar.set_label("intensity, share of the head's median", fontsize=8)
    return figure


@styled
def plot_flow(flow: pd.DataFrame):
    """Draw a selection as boxes with counts, from top to bottom, as the paper's Fig. A.1.

    `flow` has ``step n_in n_out``, optionally ``cohort`` (a column of boxes each) and ``reason``
    (beside the arrow with the number that left); a missing column or no row is a `ValueError`.
    """
    missing = [name for name in ("step", "n_in", "n_out") if name not in flow]
    if missing or flow.empty:
        raise ValueError(
            f"Found a flow of {len(flow)} rows without {', '.join(missing) or 'any step'}, "
            "expected step, n_in and n_out: one row a step."
        )
    cohorts = flow["cohort"].fillna("all").astype(str) if "cohort" in flow else None
    columns = [("", flow)] if cohorts is None else list(flow.groupby(cohorts, sort=False))
    columns = [(name, _merge_steps(part)) for name, part in columns]
    n_wide = min(len(columns), WIDEST)
    depths = [len(part) for _, part in columns]
    deepest = [max(depths[i : i + n_wide]) for i in range(0, len(depths), n_wide)]
    heights = [0.7 + 0.9 * depth for depth in deepest]
    figure, axes = new_figure(
        3.2 * n_wide, sum(heights), n_wide, len(heights), height_ratios=heights
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for number, (ax, (name, part)) in enumerate(zip(axes.flat, columns, strict=False)):
        _draw_boxes(ax, part, deepest[number // n_wide])
        ax.set_title(name, fontsize=11)
    return figure


@styled
def plot_demographics(manifest: pd.DataFrame):
    """Draw the ages of each cohort, one line a cohort, and the share of women.

    `manifest` has ``cohort age sex source_participant_id``; patients are counted once.
    """
    people = manifest.drop_duplicates("source_participant_id")
    cohorts = list(people["cohort"].dropna().unique())
    figure, (axes,) = new_figure(9, 3.6, 2)
    for cohort in cohorts:
        ages = people.loc[people["cohort"] == cohort, "age"].dropna().astype(float)
        style = style_of(cohort, cohorts)
        del style["marker"]
        if len(ages):
            steps = np.arange(1, len(ages) + 1) / len(ages)
            axes[0].step(np.sort(ages), steps, where="post", label=cohort, **style)
    axes[0].set(xlabel="age (years)", ylabel="share of patients up to this age")
    axes[0].legend(fontsize=8)
    sex = people.assign(woman=people["sex"] == "F").dropna(subset=["sex"])
    counts = sex.groupby("cohort")["woman"].agg(["mean", "count"]).reindex(cohorts).dropna()
    colours = [style_of(name, cohorts)["color"] for name in counts.index]
    axes[1].barh(counts.index, counts["mean"].astype(float), color=colours)
    for place, row in enumerate(counts.itertuples()):
        axes[1].text(0.02, place, f"n = {int(row.count)}", va="center", color="white", fontsize=8)
    axes[1].set(xlabel="share of women", xlim=(0, 1))
    return figure


def examples(manifest: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Choose one scan of each grade on which both raters agree, where there is one.

    Returns rows of the manifest with a column ``label``, in the order of the grades.
    """
    graded = manifest[manifest["motion_grade"].notna() & manifest["role"].isin(["train", "test"])]
    chosen = []
    for grade, words in enumerate(("no motion", "mild motion", "severe motion")):
        scans = graded[graded["motion_grade"] == grade]
        agreed = scans[(scans["rater_1"] == scans["rater_2"]).fillna(False).astype(bool)]
        scans = agreed if len(agreed) else scans
        if len(scans):
            scan = scans.sort_values("scan_id").sample(1, random_state=seed)
            chosen.append(scan.assign(label=f"mov{grade}: {words}"))
    return pd.concat(chosen, ignore_index=True)


def to_ras(volume, affine) -> tuple[np.ndarray, np.ndarray]:
    """Turn a volume (I, J, K) or (1, I, J, K) so that its axes run to right, front and top.

    Returns the turned array, float32, and its affine; other shapes are refused.
    """
    array = np.asarray(volume, dtype=np.float32)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim != 3:
        raise ValueError(
            f"Found a volume of shape {np.shape(volume)}, expected (I, J, K) or (1, I, J, K): "
            "show one volume a panel."
        )
    turned = nib.as_closest_canonical(nib.Nifti1Image(array, np.asarray(affine, dtype=float)))
    return np.asarray(turned.dataobj), turned.affine


def draw_plane(axes, array, affine, plane: str, at_mm, window) -> None:
    """Draw one slice with its sides and its position."""
    through, across, up = PLANES[plane]
    origin, spacing = affine[:3, 3], np.abs(np.diag(affine)[:3])
    index = int(np.clip(round((at_mm[through] - origin[through]) / spacing[through]), 0, None))
    index = min(index, array.shape[through] - 1)
    image = np.take(array, index, axis=through)
    low = [origin[i] - spacing[i] / 2 for i in (across, up)]
    high = [low[n] + spacing[i] * array.shape[i] for n, i in enumerate((across, up))]
    extent = (low[0], high[0], low[1], high[1])
    shown = {"cmap": "gray", "vmin": window[0], "vmax": window[1], "interpolation": "nearest"}
    axes.imshow(image.T, origin="lower", extent=extent, aspect="equal", **shown)
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


def _merge_steps(part: pd.DataFrame) -> pd.DataFrame:
    """Give each step one row whose count continues the step before it."""
    rows, before = [], None
    for step, many in part.groupby("step", sort=False):
        lost, came = (many["n_in"] - many["n_out"]).sum(), many["n_in"].sum()
        came = before if before is not None and came < before else came
        if before is None and lost > 0:
            rows.append({"step": "candidates", "n_in": came, "n_out": came, "reason": ""})
        losing = many[many["n_in"] > many["n_out"]]
        reasons = losing["reason"].dropna().astype(str).unique() if "reason" in many else []
        reason = "; ".join(text for text in reasons[:2] if text)
        rows.append({"step": step, "n_in": came, "n_out": came - lost, "reason": reason})
        before = came - lost
    return pd.DataFrame(rows)


def _draw_boxes(axes, part: pd.DataFrame, deepest: int) -> None:
    """Draw one column of boxes joined by arrows."""
    axes.set(xlim=(0, 1), ylim=(0.4 - deepest, 0.5))
    box = {"boxstyle": "round,pad=0.4", "facecolor": "#eef3f8", "edgecolor": COLOURS[0]}
    arrow = {"arrowstyle": "-|>", "color": "#333333", "shrinkA": 0, "shrinkB": 0}
    for row in part.itertuples():
        y, lost = -row.Index, row.n_in - row.n_out
        text = f"{fill(row.step, 26)}\nn = {row.n_out:,.0f}"
        axes.text(0.3, y, text, ha="center", va="center", fontsize=10, bbox=box)
        if row.Index:
            axes.annotate("", (0.3, y + 0.26), (0.3, y + 0.74), arrowprops=arrow)
        if lost > 0:
            text = f"-{lost:,.0f}" + (f": {row.reason}" if row.reason else "")
            text = "\n".join(wrap(text, 26)[:3])
            axes.text(0.36, y + 0.5, text, va="center", fontsize=9)
