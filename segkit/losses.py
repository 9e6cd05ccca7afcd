"""Losses."""

from __future__ import annotations

from segkit.registry import Registry

losses = Registry("loss", "losses", handed=("logits", "target"), called=True)
