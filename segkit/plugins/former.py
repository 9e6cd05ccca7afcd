"""Names by which plugins, and the plugin sources inside checkpoints, import what has since moved: the one list."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

SLOTS = (
    "datasets", "initializers", "losses", "metrics", "models", "optimizers", "regularizers", "schedulers", "transforms",
    "upsamplers",
)  # fmt: skip
FORMER = {
    **{f"segkit.{name}": f"segkit.components.{name}" for name in SLOTS},
    **{f"segkit.{name}": "segkit.components.autograd" for name in ("interpolation", "penalties")},
    "segkit.unet": "segkit.components.unet",
    **{
        f"segkit.datasets.{name}": f"segkit.components.datasets.{name}"
        for name in ("case", "contours", "dicom", "image_folder", "images", "phantom", "reading", "rvsc")
    },
    **{
        f"segkit.losses.{name}": f"segkit.components.losses.{name}"
        for name in ("counts", "mixed", "overlap", "pixel", "surface")
    },
    "segkit.component": "segkit.registry.component",
    "segkit.pipeline": "segkit.data.pipeline",
}
"""Module names of segkit 0.1.0, and where what they held is now."""


class _Former(types.ModuleType):
    """A module under its former name: whatever is asked of it comes from where it is now."""

    __path__: list[str] = []  # noqa: RUF012  # a package, as its parts are imported below it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        return getattr(importlib.import_module(FORMER[self.__name__]), name)


def install() -> None:
    """Let `import` find every module under its former name; nothing is imported before something is asked for."""
    for name in FORMER:
        sys.modules.setdefault(name, _Former(name))
