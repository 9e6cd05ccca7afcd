"""The registry of losses, in a module below those of the losses themselves."""

from __future__ import annotations

from segkit.registry.registry import Registry

losses = Registry(
    "loss",
    "losses",
    home="segkit.components.losses",
    handed=("logits", "target"),
    called=True,
    weighted=True,
    traits={"exclusive_only": bool},
)
