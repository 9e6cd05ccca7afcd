"""Image files of every kind that segkit reads, as one grey channel."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

from segkit.datasets.dicom import parse_dicom
from segkit.datasets.reading import SIDE, read_bytes
from segkit.errors import UserError
from segkit.types import Array

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
DICOM_SUFFIXES = (".dcm", ".dicom")
LUMA = (114, 587, 299)  # thousandths of blue, green and red (ITU-R BT.601)
TIFF_COLUMNS, TIFF_ROWS, TIFF_TILE_SIDES = 256, 257, (322, 323)
TIFF_NUMBERS = {1: "B", 3: "H", 4: "I"}
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def read_image(path: Path) -> Array:
    """Return an image (H, W), uint8, uint16 or float32, of a DICOM, PNG, TIFF, JPEG or BMP file.

    Colour becomes grey (0.299 red + 0.587 green + 0.114 blue), an alpha channel is dropped.

    Raises:
        UserError: the file is missing, damaged, of another kind or larger than 8192 x 8192; the message names it.
    """
    return read_with_spacing(path)[0]


def read_with_spacing(path: Path) -> tuple[Array, tuple[float, float] | None]:
    """Return an image as `read_image` does, and the spacing in mm that a DICOM file states."""
    data = read_bytes(path)
    if path.suffix.lower() in DICOM_SUFFIXES or data[128:132] == b"DICM":
        return parse_dicom(data, str(path))
    return grey(decode_image(data, str(path)), str(path)), None


def decode_image(data: bytes, name: str) -> Array:
    """Return the pixels of a PNG, TIFF, JPEG or BMP file, (H, W) or (H, W, channels) in OpenCV's order.

    The size is read from the header, and refused, before any memory is taken for pixels.

    Raises:
        UserError: damaged, of another kind, or larger than 8192 x 8192.
    """
    import cv2
    import numpy as np

    try:
        rows, columns = _size(data)
    except (struct.error, IndexError, ValueError) as error:
        raise UserError(f"{name}: a damaged image: its header cannot be read ({error}).") from None
    if not (1 <= rows <= SIDE and 1 <= columns <= SIDE):
        raise UserError(f"{name}: {rows} x {columns} pixels; images are read from 1 x 1 to {SIDE} x {SIDE}.")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the message below says it
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UserError(f"{name}: a damaged image ({str(error).strip().splitlines()[-1][:120]}).") from None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if found is None or found.shape[:2] != (rows, columns):
        raise UserError(f"{name}: a damaged image, or of a kind that cannot be decoded.")
    return found


def _size(data: bytes) -> tuple[int, int]:
    """Return rows and columns as the header says."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png_size(data)
    if data[:2] == b"\xff\xd8":
        return _jpeg_size(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(data)
    if data[:2] == b"BM":
        header, columns, rows = struct.unpack("<Iii", data[14:26])
        if header < 40:
            raise ValueError("a header of OS/2")
        return abs(rows), abs(columns)
    raise ValueError("none of PNG, TIFF, JPEG, BMP and DICOM")


def _png_size(data: bytes) -> tuple[int, int]:
    """Return the size of a PNG whose every chunk is whole."""
    at, ended = 8, False
    while not ended:
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = memoryview(data)[at + 4 : at + 8 + length]
        (check,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        if zlib.crc32(body) != check:
            raise ValueError(f"a chunk at byte {at} fails its checksum")
        at, ended = at + 12 + length, kind == b"IEND"
    kind, columns, rows = struct.unpack(">4sII", data[12:24])
    if kind != b"IHDR":
        raise ValueError("it does not begin with its size")
    return rows, columns


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the size of a JPEG that is not cut off."""
    if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ValueError("cut off: it lacks the end mark")
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError(f"no mark at byte {at}")
        mark = data[at + 1]
        if mark == 0xFF:  # a fill byte
            at += 1
        elif mark in JPEG_FRAMES:
            rows, columns = struct.unpack(">HH", data[at + 5 : at + 9])
            return rows, columns
        else:
            at += 2 + max(2, struct.unpack(">H", data[at + 2 : at + 4])[0])


def _tiff_size(data: bytes) -> tuple[int, int]:
    """Return the size of a TIFF's only image."""
    order = "<" if data[:1] == b"I" else ">"
    (at,) = struct.unpack(order + "I", data[4:8])
    (count,) = struct.unpack(order + "H", data[at : at + 2])
    sides: dict[int, int] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack(order + "HH", data[entry : entry + 4])
        if tag in (TIFF_COLUMNS, TIFF_ROWS, *TIFF_TILE_SIDES) and kind in TIFF_NUMBERS:
            number = order + TIFF_NUMBERS[kind]
            (value,) = struct.unpack(number, data[entry + 8 : entry + 8 + struct.calcsize(number)])
            sides.setdefault(tag, value)
    (following,) = struct.unpack(order + "I", data[at + 2 + 12 * count : at + 6 + 12 * count])
    if following:
        raise ValueError("several images in one file; one is read")
    if not {TIFF_ROWS, TIFF_COLUMNS} <= set(sides):
        raise ValueError("it states no size")
    if max(sides.values()) > SIDE:  # a tile can be larger than the image
        return max(sides.values()), max(sides.values())
    return sides[TIFF_ROWS], sides[TIFF_COLUMNS]


def grey(pixels: Array, name: str) -> Array:
    """Return (H, W) uint8, uint16 or float32 of decoded pixels; whole numbers stay what they are.

    Raises:
        UserError: values that are not finite.
    """
    import numpy as np

    found: Any = pixels
    if found.ndim == 3:
        colour = found[..., : 1 if found.shape[2] == 2 else 3]  # the last of 2 or 4 is alpha
        if (colour == colour[..., :1]).all():
            found = colour[..., 0]
        elif colour.dtype in (np.uint8, np.uint16):
            weighed = sum(colour[..., i].astype(np.uint32) * weight for i, weight in enumerate(LUMA))
            found = ((weighed + 500) // 1000).astype(colour.dtype)
        else:
            found = sum(colour[..., i].astype(np.float64) * weight for i, weight in enumerate(LUMA)) / 1000
    if found.dtype not in (np.uint8, np.uint16):
        with np.errstate(over="ignore"):
            found = found.astype(np.float32)
        if not np.isfinite(found).all():
            raise UserError(f"{name}: holds values that are not finite (NaN or infinity, or beyond 32 bits).")
    return np.ascontiguousarray(found)
