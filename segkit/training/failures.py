"""Why a trial failed, and what to do about it."""

from __future__ import annotations

import contextlib
import traceback

from segkit import files
from segkit.errors import UserError, sentence
from segkit.recipe.model import Recipe
from segkit.registry.faults import ComponentError, described, lacks_memory
from segkit.training.loss_watch import NonFiniteError
from segkit.training.record import Record, save_batch
from segkit.training.trial import Trial

ENGINE = "unable to find an engine to execute"


def explained(error: BaseException, trial: Trial, record: Record | None) -> str:
    """Return why a trial failed; the batch or the traceback that shows more is saved in its folder."""
    dry = trial.limit.batches is not None  # its folder is removed at the end
    if isinstance(error, NonFiniteError):
        return f"{error} The batch is in {save_batch(record, error)}." if record is not None and not dry else str(error)
    if lacks_memory(error):
        resident = record is not None and record.parts.feed.batches.resident is not None
        return _out_of_memory(trial.recipe, trial.gpu_share, resident=resident)
    if not isinstance(error, Exception):  # sys.exit, or a plugin's own
        *_, last = traceback.extract_tb(error.__traceback__)
        return f"a component ended the process: {last.filename}:{last.lineno}: {described(error)}"
    caused = isinstance(error, ComponentError) and error.__cause__ is not None
    hint = " cuDNN says so where memory is short, too: try a smaller train.batch_size." if ENGINE in str(error) else ""
    if isinstance(error, (UserError, OSError)) and not caused:
        return str(error)
    text, path = (str(error) if caused else sentence(described(error))) + hint, trial.path / "error.txt"
    if not dry:
        with contextlib.suppress(UserError):
            files.write_text(path, traceback.format_exc())
            text += f" The traceback is in {path}."
    return text


def _out_of_memory(recipe: Recipe, share: float, *, resident: bool) -> str:
    """Return the advice after the device, where samples may live too, or a trial's share of it ran out of memory."""
    size, together = recipe.train.batch_size, recipe.train.accumulate
    there = " Samples live there too, unless --set train.resident=false." if resident else ""
    found = "the device ran out of memory"
    if share < 1:
        found = f"a trial ran out of its {share:.0%} of the GPU's memory"
    if size == 1:
        text = f"{found} with one image a batch: use smaller crops, a smaller model or bf16"
        shared = "" if share == 1 else ", or let fewer trials share it (--gpus-per-trial, --jobs)"
        return f"{text}{shared}.{there}"
    half = max(1, size // 2)
    fewer = "" if share == 1 else "Let fewer trials share it (--gpus-per-trial, --jobs). Or "
    return (
        f"{found} with train.batch_size = {size}. {fewer}{'try' if fewer else 'Try'} --set train.batch_size={half} "
        f"--set train.accumulate={-(-size * together // half)}: the same number of images a step. "
        f"That is another trial: one that has begun has to be trained again, with --fresh.{there}"
    )
