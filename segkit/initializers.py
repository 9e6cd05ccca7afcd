"""Initializers."""

from __future__ import annotations

from segkit.registry import Registry

initializers = Registry("initializer", "initializers", handed=("module",), called=True)
