"""Upsamplers."""

from __future__ import annotations

from segkit.registry import Registry

upsamplers = Registry("upsampler", "upsamplers", handed=("in_channels", "out_channels"), called=False)
