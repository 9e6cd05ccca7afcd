"""The style of figures: colours, lines and markers that are distinct for colour-blind readers and in grey prints."""

from __future__ import annotations

import functools
import io
import logging
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from segkit.errors import KEPT_CONTROLS, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, without the yellow, which is too pale on white
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (6, 2, 1, 2)), (0, (1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h")
WIDTH = 5.2
LEGEND_LINE, LEGEND_PAD = 0.165, 0.1
DPI = 300

FONT, BOX = "DejaVu Sans", "\u25a1"

_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "segkit",
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
    "legend.handlelength": 3.5,  # shows the dashes
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
}


@contextmanager
def figure_style(texts: Iterable[str] = ()) -> Iterator[None]:
    """Use the figures' settings within the block, with fonts for the letters of `texts` if there are any."""
    import matplotlib

    letters = set().union(*map(_drawn, texts))
    fonts = {name for letter in letters if (name := _font_of(letter)) not in (None, FONT)}
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of fonts without a bold face
    try:
        with matplotlib.rc_context(_SETTINGS | {"font.family": [FONT, *sorted(map(str, fonts))]}):
            yield
    finally:
        log.setLevel(level)


def legible(text: str) -> str:
    """Return a text that a figure can show: control characters escaped, a box for letters that no font has."""
    return "".join(letter if letter.isspace() or _font_of(letter) else BOX for letter in _drawn(text))


def _drawn(text: str) -> str:
    return "".join(letter for letter in printable(text) if letter.isspace() or letter not in KEPT_CONTROLS)


@functools.cache
def _fonts() -> list[tuple[str, str]]:
    """Return name and path of installed fonts: matplotlib's own, then upright ones of normal weight, then others."""
    from matplotlib.font_manager import findfont, fontManager

    def rank(font: Any) -> tuple[Any, ...]:
        upright, regular = font.style == "normal", font.weight in (400, "normal")
        return not upright, not regular, "Sans" not in font.name, font.name, font.fname

    return [(FONT, str(findfont(FONT))), *((font.name, font.fname) for font in sorted(fontManager.ttflist, key=rank))]


@functools.cache
def _letters(path: str) -> frozenset[int]:
    """Return the code points of a scalable font; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        boxes = "lastresort" in font.family_name.replace(" ", "").lower()  # a box for every letter
        return frozenset(font.get_charmap() if font.scalable and not boxes else ())
    except (OSError, RuntimeError):
        return frozenset()


@functools.cache
def _font_of(letter: str) -> str | None:
    """Return the first font that has a letter, or None."""
    return next((name for name, path in _fonts() if ord(letter) in _letters(path)), None)


def variant_style(number: int) -> dict[str, Any]:
    """Return colour, line and marker of a variant by its number: 84 combinations, the first 7 of different colours."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINES[number % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def new_figure(height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure of one column of panels, outside of pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(panels, squeeze=False)[:, 0])


def elide_middle(label: str, length: int) -> str:
    """Return a label of at most `length` characters, cut in the middle: labels often differ at their ends."""
    if len(label) <= length:
        return label
    return f"{label[: length // 2].rstrip()}…{label[len(label) - (length - 1) // 2 :].lstrip()}"


def wrapped(label: str, width: int = 22, lines: int = 2) -> str:
    """Return a label wrapped to at most `lines` lines, shortened if it needs more; `$` is escaped."""
    parts = [label := legible(label)]
    for length in range(max(len(label), 1), 0, -1):
        parts = textwrap.wrap(elide_middle(label, length), width, break_on_hyphens=False)
        if len(parts) <= lines and max(map(cell_len, parts), default=0) <= width:
            break
    return "\n".join(parts).replace("$", r"\$")


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """Put a legend below the figure, which grows by the legend's height."""
    lines = [line for handle in handles for line in str(handle.get_label()).split("\n")]
    longest = max(map(len, lines), default=0)
    columns = 1 if longest > 30 else 2 if longest > 16 else 3
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * math.ceil(len(lines) / columns) + LEGEND_PAD)
    figure.legend(handles=handles, loc="outside lower left", ncols=columns)


def to_bytes(figure: Figure) -> dict[str, bytes]:
    """Return a figure as "png" (300 dpi) and as "svg", the same bytes for the same figure.

    It is laid out once for both; `Figure.savefig` would draw it once more for the layout of each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    png, svg = io.BytesIO(), io.BytesIO()
    figure.set_dpi(DPI)
    pixels: Any = FigureCanvasAgg(figure)
    pixels.print_png(png)
    vector: Any = FigureCanvasSVG(figure)
    vector.print_svg(svg, metadata={"Date": None})
    return {"png": png.getvalue(), "svg": svg.getvalue()}
