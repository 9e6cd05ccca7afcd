"""Image files of every kind that segkit reads: images as one grey channel, masks as levels."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.datasets.dicom import parse_dicom
from segkit.datasets.headers import VOLUMES, NotReadError, read_header, volume
from segkit.datasets.reading import entries, is_folder, read_bytes, shortened
from segkit.errors import UserError
from segkit.types import Array

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
DICOM_SUFFIXES = (".dcm", ".dicom")
KINDS = SUFFIXES + DICOM_SUFFIXES
LUMA = (114, 587, 299)  # thousandths of blue, green and red (ITU-R BT.601)
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
    pixels = decode_image(data, str(path))
    grey = _equal(pixels)
    if grey is not None and _alpha_differs(pixels) and grey.min() == grey.max():
        raise UserError(f"{path}: its picture is in the alpha channel, which is not read. Save it as a grey image.")
    return Picture(_plain(_luma(pixels) if grey is None else grey, str(path)), coloured=grey is None)


def read_levels(path: Path) -> Array:
    """Return a mask's grey levels (H, W); colour with equal channels and alpha that is opaque everywhere are grey.

    Raises:
        UserError: as for `read_image`; or the mask holds colours, or transparency, in which a mask may hide.
    """
    import numpy as np

    data = read_bytes(path)
    if _is_dicom(path, data):
        return parse_dicom(data, str(path))[0]
    pixels: Any = decode_image(data, str(path))
    if _alpha_differs(pixels):
        raise UserError(f"{path}: a mask with a transparent part. Save it without alpha: one grey level a structure.")
    grey = _equal(pixels)
    if grey is None:
        colours = len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0))
        raise UserError(
            f"{path}: a coloured mask, of {colours} colours. Save it with one grey level a structure, 0 for none."
        )
    return _plain(grey, str(path))


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
            notes.append(f"{path}: {len(others)} file(s) that are no images left out: {shortened(others)}.")
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
        return f"Here are: {shortened(others)}. Images are PNG, TIFF, JPEG, BMP or DICOM files."
    return f"Give the one of these that holds them: {shortened(folders)}." if folders else "It is empty."


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


def decode_image(data: bytes, name: str) -> Array:
    """Return the pixels of a PNG, TIFF, JPEG or BMP file, (H, W) or (H, W, channels) in OpenCV's order.

    The size is read from the header, and refused, before any memory is taken for pixels.

    Raises:
        UserError: damaged, of another kind, larger than 8192 x 8192, or of more than 256 MiB.
    """
    import cv2
    import numpy as np

    try:
        header = read_header(data)
    except NotReadError as reason:
        raise UserError(f"{name}: {reason}") from None
    except struct.error:
        raise UserError(f"{name}: a damaged image: cut off.") from None
    except (IndexError, ValueError) as error:
        raise UserError(f"{name}: a damaged image: {error}.") from None
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the message below says it
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UserError(f"{name}: a damaged image ({str(error).strip().splitlines()[-1][:120]}).") from None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if found is None or found.shape[:2] != (header.rows, header.columns):
        raise UserError(f"{name}: a damaged image, or of a kind that cannot be decoded.")
    return found


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
