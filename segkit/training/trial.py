"""One trial from its recipe to its files: what the training loop's caller does."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from segkit import files, plugins
from segkit.device import process_state
from segkit.errors import UserError
from segkit.evaluation.evaluator import HEADER, Row, cells, means
from segkit.recipe.identity import training_identity
from segkit.recipe.model import Recipe
from segkit.registry.faults import ComponentError, blame, described
from segkit.training import guards
from segkit.training.assembly import assemble
from segkit.training.events import Event, Job
from segkit.training.loop import Report, train
from segkit.training.record import Record, outline
from segkit.training.resume import restore, save_best, save_last
from segkit.training.tracing import Generators

FLUSH_SECONDS = 0.5


def run_trial(job: Job, *, stop: Callable[[], bool]) -> Iterator[Event]:
    """Train, evaluate and save one trial; yield what happens. Nothing is raised but programming errors of segkit.

    The folder ends with metrics.csv, cases.csv, best and last checkpoints, overlays, recipe.toml and trial.json; an
    interrupted or failed trial goes on from its last save when it is run again.

    Args:
        job: the trial.
        stop: asked after every step; once true, the state is saved and the trial ends as "interrupted".
    """
    threads = job.recipe["train"]["threads"]
    with process_state(threads if isinstance(threads, int) else 1):
        yield from _run(job, stop)


def _run(job: Job, stop: Callable[[], bool]) -> Iterator[Event]:
    name, folder = str(job.folder), job.run / job.folder
    record: Record | None = None
    dry = job.limit.batches is not None  # its folder goes with it
    yield Event(name, "start")
    try:
        if job.fresh:
            _clear(folder)
        files.make_folder(folder)
        plugins.load(job.plugins)
        recipe = Recipe.from_dict(job.recipe, f"{folder / 'recipe.toml'}")
        if training_identity(recipe) != job.identity:
            raise UserError("the source of a plugin that it uses has changed since this command began: run it again.")
        _note(job, "running")
        files.write_text(folder / "recipe.toml", recipe.to_toml())  # after the status, whose identity is of this one
        parts = assemble(recipe, job.limit)
        record = Record(job, recipe, parts)
        yield from (Event(name, "log", line) for line in parts.log)
        told = restore(record)
        if told:
            yield Event(name, "log", f"[{name}] {told}")
        yield from (record.warn(name, text) for text in parts.warnings)
        try:
            yield from _train(record, name, stop)
        finally:
            parts.close()
    except guards.NonFiniteError as error:
        where = f" The batch is in {record.save_batch(error)}." if record and not dry else ""
        yield failed(job, f"{error}{where}", record)
    except torch.OutOfMemoryError:
        assert record is not None, "memory ran out before anything was built"
        yield failed(job, record.out_of_memory(), record)
    except ComponentError as error:
        kept = ""
        if error.__cause__ is not None and not dry:
            with contextlib.suppress(UserError):
                files.write_text(folder / "error.txt", traceback.format_exc())
                kept = f" The traceback is in {folder / 'error.txt'}."
        yield failed(job, f"{error}{kept}", record)
    except (UserError, OSError) as error:
        yield failed(job, str(error), record)
    except Exception as error:
        text = described(error)
        with contextlib.suppress(UserError):
            files.write_text(folder / "error.txt", traceback.format_exc())
            text += "" if dry else f" (traceback in {folder / 'error.txt'})"
        yield failed(job, text, record)
    except GeneratorExit:
        raise
    except KeyboardInterrupt:  # a second Ctrl-C, which waits for no save
        with contextlib.suppress(UserError, OSError):
            _tell(job, "interrupted", None, record)
        raise
    except BaseException as error:  # sys.exit, or an author's own that is no Exception
        yield failed(job, f"a component ended the process: {_where(error)}{described(error)}", record)


def _where(error: BaseException) -> str:
    """Return "file:line: " of where an exception was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""


def _clear(folder: Path) -> None:
    """Remove a trial; its status first, so that a half-removed one counts as not there."""
    (folder / "trial.json").unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def _note(job: Job, status: str, error: str | None = None) -> None:
    """Write the status of a trial of which nothing is built; what is known of an earlier part of it stays."""
    path = job.run / job.folder / "trial.json"
    told = outline(job, status, error)
    try:
        known = files.read_json(path)
        told |= {name: value for name, value in known.items() if name not in told or name == "epochs_done"}
    except (UserError, AttributeError):
        pass  # none, or a damaged one
    files.write_text(path, json.dumps(told, indent=1))


def _tell(job: Job, status: str, error: str | None, record: Record | None) -> None:
    """Write the status of a trial, of which something may be built."""
    if record is not None:
        record.write_status(status, error=error)
    else:
        _note(job, status, error)


def failed(job: Job, text: str, record: Record | None = None) -> Event:
    """Note that a trial failed, and return the event that says so."""
    try:
        _tell(job, "failed", text, record)
    except (UserError, OSError) as error:
        if not text.startswith(str(error)):  # as it does of a folder that is gone
            text = f"{text} (and its state could not be written: {error})"
    return Event(str(job.folder), "failed", text)


def _train(record: Record, name: str, stop: Callable[[], bool]) -> Iterator[Event]:
    """Train from where the record stands, then evaluate the best checkpoint."""
    recipe, parts = record.recipe, record.parts
    settings, state = recipe.train, parts.state
    every = settings.save_every
    epochs = 1 if record.job.limit.batches else settings.epochs
    told = time.monotonic()
    steps_due = [state.step]

    def pause(step: int) -> bool:
        if stop():
            return True
        if every.steps and step - steps_due[0] >= every.steps:
            return True
        return time.monotonic() - told > FLUSH_SECONDS

    record.write_status("running")
    if state.epoch <= epochs:
        loop = train(
            state,
            parts.feed,
            parts.device,
            epochs=epochs,
            accumulate=settings.accumulate,
            clip_norm=settings.clip_norm,
            pause=pause,
            forward=parts.forward,
        )
        epoch_start, done = time.perf_counter(), 0
        for report in loop:
            if not report.complete:
                fraction = (report.epoch - 1 + state.batch / parts.feed.steps_per_epoch) / epochs
                yield Event(name, "step", values={"fraction": fraction})
                told = time.monotonic()
            else:
                done += 1
                yield from _end_of_epoch(record, name, report, epoch_start, epochs, done)
                epoch_start = time.perf_counter()
            due = every.steps is not None and state.step - steps_due[0] >= every.steps
            due = due or (report.complete and every.epochs is not None and report.epoch % every.epochs == 0)
            last = report.complete and report.epoch == epochs
            if due or last or stop():
                save_last(record)
                steps_due[0] = state.step
            if stop() and not last:
                record.write_status("interrupted")
                yield Event(name, "interrupted", f"in epoch {report.epoch}, after step {report.step}: saved")
                return
    yield from _finish(record, name)


def _end_of_epoch(record: Record, name: str, report: Report, started: float, epochs: int, done: int) -> Iterator[Event]:
    """Validate, step an epoch-wise schedule, keep the best, write the epoch's row."""
    parts = record.parts
    state = parts.state
    if report.epoch == 1:
        warning = guards.dominant_term(state.first_batch)
        for text in (*state.objective.doubts, *state.moves.doubts, *([warning] if warning else [])):
            yield record.warn(name, text)
    generators = Generators()
    rows, val_loss = parts.evaluator.run(state.model, parts.epoch_metrics, state.objective.loss)
    if not math.isfinite(val_loss):
        raise UserError(guards.exploded(state, report.epoch, val_loss))
    try:
        state.schedule.step_epoch(val_loss)
    except BaseException as error:
        blame([state.parts["scheduler"]] if "scheduler" in state.parts else [], error)
    found = means(rows)
    if report.epoch == 1:
        for text in generators.doubts(*parts.epoch_metrics):
            yield record.warn(name, text)
    if report.epoch == epochs and state.moves.idle and not any(row["lr"] for row in record.history):
        yield record.warn(name, "the learning rate was 0 in every step, so that nothing was learned: see scheduler.")
    for warning in (guards.no_foreground(rows), guards.collapsed(rows) if report.epoch == epochs else None):
        if warning and warning not in record.warnings:
            yield record.warn(name, warning)
    row: dict[str, Any] = {
        "epoch": report.epoch,
        "step": report.step,
        "lr": report.learning_rate,
        "train_loss": report.losses["train_loss"],
        "val_loss": val_loss,
        **{key: value for key, value in report.losses.items() if key != "train_loss"},
        **{f"val_{key}": value for key, value in found.items()},
        "seconds": round(time.perf_counter() - started, 3),
        "images_per_second": round(report.images_per_second, 2),
    }
    record.history.append(row)
    score = _score(found, val_loss)
    if record.best is None or score > record.best[0]:
        record.best = (score, report.epoch)
        save_best(record)
    record.write_metrics()
    yield Event(name, "epoch", values={**row, "epochs": epochs, "epochs_now": done})


def _score(found: dict[str, float], val_loss: float) -> float:
    """Return what the best checkpoint has most of: mean Dice, or where that is undefined the negative loss."""
    dice = found["dice"]
    score = dice if not math.isnan(dice) else -val_loss
    return score if not math.isnan(score) else -math.inf


def _finish(record: Record, name: str) -> Iterator[Event]:
    """Evaluate the best checkpoint on the validation cases and write the rows and overlays."""
    rows = record.evaluate_best()
    warning = guards.collapsed(rows)
    if warning and warning not in record.warnings:
        yield record.warn(name, warning)
    write_cases(record.folder / "cases.csv", rows)
    record.write_metrics()
    record.write_status("finished")
    found = means(rows)
    shown = ", ".join(f"{key} {value:.4f}" for key, value in found.items())
    best = record.best[1] if record.best else 0
    yield Event(name, "finished", f"best epoch {best}: {shown}", values=found)


def write_cases(path: Path, rows: list[Row]) -> None:
    """Write `cases.csv`: one row a case, channel and metric."""
    files.write_csv(path, HEADER, [cells(row) for row in rows])
