"""How figures look: colours, lines and markers that also colour-blind readers and grey prints tell apart."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, without the yellow that white paper swallows
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (6, 2, 1, 2)), (0, (1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h")
WIDTH = 5.2
DPI = 300

_SETTINGS = {
    "svg.hashsalt": "segkit",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}


@contextmanager
def style() -> Iterator[None]:
    """Use the figures' settings for a while."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        yield


def look(number: int) -> dict[str, Any]:
    """Return colour, line and marker of the variant at this place; 84 differ, the first 7 in colour alone."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINES[number % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def new_figure(height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure of one column of panels, outside of pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(panels, 1, 1 + i) for i in range(panels)]


def shorten(label: str, length: int = 34) -> str:
    """Return a label that fits beside an axis, its dollar signs no mathematics."""
    return (label if len(label) <= length else label[: length - 1] + "…").replace("$", r"\$")


def legend_below(figure: Figure, axes: Axes, extra: Sequence[Any] = ()) -> None:
    """Put the legend under the figure, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    handles, labels = [*handles, *extra], [*labels, *(handle.get_label() for handle in extra)]
    longest = max((len(label) for label in labels), default=0)
    columns = 1 if longest > 30 else 2 if longest > 16 else 3
    figure.legend(handles, labels, loc="outside lower left", ncols=min(columns, max(1, len(labels))))


def to_bytes(figure: Figure, kind: str) -> bytes:
    """Return the figure as "png" (300 dpi) or "svg", the same bytes for the same figure."""
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()
