"""Run a study: skip finished trials, reuse those of other studies, train the rest."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segkit import files, plugins
from segkit.data.cache import CACHE, DataCache, Progress, silent
from segkit.errors import UserError
from segkit.leases import Leases, Owner
from segkit.recipe.merge import compose
from segkit.recipe.model import Recipe, validate
from segkit.recipe.variants import folder_name
from segkit.study import folders, hardware, places
from segkit.study.executor import Local
from segkit.study.folders import Existing
from segkit.study.plan import WHOLE, plan_trials, study_size
from segkit.study.queue import Options, Queue
from segkit.study.sharing import LEASES, study_key
from segkit.training.trial import Event, Limit, Trial


@dataclass
class Outcome:
    """How a study ended.

    Attributes:
        counts: the number of trials by how they ended.
        failures: the reason of each failed trial.
        unchanged: whether every trial was finished before, with the same recipe.
        table: the verdicts, as lines for a terminal.
    """

    title: str
    folder: Path | None
    counts: dict[str, int]
    failures: dict[str, str]
    interrupted: bool
    unchanged: bool
    table: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a trial failed."""
        return bool(self.failures)

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON values, for scripts."""
        folder, report = (str(self.folder), str(self.folder / "report.html")) if self.folder else (None, None)
        found = {"title": self.title, "folder": folder, "report": report, "interrupted": self.interrupted}
        return found | {"trials": self.counts, "failed": self.failures}

    def lines(self) -> list[str]:
        """Return the outcome as lines for a terminal."""
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        lines = [*self.table, f"trials: {counts or 'none'}"]
        lines += [f"failed: {trial}: {reason}" for trial, reason in self.failures.items()]
        if self.interrupted:
            lines.append("interrupted: the state is saved; the same command resumes from there")
        if self.folder and "elsewhere" in self.counts:
            lines.append(f"the report is written by who finishes last, or by `segkit report {self.folder}`")
        elif self.folder:
            lines.append(f"report: {self.folder / 'report.html'}")
        return lines


def plan_studies(
    recipes: Sequence[Path],
    overlays: Iterable[Path],
    sets: Iterable[str],
    out: Path,
    *,
    name: str | None = None,
    limit: Limit = WHOLE,
    cache: Path | None = None,
) -> list[StudyRun]:
    """Return a study for each recipe file, each file once.

    Raises:
        UserError: the mistakes of all recipes; two recipes with one run folder.
    """
    overlays, sets = list(overlays), list(sets)
    studies: dict[Path, StudyRun] = {}
    mistakes: list[str] = []
    for path in {os.path.realpath(path): path for path in recipes}.values():  # `resolve` raises for circular links
        try:
            document = compose(path, overlays=overlays, sets=sets)
            recipe = validate(document)
            suffix = f"-overfit-{limit.overfit}" if limit.overfit else ""
            folder = out / f"{folder_name(name or path.stem)}{suffix}"
            planned = plan_trials(recipe, document, folder, limit)
        except UserError as error:
            mistakes += [line for line in str(error).splitlines() if line not in mistakes]
            continue
        if folder in studies:
            mistakes.append(f"{path}: its run folder {folder} is also that of {studies[folder].path}. Use --name.")
        studies[folder] = StudyRun(path, recipe, planned, folder, limit, document.warnings, cache)
    if mistakes:
        raise UserError("\n".join(mistakes))
    return list(studies.values())


@dataclass
class StudyRun:
    """A study and its run folder.

    Attributes:
        path: the recipe file.
        planned: its trials.
        limit: how its trainings are shortened.
        warnings: about its recipe.
        cache: where its data are kept, decoded; None for `.cache` beside the run folder.
    """

    path: Path
    recipe: Recipe
    planned: list[Trial]
    folder: Path
    limit: Limit
    warnings: Sequence[str] = ()
    cache: Path | None = None
    _ends: dict[str, Event] = field(default_factory=dict)
    _same_recipe: bool = False  # as in the run folder
    _temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def title(self) -> str:
        """The title of the recipe, or its file name."""
        return self.recipe.title or self.path.stem

    def headline(self) -> str:
        """Return the title, size and folder of the study on one line."""
        target = "a dry run, nothing is kept" if self.limit.batches else str(self.folder)
        return f"{self.title}: {study_size(self.planned)} -> {target}"

    def execute(
        self,
        *,
        jobs: str | int = "auto",
        fresh: bool = False,
        fail_fast: bool = False,
        mix_hardware: bool = False,
        wait: bool = True,
        place: places.Place | None = None,
        progress: Progress = silent,
    ) -> Iterator[Event]:
        """Run every unfinished trial; yield the events of all trials.

        Args:
            jobs: trials side by side, or "auto".
            fresh: train trials again whose folders differ.
            fail_fast: stop at the first failed trial.
            mix_hardware: allow trials with different devices, precisions and numbers of threads.
            wait: wait for the trials that other processes work on, to go on with what they leave.
            place: where to train; by default this machine.
            progress: called while data are read, with the number of cases read, and of all.

        Raises:
            UserError: the run folder holds trials of another recipe (see `fresh`), or data or a device cannot be used.
        """
        if self.limit.batches:
            self._temporary = tempfile.TemporaryDirectory(prefix="segkit-dry-run-")
            self.folder = Path(self._temporary.name)
            self.planned = [replace(trial, run=self.folder) for trial in self.planned]
        files.make_folder(self.folder)
        options = Options(mix=mix_hardware, fresh=fresh, wait=wait)
        with self._leases() as leases:
            for found in self._alone(leases):
                yield Event("", "log", f"waiting for {found}, which begins this study or writes its report")
            place = place or Local()
            queue, at_a_time, cache = self._plan(leases, jobs, options, place, progress)
            self._ends = queue.ends
            yield from list(queue.ends.values())
            events = place.execute(
                queue,
                at_a_time=min(at_a_time, max(1, len(queue))),
                fail_fast=fail_fast,
                cache=cache,
                folders=plugins.folders(),
            )
            for event in events:
                queue.heed(event)
                if event.kind != "start":  # the settings of the study's hardware are on disk now, with its first trial
                    leases.release(study_key(self.folder))
                yield event
            for trial in self.planned:
                if trial.name not in self._ends:
                    self._ends[trial.name] = Event(trial.name, "interrupted", "not started")
                    yield self._ends[trial.name]

    def _leases(self) -> Leases:
        return Leases(self._beside / LEASES)

    @property
    def _beside(self) -> Path:
        """The folder of what studies share."""
        return self.folder if self.limit.batches else self.folder.parent

    def _alone(self, leases: Leases) -> Iterator[Owner]:
        """Wait until no other process begins the study or writes its report; yield each that does."""
        seen = None
        while isinstance(found := leases.acquire(study_key(self.folder)), Owner):
            if found != seen:
                yield found
            seen = found
            time.sleep(places.POLL)

    def _plan(
        self, leases: Leases, jobs: str | int, options: Options, place: places.Place, progress: Progress
    ) -> tuple[Queue, int, DataCache]:
        """Return what is to be done, how many trials at once, and the cache of the data."""
        files.remove_temporary_files(self.folder, self.folder / "figures")
        cache = DataCache(self.cache or self._beside / CACHE, progress)
        known = {} if options.fresh else hardware.recorded_settings(self.folder)
        self.recipe, self.planned, at_a_time = hardware.resolve_study(
            self.recipe, self.planned, known, jobs, place, cache, mix=options.mix
        )
        existing, fingerprints, mistakes = self._inspect(cache, options)
        unfinished = [found for found in existing if found.state != "finished"]
        reusable = self._find_reusable(unfinished)
        work = [found.trial.recipe for found in unfinished if found.trial.identity not in reusable]
        if work:
            hardware.check_devices(work, mistakes, place)
        self._write_recipe()  # after all checks: a refused study leaves no trace
        return Queue(existing, reusable, fingerprints, leases, options), at_a_time, cache

    def _inspect(self, cache: DataCache, options: Options) -> tuple[list[Existing], dict[str, str], list[str]]:
        """Return the state of each trial's folder, the fingerprints of the data, and their mistakes."""
        existing = [folders.inspect_folder(trial, mix=options.mix) for trial in self.planned]
        folders.refuse_conflicts([] if options.fresh else existing)
        self.planned = [found.trial for found in existing]
        recipes = [found.trial.recipe for found in existing if options.fresh or found.state != "finished"]
        fingerprints, mistakes = folders.fingerprint_data(recipes, cache)
        existing = [folders.with_data_checked(found, fingerprints) for found in existing]
        folders.refuse_conflicts([] if options.fresh else existing)
        return existing, fingerprints, mistakes

    def _find_reusable(self, unfinished: Sequence[Existing]) -> dict[str, Path]:
        """Return the folders of identical finished trials of other studies, by training identity."""
        untrained = [found for found in unfinished if found.state in ("new", "lost", "other")]
        wanted = {found.trial.identity: found.fingerprint for found in untrained}
        return {} if self.limit.overfit else folders.find_reusable(self.folder, wanted)

    def _write_recipe(self) -> None:
        path, text = self.folder / "recipe.toml", hardware.with_hardware_of(self.recipe, self.planned).to_toml()
        self._same_recipe = path.is_file() and files.read_text(path) == text
        if not self._same_recipe:
            files.write_text(path, text)

    @contextlib.contextmanager
    def reporting(self) -> Iterator[bool]:
        """Let no other process write the report within the block; yield whether one has written it after the trials."""
        with self._leases() as leases:
            for _ in self._alone(leases):
                pass
            report = self.folder / "report.html"
            trials = [path.stat().st_mtime_ns for path in self.folder.glob("*/*/trial.json")]
            yield report.is_file() and report.stat().st_mtime_ns > max(trials, default=0)

    def after_interrupt(self) -> str:
        """Return the message about an interruption outside of the trials."""
        if {self._end(trial).kind for trial in self.planned} <= {"finished", "skipped", "reused"}:
            return "every trial is finished; the same command writes the report"
        return "what was trained is saved; the same command resumes from there"

    def finish(self) -> Outcome:
        """Return the outcome of the study."""
        ends = [self._end(trial) for trial in self.planned]
        counts: dict[str, int] = dict(Counter(end.kind for end in ends))
        failures = {end.trial: end.text for end in ends if end.kind == "failed"}
        return Outcome(
            self.title,
            None if self.limit.batches or not self.folder.is_dir() else self.folder,
            counts,
            failures,
            interrupted="interrupted" in counts and not failures,
            unchanged=self._same_recipe and counts.keys() == {"skipped"},
        )

    def _end(self, trial: Trial) -> Event:
        return self._ends.get(trial.name, Event(trial.name, "interrupted"))

    def close(self) -> None:
        """Remove the files of a dry run."""
        if self._temporary:
            self._temporary.cleanup()
