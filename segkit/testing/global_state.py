"""Process-wide settings of torch, numpy and Python that a component may change, and how they are put back."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from segkit.training.tracing import generators_kept

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


def settings(*prefixes: str) -> dict[str, Any]:
    """Return the settings as they are, those only whose names start with a prefix if any are named."""
    return {name: get() for name, (get, _) in SETTINGS.items() if not prefixes or name.startswith(prefixes)}


def library_settings() -> dict[str, Any]:
    """Return the settings that importing a library leaves alone."""
    return settings("torch.", "numpy.")


def restored(kept: dict[str, Any]) -> list[str]:
    """Put settings back as they were in `kept`, and return the names of those that had changed."""
    changed = [name for name, before in kept.items() if SETTINGS[name][0]() != before]
    for name in changed:
        SETTINGS[name][1](kept[name])
    return changed


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Put the global random generators and all settings back as they were."""
    kept = settings()
    try:
        with generators_kept():
            yield
    finally:
        restored(kept)
