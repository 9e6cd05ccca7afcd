"""Former names of modules that plugins, and the plugin sources inside checkpoints, may still import: the one list."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

SLOTS = (
    "datasets", "initializers", "losses", "metrics", "models", "optimizers", "regularizers", "schedulers", "transforms",
    "upsamplers",
)  # fmt: skip
MOVED = {
    **{f"segkit.{name}": f"segkit.components.{name}" for name in SLOTS},
    **{f"segkit.{name}": "segkit.components.autograd" for name in ("interpolation", "penalties")},
    "segkit.unet": "segkit.components.unet",
    **{
        f"segkit.datasets.{name}": f"segkit.components.datasets.{name}"
        for name in ("case", "contours", "image_folder", "phantom", "reading", "rvsc")
    },
    **{f"segkit.datasets.{name}": f"segkit.components.datasets.formats.{name}" for name in ("dicom", "images")},
    **{
        f"segkit.losses.{name}": f"segkit.components.losses.{name}"
        for name in ("counts", "mixed", "overlap", "pixel", "surface")
    },
    "segkit.component": "segkit.registry.component",
    "segkit.pipeline": "segkit.data.pipeline",
}
"""Module names of segkit 0.1.0, and the modules that replace them."""
RENAMED = {
    "segkit.datasets.reading.shortened": "segkit.errors.first_few",
    **{f"segkit.metrics.{name}": f"segkit.types.{name}" for name in ("Mask", "Probability", "Spacing")},
}
"""Names in those modules that have moved elsewhere."""


class _LegacyModule(types.ModuleType):
    """A module under its former name: its attributes are looked up in the module that replaces it."""

    __path__: list[str] = []  # noqa: RUF012  # makes it a package, so that its submodules can be imported

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        target = RENAMED.get(f"{self.__name__}.{name}", f"{MOVED[self.__name__]}.{name}")
        module, _, attribute = target.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def install() -> None:
    """Register every former name with `import`; the modules themselves are imported on first use."""
    for name in MOVED:
        sys.modules.setdefault(name, _LegacyModule(name))
