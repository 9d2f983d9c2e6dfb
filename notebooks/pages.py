"""What the pages for people show: notebook 0, the start, and notebook 8, where scans are rated.

Pictures answer to sliders and buttons in JupyterLab, by ipywidgets: each control draws an ordinary
figure anew. Outside JupyterLab nothing moves, so a notebook sets a figure that stands still before.
No table of the study comes from here.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch

from motionlib import files
from motionlib.figures.cohort import PLANES, draw_plane, to_ras
from motionlib.figures.theme import COLOURS, new_figure, styled
from motionlib.manifest import read_manifest
from motionlib.motion import Acquisition, Trajectory, acquire
from motionlib.predictions import load_predictions, select
from motionlib.preprocess.images import read_array
from motionlib.stats.agreement import kappa_of
from motionlib.study.notebooks import notebooks_folder, read_study, text
from motionlib.study.runner import duration, plan

TUNED = "warehouse/fine_tuned_recommended"  # the experiment whose threshold is moved
WINDOW = (1, 99.5)  # percentiles of a scan that are shown as black and as white
MOST_CHANGED = 6  # scans shown of those that change sides
ORDERS = ("linear", "centric", "segmented")
WHOLE = {"description_width": "initial"}  # no name of a control is cut
GRADES = ("0: no motion", "1: some motion", "2: severe motion")
TAKE_BACK = "take back the last grade"
PAUSE_S = 1.0  # nobody has looked at a scan in less; the second half of a double click comes sooner
TOO_SOON = " A click that came within a second after it was not counted."
CLICKS = ["time", "rater", "scan_id", "grade"]
RATERS = ["rater_1", "rater_2"]


def overview(profile: str) -> pd.DataFrame:
    """List the study's notebooks: question, needs, time, and whether they have run (`plan`)."""
    steps = plan(read_study(profile, notebooks=notebooks_folder(), runs=files.runs_root()))
    openings = [text(step.notebook.cells[0]) for step in steps]
    record = files.repository() / "results" / profile / "provenance.json"
    published = files.read_json(record)["durations_s"] if record.is_file() else {}
    times = [step.last_s or published.get(step.notebook.stem) for step in steps]
    columns = {
        "question": [opening.partition("\n")[0].partition(". ")[2] for opening in openings],
        "needs": [re.search(r"\*Needs\* ([^.\n]*)", opening)[1] for opening in openings],
        "takes": [duration(seconds) if seconds else "" for seconds in times],
        "state": [step.reason or "has run" for step in steps],
    }
    return pd.DataFrame(columns, index=[step.notebook.number for step in steps])


def graded_scores(profile: str) -> pd.DataFrame:
    """Scores of notebook 4's fine-tuned network on graded scans, a row a scan.

    Of the run of a profile, with the ``path`` of each scan; as long as notebook 4 has not run
    there, the published ones of the demo, without pictures, and a sentence says so.
    """
    run = files.runs_root() / profile
    rows = _tuned_scores(run) if (run / "predictions.csv").is_file() else pd.DataFrame()
    if rows.empty:
        print(
            f"Notebook 4 makes these scores and has not run in the profile {profile}: "
            "shown are the published ones of the demo, without pictures."
        )
        return _tuned_scores(files.repository() / "results" / "demo")
    scans = run / "cohort" / "manifest.tsv"
    listed = read_manifest(scans)
    listed["path"] = [str(scans.parent / path) for path in listed["path"]]
    return rows.merge(listed[["scan_id", "path"]], on="scan_id")


def _tuned_scores(folder: Path) -> pd.DataFrame:
    """Out-of-fold scores of the fine-tuned network in a run folder; no row before notebook 4."""
    rows = load_predictions(folder)
    return select(rows[rows["fold"] == -1], TUNED, task="mov01vs2")


@styled
def plot_move(head, affine, *, axis=1, **move):
    """Draw one move of a head: its course, the k-space that came after it, and the image.

    `move` as of `one_move`.
    """
    scan, course, late = one_move(head, affine, axis=axis, **move)
    figure, ((movement, kspace, sagittal, axial),) = new_figure(12.4, 3.4, 4)
    sizes = {"up (mm)": course.translation_mm[1, 2], "nod (degrees)": course.rotation_deg[1, 0]}
    for dash, (name, size) in zip("-:", sizes.items(), strict=True):
        movement.step([0, course.times[1], 1], [0, size, size], dash, where="post", label=name)
    movement.set(xlabel="time (fraction of the scan)", ylim=(-0.5, 18), title="movement")
    movement.legend(fontsize="small", loc="upper left")
    # of the slice in which k-space is filled, with the lines of one moment lying flat
    through = 2 if axis == 0 else 0
    image = np.take(scan, scan.shape[through] // 2, axis=through)
    image = image.T if axis == 2 else image
    spectrum = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(image))))
    kspace.imshow(spectrum, origin="lower", cmap="gray", aspect="auto")
    shade = np.broadcast_to(np.where(late, 1.0, np.nan)[:, None], spectrum.shape)
    kspace.imshow(shade, origin="lower", cmap="autumn", alpha=0.3, aspect="auto")
    kspace.set(xticks=[], yticks=[], title="k-space (log)", xlabel="coloured: after the move")
    for ax, plane in ((sagittal, "sagittal"), (axial, "axial")):
        window = (0, np.percentile(head, 99.7))
        draw_plane(ax, scan, affine, plane, _middle(scan, affine), window)
        ax.set(xticks=[], yticks=[], title=f"image, {plane}")
    return figure


def one_move(head, affine, *, mm=5.0, degrees=5.0, moment=0.5, axis=1, order="linear"):
    """Scan a head that moves once: scan (I, J, K), course, and which lines came later, (N,).

    The head (I, J, K) on axes R, A, S rises by `mm` and nods by `degrees` at the `moment`, a share
    of the scan; k-space is filled along `axis` in the `order` of `Acquisition`, four shots.
    """
    poses = ([(0, 0, 0), (0, 0, mm)], [(0, 0, 0), (degrees, 0, 0)])
    course = Trajectory([0, moment], *poses, "hold")
    acquisition = Acquisition(axis, order=order, n_segments=4)
    volume = torch.as_tensor(head, dtype=torch.float32)
    scan = acquire(volume, course, acquisition, affine=affine, rng=0).numpy()
    return scan, course, acquisition.line_times(scan.shape[axis]) >= moment


def explore_move(head, affine) -> widgets.Widget:
    """Move one head (I, J, K) on axes R, A, S by hand; see `plot_move`."""
    axes = {"left-right": 0, "back-front": 1, "bottom-top": 2}
    controls = {
        "mm": _slider("move (mm)", 5, 0, 15, 0.5),
        "degrees": _slider("nod (degrees)", 5, 0, 15, 0.5),
        "moment": _slider("moment", 0.5, 0.05, 0.95, 0.05),
        "axis": widgets.Dropdown(description="k-space axis", options=axes, value=1, style=WHOLE),
        "order": widgets.Dropdown(description="order of lines", options=ORDERS, style=WHOLE),
    }
    alt = "A move of a head: its course, k-space, and the image from the side and from above."
    return _panel(controls, lambda **values: plot_move(head, affine, **values), alt)


def explore_threshold(rows: pd.DataFrame) -> widgets.Widget:
    """Move the threshold of one method; see `plot_threshold`."""
    passed = [0.5]

    def draw(threshold: float):
        passed.append(threshold)
        return plot_threshold(rows, threshold, before=passed[-2])

    alt = "ROC curve with the threshold, right and wrong calls, and scans that changed sides."
    return _panel({"threshold": _slider("threshold", 0.5, 0, 1, 0.01)}, draw, alt)


@styled
def plot_threshold(rows: pd.DataFrame, threshold: float, *, before: float):
    """Draw a ROC curve, what one threshold makes of it, and scans that another calls otherwise.

    `rows` have ``y_true score``, one a scan, and ``path`` where scans are to be shown: those of the
    highest score between the two thresholds.
    """
    low, high = sorted((threshold, before))
    changed = rows[rows["score"].ge(low) & rows["score"].lt(high)].sort_values("score")
    figure, axes = new_figure(12.4, 5.2, MOST_CHANGED, 2)
    for ax in axes.flat:
        ax.set_axis_off()
    roc = figure.add_subplot(axes[0, 0].get_gridspec()[0, :2])
    moved, still = (rows["score"][rows["y_true"] == y].to_numpy() for y in (1, 0))
    cuts = np.sort([*rows["score"], 0, 1 + 1e-9])
    roc.plot(*[[(side >= cut).mean() for cut in cuts] for side in (still, moved)])
    roc.plot((still >= threshold).mean(), (moved >= threshold).mean(), "o", color=COLOURS[1])
    roc.set(xlabel="1 - specificity", ylabel="sensitivity")
    lines = [f"threshold {threshold:.2f}"]
    for side, words in ((moved, "with motion"), (still, "without motion")):
        n = (side >= threshold).sum()
        lines.append(f"{len(side)} scans {words}: {n} called motion, {len(side) - n} not")
    lines.append(f"{len(changed)} change sides between {low:.2f} and {high:.2f}")
    axes[0, 3].text(0, 0.5, "\n\n".join(lines), va="center").set_in_layout(False)
    for ax, scan in zip(axes[1], changed.tail(MOST_CHANGED).itertuples(), strict=False):
        if "path" in rows:
            array, affine = read_array(scan.path)
            window = np.percentile(array, WINDOW)
            draw_plane(ax, array, affine, "axial", _middle(array, affine), window)
            ax.set_title(f"{'' if scan.y_true else 'no '}motion, {scan.score:.2f}", fontsize=9)
    return figure


def browse(volume, affine) -> widgets.Widget:
    """Look through one scan (I, J, K): three planes, each with a slider in mm."""
    array, affine = to_ras(volume, affine)
    low, high = affine[:3, 3], affine[:3, 3] + np.diag(affine)[:3] * (np.array(array.shape) - 1)
    controls = {
        plane: _slider(f"{plane} (mm)", (low[axis] + high[axis]) / 2, low[axis], high[axis], 1)
        for plane, (axis, _, _) in PLANES.items()
    }
    alt = "Three planes of a scan: from the side, from the front and from above."
    return _panel(controls, lambda **at: plot_planes(array, affine, [*at.values()]), alt)


@styled
def plot_planes(volume, affine, at_mm=None):
    """Draw a sagittal, a coronal and an axial plane of one scan, by default through its middle."""
    figure, (axes,) = new_figure(12.4, 4.4, len(PLANES))
    figure.set_layout_engine("none")  # to find room for the axes takes half as long as to draw them
    array, affine = to_ras(volume, affine)
    at_mm = _middle(array, affine) if at_mm is None else at_mm
    window = np.percentile(array, WINDOW)
    for n, (ax, plane) in enumerate(zip(axes, PLANES, strict=True)):
        ax.set_position([0.05 + n / 3, 0.07, 0.28, 0.91])
        draw_plane(ax, array, affine, plane, at_mm, window)
    return figure


def rate(scans: pd.DataFrame, folder: str | os.PathLike, *, raters, seed: int = 0):
    """Grade scans by clicks, as the paper's two raters did: in random order and without names.

    `scans` have ``scan_id participant_id path``, and a ``verdict`` to be shown after the click; a
    scan is shown as by `browse`. Every click is at once a row of ``clicks.tsv`` in `folder`, of
    several on one scan the last counts, and ``grades.tsv`` is what ``motionlib finetune`` reads. A
    grade that is taken back is a row too, without a grade, and the scan is shown again. A click
    within `PAUSE_S` of another is not counted. Opened again, the page goes on.
    """
    folder, scans = Path(folder), scans.set_index("scan_id", drop=False)
    if len(set(raters)) != len(RATERS) or not all(raters):
        raise ValueError(f"raters are {raters}; expected two different names")
    if (folder / "grades.tsv").exists() and not (folder / "clicks.tsv").exists():
        raise ValueError(
            "grades.tsv lies there already and was not made by clicks; give another folder"
        )
    rater = widgets.ToggleButtons(options=raters, description="rater")
    state, shown, verdict = widgets.HTML(), widgets.VBox(), widgets.HTML()

    def mine() -> pd.DataFrame:
        rows = last_clicks(folder)
        return rows[rows["rater"].eq(rater.value) & rows["scan_id"].isin(scans.index)]

    def waiting() -> list[str]:
        graded = set(mine()["scan_id"])
        rng = np.random.default_rng(files.seed_from(seed, rater.value))
        return [scan for scan in rng.permutation(sorted(scans.index)) if scan not in graded]

    def show(*_) -> None:
        left, grades = waiting(), collect_grades(folder, scans, raters)
        counts = pd.crosstab(*[grades[name] for name in RATERS])
        counts = counts.reindex(index=range(3), columns=range(3), fill_value=0).to_numpy()
        kappa = f"{kappa_of(counts):.2f} ({counts.sum()} scans)" if counts.sum() else "none yet"
        state.value = (
            f"{escape(rater.value)} has graded {len(scans) - len(left)} of {len(scans)} scans; "
            f"weighted kappa of the two raters: {kappa}"
        )
        back.disabled = len(left) == len(scans)
        former = shown.children
        shown.children = [browse(*read_array(scans.loc[scan, "path"])) for scan in left[:1]]
        for panel in former:
            _close(panel)

    def keep(scan: str, grade: int | None) -> None:
        append_click(folder, rater.value, scan, grade)
        files.write_table(collect_grades(folder, scans, raters), folder / "grades.tsv")

    def grade(button) -> None:
        for scan in waiting()[:1]:
            keep(scan, GRADES.index(button.description))
            verdict.value = f"You said {button.description}. {escape(scans.loc[scan, 'verdict'])}"

    def take_back(_) -> None:
        for scan in mine()["scan_id"].tail(1):
            keep(scan, None)
            verdict.value = "Your last grade is taken back; this is its scan again."

    free_from = [0.0]  # on the clock; a click that came earlier was meant for the scan before

    def click(button) -> None:
        if time.monotonic() < free_from[0]:
            verdict.value = verdict.value.removesuffix(TOO_SOON) + TOO_SOON
            return
        (take_back if button is back else grade)(button)
        show()
        free_from[0] = time.monotonic() + PAUSE_S

    buttons = [widgets.Button(description=words) for words in GRADES]
    back = widgets.Button(description=TAKE_BACK, layout=widgets.Layout(width="auto"))
    for button in (*buttons, back):
        button.on_click(click)
    rater.observe(show, "value")
    show()
    return widgets.VBox([rater, state, shown, widgets.HBox([*buttons, back]), verdict])


def append_click(folder: Path, rater: str, scan_id: str, grade: int | None) -> None:
    """Add a row to ``clicks.tsv``, in one write that is on the disk when this returns.

    No grade takes back what the rater said of the scan.
    """
    said = "" if grade is None else str(grade)
    row = [datetime.now(UTC).isoformat(timespec="seconds"), rater, scan_id, said]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "clicks.tsv", "a", encoding="utf-8") as stream:
        rows = [row] if stream.tell() else [CLICKS, row]
        stream.write("".join("\t".join(cells) + "\n" for cells in rows))
        stream.flush()
        os.fsync(stream.fileno())


def read_clicks(folder: Path) -> pd.DataFrame:
    """Read all clicks so far, in their order; where a grade was taken back there is none."""
    path = folder / "clicks.tsv"
    if not path.is_file():
        return pd.DataFrame(columns=CLICKS)
    # a rater may be called NA
    rows = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    grades = pd.to_numeric(rows["grade"].mask(rows["grade"] == ""))
    return rows.assign(grade=grades.astype("Int64"))


def last_clicks(folder: Path) -> pd.DataFrame:
    """Keep of each rater and scan the last click, if it is a grade; the newest stands last."""
    last = read_clicks(folder).drop_duplicates(["rater", "scan_id"], keep="last")
    return last.dropna(subset="grade")


def collect_grades(folder: Path, scans: pd.DataFrame, raters) -> pd.DataFrame:
    """Collect the last grade of each rater for each scan that has one, as ``finetune`` reads it."""
    wide = last_clicks(folder).pivot(index="scan_id", columns="rater", values="grade")
    wide = wide.reindex(columns=raters).astype("Int64").set_axis(RATERS, axis=1).dropna(how="all")
    names = ["scan_id", "participant_id", "path"]
    return scans.reset_index(drop=True)[names].merge(wide, on="scan_id")


def _middle(array, affine) -> np.ndarray:
    """Place of the middle of a scan in mm."""
    return (affine @ [*((np.array(array.shape) - 1) / 2), 1])[:3]


def _slider(name: str, value: float, low: float, high: float, step: float) -> widgets.FloatSlider:
    """Make a slider that tells its value when it is let go."""
    how = {"continuous_update": False, "style": WHOLE}
    return widgets.FloatSlider(value, min=low, max=high, step=step, description=name, **how)


def _panel(controls: dict, draw: Callable, alt: str) -> widgets.Widget:
    """Put a picture below its controls and draw it again when one of them changes."""
    picture = widgets.HTML()

    def redraw(*_) -> None:
        values = {name: control.value for name, control in controls.items()}
        picture.value = _image(draw(**values), alt)

    for control in controls.values():
        control.observe(redraw, "value")
    redraw()
    row = widgets.HBox(list(controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
    return widgets.VBox([row, picture])


def _close(widget: widgets.Widget) -> None:
    """Let go of a widget and all in it, whose pictures a browser would keep."""
    for child in getattr(widget, "children", ()):
        _close(child)
    widget.close()


def _image(figure, alt: str) -> str:
    """Write a figure as an image element, with a text for those who cannot see it."""
    data = base64.b64encode(figure._repr_png_()).decode()
    return f'<img alt="{alt}" style="max-width: 100%" src="data:image/png;base64,{data}">'
