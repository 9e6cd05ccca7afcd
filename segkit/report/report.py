"""The report of a run folder: summary.csv, report.md, report.html and figures/, from what is on disk."""

from __future__ import annotations

from pathlib import Path

from segkit import files
from segkit.report import document, figures, html, markdown
from segkit.study.summary import Summary, summarize, to_csv


def write_report(run: Path) -> list[str]:
    """Write the report of a run folder, finished or not.

    Args:
        run: the folder, e.g. runs/l1l2.

    Returns:
        The verdict table, as lines for a terminal.
    """
    summary = summarize(run)
    drawn = figures.draw(summary)
    blocks = document.build(summary, drawn)
    if drawn:
        (run / "figures").mkdir(exist_ok=True)
    for name, (png, svg) in drawn.items():
        files.write_bytes(run / "figures" / f"{name}.png", png)
        files.write_bytes(run / "figures" / f"{name}.svg", svg)
    for name in figures.FIGURES.keys() - drawn.keys():  # of a report that had data for it
        for suffix in (".png", ".svg"):
            (run / "figures" / f"{name}{suffix}").unlink(missing_ok=True)
    svgs = {name: svg for name, (_, svg) in drawn.items()}
    files.write_text(run / "report.md", markdown.render(summary.title, blocks))
    files.write_text(run / "report.html", html.render(summary.title, blocks, svgs))
    files.write_text(run / "summary.csv", to_csv(summary))  # last: it is what tells that all are up to date
    return _table(summary)


def read_table(run: Path) -> list[str] | None:
    """Return the verdict table, as lines for a terminal, if the report of a run folder is there and up to date."""
    summary = summarize(run)
    there = all((run / name).is_file() for name in ("report.html", "report.md", "summary.csv"))
    return _table(summary) if there and files.read_text(run / "summary.csv") == to_csv(summary) else None


def _table(summary: Summary) -> list[str]:
    lines = markdown.terminal(document.verdict_table(summary)) if summary.lines else []
    return [*lines, *(f"WARNING: {text}" for text in summary.alarms)]
