"""Process-wide state that a component may change: settings of torch, numpy and Python, and random generators."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from segkit.registry.component import Component
from segkit.registry.faults import fault, or_others, plugin_parts
from segkit.registry.source import ComponentCode
from segkit.training.tracing import line_that_changes

Setting = tuple[Callable[[], Any], Callable[[Any], Any]]


def _set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _set_filters(values: list[Any]) -> None:
    warnings.filters[:] = values  # type: ignore[index]


SETTINGS: dict[str, Setting] = {
    "torch.set_grad_enabled": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch.set_default_dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch.set_default_device": (torch.get_default_device, lambda value: torch.set_default_device(None)),
    "torch.use_deterministic_algorithms": (
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms,
    ),
    "torch.set_num_threads": (torch.get_num_threads, torch.set_num_threads),
    "torch.set_float32_matmul_precision": (
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision,
    ),
    "torch.autograd.set_detect_anomaly": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "torch.backends.cudnn.benchmark": (
        lambda: torch.backends.cudnn.benchmark, lambda value: setattr(torch.backends.cudnn, "benchmark", value),
    ),
    "torch.backends.cudnn.deterministic": (
        lambda: torch.backends.cudnn.deterministic, lambda value: setattr(torch.backends.cudnn, "deterministic", value),
    ),
    "numpy.seterr": (np.geterr, lambda value: np.seterr(**value)),
    "warnings.filters": (lambda: list(warnings.filters), _set_filters),
    "logging.disable": (lambda: logging.root.manager.disable, logging.disable),
    "os.environ": (lambda: dict(os.environ), _set_environment),
    "os.chdir": (os.getcwd, os.chdir),
    "sys.setrecursionlimit": (sys.getrecursionlimit, sys.setrecursionlimit),
}  # fmt: skip
LIBRARIES = tuple(name for name in SETTINGS if name.startswith(("torch.", "numpy.")))  # importing changes the others


def settings(names: Iterable[str] = SETTINGS) -> dict[str, Any]:
    """Return settings as they are now, by name."""
    return {name: SETTINGS[name][0]() for name in names}


def restore(saved: dict[str, Any]) -> list[str]:
    """Set settings back to `saved`; return the names of those that had changed."""
    changed = [name for name, value in saved.items() if SETTINGS[name][0]() != value]
    for name in changed:
        SETTINGS[name][1](saved[name])
    return changed


def changed_setting(name: str, source: ComponentCode, run: Callable[[], Any]) -> tuple[str, str | None]:
    """Run a component again; return the message about the setting that it changes, and the line that does so."""
    saved = settings()
    place = line_that_changes(source, run, SETTINGS[name][0])
    restore(saved)
    return f"it changes a global setting ({name}) for everything that follows: leave it, or restore it.", place


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Restore the global random generators and all settings at the end."""
    saved = settings()
    with generators_preserved():
        try:
            yield
        finally:
            restore(saved)


@contextlib.contextmanager
def generators_preserved() -> Iterator[None]:
    """Restore the global random generators at the end."""
    legacy, python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            np.random.set_state(legacy)
            random.setstate(python)


def generator_states() -> dict[str, Any]:
    """Return the states of the global random generators, comparable by `==`."""
    legacy = np.random.get_state()
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (legacy[1].tobytes(), legacy[2]),  # type: ignore[index]
        "Python": random.getstate(),
    }


class GeneratorWatch:
    """The global random generators as they are now, to see later what a component has done to them."""

    def __init__(self) -> None:
        self.seed, self.states = torch.initial_seed(), generator_states()

    def warnings(self, *components: Component) -> list[str]:
        """Return the warning that a plugin has seeded torch's generator, or moved one that no checkpoint stores."""
        text, parts = self._change(), [part for component in components for part in plugin_parts(component)]
        if text is None or not parts:
            return []
        return [str(fault(parts[0], f"{text}: use a generator of its own{or_others(parts[1:])}"))]

    def _change(self) -> str | None:
        now, seed = generator_states(), torch.initial_seed()
        fresh = torch.Generator().manual_seed(seed).get_state().numpy().tobytes()
        if seed != self.seed or (now["torch"] != self.states["torch"] and now["torch"] == fresh):
            return "it seeds torch's global random generator, so that all later random numbers repeat"
        for name in ("numpy", "Python"):
            if now[name] != self.states[name]:
                return f"it seeds or draws from {name}'s global random generator, which no checkpoint stores"
        return None
