"""Datasets: files, or a phantom, to cases."""

from __future__ import annotations

from segkit.datasets.image_folder import image_folder
from segkit.datasets.images import read_image
from segkit.datasets.phantom import phantom
from segkit.datasets.rvsc import rvsc
from segkit.registry import Registry

__all__ = ["datasets", "read_image"]

datasets = Registry("data", "datasets", handed=(), called=False)
datasets.register("image_folder")(image_folder)
datasets.register("phantom")(phantom)
datasets.register("rvsc")(rvsc)
