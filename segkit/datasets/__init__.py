"""Datasets: files, or a phantom, to cases."""

from __future__ import annotations

from segkit.blame import misfit
from segkit.datasets.case import Case, Dataset
from segkit.datasets.contours import fill, read_contour
from segkit.datasets.dicom import read_dicom
from segkit.datasets.image_folder import image_folder
from segkit.datasets.images import read_image
from segkit.datasets.phantom import phantom
from segkit.datasets.rvsc import rvsc
from segkit.registry import Registry

__all__ = ["Case", "Dataset", "datasets", "fill", "read_contour", "read_dicom", "read_image"]

datasets = Registry(
    "data",
    "datasets",
    handed=(),
    called=False,
    judge=lambda made: misfit(made, Dataset, "segkit.datasets.Dataset"),
)
datasets.register("image_folder")(image_folder)
datasets.register("phantom")(phantom)
datasets.register("rvsc")(rvsc)
