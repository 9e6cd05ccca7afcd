"""Image files of every kind that segkit reads: images as one grey channel, masks as levels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.components.datasets.decoding import VOLUMES, Colour, Decoded, decode_image, volume
from segkit.components.datasets.dicom import parse_dicom
from segkit.components.datasets.reading import entries, is_folder, read_bytes
from segkit.errors import UserError, counted, first_few
from segkit.types import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

DICOM_SUFFIXES = (".dcm", ".dicom")
KINDS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", *DICOM_SUFFIXES)
LUMA = (299, 587, 114)  # thousandths of red, green and blue (ITU-R BT.601)
BLACK = (0, 0, 0)
Colours = dict[int, Colour]  # red, green, blue by level
ROWS = 512  # converted at a time, which bounds the memory


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that was read.

    Attributes:
        pixels: (H, W) uint8, uint16 or float32.
        spacing_mm: (row, column), if a DICOM file states it.
        coloured: whether the file holds colours; `pixels` are then their brightness.
    """

    pixels: Array
    spacing_mm: tuple[float, float] | None = None
    coloured: bool = False


def read_image(path: Path) -> Array:
    """Return an image (H, W), uint8, uint16 or float32, of a DICOM, PNG, TIFF, JPEG or BMP file.

    Colour becomes grey (0.299 red + 0.587 green + 0.114 blue), an alpha channel is dropped.

    Raises:
        UserError: the file is missing, damaged, of another kind or larger than 8192 x 8192; the message names it.
    """
    return read_picture(path).pixels


def read_picture(path: Path) -> Picture:
    """Return an image as `read_image` does, with its spacing and whether it was coloured."""
    data = read_bytes(path)
    if _is_dicom(path, data):
        return Picture(*parse_dicom(data, str(path)))
    pixels = decode_image(data, str(path)).pixels
    grey = _equal(pixels)
    if grey is not None and _alpha_differs(pixels) and grey.min() == grey.max():
        raise UserError(f"{path}: its picture is in the alpha channel, which is not read. Save it as a grey image.")
    return Picture(_plain(_luma(pixels) if grey is None else grey, str(path)), coloured=grey is None)


def read_levels(path: Path) -> tuple[Array, Colours]:
    """Return a mask's levels (H, W), and their colours if they are the indices of a PNG's palette.

    Colours with equal channels and opaque alpha count as grey. A palette of colours that begins with a single black is
    one of labels, as other tools write them: its indices are the levels. A palette of grey levels makes a grey image.

    Raises:
        UserError: as for `read_image`; or the mask holds colours, or transparency, in which a mask may hide.
    """
    import numpy as np

    data = read_bytes(path)
    if _is_dicom(path, data):
        return parse_dicom(data, str(path))[0], {}
    found = decode_image(data, str(path))
    labels = _labels(found, str(path))
    if labels is not None:
        return labels
    if _alpha_differs(found.pixels):
        raise UserError(f"{path}: a partly transparent mask. Save it without alpha, with one grey level per structure.")
    grey = _equal(found.pixels)
    if grey is None:
        pixels: Any = found.pixels
        colours = len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0))
        palette = " in a palette that is not one of labels (black, then other colours)" if found.palette else ""
        raise UserError(f"{path}: a mask of {colours} colours{palette}. Save it with one grey level per structure.")
    return _plain(grey, str(path)), {}


def _labels(found: Decoded, name: str) -> tuple[Array, Colours] | None:
    """Return the indices (H, W) of a palette of labels, and the colours of 0 and those that occur; None for others."""
    import numpy as np

    palette = found.palette
    grey = all(red == green == blue for red, green, blue in palette)
    if found.indices is None or grey or palette[0] != BLACK or palette[1:2] == (BLACK,):
        return None
    levels = np.unique(found.indices).tolist()
    if levels[-1] >= len(palette):
        raise UserError(f"{name}: a damaged image: index {levels[-1]} of a palette of {len(palette)} colours.")
    return found.indices, {level: palette[level] for level in (0, *levels)}


def agree(known: dict[int, tuple[Colour, Path]], colours: Colours, path: Path) -> None:
    """Add the colours of a mask's levels to the `known` ones of earlier masks.

    Raises:
        UserError: a level has another colour there, and so may be another structure; the message names both files.
    """
    for level, colour in colours.items():
        before, other = known.setdefault(level, (colour, path))
        if before != colour:
            raise UserError(
                f"{path}: its palette gives index {level} another colour than that of {other}: is it the same "
                "structure? Save all masks with one palette, or with one grey level per structure."
            )


def find_images(given: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the images among files and folders, and notes on the other files in the folders.

    Args:
        given: images, whatever their names, and folders, whose images are found by their suffix, or if they are DICOM
            files without one. Subfolders are not searched.

    Raises:
        UserError: a folder without images, or two images of one name, whose results would overwrite each other.
    """
    images, notes = [], []
    for path in given:
        if not is_folder(path):
            images.append(path)
            continue
        found = [entry for entry in entries(path) if not is_folder(entry)]
        chosen = [entry for entry in found if entry.suffix.lower() in KINDS or _is_bare_dicom(entry)]
        others = [entry.name for entry in found if entry not in set(chosen)]
        if not chosen:
            raise UserError(f"{path}: contains no images. {describe_other_content(path, others)}")
        if others:
            notes.append(f"{path}: {counted(len(others), 'non-image file')} left out: {first_few(others)}.")
        images += chosen
    names: dict[str, Path] = {}
    images = list({os.path.realpath(image): image for image in reversed(images)}.values())[::-1]  # the same one once
    for image in images:
        other = names.setdefault(image.stem, image)
        if other is not image:
            raise UserError(
                f"two images are called {image.stem}: their masks would overwrite each other ({other}, {image}). "
                "Give them one after the other, each with another --out."
            )
    return images, notes


def describe_other_content(folder: Path, files: Sequence[str]) -> str:
    """Return what a folder without images holds, from the names of its files, and what to do."""
    kind = next((kind for name in files if (kind := volume(name))), None)
    if kind:
        return f"It contains {kind} volumes; {VOLUMES}."
    if files:
        return f"It contains {first_few(files)}. Images are PNG, TIFF, JPEG, BMP or DICOM files."
    folders = [entry.name for entry in entries(folder) if is_folder(entry)]
    return f"Name the one of its folders that contains them: {first_few(folders)}." if folders else "It is empty."


def _is_bare_dicom(path: Path) -> bool:
    """Return whether a file is DICOM and has no suffix, as those from scanners."""
    if (path.suffix and not path.suffix[1:].isdigit()) or not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _is_dicom(path: Path, data: bytes) -> bool:
    if kind := volume(path.name):
        raise UserError(f"{path}: a {kind} volume; {VOLUMES}.")
    return path.suffix.lower() in DICOM_SUFFIXES or data[128:132] == b"DICM"


def _alpha_differs(pixels: NDArray[Any]) -> bool:
    """Return whether some pixels are more transparent than others."""
    has_alpha = pixels.ndim == 3 and pixels.shape[2] in (2, 4)
    return has_alpha and bool(pixels[..., -1].min() != pixels[..., -1].max())


def _equal(pixels: NDArray[Any]) -> Array | None:
    """Return the grey levels (H, W) of pixels whose colour channels are equal, None for others; alpha is ignored."""
    if pixels.ndim == 2:
        return pixels
    first: Array = pixels[..., 0]
    others = range(1, 1 if pixels.shape[2] == 2 else min(3, pixels.shape[2]))  # the last of 2 or 4 is alpha
    return first if all((pixels[..., other] == first).all() for other in others) else None


def _luma(colours: NDArray[Any]) -> Array:
    """Return the brightness (H, W) of colours (H, W, 3 or 4); integers stay integers."""
    import numpy as np

    whole = colours.dtype in (np.uint8, np.uint16)
    found = np.empty(colours.shape[:2], colours.dtype if whole else np.float64)
    for top in range(0, len(found), ROWS):
        part = colours[top : top + ROWS].astype(np.uint32 if whole else np.float64)
        weighed: Any = sum(part[..., i] * weight for i, weight in enumerate(LUMA))
        found[top : top + ROWS] = (weighed + 500) // 1000 if whole else weighed / 1000
    return found


def _plain(pixels: NDArray[Any], name: str) -> Array:
    """Return pixels as uint8, uint16 or finite float32."""
    import numpy as np

    if pixels.dtype not in (np.uint8, np.uint16):
        with np.errstate(over="ignore"):
            pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise UserError(f"{name}: contains values that are not finite (NaN, infinity, or beyond 32 bits).")
    return np.ascontiguousarray(pixels)
