"""Progress of a study: live bars in a terminal, one line per epoch elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from segkit.cli import echo
from segkit.errors import counted, printable
from segkit.report.style import elide_middle
from segkit.study.runs import Outcome, StudyRun
from segkit.training.trial import ENDS, Event

NAME_SHARE, BAR, CLOCK, CONTEXT = 0.42, 10, 7, 4
READING, READING_SECONDS = "reading data", 5.0


@contextlib.contextmanager
def show_progress(study: StudyRun, *, quiet: bool) -> Iterator[LineProgress]:
    """Show a study's events as live bars in a terminal, else as lines; if `quiet`, as lines on standard error."""
    if not quiet and sys.stdout.isatty():
        live = LiveProgress(study)
        with live.progress:
            yield live
    else:
        yield LineProgress(study, err=quiet)


class LineProgress:
    """One line per epoch, no carriage returns."""

    def __init__(self, study: StudyRun, *, err: bool = False) -> None:
        self.study, self.err = study, err
        self.started: dict[str, float] = {}
        self.logged: set[str] = set()
        self.reading_since = self.said = 0.0
        self.write(study.headline())

    def write(self, text: str) -> None:
        """Write one line."""
        echo(text, err=self.err)

    def show(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "start":
            self.started[event.trial] = time.monotonic()
        elif event.kind == "log":
            if event.text not in self.logged:  # every trial has the same device and data
                self.logged.add(event.text)
                self.write(event.text)
        elif event.kind == "warning":
            self.write(f"[{event.trial}] WARNING: {event.text}")
        elif event.kind == "epoch":
            self.write(f"[{event.trial}] {epoch_line(event.values)} {self.left(event)}")
        elif event.kind in (*ENDS, "lost"):
            self.write(f"[{event.trial}] {event.kind}{': ' + event.text if event.text else ''}")

    def read(self, done: int, total: int) -> None:
        """Show how many cases of a data set have been read, or its slices transformed, if it takes long."""
        now = time.monotonic()
        if done == 1:
            self.reading_since = self.said = now
        elif now - self.said > READING_SECONDS or (done == total and self.said > self.reading_since):
            self.said = now
            left = format_duration((now - self.reading_since) / done * (total - done))
            self.write(f"reading data: {done:,} of {total:,}, {left} left")

    def left(self, event: Event) -> str:
        """Return the estimated time left of a trial."""
        done, total = event.values["epochs_now"], event.values["epochs"] - event.values["epoch"]
        passed = time.monotonic() - self.started.get(event.trial, time.monotonic())
        return f"{format_duration(passed / max(done, 1) * total)} left"

    def conclude(self, outcome: Outcome) -> None:
        """Write the outcome of the study."""
        for line in outcome.lines():
            self.write(line)


class LiveProgress(LineProgress):
    """Bars of the study and of every running trial; lines scroll by above them."""

    def __init__(self, study: StudyRun) -> None:
        self.console = Console(highlight=False, markup=False, soft_wrap=True)
        columns = _Shown(self._name), BarColumn(BAR), _Shown(self._numbers), TimeRemainingColumn(compact=True)
        self.progress = Progress(*columns, console=self.console, refresh_per_second=4, transient=True)
        self.bars: dict[str, TaskID] = {}
        self.fraction: dict[str, float] = {}
        super().__init__(study)
        self.whole = self.progress.add_task("study", total=max(len(study.planned), 1), parts=self._ended())

    def write(self, text: str) -> None:
        self.console.print(printable(text))

    def read(self, done: int, total: int) -> None:
        if done == 1:
            self.bars[READING] = self.progress.add_task(READING, total=total, parts=[])
        self.progress.update(self.bars[READING], completed=done, parts=[f"{done:,}/{total:,}"])
        if done == total:
            self.progress.remove_task(self.bars.pop(READING))

    def show(self, event: Event) -> None:
        if event.kind == "step":
            self._advance(event.trial, event.values["fraction"])
        elif event.kind == "epoch":
            fraction = event.values["epoch"] / event.values["epochs"]
            self._advance(event.trial, fraction, epoch_parts(event.values))
        else:
            super().show(event)
            if event.kind == "start":
                self.bars[event.trial] = self.progress.add_task(event.trial, total=1.0, parts=[])
            elif event.kind in (*ENDS, "lost") and event.trial in self.bars:
                self.progress.remove_task(self.bars.pop(event.trial))
                if event.kind != "lost":
                    self._advance(event.trial, 1.0)

    def _name(self, task: Task) -> str:
        names = distinct_names(list(self.bars), int(NAME_SHARE * self.console.width))
        return printable(names.get(task.description, task.description))

    def _numbers(self, task: Task) -> str:
        """Return the numbers of the last epoch, as many as fit."""
        room = self.console.width - int(NAME_SHARE * self.console.width) - BAR - CLOCK - 3
        shown = ""
        for part in task.fields["parts"]:
            longer = f"{shown} {part}".lstrip()
            if shown and len(longer) > room:
                break
            shown = longer
        return shown

    def _ended(self) -> list[str]:
        ended = sum(value >= 1 - 1e-9 for value in self.fraction.values())
        return [f"{ended}/{counted(len(self.study.planned), 'trial')}"]

    def _advance(self, trial: str, fraction: float, parts: Sequence[str] = ()) -> None:
        self.fraction[trial] = max(fraction, self.fraction.get(trial, 0.0))
        if trial in self.bars:
            self.progress.update(self.bars[trial], completed=fraction)
            if parts:
                self.progress.update(self.bars[trial], parts=parts)
        self.progress.update(self.whole, completed=sum(self.fraction.values()), parts=self._ended())


class _Shown(ProgressColumn):
    """A text that fits the terminal's current width, cut at its end if need be."""

    def __init__(self, text: Callable[[Task], str]) -> None:
        self.text = text
        super().__init__(Column(no_wrap=True, overflow="ellipsis"))

    def render(self, task: Task) -> Text:
        return Text(self.text(task))


def distinct_names(trials: Sequence[str], width: int) -> dict[str, str]:
    """Return names of trials that fit in `width` columns: the middle of the variant is left out, never the seed.

    If names are equal then, the common beginning of their variants is left out; if they still are, they are numbered.
    """
    shown = {trial: _fitted(trial, width) for trial in trials}
    twins = [trial for trial in trials if list(shown.values()).count(shown[trial]) > 1]
    letters = enumerate(zip(*(trial.rpartition("/")[0] for trial in twins), strict=False))
    start = next((place for place, found in letters if len(set(found)) > 1), 0) - CONTEXT
    shown |= {trial: _fitted(f"…{trial[start:]}" if start > 0 else trial, width) for trial in twins}
    twins = [trial for trial in trials if list(shown.values()).count(shown[trial]) > 1]
    return shown | {
        trial: f"{number} {_fitted(trial, width - len(str(len(twins))) - 1)}" for number, trial in enumerate(twins, 1)
    }


def _fitted(trial: str, width: int) -> str:
    """Return a trial's name in at most `width` terminal cells."""
    variant, slash, seed = trial.rpartition("/")
    for length in range(max(width, 3), 2, -1):
        shown = f"{elide_middle(variant, max(3, length - len(slash + seed)))}{slash}{seed}"
        if cell_len(shown) <= width:
            return shown
    return elide_middle(trial, max(width, 3))


def epoch_line(values: dict[str, Any]) -> str:
    """Return the numbers of an epoch on one line."""
    return " ".join(["epoch", *epoch_parts(values, ("train_loss", "val_loss", "val_dice"))])


def epoch_parts(values: dict[str, Any], names: Sequence[str] = ("val_dice", "train_loss", "val_loss")) -> list[str]:
    """Return the available numbers of an epoch as texts."""
    shown = [f"{name} {values[name]:.4f}" for name in names if name in values and not math.isnan(values[name])]
    return [f"{values['epoch']}/{values['epochs']}", *shown, f"{values['images_per_second']:.1f} images/s"]


def format_duration(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
