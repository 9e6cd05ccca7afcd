"""Image files of every kind that segkit reads: images as one grey channel, masks as levels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.components.datasets.decoding import Colour, Decoded, decode_image
from segkit.components.datasets.dicom import parse_dicom
from segkit.components.datasets.kinds import VOLUMES, volume
from segkit.components.datasets.reading import entries, is_folder, read_bytes
from segkit.errors import UserError, counted, first_few
from segkit.types import Array

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
DICOM_SUFFIXES = (".dcm", ".dicom")
KINDS = SUFFIXES + DICOM_SUFFIXES
LUMA = (299, 587, 114)  # thousandths of red, green and blue (ITU-R BT.601)
BLACK = (0, 0, 0)
Colours = dict[int, Colour]  # red, green, blue by level
ROWS = 512  # converted at a time, which bounds the memory


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that was read.

    Attributes:
        pixels: (H, W) uint8, uint16 or float32.
        spacing_mm: (row, column), where a DICOM file states it.
        coloured: whether the file holds colours, of which `pixels` are the brightness.
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
    """Return an image as `read_image` does, and what else its file says of it."""
    data = read_bytes(path)
    if _is_dicom(path, data):
        return Picture(*parse_dicom(data, str(path)))
    pixels = decode_image(data, str(path)).pixels
    grey = _equal(pixels)
    if grey is not None and _alpha_differs(pixels) and grey.min() == grey.max():
        raise UserError(f"{path}: its picture is in the alpha channel, which is not read. Save it as a grey image.")
    return Picture(_plain(_luma(pixels) if grey is None else grey, str(path)), coloured=grey is None)


def read_levels(path: Path) -> tuple[Array, Colours]:
    """Return a mask's levels (H, W), and the colours of those levels where they are the indices of a PNG's palette.

    Colour with equal channels and alpha that is opaque everywhere are grey. A palette of colours that begins with one
    black is of labels, as other tools write them: its indices are the levels. One of grey levels is a grey image.

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
        raise UserError(f"{path}: a mask with a transparent part. Save it without alpha: one grey level a structure.")
    grey = _equal(found.pixels)
    if grey is None:
        pixels: Any = found.pixels
        colours = len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0))
        palette = ", in a palette that is not of labels: black, then others" if found.palette else ""
        raise UserError(
            f"{path}: a coloured mask, of {colours} colours{palette}. Save it with one grey level a structure, 0 for "
            "none."
        )
    return _plain(grey, str(path)), {}


def _labels(found: Decoded, name: str) -> tuple[Array, Colours] | None:
    """Return the indices (H, W) of a palette of labels, and the colours of 0 and those that occur.

    None for other files, and for palettes of grey levels or of the colours of any picture.

    Raises:
        UserError: an index beyond the palette.
    """
    import numpy as np

    palette = found.palette
    grey = all(red == green == blue for red, green, blue in palette)
    if found.indices is None or grey or palette[0] != BLACK or palette[1:2] == (BLACK,):
        return None
    levels = np.unique(found.indices).tolist()
    if levels[-1] >= len(palette):
        raise UserError(f"{name}: a damaged image: index {levels[-1]} of a palette of {len(palette)} colours.")
    return found.indices, {level: palette[level] for level in (0, *levels)}


def agree(known: dict[int, tuple[tuple[int, int, int], Path]], colours: Colours, path: Path) -> None:
    """Raise if a mask's palette gives a level another colour than one before it: then it may be another structure.

    Args:
        known: the colours of the masks before, which this one's are added to.
        colours: those of this mask.
        path: its file.

    Raises:
        UserError: the message names both files.
    """
    for level, colour in colours.items():
        before, other = known.setdefault(level, (colour, path))
        if before != colour:
            raise UserError(
                f"{path}: its palette gives index {level} another colour than that of {other}: is it the same "
                "structure? Save all masks with one palette, or with one grey level a structure."
            )


def find_images(given: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the images among files and folders, and what to say of files in the folders that are none.

    Args:
        given: images, which are taken whatever they are called, and folders, of which the images are taken: by their
            ending, or without one if they are DICOM files. Folders in folders are not looked into.

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
            raise UserError(f"{path}: a folder without images. {_instead(path, others)}")
        if others:
            notes.append(f"{path}: {counted(len(others), 'other file')} left out, no image: {first_few(others)}.")
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


def _instead(folder: Path, others: list[str]) -> str:
    """Return what is in a folder without images."""
    kind = next((kind for name in others if (kind := volume(name))), None)
    if kind:
        return f"It holds {kind} volumes; {VOLUMES}."
    folders = [entry.name for entry in entries(folder) if is_folder(entry)]
    if others:
        return f"Here are: {first_few(others)}. Images are PNG, TIFF, JPEG, BMP or DICOM files."
    return f"Give the one of these that holds them: {first_few(folders)}." if folders else "It is empty."


def _is_bare_dicom(path: Path) -> bool:
    """Return whether a file without an ending is DICOM, as they come from scanners."""
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    if not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _is_dicom(path: Path, data: bytes) -> bool:
    named = path.suffix.lower() in DICOM_SUFFIXES
    if volume(path.name):
        raise UserError(f"{path}: a {volume(path.name)} volume; {VOLUMES}.")
    return named or data[128:132] == b"DICM"


def _alpha_differs(pixels: Array) -> bool:
    """Return whether some pixels are more transparent than others."""
    found: Any = pixels
    alpha = found[..., -1] if found.ndim == 3 and found.shape[2] in (2, 4) else None
    return alpha is not None and bool(alpha.min() != alpha.max())


def _equal(pixels: Array) -> Array | None:
    """Return (H, W) of pixels whose colour channels are equal; None if they are not. Alpha does not count."""
    found: Any = pixels
    if found.ndim == 2:
        return pixels
    first: Array = found[..., 0]
    others = range(1, 1 if found.shape[2] == 2 else min(3, found.shape[2]))  # the last of 2 or 4 is alpha
    return first if all((found[..., other] == first).all() for other in others) else None


def _luma(pixels: Array) -> Array:
    """Return the brightness (H, W) of colours (H, W, 3 or 4); whole numbers stay whole."""
    import numpy as np

    colours: Any = pixels
    whole = colours.dtype in (np.uint8, np.uint16)
    found: Any = np.empty(colours.shape[:2], colours.dtype if whole else np.float64)
    for top in range(0, len(found), ROWS):
        part = colours[top : top + ROWS].astype(np.uint32 if whole else np.float64)
        weighed = sum(part[..., i] * weight for i, weight in enumerate(LUMA))
        found[top : top + ROWS] = (weighed + 500) // 1000 if whole else weighed / 1000
    brightness: Array = found
    return brightness


def _plain(pixels: Array, name: str) -> Array:
    """Return pixels as uint8, uint16 or float32.

    Raises:
        UserError: values that are not finite.
    """
    import numpy as np

    found: Any = pixels
    if found.dtype not in (np.uint8, np.uint16):
        with np.errstate(over="ignore"):
            found = found.astype(np.float32)
        if not np.isfinite(found).all():
            raise UserError(f"{name}: holds values that are not finite (NaN or infinity, or beyond 32 bits).")
    return np.ascontiguousarray(found)
