"""Pixels of PNG, TIFF, JPEG and BMP files, or one message that names the kind of any other file.

Limits are checked in the header, before decoding.

Pillow decodes the formats that it returns unchanged. OpenCV decodes TIFF; PNG in 16-bit colour, which Pillow reduces to
8 bits; and BMP of 16 and 32 bits, which Pillow scales, or whose alpha it drops.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segkit.components.datasets import tiff
from segkit.components.datasets.quiet import WITHOUT_WARNINGS
from segkit.components.datasets.reading import RefusedError as RefusedError
from segkit.components.datasets.reading import check_size
from segkit.errors import UserError, sentence
from segkit.types import Array

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

DENSEST = 1100  # more than deflate's largest ratio of decoded to compressed bytes (1032)
PNG, JPEG, EXIF = b"\x89PNG", b"\xff\xd8", b"Exif\0\0"
VOLUME_SUFFIXES = {
    ".nii": "NIfTI", ".nii.gz": "NIfTI", ".mha": "MetaImage", ".mhd": "MetaImage", ".nrrd": "NRRD", ".mgz": "MGH",
    ".mgh": "MGH", ".mnc": "MINC",
}  # fmt: skip
READS_NIFTI = "the datasets nifti and nnunet read NIfTI (`segkit check FOLDER` prints the lines)"
CONVERT = """convert it to NIfTI, e.g. SimpleITK.WriteImage(SimpleITK.ReadImage("a.mha"), "a.nii.gz")"""
MARKS = (
    (0, b"\x89PNG", "a PNG picture"), (0, b"\xff\xd8\xff", "a JPEG picture"), (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"GIF8", "a GIF picture"), (8, b"WEBP", "a WebP picture"), (4, b"jP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"), (4, b"ftyp", "a HEIF picture or a film"),
    (0, b"II+\0", "a TIFF picture"), (0, b"MM\0+", "a TIFF picture"), (0, b"8BPS", "a Photoshop document"),
    (0, b"%PDF", "a PDF document"), (0, b"\x93NUMPY", "a NumPy array"), (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"MATLAB ", "a MATLAB file"), (0, b"PK\3\4", "a ZIP archive"), (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"), (0, b"Rar!", "a RAR archive"), (257, b"ustar", "a TAR archive"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file (`git lfs pull` fetches it)"),
    (0, b"\x80\x02", "a pickle"), (0, b"\x7fELF", "a program"), (0, b"<", "an HTML, SVG or XML file"),
)  # fmt: skip

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
        with WITHOUT_WARNINGS:
            return _decoded(data)
    except RefusedError as reason:
        raise UserError(f"{name}: {reason}") from None
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


def kind_of(data: bytes) -> str:
    """Return what the bytes of a file are, such as "a NIfTI volume" or "a text file"."""
    start = data[:4096]
    if start[:2] == b"\x1f\x8b":
        with contextlib.suppress(zlib.error):
            start = zlib.decompressobj(31).decompress(start, 512)
    if start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0"):
        return "a NIfTI volume"
    if start[:4] == b"NRRD":
        return "a NRRD volume"
    if start[:10] in (b"ObjectType", b"NDims = 3\n", b"NDims = 2\n"):
        return "a MetaImage volume"
    for at, mark, kind in MARKS:
        if data[at : at + len(mark)] == mark:
            return kind
    if any((byte < 32 and byte not in b"\t\r\n\f") or byte == 127 for byte in start):
        return "of an unknown kind"
    return "a text file" if data else "an empty file"


def advice_on(kind: str) -> str:
    """Return what to do with a volume of a kind, such as "NIfTI", where images are expected."""
    return READS_NIFTI if "NIfTI" in kind else CONVERT


def volume(name: str) -> str | None:
    """Return the kind of volume that a file's name indicates, None for other files."""
    return next((kind for suffix, kind in VOLUME_SUFFIXES.items() if name.lower().endswith(suffix)), None)
