"""Transforms."""

from __future__ import annotations

from segkit.registry import Registry

transforms = Registry("transform", "transforms", handed=(), called=False)
