"""A study on disk: what is finished, what another study already trained, what is left to train."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segkit import files, plugins
from segkit.errors import UserError
from segkit.identity import in_the_way
from segkit.recipe import Recipe, compose, validate
from segkit.study import executor, inputs
from segkit.study.folders import changed_keys, finished_elsewhere, read_status
from segkit.study.plan import Trial, size_of, trials
from segkit.training.events import Event, Job, Limit
from segkit.variants import slug

WHOLE = Limit()


@dataclass
class Outcome:
    """How a study ended."""

    title: str
    folder: Path | None
    counts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
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
            lines.append("interrupted: the state is saved; the same command goes on from there")
        if self.folder:
            lines.append(f"report: {self.folder / 'report.html'}")
        return lines


def plan(
    recipes: Sequence[Path],
    overlays: Iterable[Path],
    sets: Iterable[str],
    out: Path,
    *,
    name: str | None = None,
    limit: Limit = WHOLE,
) -> tuple[list[StudyRun], list[Path]]:
    """Return the studies of the recipes, and the files that are overlays and no recipes.

    Raises:
        UserError: the mistakes of all recipes; two recipes with one run folder.
    """
    overlays, sets = list(overlays), list(sets)
    studies: dict[Path, StudyRun] = {}
    skipped: list[Path] = []
    mistakes: list[str] = []
    waiting = list(recipes)
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop(0)
        real = Path(os.path.realpath(path))  # `resolve` raises where links go in a circle
        if real in seen:
            continue
        seen.add(real)
        try:
            document = compose(path, overlays=overlays, sets=sets)
            recipe = validate(document)
            if recipe.overlay:
                skipped.append(path)
                continue
            if recipe.studies:
                waiting.extend(path.parent / other for other in recipe.studies)
                continue
            planned = trials(recipe, document)
        except UserError as error:
            mistakes += [line for line in str(error).splitlines() if line not in mistakes]
            continue
        suffix = f"-overfit-{limit.overfit}" if limit.overfit else ""
        folder = out / f"{slug(name or path.stem)}{suffix}"
        if folder in studies:
            mistakes.append(f"{path}: its run folder {folder} is also that of {studies[folder].path}. Use --name.")
        studies[folder] = StudyRun(path, recipe, planned, folder, limit, tuple(document.warnings))
    if mistakes:
        raise UserError("\n".join(mistakes))
    return list(studies.values()), skipped


@dataclass
class StudyRun:
    """A study and its run folder.

    Attributes:
        path: the recipe file.
        planned: all its trials.
        folder: the run folder.
        limit: a training cut short on purpose.
        warnings: what its recipe says, but seldom means.
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
        return f"{self.title}: {size_of(self.planned)} -> {where}"

    def execute(self, *, jobs: str | int = "auto", fresh: bool = False, fail_fast: bool = False) -> Iterator[Event]:
        """Do what is missing; yield the events of every trial.

        Raises:
            UserError: the run folder is in use, or holds trials of another recipe (see `fresh`).
        """
        if self.limit.batches:
            self._temporary = tempfile.TemporaryDirectory(prefix="segkit-dry-run-")
            self.folder = Path(self._temporary.name)
        files.make_folder(self.folder)
        with files.Lock(self.folder):
            self._sweep()
            for event in self._run(jobs, fresh, fail_fast):
                if event.kind in ("finished", "failed", "interrupted", "skipped", "reused"):
                    self._ends[event.trial] = event
                yield event

    def _sweep(self) -> None:
        for copy in self.folder.glob("*/.copy-*"):
            shutil.rmtree(copy, ignore_errors=True)
        for trial in self.folder.glob("*/*/trial.json"):
            files.sweep(trial.parent)

    def _write_recipe(self) -> None:
        path, text = self.folder / "recipe.toml", self.recipe.to_toml()
        self._same = path.is_file() and files.read_text(path) == text
        if not self._same:
            files.write_text(path, text)

    def _run(self, jobs: str | int, fresh: bool, fail_fast: bool) -> Iterator[Event]:
        looked = [(trial, *self._look(trial)) for trial in self.planned]
        refused = [why for _, state, why in looked if state == "other" and not fresh]
        if refused:
            raise UserError("\n".join(refused))
        index = {} if self.limit.overfit else finished_elsewhere(self.folder)
        missing = [trial for trial, state, _ in looked if state != "finished" and trial.identity not in index]
        anew = [trial for trial, state, _ in looked if fresh and state in ("other", "failed")]
        first = {trial.identity: trial for trial in reversed(missing)}
        unique = [trial for trial in missing if first[trial.identity] is trial]
        device = _device_type(unique[0].recipe) if unique else "cpu"
        side_by_side, threads = executor.choose_jobs(jobs, len({trial.identity for trial in self.planned}), device)
        if unique:
            inputs.check([trial.recipe for trial in unique], keep=side_by_side == 1)
        self._write_recipe()  # what was refused leaves no trace
        for trial, state, _ in looked:
            if state == "finished":
                yield Event(str(trial.folder), "skipped", "already finished")
            elif trial.identity in index:
                yield self._reuse(trial, index[trial.identity])
        if unique:
            work = [self._job(trial, threads, fresh=trial in anew) for trial in unique]
            yield from executor.execute(work, side_by_side=side_by_side, fail_fast=fail_fast)
        for trial in missing:
            twin = first[trial.identity]
            if twin is not trial:
                yield self._twin(trial, twin)

    def _twin(self, trial: Trial, twin: Trial) -> Event:
        """Give a trial the result of an identical one of this study."""
        end = self._ends.get(str(twin.folder))
        if end and end.kind == "finished":
            return self._reuse(trial, self.folder / twin.folder)
        return Event(str(trial.folder), end.kind if end else "interrupted", f"as its twin {twin.folder}")

    def _job(self, trial: Trial, threads: int, *, fresh: bool) -> Job:
        return Job(
            recipe=trial.recipe.dump(),
            run=self.folder,
            folder=trial.folder,
            variant=trial.variant,
            seed=trial.seed,
            fold=trial.fold,
            identity=trial.identity,
            plugins=tuple(plugins.folders()),
            threads=threads,
            limit=self.limit,
            fresh=fresh,
        )

    def _look(self, trial: Trial) -> tuple[Literal["finished", "failed", "open", "other"], str]:
        """Return whether a trial is finished, failed, to be gone on with, or its folder holds another; and why."""
        folder = self.folder / trial.folder
        found = read_status(folder)
        if found is None:
            return "open", ""
        if found.get("identity") == trial.identity:
            status = found.get("status")
            return ("finished" if status == "finished" else "failed" if status == "failed" else "open"), ""
        changed = changed_keys(folder, trial.recipe)
        done = found.get("epochs_done")
        fewer = isinstance(done, int) and trial.recipe.train.epochs < done
        if changed and not in_the_way(changed) and not fewer:
            return "open", ""
        what = "; ".join(f"{key} {text}" for key, text in changed.items())
        return "other", (
            f"{folder}: holds another trial: {what or 'the source of a plugin it uses has changed'}. "
            "Use --fresh to train it anew, or --name for another run folder."
        )

    def _reuse(self, trial: Trial, source: Path) -> Event:
        """Copy a finished trial of the same identity, whole or not at all."""
        target = self.folder / trial.folder
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".copy-") as name:
            copy = Path(name) / "trial"
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.lock", ".lock", ".*"))
            status = files.read_json(copy / "trial.json")
            status |= {"variant": trial.variant, "reused_from": str(source)}
            files.write_text(copy / "trial.json", json.dumps(status, indent=1))
            if target.exists():
                shutil.rmtree(target)
            copy.replace(target)
        return Event(str(trial.folder), "reused", f"the same trial was trained as {source}")

    def finish(self) -> Outcome:
        """Write the report of what is on disk and say how the study ended."""
        from segkit.study.report import read_table, write_report

        outcome = Outcome(self.title, None if self.limit.batches else self.folder)
        for trial in self.planned:
            end = self._ends.get(str(trial.folder))
            kind = end.kind if end else "interrupted"
            outcome.counts[kind] = outcome.counts.get(kind, 0) + 1
            if end and kind == "failed":
                outcome.failures[str(trial.folder)] = end.text
        outcome.interrupted = bool(outcome.counts.get("interrupted")) and not outcome.failures
        try:
            nothing_new = self._same and set(outcome.counts) == {"skipped"}
            found = read_table(self.folder) if nothing_new else None
            outcome.table = write_report(self.folder) if found is None else found
        finally:
            if self._temporary:
                self._temporary.cleanup()
        return outcome


def _device_type(recipe: Recipe) -> str:
    from segkit.training.device import choose

    return choose(recipe.train.device, recipe.train.precision).device.type
