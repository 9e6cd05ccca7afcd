"""One trial from its recipe to its files: the caller of the training loop."""

from __future__ import annotations

import contextlib
import itertools
import math
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

from segkit import files
from segkit.data.cache import DataCache
from segkit.device import preserved_process_state
from segkit.errors import UserError, counted
from segkit.evaluation.overlay import shown_slice, write_overlay
from segkit.evaluation.rows import Row, in_set, means
from segkit.leases import LeaseLostError
from segkit.recipe.identity import training_identity
from segkit.recipe.sections import Every
from segkit.registry.faults import raise_fault
from segkit.training import checkpoint, warnings
from segkit.training.failures import explained
from segkit.training.global_state import GeneratorWatch
from segkit.training.loop import Report, train
from segkit.training.record import Record, Waiting, keep, refresh_best, save, save_best
from segkit.training.results import cases_text
from segkit.training.resuming import has_begun, restore
from segkit.training.selection import keeps, score_of
from segkit.training.setup import set_up
from segkit.training.trial import Event, Trial

FLUSH_SECONDS = 0.5
MAX_OVERLAYS = 64


def run_trial(trial: Trial, *, stop: Callable[[], bool], cache: DataCache | None = None) -> Iterator[Event]:
    """Train, evaluate and save one trial; yield what happens. Nothing is raised but programming errors of segkit.

    The folder ends with metrics.csv, cases.csv, best and last checkpoints, overlays, recipe.toml and trial.json; an
    interrupted or failed trial resumes from its last save when it is run again.

    Args:
        trial: what to train, and into which folder.
        stop: asked after every step; once true, the state is saved and the trial ends as "interrupted".
        cache: reads the data, and keeps them for the next trial.
    """
    threads = trial.recipe.train.threads
    with (
        preserved_process_state(threads if isinstance(threads, int) else 1),
        contextlib.closing(_run(trial, stop, cache or DataCache())) as events,
    ):
        while True:
            with files.checked_writes(trial.lease.check) if trial.lease else contextlib.nullcontext():
                event = next(events, None)
            if event is None:
                return
            yield event


def _run(trial: Trial, stop: Callable[[], bool], cache: DataCache) -> Generator[Event]:
    name, folder, recipe = trial.name, trial.path, trial.recipe
    record: Record | None = None
    yield Event(name, "start")
    try:
        if trial.lease is not None:
            trial.lease.check()
        if trial.fresh and folder.exists():
            (folder / "trial.json").unlink(missing_ok=True)  # first: what is removed in part then counts as missing
            shutil.rmtree(folder)
        files.make_folder(folder)
        files.remove_temporary_files(folder, folder / "overlays")  # of an attempt that died, also on another machine
        if training_identity(recipe) != trial.identity:
            raise UserError("the source of a plugin that it uses has changed since this command began: run it again.")
        trial.write_status("running")
        files.write_text(folder / "recipe.toml", recipe.to_toml())  # after the status, whose identity is of this one
        parts = set_up(recipe, trial.limit, cache, begun=has_begun(trial), gpu_share=trial.gpu_share)
        try:
            made = Record(trial, parts)
            yield from (Event(name, "log", line) for line in parts.log)
            resumed = restore(made)
            record = made  # before, it knows less than the files
            if resumed:
                yield Event(name, "log", f"[{name}] {resumed}")
            yield from map(record.warn, parts.warnings)
            yield from _train(record, stop)
        except (GeneratorExit, KeyboardInterrupt, LeaseLostError):
            raise
        except BaseException:
            if record is not None:
                yield from _kept(record)
            raise
        finally:
            with contextlib.closing(parts.feed.batches):
                parts.validation.close()
    except GeneratorExit:
        raise
    except LeaseLostError as error:
        yield Event(name, "lost", str(error))
    except KeyboardInterrupt:  # a second Ctrl-C, which waits for no save
        with contextlib.suppress(UserError, OSError):
            if record is not None:
                record.write_metrics()
            (record or trial).write_status("interrupted")
        raise
    except BaseException as error:
        yield failed(trial, explained(error, trial, record), record)


def _kept(record: Record) -> Iterator[Event]:
    """Write of a trial that failed what would be lost with the process, as far as that is possible.

    A saved state is resumed from, which has its own best weights.
    """
    events = list[Event]()
    with contextlib.suppress(Exception):
        events += record.end_epoch()
    with contextlib.suppress(Exception):
        record.write_metrics()
    with contextlib.suppress(Exception):
        if not (record.folder / "last.safetensors").exists():
            save_best(record)
    yield from events


def failed(trial: Trial, text: str, record: Record | None = None) -> Event:
    """Write that a trial failed, and return the event."""
    try:
        (record or trial).write_status("failed", text)
    except (UserError, OSError) as error:
        if not text.startswith(str(error)):  # the same error, of a folder that is gone
            text = f"{text} (and its state could not be written: {error})"
    return Event(trial.name, "failed", text)


class Saved:
    """When the state was saved last, or training began: after so many steps of the optimizer, now by a clock."""

    def __init__(self, step: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.step, self.clock, self.seconds = step, clock, clock()

    def is_due(self, every: Every, report: Report) -> bool:
        """Return whether it is to be saved again."""
        if report.complete and every.epochs is not None and report.epoch % every.epochs == 0:
            return True
        if every.steps is not None and report.step - self.step >= every.steps:
            return True
        return every.seconds is not None and self.clock() - self.seconds >= every.seconds


def _train(record: Record, stop: Callable[[], bool]) -> Iterator[Event]:
    """Train from where the record stands, then evaluate the kept checkpoint."""
    parts, settings, name = record.parts, record.recipe.train, record.trial.name
    state, every = parts.state, settings.save_every
    epochs = 1 if record.trial.limit.batches else settings.epochs
    record.write_status("running")
    saved, shown, epoch_start, done = Saved(state.step), time.monotonic(), time.perf_counter(), 0
    loop = train(
        state,
        parts.feed,
        parts.device,
        epochs=epochs,
        accumulate=settings.accumulate,
        clip_norm=settings.clip_norm,
        forward=parts.forward,
    )
    first = state.step + 1
    due = outlasted = False
    for report in loop if not record.stopped_early else ():
        if report.step == first and (settings.compile or parts.device.is_cuda):
            yield Event(name, "log", f"[{name}] {_first_step(record, time.perf_counter() - epoch_start)}")
        if report.complete:
            done += 1
            outlasted = record.computing  # metrics of the epoch before: a save that waits for those would never come
            yield from _end_epoch(record, report, epoch_start, epochs, done)
            epoch_start = time.perf_counter()
        elif time.monotonic() - shown > FLUSH_SECONDS:
            fraction = (report.epoch - 1 + state.batch / parts.feed.steps_per_epoch) / epochs
            yield Event(name, "step", values={"fraction": fraction})
            shown = time.monotonic()
        due = due or saved.is_due(every, report)
        stopping, ended = stop(), report.complete and (report.epoch == epochs or record.stopped_early)
        if stopping or ended or (due and (outlasted or not record.computing)):
            yield from record.end_epoch()
            _ = report.losses  # the state up to here is known to be finite
            save(record)
            saved, due = Saved(state.step), False
        if stopping and not ended:
            record.write_status("interrupted")
            yield Event(name, "interrupted", f"in epoch {report.epoch}, after step {report.step}: saved")
            return
        if ended:
            break
    yield from _finish(record)


def _first_step(record: Record, seconds: float) -> str:
    """Return what the first step of this process took."""
    compiling, memory = record.parts.compiling, record.parts.device.memory_taken()
    return f"first step: {seconds:.1f} s{compiling and f', {compiling}'}{memory and f'; memory {memory}'}"


def _end_epoch(record: Record, report: Report, started: float, epochs: int, done: int) -> Iterator[Event]:
    """Validate, step an epoch-wise schedule, keep the weights if they are selected, write the epoch's row."""
    parts, state = record.parts, record.parts.state
    if report.epoch == 1:
        texts = (
            *state.objective.warnings,
            *state.training_step.warnings,
            *state.step_watch.warnings,
            warnings.dominant_term(state.first_batch),
        )
        yield from (record.warn(text) for text in texts if text)
    yield from record.end_epoch()
    generators, validation = GeneratorWatch(), parts.validation
    found = validation(state.evaluated, state.objective.loss)
    if not math.isfinite(found.loss):
        raise UserError(state.loss_watch.explain_validation(state.evaluated, report.epoch, state.step, found.loss))
    try:
        state.schedule.step_epoch(found.loss)
    except BaseException as error:
        raise_fault(state.blamed("scheduler"), error)
    if report.epoch == 1:
        yield from map(record.warn, generators.warnings(*validation.metrics, *validation.settings.postprocess))
    if report.epoch == epochs and state.step_watch.only_zero_rates and not any(record.history.column("lr")):
        yield record.warn("the learning rate was 0 in every step, so nothing was learned: see scheduler.")
    rows = found.rows
    for warning in (warnings.no_foreground(rows), warnings.only_background(rows) if report.epoch == epochs else None):
        if warning and warning not in record.warnings:
            yield record.warn(warning)
    score = score_of(record.recipe.train.select_by, means(rows), found.loss)
    if keeps(record.recipe.train, score, record.best, report.epoch, epochs):
        keep(record, score)
    first = {"epoch": report.epoch, "step": report.step, "lr": report.rate, "train_loss": report.losses["train_loss"]}
    first |= {"val_loss": found.loss} | {key: value for key, value in report.losses.items() if key != "train_loss"}
    last = {
        "seconds": round(time.perf_counter() - started, 3),
        "images_per_second": round(report.seen / max(report.seconds, 1e-9), 2),
    }
    record.waiting = Waiting(found, first, last, {"epochs": epochs, "epochs_now": done})
    if found.later is None:
        yield from record.end_epoch()


def _finish(record: Record) -> Iterator[Event]:
    """Evaluate the kept checkpoint on the validation and test cases and write the rows and overlays."""
    rows, tested = _evaluate_kept(record)
    warning = warnings.only_background(rows)
    if warning and warning not in record.warnings:
        yield record.warn(warning)
    files.write_text(record.folder / "cases.csv", cases_text([*rows, *tested]))
    record.write_metrics()
    record.write_status("finished")
    found = means(rows)
    shown = [", ".join(f"{key} {value:.4f}" for key, value in means(part).items()) for part in (rows, tested)]
    epoch = f"{record.recipe.train.select} epoch {record.best[1] if record.best else 0}"
    text = f"{epoch}: {shown[0]}" + (f"; test: {shown[1]}" if shown[1] else "")
    if record.stopped_early:
        text += f"; stopped after epoch {len(record.history)}: no better {record.recipe.train.select_by} for "
        text += counted(record.recipe.train.patience or 0, "epoch")
    yield Event(record.trial.name, "finished", text, values=found)


def _evaluate_kept(record: Record) -> tuple[list[Row], list[Row]]:
    """Return the rows of the kept checkpoint on the validation and on the test cases.

    Test cases are drawn, without any those of the validation. The weights come from the file, so that `segkit eval` on
    it gives the same rows to the last bit.
    """
    parts, model, path = record.parts, record.parts.state.model, record.folder / "best.safetensors"
    last = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    kept = checkpoint.load(path)
    refresh_best(record, kept)
    checkpoint.load_into(model, kept.weights, str(path))
    evaluator = parts.validation.evaluator
    shown, drawn = parts.tested or evaluator, itertools.count()

    def draw(place: int, truth: Any, masks: Any) -> None:
        if next(drawn) < MAX_OVERLAYS:
            plane = shown_slice(truth, masks) if truth.ndim == 4 else 0
            planes = (truth[:, plane], masks[:, plane]) if truth.ndim == 4 else (truth, masks)
            write_overlay(record.folder, shown.cases[place].name, shown.picture(place, plane), *planes)

    metrics, tested = record.recipe.metrics, []
    rows, _ = evaluator.run(model, metrics, on_case=None if parts.tested else draw)
    if parts.tested:
        tested = in_set(parts.tested.run(model, metrics, on_case=draw)[0], "test")
    model.load_state_dict(last)
    return rows, tested
