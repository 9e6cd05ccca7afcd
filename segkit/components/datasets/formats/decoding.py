"""Pixels of PNG, TIFF, JPEG and BMP files, or one message that names the kind of any other file.

Limits are checked in the header, before decoding.

Pillow decodes the formats that it returns unchanged. OpenCV decodes TIFF; PNG in 16-bit colour, which Pillow reduces to
8 bits; and BMP of 16 and 32 bits, which Pillow scales, or whose alpha it drops.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segkit.components.datasets.formats import tiff
from segkit.components.datasets.formats.kinds import advice_on, kind_of
from segkit.components.datasets.formats.quiet import WITHOUT_WARNINGS
from segkit.components.datasets.reading import RefusedError, check_size, refused_by
from segkit.errors import UserError, sentence
from segkit.types import Array

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

DENSEST = 1100  # more than deflate's largest ratio of decoded to compressed bytes (1032)
PNG, JPEG, EXIF = b"\x89PNG", b"\xff\xd8", b"Exif\0\0"

Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Decoded:
    """The pixels of a file.

    Attributes:
        pixels: (D, H, W, S) of D pages; S is 1 (grey), 2 (and alpha), 3 (red, green, blue) or 4 (and alpha).
        indices: (D, H, W) of a PNG with a palette.
        palette: its colours.
    """

    pixels: Array
    indices: Array | None = None
    palette: tuple[Colour, ...] = ()


def decode_image(data: bytes, name: str) -> Decoded:
    """Return the pixels of a PNG, TIFF, JPEG or BMP file; a TIFF may have several pages.

    Raises:
        UserError: damaged, of another kind, larger than 8192 x 8192 or 256 MiB, an animation, CMYK, or not upright.
    """
    try:
        with refused_by(name), WITHOUT_WARNINGS:
            return _decoded(data)
    except UserError:
        raise
    except Exception as error:  # a decoder may raise anything on damaged bytes
        short = isinstance(error, struct.error | EOFError | IndexError) or "truncated" in str(error).lower()
        text = "cut off" if short else str(error).strip().partition("\n")[0][:120] or type(error).__name__
        raise UserError(f"{name}: a damaged image: {sentence(text)}") from None


def _decoded(data: bytes) -> Decoded:
    import numpy as np

    if data[:4] in tiff.MARKS:
        return Decoded(tiff.decode_tiff(data))
    image, is_png = _open(data), data[:4] == PNG
    if image.mode == "CMYK":
        raise RefusedError(tiff.CMYK)
    columns, rows = image.size
    wide = is_png and data[24] == 16
    bands = 4 if image.mode in ("P", "LA") else len(image.getbands())
    check_size(rows, columns, bands * (2 if wide else 1))
    if is_png:
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise RefusedError(f"an animation of {frames} images; only files of one image are read.")
        if rows * columns * data[24] > 8 * len(data) * DENSEST:
            raise ValueError(f"{len(data)} bytes cannot hold its {rows} x {columns} pixels")
        _open(data).verify()  # the checksums of its chunks
    if (wide and image.mode != "I;16") or (data[:2] == b"BM" and data[28] in (16, 32)):
        return _by_opencv(data, (rows, columns))
    image.load()
    tiff.check_upright((image.info.get("exif", b"") if is_png else data).partition(EXIF)[2])
    if image.mode != "P":
        return _one_page(np.asarray(image.convert("L") if image.mode == "1" else image))
    colours = np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB"))
    if not is_png or image.palette is None:
        return _one_page(colours)
    palette = bytes(image.palette.palette)
    triples = tuple(zip(palette[::3], palette[1::3], palette[2::3], strict=False))
    return Decoded(colours[None], np.asarray(image)[None], triples)


def _one_page(pixels: Array) -> Decoded:
    """Return what was decoded as (H, W) or (H, W, S)."""
    return Decoded((pixels[..., None] if pixels.ndim == 2 else pixels)[None])


def _by_opencv(data: bytes, size: tuple[int, int]) -> Decoded:
    (page,) = tiff.decode_pages(data)
    if page.shape[:2] != size:
        raise ValueError("it cannot be decoded")
    return Decoded(page[None])


def _open(data: bytes) -> ImageFile:
    """Return a PNG, JPEG or BMP opened by Pillow, which reads its header alone."""
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin

    file = io.BytesIO(data)
    if data[:4] == PNG:
        if len(data) < 26:
            raise EOFError
        return PngImagePlugin.PngImageFile(file)
    if data[:2] == JPEG:
        if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
            raise EOFError
        return JpegImagePlugin.JpegImageFile(io.BytesIO(without_exif(data)))
    if data[:2] == b"BM":
        return BmpImagePlugin.BmpImageFile(file)
    if not data:
        raise ValueError("it is empty, 0 bytes")
    kind = kind_of(data)
    advice = advice_on(kind) if kind.endswith("volume") else "images are PNG, TIFF, JPEG, BMP or DICOM files"
    raise RefusedError(f"{kind}; {advice}.")


def without_exif(data: bytes) -> bytes:
    """Return a JPEG with EXIF data hidden from Pillow, which would copy the values of all tags, even overlapping."""
    return data.replace(EXIF, bytes(len(EXIF)))
