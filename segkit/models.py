"""Models."""

from __future__ import annotations

from segkit.registry import Registry

models = Registry("model", "models", handed=("in_channels", "out_channels"), called=False)
