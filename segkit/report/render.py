"""The report of a run folder: summary.csv, figures/, and report.html and report.md from Jinja2 templates."""

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

from segkit import files
from segkit.errors import counted, first_few, pad, printable
from segkit.report import cases, facts, figures, tables
from segkit.study.clinical import clinical_measures
from segkit.study.summary import Summary, summarize, to_csv

PICTURE_PIXELS = 640


def write_report(run: Path) -> list[str]:
    """Write the report of a run folder, finished or not; return the verdict table, as lines for a terminal."""
    summary = summarize(run)
    drawn = figures.draw(summary)
    if drawn:
        (run / "figures").mkdir(exist_ok=True)
    for name, images in drawn.items():
        for kind, image in images.items():
            files.write_bytes(run / "figures" / f"{name}.{kind}", image)
    for name in figures.FIGURES.keys() - drawn.keys():  # left by an earlier report
        for kind in ("png", "svg"):
            (run / "figures" / f"{name}.{kind}").unlink(missing_ok=True)
    svgs = {name: images["svg"] for name, images in drawn.items()}
    files.write_text(run / "report.md", markdown(summary, svgs))
    files.write_text(run / "report.html", html(summary, svgs))
    files.write_text(run / "summary.csv", to_csv(summary))  # last: it marks the others as up to date
    return _for_terminal(summary)


def read_table(run: Path) -> list[str] | None:
    """Return the verdict table, as lines for a terminal, if the report of a run folder exists and is up to date."""
    summary = summarize(run)
    there = all((run / name).is_file() for name in ("report.html", "report.md", "summary.csv"))
    return _for_terminal(summary) if there and files.read_text(run / "summary.csv") == to_csv(summary) else None


def _for_terminal(summary: Summary) -> list[str]:
    alarms = _template("alarms.txt.j2").render(facts.alarms(summary)).splitlines()
    return [*(tables.for_terminal(summary) if summary.lines else []), *alarms]


def html(summary: Summary, svgs: Mapping[str, bytes]) -> str:
    """Return the report as one self-contained HTML file; `svgs` are the figures, by name."""
    return _render("report.html.j2", summary, svgs)


def markdown(summary: Summary, svgs: Mapping[str, bytes]) -> str:
    """Return the report as Markdown, readable as plain text; it links to the figures in `figures/`."""
    return _render("report.md.j2", summary, svgs).rstrip() + "\n"


def _render(template: str, summary: Summary, svgs: Mapping[str, bytes]) -> str:
    recipe, measures = summary.run / "recipe.toml", clinical_measures(summary)
    return _template(template).render(
        facts.gather_facts(summary),
        summary=summary,
        metric=tables.headline_name(summary),
        verdicts=tables.verdicts(summary),
        failures=tables.failures(summary) if summary.lines else None,
        everything=tables.everything(summary) if len(summary.lines) > len(summary.variants) else None,
        clinical=measures,
        agreements=tables.clinical(measures) if measures else None,
        first_batch=tables.first_batch(summary),
        what_was_run=tables.what_was_run(summary),
        recipe=recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else "",
        examples=cases.choose(summary),
        figures={name: svg for name, svg in svgs.items() if name != "cases"},
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
