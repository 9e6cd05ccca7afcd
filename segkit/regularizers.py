"""Regularizers."""

from __future__ import annotations

from segkit.registry import Registry

regularizers = Registry("regularizer", "regularizers", handed=("named_parameters",), called=True)
