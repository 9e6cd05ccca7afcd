"""A report as text: Markdown whose tables are also readable in a terminal."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Sequence

from rich.cells import cell_len

from segkit.errors import padded, printable
from segkit.report import prose
from segkit.report.document import Alarm, Block, Bullets, Cases, Code, Figures, Heading, Paragraph, Table


def render(title: str, blocks: Sequence[Block]) -> str:
    """Return the report as Markdown; figures are linked from `figures/`."""
    parts = [f"# {_plain(title)}", *(_block(block) for block in blocks)]
    return printable("\n\n".join(part for part in parts if part)) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_plain(text)}"
        case Paragraph(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Alarm(text):
            return f"> **Warning:** {_plain(text)}"
        case Table(head, rows):
            return "\n".join(table(head, rows))
        case Figures(captions):
            return "\n\n".join(f"![{caption}](figures/{name}.png)\n\n{caption}" for name, caption in captions.items())
        case Cases(chosen):
            names = "\n".join(f"- {case.percentile}th percentile: {_plain(case.case)}" for case in chosen)
            return f"![Cases](figures/cases.png)\n\n{names}"
        case Code(title, text):
            fence = "`" * (3 + text.count("```"))
            return f"{title}:\n\n{fence}toml\n{text.rstrip()}\n{fence}"


def _line(text: str) -> str:
    """Return text that stays on its line, and is as wide there as it looks."""
    return printable(" ".join(text.split()))


def _plain(text: str) -> str:
    """Return text whose characters are no Markdown and no HTML."""
    return re.sub(r"([\\`*<|])", r"\\\1", _line(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table, columns aligned, numbers to the right."""
    cells = [[_plain(cell) for cell in row] for row in (head, *rows)]
    widths = [max(3, *(cell_len(row[i]) for row in cells)) for i in range(len(head))]
    right = numeric(rows, len(head))
    lines = ["| " + " | ".join(map(padded, row, widths, right)) + " |" for row in cells]
    rule = "| " + " | ".join("-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + " |"
    return [lines[0], rule, *lines[1:]]


def numeric(rows: Sequence[Sequence[str]], columns: int) -> list[bool]:
    """Return for each column whether all that is in it is numbers."""
    return [
        any(row[i] for row in rows) and all(not row[i] or row[i].lstrip("-")[:1].isdigit() for row in rows)
        for i in range(columns)
    ]


def terminal(block: Table) -> list[str]:
    """Return the lines of the verdict table for a terminal: the columns that matter most, long texts on more lines."""
    interval = next((name for name in (prose.BOTH, prose.BOOTSTRAP) if name in block.head), None)
    metric = block.head[2]
    names = [name for name in _TERMINAL if name in block.head]
    names[2:2] = [metric]
    if interval:
        names.insert(names.index("difference") + 1, interval)
    wanted = [block.head.index(name) for name in names]
    rows = [[_line(row[i]) for i in wanted] for row in block.rows]
    heads = ["95 %" if name == interval else name for name in names]
    right = numeric(rows, len(names))
    widths = _fitted([max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)])
    lines = [line for row in (heads, *rows) for line in _spread(row, widths, right)]
    return [*lines, f"95 %: interval of the difference, from {_FROM[interval]}"] if interval else lines


_TERMINAL = ("variant", "verdict", "SD seeds", "difference", "trials")
_FROM = {prose.BOTH: "patients and seeds", prose.BOOTSTRAP: "patients alone (bootstrap)"}
_COLUMNS, _GAP, _NARROW = 100, 2, 20


def _fitted(widths: Sequence[int]) -> list[int]:
    """Return the widths with the verdict's and then the variant's reduced until the table fits, if they can be."""
    fitted = list(widths)
    for i in (1, 0):
        over = sum(fitted) + _GAP * (len(fitted) - 1) - _COLUMNS
        fitted[i] -= max(0, min(over, fitted[i] - _NARROW))
    return fitted


def _spread(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    """Return a row as lines, texts that are wider than their column on several."""
    parts = [_folded(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for cells in itertools.zip_longest(*parts, fillvalue=""):
        lines.append((" " * _GAP).join(map(padded, cells, widths, right)).rstrip())
    return lines


def _folded(text: str, width: int) -> list[str]:
    """Return a text on lines of so many cells of a terminal, in which Chinese letters take two."""
    for length in range(width, 0, -1):
        lines = textwrap.wrap(text, length)
        if all(cell_len(line) <= width for line in lines):
            break
    return lines or [""]
