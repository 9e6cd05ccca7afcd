"""Datasets: files, or a phantom, to cases."""

from __future__ import annotations

from segkit.components.datasets.case import Case, Dataset
from segkit.components.datasets.contours import fill, read_contour
from segkit.components.datasets.formats.dicom import read_dicom
from segkit.components.datasets.formats.images import read_image
from segkit.components.datasets.image_folder import image_folder
from segkit.components.datasets.nifti import nifti
from segkit.components.datasets.nnunet import nnunet
from segkit.components.datasets.phantom import phantom
from segkit.components.datasets.rvsc import rvsc
from segkit.components.datasets.table import table
from segkit.registry.faults import wrong_type
from segkit.registry.registry import Registry

__all__ = ["Case", "Dataset", "datasets", "fill", "read_contour", "read_dicom", "read_image"]

datasets = Registry(
    "data", "datasets", home=__name__, check=lambda made: wrong_type(made, Dataset, "segkit.datasets.Dataset")
)
datasets.register("image_folder")(image_folder)
datasets.register("nifti")(nifti)
datasets.register("nnunet")(nnunet)
datasets.register("phantom")(phantom)
datasets.register("rvsc")(rvsc)
datasets.register("table")(table)
