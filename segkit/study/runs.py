"""Run a study: skip finished trials, reuse those of other studies, train the rest."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segkit import files, plugins
from segkit.data.cache import CACHE, DataCache, Progress, silent
from segkit.errors import UserError
from segkit.locks import locked
from segkit.recipe.merge import compose
from segkit.recipe.model import Recipe, validate
from segkit.recipe.variants import folder_name
from segkit.study import executor, folders, hardware
from segkit.study.folders import Existing
from segkit.study.plan import WHOLE, plan_trials, study_size
from segkit.training.status import Status
from segkit.training.trial import Event, Limit, Trial

ENDS = ("finished", "failed", "interrupted", "skipped", "reused")  # the kinds of a trial's last event


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
        if self.folder:
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
        progress: Progress = silent,
    ) -> Iterator[Event]:
        """Run every unfinished trial; yield the events of all trials.

        Args:
            jobs: trials side by side, or "auto".
            fresh: train trials again whose folders differ.
            fail_fast: stop at the first failed trial.
            mix_hardware: allow trials with different devices, precisions and numbers of threads.
            progress: called while data are read, with the number of cases read, and of all.

        Raises:
            UserError: the run folder is in use, or holds trials of another recipe (see `fresh`).
        """
        if self.limit.batches:
            self._temporary = tempfile.TemporaryDirectory(prefix="segkit-dry-run-")
            self.folder = Path(self._temporary.name)
            self.planned = [replace(trial, run=self.folder) for trial in self.planned]
        files.make_folder(self.folder)
        with locked(self.folder):
            self._remove_leftovers()
            for event in self._run(jobs, fresh, fail_fast, mix_hardware, progress):
                if event.kind in ENDS:
                    self._ends[event.trial] = event
                yield event

    def _remove_leftovers(self) -> None:
        """Remove what processes that died while writing have left."""
        for copy in self.folder.glob("*/.copy-*"):
            shutil.rmtree(copy, ignore_errors=True)
        for folder in (self.folder, self.folder / "figures", *(p.parent for p in self.folder.glob("*/*/trial.json"))):
            files.remove_temporary_files(folder)

    def _run(self, jobs: str | int, fresh: bool, fail_fast: bool, mix: bool, progress: Progress) -> Iterator[Event]:
        beside = self.folder if self.limit.batches else self.folder.parent
        cache = DataCache(self.cache or beside / CACHE, progress)
        known = {} if fresh else hardware.recorded_settings(self.folder)
        self.recipe, self.planned, side_by_side = hardware.resolve_study(
            self.recipe, self.planned, known, jobs, mix=mix
        )
        existing, mistakes = self._inspect(cache, fresh=fresh, mix=mix)
        unfinished = [found for found in existing if found.state != "finished"]
        reusable = self._find_reusable(unfinished)
        first = {found.trial.identity: found.trial for found in reversed(unfinished)}
        copied = [found.trial for found in unfinished if found.trial.identity in reusable]
        own = [found for found in unfinished if found.trial.identity not in reusable]
        duplicates = [found.trial for found in own if first[found.trial.identity] is not found.trial]
        work = [found for found in own if first[found.trial.identity] is found.trial]
        if work:
            hardware.check_devices([found.trial.recipe for found in work], mistakes)
        self._write_recipe()  # after all checks: a refused study leaves no trace
        for found in existing:
            if found.state == "finished":
                yield Event(found.trial.name, "skipped", "already finished")
            elif found.reason and found in work and found.state != "other":
                yield Event(found.trial.name, "log", f"[{found.trial.name}] {found.reason}")
        cleared = ("failed", "lost", "other") if fresh else ("lost",)
        queue = [replace(found.trial, fresh=found.state in cleared) for found in work]
        for trial in copied:
            yield from self._copy(trial, reusable[trial.identity], queue)
        execute = functools.partial(
            executor.execute, side_by_side=side_by_side, fail_fast=fail_fast, cache=cache, folders=plugins.folders()
        )
        yield from execute(queue)
        queue = []
        for trial in duplicates:
            original = first[trial.identity]
            end = self._end(original)
            if end.kind in ("finished", "reused"):
                yield from self._copy(trial, original.path, queue)
            else:
                yield Event(trial.name, end.kind, f"as the identical trial {original.folder}")
        if not any(end.kind == "interrupted" for end in self._ends.values()):
            yield from execute(queue)

    def _inspect(self, cache: DataCache, *, fresh: bool, mix: bool) -> tuple[list[Existing], list[str]]:
        """Return the state of each trial's folder, and the mistakes of the data."""
        existing = [folders.inspect_folder(trial, mix=mix) for trial in self.planned]
        folders.refuse_conflicts([] if fresh else existing)
        self.planned = [found.trial for found in existing]
        recipes = [found.trial.recipe for found in existing if fresh or found.state != "finished"]
        fingerprints, mistakes = folders.fingerprint_data(recipes, cache)
        existing = [folders.with_data_checked(found, fingerprints) for found in existing]
        folders.refuse_conflicts([] if fresh else existing)
        return existing, mistakes

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

    def _copy(self, trial: Trial, source: Path, queue: list[Trial]) -> Iterator[Event]:
        """Copy a finished trial of the same identity, atomically; add it to the queue if its metrics differ."""
        target = trial.path
        files.make_folder(target.parent)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".copy-") as name:
            copy = Path(name) / "trial"
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.lock", ".lock", ".*"))
            status = Status.read(copy).model_copy(update={"variant": trial.variant, "reused_from": str(source)})
            status.write(copy / "trial.json")
            if target.exists():
                shutil.rmtree(target)
            copy.replace(target)
        text = f"the same trial was trained as {source}"
        if folders.stored_identities(target, status)[1] == trial.evaluation:
            yield Event(trial.name, "reused", text)
        else:
            yield Event(trial.name, "log", f"[{trial.name}] {text}; evaluated again by its own recipe")
            queue.append(trial)

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
