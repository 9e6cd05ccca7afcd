"""segkit: medical image segmentation, trained from recipes, extended by plugins.

`from segkit import losses` gives the registry of a slot; `Recipe`, `run`, `load` and `evaluate` are the
library's front door. Nothing here imports torch: that happens when something is built.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if sys.orig_argv[1:3] == ["-m", "segkit"] or os.path.basename("".join(sys.orig_argv[1:2])) == "segkit":
    from segkit import interrupts  # this process is the command: what follows takes a while

    interrupts.end_at_once()

from segkit.datasets import datasets
from segkit.errors import UserError
from segkit.initializers import initializers
from segkit.losses import losses
from segkit.metrics import metrics
from segkit.models import models
from segkit.optimizers import optimizers
from segkit.registry import Component
from segkit.regularizers import regularizers
from segkit.schedulers import schedulers
from segkit.transforms import transforms
from segkit.upsamplers import upsamplers

if TYPE_CHECKING:
    from segkit.api import evaluate, load, run
    from segkit.recipe import Recipe

__version__ = "0.1.0"
__all__ = [
    "Component",
    "Recipe",
    "UserError",
    "datasets",
    "evaluate",
    "initializers",
    "load",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "regularizers",
    "run",
    "schedulers",
    "transforms",
    "upsamplers",
]


def __getattr__(name: str) -> Any:
    """Import the front door's heavier parts when they are asked for."""
    if name == "Recipe":
        from segkit.recipe import Recipe

        return Recipe
    if name in ("evaluate", "load", "run"):
        from segkit import api

        return getattr(api, name)
    raise AttributeError(f"module 'segkit' has no attribute '{name}'")
