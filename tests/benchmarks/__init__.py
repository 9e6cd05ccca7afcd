"""Benchmarks, each a command: `python -m tests.benchmarks.NAME`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def versions_of(packages: Iterable[str]) -> str:
    """Return the versions of those packages that are installed, e.g. "torch 2.13.0, monai 1.6.1"."""
    found = []
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
