"""A report as one HTML file that needs nothing else: styles and pictures are inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape as _escaped
from pathlib import Path

from segkit.errors import printable
from segkit.report.document import Alarm, Block, Bullets, Cases, Code, Figures, Heading, Paragraph, Table
from segkit.report.markdown import numeric

PICTURE_PIXELS = 640
LONG_LABEL, LONG_CELL = 24, 14

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; background: #fff; color: #1a1a1a;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-top: 1px solid #ccc; padding-top: .8rem;
  overflow-wrap: anywhere; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
.box { overflow-x: auto; border: 1px solid #ccc; border-radius: 4px; }
table { border-collapse: collapse; font-size: .8125rem; width: 100%; }
th, td { padding: .35rem .35rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e4e4e4; }
thead th { background: #f2f2f2; vertical-align: bottom; }
thead th.number { white-space: normal; }
tbody tr:last-child > * { border-bottom: 0; }
tr > :first-child { position: sticky; left: 0; z-index: 1; border-right: 1px solid #e4e4e4; }
tbody th { font-weight: 600; background: #fff; white-space: nowrap; }
tbody th.long { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; max-width: 12rem; }
td.long { min-width: 9.5rem; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.alarming { border-left: 4px solid #d55e00; padding-left: 1.8rem; }
.figures { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); }
figure { margin: 0; }
figure img { width: 100%; max-width: 36rem; height: auto; display: block; }
figcaption, .small { font-size: .875rem; color: #444; }
.cases td { min-width: 9.5rem; text-align: center; }
.cases .small { white-space: nowrap; }
.cases img { width: 100%; min-width: 9rem; max-width: 16rem; height: auto; display: block; margin: 0 auto .2rem; }
.alarm { border: 2px solid #d55e00; border-left-width: 8px; border-radius: 4px; background: #fff3ea;
  padding: .6rem .9rem; font-weight: 500; }
.folded { margin: .8rem 0; }
.folded > label { cursor: pointer; display: inline-block; padding: .3rem; }
pre { margin: 0; padding: .8rem; font-size: .8rem; line-height: 1.4; }
@media screen { .folded > input:not(:checked) ~ .box { display: none; } }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  p, li { max-width: none; }
  h2 { break-after: avoid; }
  .box { overflow: visible; border: 0; }
  .folded input { display: none; }
  table { font-size: 7.5pt; }
  th, td { padding: .2rem .25rem; }
  tbody th, tbody th.long { white-space: normal; overflow-wrap: anywhere; min-width: 5rem; max-width: 9rem; }
  td.long, .cases td { min-width: 0; }
  td.long { overflow-wrap: anywhere; }
  .cases tbody th { width: 9rem; }
  tr, figure, .alarm { break-inside: avoid; }
  tr > :first-child { position: static; }
  .figures { grid-template-columns: 1fr 1fr; }
  .cases img { min-width: 0; width: auto; max-width: 100%; max-height: 42mm; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: 0; }
}
"""


def escape(text: str) -> str:
    """Return a text as HTML shows it, control characters spelled out."""
    return _escaped(printable(text))


def render(title: str, blocks: Sequence[Block], svgs: Mapping[str, bytes]) -> str:
    """Return the report as an HTML document.

    Args:
        title: the study's question.
        blocks: what it says.
        svgs: the figures, by file name.
    """
    body = "\n".join(_block(block, svgs) for block in blocks)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _block(block: Block, svgs: Mapping[str, bytes]) -> str:
    match block:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Bullets(items, alarming):
            listed = "".join(f"<li>{escape(item)}</li>" for item in items)
            return f'<ul class="alarming">{listed}</ul>' if alarming else f"<ul>{listed}</ul>"
        case Alarm(text):
            return f'<p class="alarm" role="alert"><strong>Warning</strong><br>{escape(text)}</p>'
        case Table(_, _, folded):
            return _folded(folded, _table(block)) if folded else _table(block)
        case Figures(captions):
            shown = "".join(_figure(caption, svgs[name]) for name, caption in captions.items())
            return f'<div class="figures">{shown}</div>'
        case Cases():
            return _cases(block)
        case Code(title, text):
            return _folded(title, f'<div class="box" tabindex="0"><pre>{escape(text)}</pre></div>')


def _folded(title: str, content: str) -> str:
    """Return content that opens on request, and that every browser prints: a closed <details> is not printed."""
    name = f"folded-{hashlib.blake2b(content.encode(), digest_size=6).hexdigest()}"
    box = f'<input type="checkbox" id="{name}"><label for="{name}">{escape(title)}</label>'
    return f'<div class="folded">{box}{content}</div>'


def _table(block: Table) -> str:
    """Return a table that scrolls in its own box, its first column in place."""
    right = [' class="number"' if number else "" for number in numeric(block.rows, len(block.head))]
    head = "".join(f"<th{mark}>{escape(text)}</th>" for text, mark in zip(block.head, right, strict=True))
    rows = []
    for first, *others in block.rows:
        cells = "".join(
            f"<td{mark or _long(text, LONG_CELL)}>{escape(text)}</td>"
            for text, mark in zip(others, right[1:], strict=True)
        )
        rows.append(f"<tr>{_row_head(first)}{cells}</tr>")
    shown = f"<thead><tr>{head}</tr></thead>" if any(block.head) else ""
    return f'<div class="box" tabindex="0"><table>{shown}<tbody>{"".join(rows)}</tbody></table></div>'


def _long(text: str, limit: int) -> str:
    """Return the mark of a cell whose text may take several lines, in a column wide enough for it."""
    return ' class="long"' if len(text) > limit else ""


def _row_head(text: str) -> str:
    return f'<th scope="row"{_long(text, LONG_LABEL)}>{escape(text)}</th>'


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _figure(caption: str, svg: bytes) -> str:
    return (
        f'<figure><img alt="{escape(caption)}" src="{_uri("svg+xml", svg)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _cases(block: Cases) -> str:
    """Return a table of pictures: a row for each variant, a column for each case."""
    head = "".join(f"<th>{c.percentile}th percentile<br>{escape(c.case)}</th>" for c in block.chosen)
    rows = []
    for variant in block.variants:
        cells = ""
        for case in block.chosen:
            shown = case.by_variant[variant]
            alt = escape(f"{case.case}, {variant}: {shown.caption}")
            uri = _picture(shown.picture) if shown.picture else ""
            picture = f'<img alt="{alt}" src="{uri}">' if uri else ""
            cells += f'<td>{picture}<span class="small">{escape(shown.caption)}</span></td>'
        rows.append(f"<tr>{_row_head(variant)}{cells}</tr>")
    return (
        f'<div class="box" tabindex="0"><table class="cases"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _picture(path: Path) -> str:
    """Return an overlay as a data URI, no larger than the page shows it sharply; "" where it cannot be read."""
    import cv2

    image = cv2.imread(str(path))
    if image is None:
        return ""
    scale = PICTURE_PIXELS / max(image.shape)
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 90])
    assert done, "an 8-bit image can always be encoded"
    return _uri("webp", encoded.tobytes())
