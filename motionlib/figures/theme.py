"""The style of every figure: sizes, colours, dashes and markers.

The style is seaborn's, set for the figure being drawn only. Colours are Okabe and Ito's, safe for
colour-blind readers; each comes with a line style and a marker, so that a grey print reads too.
"""

from collections.abc import Callable
from functools import cache, wraps
from io import BytesIO
from textwrap import fill

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#8B5A2B")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)), ":")
DASHES += ((0, (4, 1, 1, 1)),)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
METHOD_ORDER = (  # by four: the curves that share a panel
    *("fine_tuned", "from_scratch", "research_only", "forest_clinical"),
    *("fine_tuned_recommended", "research_only_recommended", "fine_tuned_chosen", "pooled_head"),
    *("forest_research", "fine_tuned_kspace", "untrained_features"),
)


class _StudyFigure(Figure):
    """A figure that a notebook shows by itself, without pyplot."""

    def _repr_png_(self) -> bytes:
        """Draw the figure for a notebook, once where `Figure.savefig` would draw it twice."""
        stream = BytesIO()
        self.canvas.print_png(stream, metadata={"Software": None})
        return stream.getvalue()


@cache
def _settings() -> dict:
    """Collect seaborn's style and context with our own sizes."""
    import seaborn

    return {
        **seaborn.axes_style("ticks"),
        **seaborn.plotting_context("notebook", font_scale=0.9),
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "savefig.dpi": 150,
        "svg.fonttype": "path",
        "svg.hashsalt": "motionlib",
    }


def styled(function: Callable) -> Callable:
    """Draw with the study's style, and put the former settings back."""

    @wraps(function)
    def drawn(*args, **kwargs):
        with matplotlib.rc_context(_settings()):
            return function(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float, n_columns: int = 1, n_rows: int = 1, **more):
    """Make a figure of so many inches, and by `Figure.subplots` its axes (n_rows, n_columns)."""
    figure = _StudyFigure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(n_rows, n_columns, squeeze=False, **more)


def sentence_figure(text: str):
    """Make a figure that says in one sentence why there is nothing to draw."""
    figure, axes = new_figure(7.0, 1.0)
    axes[0, 0].set_axis_off()
    axes[0, 0].text(0.5, 0.5, fill(text, 90), ha="center", va="center", fontsize=9)
    return figure


def style_of(name: str, names) -> dict:
    """Colour, dash and marker of one series: a method keeps its own in every figure."""
    names = list(names)
    place = METHOD_ORDER.index(name) if name in METHOD_ORDER else names.index(name)
    place %= len(COLOURS)
    return {"color": COLOURS[place], "linestyle": DASHES[place], "marker": MARKERS[place]}
