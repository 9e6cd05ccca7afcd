"""Schedulers."""

from __future__ import annotations

from segkit.registry import Registry

schedulers = Registry("scheduler", "schedulers", handed=("optimizer", "epochs", "steps_per_epoch"), called=False)
