"""What outlives a call: global random generators, settings of torch and numpy, the process's environment."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from segkit.training.tracing import DRAWING, SEEDING, draws, generator_states, generators_kept, place_where

if TYPE_CHECKING:
    from segkit.testing.report import Report

SEEDS = (4_021, 977_113)  # two states from which no component starts by itself
Setting = tuple[Callable[[], Any], Callable[[Any], Any]]


def _set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _set_filters(values: list[Any]) -> None:
    warnings.filters[:] = values  # type: ignore[index]


SETTINGS: dict[str, Setting] = {
    "torch.set_grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.set_default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.set_default_device": (torch.get_default_device, lambda kept: torch.set_default_device(None)),
    "torch.use_deterministic_algorithms": (
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms,
    ),
    "torch.set_num_threads": (torch.get_num_threads, torch.set_num_threads),
    "torch.set_float32_matmul_precision": (
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision,
    ),
    "torch.autograd.set_detect_anomaly": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "torch.backends.cudnn.benchmark": (
        lambda: torch.backends.cudnn.benchmark, lambda kept: setattr(torch.backends.cudnn, "benchmark", kept),
    ),
    "torch.backends.cudnn.deterministic": (
        lambda: torch.backends.cudnn.deterministic, lambda kept: setattr(torch.backends.cudnn, "deterministic", kept),
    ),
    "numpy.seterr": (np.geterr, lambda kept: np.seterr(**kept)),
    "warnings.filters": (lambda: list(warnings.filters), _set_filters),
    "logging.disable": (lambda: logging.root.manager.disable, logging.disable),
    "os.environ": (lambda: dict(os.environ), _set_environment),
    "os.chdir": (os.getcwd, os.chdir),
    "sys.setrecursionlimit": (sys.getrecursionlimit, sys.setrecursionlimit),
}  # fmt: skip
WORDS = {"warnings.filters": {"filterwarnings", "simplefilter"}, "os.environ": {"environ", "putenv"}}


@contextlib.contextmanager
def unmoved() -> Iterator[None]:
    """Give the global random generators and settings back as they were."""
    kept = {name: get() for name, (get, _) in SETTINGS.items()}
    try:
        with generators_kept():
            yield
    finally:
        changed_settings(kept)


def changed_settings(kept: dict[str, Any]) -> list[str]:
    """Return the settings that are no longer as they were, and put them back."""
    changed = [name for name, before in kept.items() if SETTINGS[name][0]() != before]
    for name in changed:
        SETTINGS[name][1](kept[name])
    return changed


def leaves_alone(report: Report, run: Callable[[], Any], *, may_draw: Collection[str] = ()) -> list[Any]:
    """Run twice, from two states of the generators, and report what was moved beside the result.

    What the first run changes (libraries that are imported then do) counts only if the second changes it again.

    Args:
        report: of the component.
        run: builds and calls it.
        may_draw: the generators that it may draw from, of "torch", "numpy" and "Python".

    Returns:
        What the runs gave.
    """
    results, befores, afters = [], [], []
    for seed in SEEDS:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        befores.append(generator_states())
        kept = {name: get() for name, (get, _) in SETTINGS.items()}
        try:
            results.append(run())
        finally:
            changed = changed_settings(kept)
        afters.append(generator_states())
    for name in befores[0]:
        if afters[0][name] == afters[1][name]:
            report.fault(
                f"it seeds {name}'s global random generator, so that all that is drawn later repeats itself: use a "
                "generator of its own.",
                report.source.mentioning(SEEDING),
            )
        elif name not in may_draw and [after[name] for after in afters] != [before[name] for before in befores]:
            place = place_where(report.source, run, draws()) if name == "torch" else None
            report.fault(
                f"it draws from {name}'s global random generator, so that all that is drawn later differs: use a "
                "generator of its own.",
                place or report.source.mentioning(DRAWING),
            )
    for name in changed:
        _say(report, name)
    return results


def library_settings() -> dict[str, Any]:
    """Return the settings that no import changes."""
    return {name: get() for name, (get, _) in SETTINGS.items() if name.startswith(("torch.", "numpy."))}


def restored(report: Report, kept: dict[str, Any]) -> None:
    """Put settings back, and report those that had changed."""
    for name in changed_settings(kept):
        _say(report, name)


def _say(report: Report, name: str) -> None:
    place = report.source.mentioning(WORDS.get(name, {name.rpartition(".")[2]}))
    report.fault(f"it changes a global setting ({name}) for all that follows: leave it, or put it back.", place)
