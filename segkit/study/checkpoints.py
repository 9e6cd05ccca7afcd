"""Where the checkpoints of a variant lie: those of all its seeds and folds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from segkit.errors import UserError, counted, first_few
from segkit.files import unreadable
from segkit.training.status import Status

BEST, STATUS = "best.safetensors", "trial.json"


def find_checkpoints(paths: Iterable[Path]) -> list[Path]:
    """Return the checkpoints that paths stand for, each file once.

    A folder stands for the best checkpoint of every trial in it: it is that of a trial, of a variant, or of a run that
    has one variant.

    Raises:
        UserError: a folder has no checkpoint, several variants, or a trial that is not finished.
    """
    found = [file for path in paths for file in (_of_folder(path) if path.is_dir() else [path])]
    return list({os.path.realpath(file): file for file in found}.values())


def _of_folder(folder: Path) -> list[Path]:
    try:
        trials = [folder] if _is_trial(folder) else _trials(folder)
        variants = [] if trials else [path for path in sorted(folder.iterdir()) if path.is_dir() and _trials(path)]
    except OSError as error:
        raise UserError(unreadable(folder, error)) from None
    if len(variants) > 1:
        names = first_few(map(str, variants), 24)
        raise UserError(f"{folder}: holds {len(variants)} variants, and only one can be averaged. Choose one: {names}.")
    trials = trials or [trial for variant in variants for trial in _trials(variant)]
    if not trials:
        example = "runs/baseline/baseline"
        raise UserError(f"{folder}: holds no {BEST}. Give a checkpoint, or the folder of a variant, e.g. {example}.")
    _check_finished(folder, trials)
    return [trial / BEST for trial in trials]


def _is_trial(folder: Path) -> bool:
    return (folder / BEST).is_file() or (folder / STATUS).is_file()


def _trials(folder: Path) -> list[Path]:
    """Return the trials in the folder of a variant, fold 2 before fold 10."""

    def order(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]

    return sorted((path for path in folder.iterdir() if not path.name.startswith(".") and _is_trial(path)), key=order)


def _check_finished(folder: Path, trials: list[Path]) -> None:
    """Raise if a trial is not finished; folders of checkpoints alone are taken as they are."""
    unfinished = []
    for trial in trials:
        status = Status.find(trial)
        if not (trial / BEST).is_file() or (status is not None and status.status != "finished"):
            unfinished.append(trial.name)
    if unfinished:
        some = f"{len(unfinished)} of {counted(len(trials), 'trial')} {'is' if len(unfinished) == 1 else 'are'}"
        raise UserError(
            f"{folder}: {some} not finished ({first_few(unfinished)}). Finish them with `segkit run`, or name the "
            "checkpoints themselves."
        )
