"""How figures look: colours, lines and markers that also colour-blind readers and grey prints tell apart."""

from __future__ import annotations

import io
import itertools
import logging
import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from segkit.errors import KEPT, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, without the yellow that white paper swallows
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


_FONT_OF: dict[str, str | None] = {}  # of each letter that was looked for: a font of this system that has it


@contextmanager
def style(texts: Iterable[str] = ()) -> Iterator[None]:
    """Use the figures' settings for a while, with fonts for the letters of these texts where this system has them."""
    import matplotlib

    letters = set().union(*map(_drawn, texts))
    _look_up(letters)
    fonts = {name for letter in letters if (name := _FONT_OF[letter]) not in (None, FONT)}
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)  # that a font has no bold face is nobody's concern
    try:
        with matplotlib.rc_context(_SETTINGS | {"font.family": [FONT, *sorted(map(str, fonts))]}):
            yield
    finally:
        log.setLevel(level)


def legible(text: str) -> str:
    """Return a text as a figure can show it: control characters spelled out, a box for what no font here has."""
    plain = _drawn(text)
    _look_up(set(plain))
    return "".join(letter if letter.isspace() or _FONT_OF[letter] else BOX for letter in plain)


def _drawn(text: str) -> str:
    return "".join(letter for letter in printable(text) if letter.isspace() or letter not in KEPT)


def _look_up(letters: set[str]) -> None:
    """Find a font for each letter: matplotlib's own, or another of this system, upright and of normal weight first."""
    left = letters - _FONT_OF.keys()
    if not left:
        return
    from matplotlib.font_manager import findfont, fontManager

    def rank(font: Any) -> tuple[Any, ...]:
        return (
            font.style != "normal",
            font.weight not in (400, "normal"),
            "Sans" not in font.name,
            font.name,
            font.fname,
        )

    own = [(FONT, str(findfont(FONT)))]
    for name, path in itertools.chain(own, ((font.name, font.fname) for font in sorted(fontManager.ttflist, key=rank))):
        has = left & _letters_of(path)
        _FONT_OF.update(dict.fromkeys(has, name))
        left -= has
        if not left:
            break
    _FONT_OF.update(dict.fromkeys(left))


def _letters_of(path: str) -> set[str]:
    """Return the letters that a font draws in any size; none of a font that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        boxes = "lastresort" in font.family_name.replace(" ", "").lower()  # for every letter, which tell nothing
        return set(map(chr, font.get_charmap())) if font.scalable and not boxes else set()
    except (OSError, RuntimeError):
        return set()


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


def shorten(label: str, length: int) -> str:
    """Return a label without its middle where it is too long: labels of one study often differ in their ends."""
    if len(label) <= length:
        return label
    return f"{label[: length // 2].rstrip()}…{label[len(label) - (length - 1) // 2 :].lstrip()}"


def wrapped(label: str, width: int = 22, lines: int = 2) -> str:
    """Return a label on as many lines as it needs, shortened where these are too few; dollars are no mathematics."""
    parts = [label := legible(label)]
    for length in range(max(len(label), 1), 0, -1):
        parts = textwrap.wrap(shorten(label, length), width, break_on_hyphens=False)
        if len(parts) <= lines and max(map(cell_len, parts), default=0) <= width:
            break
    return "\n".join(parts).replace("$", r"\$")


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """Put the legend under the figure, where it hides nothing, and make the figure higher by what it takes."""
    lines = [line for handle in handles for line in str(handle.get_label()).split("\n")]
    longest = max(map(len, lines), default=0)
    columns = 1 if longest > 30 else 2 if longest > 16 else 3
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * math.ceil(len(lines) / columns) + LEGEND_PAD)
    figure.legend(handles=handles, loc="outside lower left", ncols=columns)


def lay_out(figure: Figure) -> None:
    """Give every part of a figure its place, once for all formats."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")


def to_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure that is laid out as "png" (300 dpi) or "svg", the same bytes for the same figure.

    `Figure.savefig` would draw it twice, the first time for a layout.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.BytesIO()
    if kind == "svg":
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(out, metadata={"Date": None})
    else:
        figure.set_dpi(DPI)
        canvas = FigureCanvasAgg(figure)
        canvas.print_png(out)
    return out.getvalue()
