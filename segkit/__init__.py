"""segkit: medical image segmentation, trained from recipes, extended by plugins.

`from segkit import losses` gives the registry of a slot; `Recipe`, `run`, `load` and `evaluate` are the
library's front door. Nothing here imports torch: that happens when something is built.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if sys.orig_argv[1:3] == ["-m", "segkit"] or os.path.basename("".join(sys.orig_argv[1:2])) == "segkit":
    from segkit import interrupts  # this process is the command: what follows takes a while

    interrupts.exit_immediately()

from segkit.components.datasets import Case, Dataset, datasets
from segkit.components.initializers import initializers
from segkit.components.intensities import intensities
from segkit.components.losses import losses
from segkit.components.metrics import metrics
from segkit.components.models import models
from segkit.components.optimizers import optimizers
from segkit.components.postprocess import postprocessors
from segkit.components.regularizers import regularizers
from segkit.components.schedulers import Schedule, schedulers
from segkit.components.steps import steps
from segkit.components.transforms import transforms
from segkit.components.upsamplers import upsamplers
from segkit.errors import UserError
from segkit.plugins import legacy
from segkit.registry.component import Component

if TYPE_CHECKING:
    from segkit.api import evaluate, load, run
    from segkit.evaluation.predictor import Predictor
    from segkit.recipe.model import Recipe

__version__: str
__all__ = [
    "Case",
    "Component",
    "Dataset",
    "Predictor",
    "Recipe",
    "Schedule",
    "UserError",
    "__version__",
    "datasets",
    "evaluate",
    "initializers",
    "intensities",
    "load",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "postprocessors",
    "regularizers",
    "run",
    "schedulers",
    "steps",
    "transforms",
    "upsamplers",
]
HEAVY = {  # names that import torch or pydantic, and so are imported when they are asked for
    "Predictor": "segkit.evaluation.predictor",
    "Recipe": "segkit.recipe.model",
    "evaluate": "segkit.api",
    "load": "segkit.api",
    "run": "segkit.api",
}

legacy.install()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("segkit")
    if name in HEAVY:
        return getattr(importlib.import_module(HEAVY[name]), name)
    raise AttributeError(f"module 'segkit' has no attribute '{name}'")
