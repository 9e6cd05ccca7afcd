"""TIFF files, classic and BigTIFF, of one page or of a stack: their directories are checked, then OpenCV decodes them.

OpenCV rather than tifffile, which without a further package decodes neither LZW nor JPEG; and rather than Pillow, which
supports neither 16-bit colour nor 64-bit float, and copies the values of all tags, gigabytes if a small file claims so.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from typing import Any

from segkit.components.datasets.formats.quiet import SILENT_OPENCV
from segkit.components.datasets.reading import MOST_STACK, SIDE, RefusedError, check_size
from segkit.types import Array

MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
WIDTH, HEIGHT, BITS, PHOTOMETRIC, DESCRIPTION, ORIENTATION, SAMPLES = 256, 257, 258, 262, 270, 274, 277
TILE_WIDTH, TILE_HEIGHT, DEPTH = 322, 323, 32997
TEXT = 2
PALETTE = 3
NUMBERS = {1: "B", TEXT: "B", 3: "H", 4: "I", 16: "Q"}
CMYK = "in CMYK colours, for print; save it as a grey image."
MOST_PAGES = 8192
MOST_TAGS = 500_000  # of all pages; directories that overlap can claim any number
LONGEST_DESCRIPTION = 1 << 16
IMAGEJ = re.compile(r"^(images|channels|slices|frames)=([0-9]{1,9})\s*$", re.MULTILINE)
OME = re.compile(r'\bSize([CZT])="([0-9]{1,9})"')


def directories(data: bytes) -> Iterator[dict[int, int]]:
    """Yield the tags of each page with their first numbers; of a text, where it begins.

    Raises:
        struct.error: the file is cut off.
        ValueError: the directories lead back to each other, or are more than any image has.
    """
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    first, number, count_of, size = (8, "Q", "Q", 20) if big else (4, "I", "H", 12)

    def unpacked(kind: str, at: int) -> Any:
        return struct.unpack(order + kind, data[at : at + struct.calcsize(order + kind)])

    (at,), seen, tags = unpacked(number, first), set[int](), 0
    while at:
        (count,) = unpacked(count_of, at)
        tags += count
        if at in seen or len(seen) >= MOST_PAGES or tags > MOST_TAGS:
            raise ValueError(f"its directories have no end, or are more than {MOST_PAGES:,}")
        seen.add(at)
        entries = at + struct.calcsize(order + count_of)
        found: dict[int, int] = {}
        for entry in range(entries, entries + size * count, size):
            tag, kind, length = unpacked("HH" + number, entry)
            if kind in NUMBERS:
                place = entry + size - struct.calcsize(number)
                if length * struct.calcsize(NUMBERS[kind]) > struct.calcsize(number):  # the values lie elsewhere
                    (place,) = unpacked(number, place)
                found.setdefault(tag, place if kind == TEXT else unpacked(NUMBERS[kind], place)[0])
        yield found
        (at,) = unpacked(number, entries + size * count)


def decode_tiff(data: bytes) -> Array:
    """Return the pages (D, H, W, S) of a TIFF; S samples: grey, red, green and blue, or either with alpha.

    Raises:
        RefusedError: too large, CMYK, not upright, or pages that are not one stack of slices.
        ValueError, struct.error: damaged.
    """
    import numpy as np

    pages = list(directories(data))
    sizes = [_size(page) for page in pages]
    if not pages:
        raise ValueError("it has no image")
    if sum(rows * columns * depth for rows, columns, depth in sizes) > MOST_STACK and len(pages) > 1:
        raise RefusedError(f"more than {MOST_STACK >> 20} MiB of pixels in its {len(pages)} pages.")
    _check_stack(pages, data)
    found = decode_pages(data, len(pages))
    if len(found) != len(pages) or any(page.shape[:2] != size[:2] for page, size in zip(found, sizes, strict=True)):
        raise ValueError("it cannot be decoded")
    if any((page.shape, page.dtype) != (found[0].shape, found[0].dtype) for page in found):
        raise RefusedError("its pages differ in size or kind: save the slices of one stack, without thumbnails.")
    return np.stack(found) if len(found) > 1 else found[0][None]


def decode_pages(data: bytes, pages: int = 1) -> list[Any]:
    """Return the pages, each (H, W, S), of any file that OpenCV decodes; colours as red, green, blue."""
    import cv2
    import numpy as np

    buffer = np.frombuffer(data, np.uint8)
    with SILENT_OPENCV:  # the message says what it would print
        if pages == 1:
            found: list[Any] = [cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)]
        else:
            found = list(cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED)[1])
    if any(page is None for page in found):
        raise ValueError("it cannot be decoded")
    found = [page[..., None] if page.ndim == 2 else page for page in found]
    return [page if page.shape[2] < 3 else _from_bgr(page) for page in found]


def _from_bgr(page: Any) -> Any:
    import numpy as np

    return np.concatenate([page[..., 2::-1], page[..., 3:]], axis=2)


def check_upright(exif: bytes) -> None:
    """Raise if EXIF data, which are laid out like a TIFF, ask for the image to be rotated or mirrored."""
    try:
        turned = next(directories(exif), {}).get(ORIENTATION, 1)
    except (struct.error, ValueError):
        return  # no program can read it either
    _check_orientation(turned)


def _check_orientation(turned: int) -> None:
    if turned not in (0, 1):
        raise RefusedError(
            f"to be shown rotated or mirrored (EXIF orientation {turned}), which not every program does, so that "
            "image and mask may not match. Save it upright, without EXIF data."
        )


def _size(page: dict[int, int]) -> tuple[int, int, int]:
    """Return rows, columns and bytes of a pixel of a page that can be read."""
    if not {HEIGHT, WIDTH} <= set(page):
        raise ValueError("its size is missing")
    if page.get(PHOTOMETRIC) == 5:
        raise RefusedError(CMYK)
    if page.get(DEPTH, 1) > 1:
        raise RefusedError("a volume in one page, which few programs read: save each slice as a page.")
    _check_orientation(page.get(ORIENTATION, 1))
    samples = 3 if page.get(PHOTOMETRIC) == PALETTE else page.get(SAMPLES, 1)
    depth = max(1, page.get(BITS, 8) // 8) * (4 if samples > 3 else samples)
    largest_tile = max(page.get(TILE_HEIGHT, 0), page.get(TILE_WIDTH, 0))  # it can be larger than the image
    if largest_tile > SIDE:
        check_size(largest_tile, largest_tile, depth)
    check_size(page[HEIGHT], page[WIDTH], depth)
    return page[HEIGHT], page[WIDTH], depth


def _check_stack(pages: list[dict[int, int]], data: bytes) -> None:
    """Raise if ImageJ or OME metadata say that the pages are not the slices of one image, or that some are missing."""
    at = pages[0].get(DESCRIPTION)
    text = data[at : at + LONGEST_DESCRIPTION].split(b"\0")[0].decode("utf-8", "replace") if at else ""
    stated = {name: int(number) for name, number in IMAGEJ.findall(text)} if text.startswith("ImageJ=") else {}
    images = stated.pop("images", len(pages))
    if images > len(pages):
        raise RefusedError(f"ImageJ states {images} images in it, of which {len(pages)} can be read: save it again.")
    if len(pages) > 1 and "<OME" in text:
        stated = {{"C": "channels", "Z": "slices", "T": "frames"}[axis]: int(n) for axis, n in OME.findall(text)[:3]}
        if math.prod(stated.values()) > len(pages):  # the samples of a coloured page count as channels
            stated.pop("channels", None)
    axes = [f"{number} {name}" for name, number in stated.items() if number > 1]
    if len(axes) > 1:
        raise RefusedError(
            f"{' and '.join(axes)} in one file; only stacks of slices are read. Save each channel or frame as a file."
        )
