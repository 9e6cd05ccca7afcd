"""Render a report as HTML, Markdown and plain text from Jinja2 templates."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from rich.cells import cell_len

from segkit.errors import counted, first_few, pad, printable
from segkit.report import cases, facts, tables
from segkit.study.summary import Summary

PICTURE_PIXELS = 640


def html(summary: Summary, figures: Mapping[str, bytes]) -> str:
    """Return the report as one self-contained HTML file; `figures` are SVG, by name."""
    return _render("report.html.j2", summary, figures)


def markdown(summary: Summary, figures: Mapping[str, bytes]) -> str:
    """Return the report as Markdown, readable as plain text; it links to the figures in `figures/`."""
    return _render("report.md.j2", summary, figures).rstrip() + "\n"


def alarms(summary: Summary) -> list[str]:
    """Return the warnings about bias of all numbers, one per line, for a terminal."""
    return _template("alarms.txt.j2").render(facts.alarms(summary)).splitlines()


def _render(template: str, summary: Summary, figures: Mapping[str, bytes]) -> str:
    recipe = summary.run / "recipe.toml"
    return _template(template).render(
        facts.gather_facts(summary),
        summary=summary,
        metric=tables.headline_name(summary),
        verdicts=tables.verdicts(summary),
        failures=tables.failures(summary) if summary.lines else None,
        everything=tables.everything(summary) if len(summary.lines) > len(summary.variants) else None,
        first_batch=tables.first_batch(summary),
        what_was_run=tables.what_was_run(summary),
        recipe=recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else "",
        examples=cases.choose(summary),
        figures={name: svg for name, svg in figures.items() if name != "cases"},
    )


@functools.cache
def _template(name: str) -> jinja2.Template:
    """Return a compiled template; values are escaped for the format in its name, unless they are `Markup`."""
    escaped = ESCAPES[name.split(".")[1]]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(escaped(str(value))),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "aligned": _aligned, "counted": counted, "data_uri": _data_uri, "first_few": first_few, "one_line": _one_line,
        "picture": _picture, "printable": lambda text: Markup(printable(text)),
    }  # fmt: skip
    return environment.get_template(name)


def _one_line(text: str) -> str:
    """Return a text with single spaces in place of line breaks and indents; `Markup` stays `Markup`."""
    return type(text)(" ".join(text.split()))


def _markdown_escape(text: str) -> str:
    return re.sub(r"([\\`*<|])", r"\\\1", _one_line(printable(text)))


ESCAPES: dict[str, Callable[[str], str]] = {
    "html": lambda text: escape(printable(text)),
    "md": _markdown_escape,
    "txt": lambda text: _one_line(printable(text)),
}


def _aligned(table: tables.Table) -> Markup:
    """Return a Markdown table with aligned columns, numbers to the right."""
    cells = [[_markdown_escape(text) for text in row] for row in (table.head, *table.rows)]
    widths = [max(3, *map(cell_len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * (width - 1) + (":" if number else "-") for width, number in zip(widths, table.numeric, strict=True)]
    head, *rows = (list(map(pad, row, widths, table.numeric)) for row in cells)
    return Markup("\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows)))


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _picture(path: Path | None) -> str:
    """Return an overlay as a data URI of at most `PICTURE_PIXELS`; "" if there is none or it is damaged."""
    import cv2

    image: Any = cv2.imread(str(path)) if path else None
    if image is None:
        return ""
    scale = PICTURE_PIXELS / max(image.shape)
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 90])
    assert done, "an 8-bit image can always be encoded"
    return _data_uri(encoded.tobytes(), "webp")
