"""Images to predict: a picture, a stack, a NIfTI volume or a DICOM series, and files in its format and geometry."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.components.datasets.case import KINDS
from segkit.components.datasets.formats.dicom_series import Series, affine_of, read_series
from segkit.components.datasets.formats.geometry import Geometry, Slices
from segkit.components.datasets.formats.images import read_pictures as read_images
from segkit.components.datasets.formats.kinds import is_nifti, volume
from segkit.components.datasets.formats.nifti_files import read_geometry
from segkit.components.datasets.formats.nifti_writing import write_label_map, write_placed, write_probabilities
from segkit.components.datasets.loading import RGB
from segkit.components.datasets.volumes import Volume
from segkit.errors import UserError, counted
from segkit.files import write_bytes
from segkit.types import Array, Spacing

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Form:
    """A format, and for volumes a geometry, in which masks and probabilities are written.

    Attributes:
        ending: of files of masks.
        ending_of_numbers: of files of probabilities.
        full: what stands for the only structure of a mask.
        write: given a path and an array (H, W) or (D, H, W) of uint8, uint16 or float32.
    """

    ending: str
    ending_of_numbers: str
    full: int
    write: Callable[[Path, Array], None]


@dataclass(frozen=True, eq=False)
class Opened:
    """An image that was read.

    Attributes:
        image: (H, W), (I, H, W) or (I, D, H, W).
        form: of what is written beside it.
        coloured: whether it is the brightness of a file in colours.
        spacing_mm: what the files state, (row, column) or (slice, row, column), if anything.
    """

    image: Array
    form: Form
    coloured: bool = False
    spacing_mm: Spacing = None


@dataclass(frozen=True, eq=False)
class Scan:
    """An image to predict.

    Attributes:
        name: of its results, with "/" between folders, without ending.
        source: the file or folder, for messages.
        files: that hold it.
        read: reads them; raises UserError if they cannot be read, or hold other inputs than the model's.
    """

    name: str
    source: str
    files: tuple[Path, ...]
    read: Callable[[], Opened]


def read_volume(paths: Sequence[Path], inputs: Sequence[str], slices: Slices) -> Opened:
    """Return the volume (I, D, H, W) of NIfTI files: one an input, or one of all.

    Raises:
        UserError: a file is damaged, they lie elsewhere than the first, or hold other inputs than `inputs`.
    """
    found = tuple(read_geometry(path, slices, several=len(paths) < len(inputs)) for path in paths)
    _check_inputs(paths[0], sum(geometry.inputs for geometry in found), inputs)
    whole, first = Volume(found), found[0]
    ending = ".nii.gz" if first.path.name.lower().endswith(".gz") else ".nii"
    form = Form(ending, ending, 1, functools.partial(_write_volume, first))
    return Opened(whole.read()[0], form, spacing_mm=first.spacing_mm)


def _write_volume(geometry: Geometry, path: Path, volume: Array) -> None:
    (write_probabilities if volume.dtype.kind == "f" else write_label_map)(path, volume, geometry)


def read_dicom_series(series: Series, inputs: Sequence[str]) -> Opened:
    """Return the volume (1, D, H, W) of a DICOM series; what is written is NIfTI that lies where the series does.

    Raises:
        UserError: a file is damaged, or the model takes several inputs.
    """
    _check_inputs(series.name, 1, inputs)
    affine = affine_of(series)
    form = Form(".nii.gz", ".nii.gz", 1, lambda path, volume: write_placed(path, volume, affine))
    image, spacing = read_series(series)
    return Opened(image[None], form, spacing_mm=spacing)


def read_pictures(paths: Sequence[Path], inputs: Sequence[str]) -> Opened:
    """Return the image of PNG, JPEG, BMP, TIFF and DICOM files: one an input, or one of three in colours.

    It is (H, W), (I, H, W), or (I, D, H, W) of TIFF files of several pages.

    Raises:
        UserError: a file is damaged, they differ in size, or hold other inputs than `inputs`.
    """
    import numpy as np

    for path in paths:
        if is_nifti(path):
            raise UserError(f"{path}: NIfTI, though other inputs of its image are not. Give all inputs in one format.")
        if kind := volume(path.name):
            raise UserError(f"{path}: a {kind} volume, which is not read. Convert it to NIfTI (.nii.gz).")
    colours = len(paths) == 1 and len(inputs) == len(RGB)
    picture = read_images(paths, grey=not colours)
    shows_three = colours and (picture.coloured or tuple(inputs) == RGB)
    _check_inputs(paths[0], len(RGB) if shows_three else len(paths), inputs)
    image: Any = picture.pixels
    image = image if image.dtype.name in KINDS else image.astype(np.float32)
    form = STACK if image.ndim == 4 else PICTURE
    return Opened(image, form, picture.coloured and not colours, picture.spacing_mm)


def _check_inputs(place: Path | str, count: int, inputs: Sequence[str]) -> None:
    if count == len(inputs):
        return
    if tuple(inputs) == RGB:
        remedy = "Give pictures in colours."
    elif len(inputs) > 1:
        names = f"the recipe's data or CASE_0000 to CASE_{len(inputs) - 1:04d}"
        remedy = f"Give all files of the image, called as in {names}, or one that holds all inputs."
    else:
        remedy = "Give an image of one input."
    takes = f"the model takes {counted(len(inputs), 'input')}: {', '.join(inputs)}"
    raise UserError(f"{place}: is an image of {counted(count, 'input')}; {takes}. {remedy}")


def _write_picture(path: Path, pixels: NDArray[Any]) -> None:
    import cv2

    done, data = cv2.imencode(path.suffix, pixels)
    _save(path, done, data)


def _write_stack(path: Path, pages: NDArray[Any]) -> None:
    import cv2

    # tifffile decodes neither LZW, OpenCV's default, nor predicted floats without a further package
    options = [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_ADOBE_DEFLATE]
    options += [cv2.IMWRITE_TIFF_PREDICTOR, cv2.IMWRITE_TIFF_PREDICTOR_NONE]
    done, data = cv2.imencodemulti(path.suffix, list(pages), options)
    _save(path, done, data)


def _save(path: Path, done: bool, data: Any) -> None:
    if not done:
        raise UserError(f"{path}: cannot be encoded.")
    write_bytes(path, data.tobytes())


PICTURE = Form(".png", ".tif", 255, _write_picture)
STACK = Form(".tif", ".tif", 255, _write_stack)
