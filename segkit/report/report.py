"""Write the report of a run folder: summary.csv, report.md, report.html and figures/."""

from __future__ import annotations

from pathlib import Path

from segkit import files
from segkit.report import figures, render, tables
from segkit.study.summary import Summary, summarize, to_csv


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
    files.write_text(run / "report.md", render.markdown(summary, svgs))
    files.write_text(run / "report.html", render.html(summary, svgs))
    files.write_text(run / "summary.csv", to_csv(summary))  # last: it marks the others as up to date
    return _for_terminal(summary)


def read_table(run: Path) -> list[str] | None:
    """Return the verdict table, as lines for a terminal, if the report of a run folder exists and is up to date."""
    summary = summarize(run)
    there = all((run / name).is_file() for name in ("report.html", "report.md", "summary.csv"))
    return _for_terminal(summary) if there and files.read_text(run / "summary.csv") == to_csv(summary) else None


def _for_terminal(summary: Summary) -> list[str]:
    return [*(tables.for_terminal(summary) if summary.lines else []), *render.alarms(summary)]
