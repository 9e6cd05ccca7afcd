"""A study on disk: what is finished, what another study already trained, what is left to train."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segkit import files, plugins
from segkit.data.cache import DataCache
from segkit.errors import UserError
from segkit.locks import Lock
from segkit.recipe.merge import compose
from segkit.recipe.model import Recipe, validate
from segkit.recipe.variants import folder_name
from segkit.study import executor, hardware, inputs
from segkit.study.folders import find_reusable, inspect_folder, refuse_conflicts, stored_identities, with_data_checked
from segkit.study.plan import WHOLE, plan_trials, study_size
from segkit.training.events import Event
from segkit.training.status import Status
from segkit.training.trial import Limit, Trial


@dataclass
class Outcome:
    """How a study ended.

    Attributes:
        counts: how many trials ended in which way.
        failures: the reason of each trial that failed.
        unchanged: whether nothing was trained or evaluated, for the same recipe as before.
        table: the verdicts, as lines for a terminal.
    """

    title: str
    folder: Path | None
    counts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    unchanged: bool = False
    table: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a trial failed."""
        return bool(self.failures)

    def as_dict(self) -> dict[str, Any]:
        """Return what a script would read."""
        folder = str(self.folder) if self.folder else None
        report = str(self.folder / "report.html") if self.folder else None
        return {
            "title": self.title,
            "folder": folder,
            "report": report,
            "interrupted": self.interrupted,
            "failed": self.failures,
        } | self.counts

    def lines(self) -> list[str]:
        """Return what a person would read."""
        counted = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        lines = [*self.table, f"trials: {counted or 'none'}"]
        lines += [f"failed: {trial}: {why}" for trial, why in self.failures.items()]
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
) -> list[StudyRun]:
    """Return the studies of the recipes, each file once.

    Raises:
        UserError: the mistakes of all recipes; two recipes with one run folder.
    """
    overlays, sets = list(overlays), list(sets)
    studies: dict[Path, StudyRun] = {}
    mistakes: list[str] = []
    for path in {os.path.realpath(path): path for path in recipes}.values():  # `resolve` raises at links in a circle
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
        studies[folder] = StudyRun(path, recipe, planned, folder, limit, tuple(document.warnings))
    if mistakes:
        raise UserError("\n".join(mistakes))
    return list(studies.values())


@dataclass
class StudyRun:
    """A study and its run folder.

    Attributes:
        path: the recipe file.
        planned: all its trials.
        folder: the run folder.
        limit: a training cut short on purpose.
        warnings: about what is valid in its recipe, but seldom meant.
    """

    path: Path
    recipe: Recipe
    planned: list[Trial]
    folder: Path
    limit: Limit
    warnings: tuple[str, ...] = ()
    _ends: dict[str, Event] = field(default_factory=dict)
    _same: bool = False  # the run folder is of this very recipe
    _temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def title(self) -> str:
        """The study's question."""
        return self.recipe.title or self.path.stem

    @property
    def to_train(self) -> int:
        """How many trials it has."""
        return len(self.planned)

    def headline(self) -> str:
        """Return what is about to run, on one line."""
        where = "a dry run, nothing is kept" if self.limit.batches else str(self.folder)
        return f"{self.title}: {study_size(self.planned)} -> {where}"

    def execute(
        self, *, jobs: str | int = "auto", fresh: bool = False, fail_fast: bool = False, mix_hardware: bool = False
    ) -> Iterator[Event]:
        """Do what is missing; yield the events of every trial.

        Args:
            jobs: trials side by side, or "auto".
            fresh: train again what is there but differs.
            fail_fast: stop at the first failed trial.
            mix_hardware: let trials of other devices, precisions and numbers of threads stand side by side.

        Raises:
            UserError: the run folder is in use, or holds trials of another recipe (see `fresh`).
        """
        if self.limit.batches:
            self._temporary = tempfile.TemporaryDirectory(prefix="segkit-dry-run-")
            self.folder = Path(self._temporary.name)
            self.planned = [replace(trial, run=self.folder) for trial in self.planned]
        files.make_folder(self.folder)
        with Lock(self.folder):
            self._sweep()
            for event in self._run(jobs, fresh, fail_fast, mix_hardware):
                if event.kind in ("finished", "failed", "interrupted", "skipped", "reused"):
                    self._ends[event.trial] = event
                yield event

    def _sweep(self) -> None:
        for copy in self.folder.glob("*/.copy-*"):
            shutil.rmtree(copy, ignore_errors=True)
        for folder in (self.folder, self.folder / "figures", *(p.parent for p in self.folder.glob("*/*/trial.json"))):
            files.remove_temporary_files(folder)

    def _write_recipe(self) -> None:
        path, text = self.folder / "recipe.toml", hardware.with_hardware_of(self.recipe, self.planned).to_toml()
        self._same = path.is_file() and files.read_text(path) == text
        if not self._same:
            files.write_text(path, text)

    def _run(self, jobs: str | int, fresh: bool, fail_fast: bool, mix: bool) -> Iterator[Event]:
        data = DataCache()
        known = {} if fresh else hardware.recorded_settings(self.folder)
        self.recipe, self.planned, side_by_side = hardware.resolve_study(
            self.recipe, self.planned, known, jobs, mix=mix
        )
        looked = [inspect_folder(trial, mix=mix) for trial in self.planned]
        refuse_conflicts([] if fresh else looked)
        self.planned = [found.trial for found in looked]
        recipes = [found.trial.recipe for found in looked if fresh or found.state != "finished"]
        printed, mistakes = inputs.fingerprint_data(recipes, data)
        looked = [with_data_checked(found, printed.get(inputs.data_key(found.trial.recipe))) for found in looked]
        refuse_conflicts([] if fresh else looked)
        missing = [found for found in looked if found.state != "finished"]
        anew = [found.trial for found in missing if found.state in ("new", "lost", "other")]
        wanted = {trial.identity: printed.get(inputs.data_key(trial.recipe)) for trial in anew}
        index = {} if self.limit.overfit else find_reusable(self.folder, wanted)
        first = {found.trial.identity: found.trial for found in reversed(missing)}
        copied = [found.trial for found in missing if found.trial.identity in index]
        twins = [f.trial for f in missing if first[f.trial.identity] is not f.trial and f.trial not in copied]
        work = [found for found in missing if found.trial not in copied and found.trial not in twins]
        if work:
            inputs.check_inputs([found.trial.recipe for found in work], mistakes)
        self._write_recipe()  # what was refused leaves no trace
        for found in looked:
            if found.state == "finished":
                yield Event(found.trial.name, "skipped", "already finished")
            elif found.reason and found in work and found.state != "other":
                yield Event(found.trial.name, "log", f"[{found.trial.name}] {found.reason}")
        cleared = ("failed", "lost", "other") if fresh else ("lost",)
        left = [replace(found.trial, fresh=found.state in cleared) for found in work]
        for trial in copied:
            yield from self._reuse(trial, index[trial.identity], left)
        if side_by_side > 1:
            data.clear()  # each process reads its own
        execute = functools.partial(
            executor.execute, side_by_side=side_by_side, fail_fast=fail_fast, data=data, folders=plugins.folders()
        )
        yield from execute(left)
        again: list[Trial] = []
        for trial in twins:
            yield from self._twin(trial, first[trial.identity], again)
        if any(end.kind == "interrupted" for end in self._ends.values()):
            again = []
        yield from execute(again)

    def _twin(self, trial: Trial, twin: Trial, again: list[Trial]) -> Iterator[Event]:
        """Give a trial the result of an identical one of this study."""
        end = self._ends.get(twin.name)
        if end and end.kind in ("finished", "reused"):
            yield from self._reuse(trial, twin.path, again)
        else:
            yield Event(trial.name, end.kind if end else "interrupted", f"as the identical trial {twin.folder}")

    def _reuse(self, trial: Trial, source: Path, again: list[Trial]) -> Iterator[Event]:
        """Copy a finished trial of the same identity, whole or not at all; evaluate it again if its metrics differ."""
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
        if stored_identities(target, status)[1] == trial.evaluation:
            yield Event(trial.name, "reused", text)
        else:
            yield Event(trial.name, "log", f"[{trial.name}] {text}; evaluated again with its own metrics")
            again.append(trial)

    def after_interrupt(self) -> str:
        """Return what is left of the study where it was interrupted outside of its trials."""
        kinds = {end.kind for end in self._ends.values()}
        if len(self._ends) == len(self.planned) and kinds <= {"finished", "skipped", "reused"}:
            return "every trial is finished; the same command writes the report"
        return "what was trained is saved; the same command resumes from there"

    def finish(self) -> Outcome:
        """Return how the study ended."""
        outcome = Outcome(self.title, None if self.limit.batches or not self.folder.is_dir() else self.folder)
        for trial in self.planned:
            end = self._ends.get(trial.name)
            kind = end.kind if end else "interrupted"
            outcome.counts[kind] = outcome.counts.get(kind, 0) + 1
            if end and kind == "failed":
                outcome.failures[trial.name] = end.text
        outcome.interrupted = bool(outcome.counts.get("interrupted")) and not outcome.failures
        outcome.unchanged = self._same and set(outcome.counts) == {"skipped"}
        return outcome

    def close(self) -> None:
        """Remove what a dry run has made."""
        if self._temporary:
            self._temporary.cleanup()
