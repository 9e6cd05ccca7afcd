"""Progress of a study: live bars in a terminal, one plain line an epoch elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segkit.training.events import Event

if TYPE_CHECKING:
    from segkit.study.runs import Outcome, StudyRun

ENDS = ("finished", "failed", "interrupted", "skipped", "reused")


@contextlib.contextmanager
def watching(study: StudyRun, *, quiet: bool) -> Iterator[Plain]:
    """Show a study's events: quiet, live or plain, whichever the output is made for."""
    if quiet:
        yield Plain(study, out=sys.stderr)
    elif sys.stdout.isatty():
        live = Live(study)
        with live.progress:
            yield live
    else:
        yield Plain(study)


class Plain:
    """One line an epoch, no carriage returns."""

    def __init__(self, study: StudyRun, out: Any = None) -> None:
        self.study, self.out = study, out or sys.stdout
        self.started: dict[str, float] = {}
        self.said: set[str] = set()
        self.write(study.headline())

    def write(self, text: str) -> None:
        """Write one line."""
        print(text, file=self.out, flush=True)

    def show(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "start":
            self.started[event.trial] = time.monotonic()
        elif event.kind == "log":
            if event.text not in self.said:  # every trial has the same device and data
                self.said.add(event.text)
                self.write(event.text)
        elif event.kind == "warning":
            self.write(f"[{event.trial}] WARNING: {event.text}")
        elif event.kind == "epoch":
            self.write(f"[{event.trial}] {epoch_line(event.values)} {self.left(event)}")
        elif event.kind in ENDS:
            self.write(f"[{event.trial}] {event.kind}{': ' + event.text if event.text else ''}")

    def left(self, event: Event) -> str:
        """Return the time that the trial still needs, as far as its epochs tell."""
        done, total = event.values["epochs_now"], event.values["epochs"] - event.values["epoch"]
        passed = time.monotonic() - self.started.get(event.trial, time.monotonic())
        return f"{clock(passed / max(done, 1) * total)} left"

    def conclude(self, outcome: Outcome) -> None:
        """Say how the study ended and where its report is."""
        for line in outcome.lines():
            self.write(line)


class Live(Plain):
    """Bars of the whole study and of every trial under way; lines that matter scroll by above them."""

    def __init__(self, study: StudyRun) -> None:
        self.console = Console(highlight=False, markup=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            refresh_per_second=4,
            transient=True,
        )
        self.bars: dict[str, TaskID] = {}
        self.fraction: dict[str, float] = {}
        super().__init__(study)
        self.whole = self.progress.add_task("study", total=max(study.to_train, 1), note=f"0/{study.to_train} trials")

    def write(self, text: str) -> None:
        """Write one line above the bars."""
        self.console.print(text)

    def show(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "step":
            self._advance(event.trial, event.values["fraction"], None)
        elif event.kind == "epoch":
            fraction = event.values["epoch"] / event.values["epochs"]
            self._advance(event.trial, fraction, epoch_line(event.values))
        else:
            super().show(event)
            if event.kind == "start":
                self.bars[event.trial] = self.progress.add_task(event.trial, total=1.0, note="")
            elif event.kind in ENDS and event.trial in self.bars:
                self.progress.remove_task(self.bars.pop(event.trial))
                self._advance(event.trial, 1.0, None)

    def _advance(self, trial: str, fraction: float, note: str | None) -> None:
        self.fraction[trial] = max(fraction, self.fraction.get(trial, 0.0))
        if trial in self.bars:
            self.progress.update(self.bars[trial], completed=fraction)
            if note is not None:
                self.progress.update(self.bars[trial], note=note)
        done = sum(self.fraction.values())
        ended = sum(1 for value in self.fraction.values() if value >= 1 - 1e-9)
        note = f"{ended}/{self.study.to_train} trials"
        self.progress.update(self.whole, completed=done, note=note)


def epoch_line(values: dict[str, Any]) -> str:
    """Return an epoch's numbers on one line."""
    shown = [f"epoch {values['epoch']}/{values['epochs']}"]
    for name in ("train_loss", "val_loss", "val_dice"):
        if name in values and not math.isnan(values[name]):
            shown.append(f"{name} {values[name]:.4f}")
    shown.append(f"{values['images_per_second']:.1f} images/s")
    return " ".join(shown)


def clock(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
