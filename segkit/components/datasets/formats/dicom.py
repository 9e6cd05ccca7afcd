"""DICOM files: grey frames and their spacing, or one message.

Read: one sample per pixel, 8 or 16 bits, up to 8192 x 8192; uncompressed, or compressed as RLE, 8-bit JPEG, lossless
JPEG, JPEG-LS or JPEG 2000. Bits above BitsStored are dropped, MONOCHROME1 is inverted within the stored range, and
rescale slope and intercept are applied. Windows and look-up tables, which are for display, are ignored.

Refused before memory is allocated for pixels: colour, palettes, 32 bits and more, deflated files, JPEG of 12 bits,
High-Throughput JPEG 2000, video. Their decoders are not to be had under a permissive licence, or not worth their size.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segkit.components.datasets.formats.compressed import (
    BIG_ENDIAN,
    DECODERS,
    EXPLICIT,
    LOSSLESS_JPEG,
    check_frame,
    joined_frames,
)
from segkit.components.datasets.formats.dicom_header import MOST_HEADER, PIXEL_DATA, Format, format_of, parse_header
from segkit.components.datasets.formats.lossless_jpeg import decode_lossless_jpeg
from segkit.components.datasets.formats.quiet import WITHOUT_WARNINGS
from segkit.components.datasets.reading import RefusedError, read_bytes, refused_by
from segkit.types import Array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def read_dicom(path: Path) -> tuple[Array, tuple[float, float] | None]:
    """Return a file's image (H, W), and the distance between its rows and columns in mm, or None.

    The image is uint8 or uint16 as stored. Where values are negative or rescaled, it is int16 if all of them are whole
    and fit (CT in Hounsfield units), else float32.

    Raises:
        UserError: the file is damaged or of a kind that is not read; the message names it and the reason.
    """
    return parse_dicom(read_bytes(path), str(path))


def parse_dicom(data: bytes, name: str) -> tuple[Array, tuple[float, float] | None]:
    """Return what `read_dicom` does, from the bytes of a file."""
    with refused_by(name):
        header, at = parse_header(data)
        found = format_of(header)
        if found.frames != 1:
            raise RefusedError(f"{found.frames} frames in one file; only files of one frame are read. Split it first.")
        return _image(_stored(data, at, found)[0], found, 0), found.spacing_mm


def read_frames(path: Path) -> list[Array]:
    """Return the frames of a file, (H, W) each, as `read_dicom` does.

    Raises:
        UserError: the file is damaged or of a kind that is not read; the message names it and the reason.
    """
    data = read_bytes(path)
    with refused_by(path):
        header, at = parse_header(data)
        found = format_of(header)
        return [_image(frame, found, number) for number, frame in enumerate(_stored(data, at, found))]


def _stored(data: bytes, at: int, found: Format) -> list[NDArray[np.integer]]:
    """Return the stored values (H, W) of each frame of the PixelData element at `at`."""
    element = data[at : at + 12]
    order: Literal["big", "little"] = "big" if found.syntax == BIG_ENDIAN else "little"
    if element[:4] not in PIXEL_DATA or len(element) < 12:
        raise RefusedError(f"contains no PixelData in its first {MOST_HEADER >> 20} MiB, or is cut off before it.")
    explicit = element[4:6] in (b"OB", b"OW", b"UN")
    size = int.from_bytes(element[8:12] if explicit else element[4:8], order)
    start = at + (12 if explicit else 8)
    each = found.rows * found.columns * found.allocated // 8
    needed = each * found.frames
    if DECODERS[found.syntax]:
        frames = joined_frames(data, start, found.syntax, found.frames)
        return [_decoded(frame, found, element[4:6]) for frame in frames]
    if size not in (needed, needed + needed % 2):  # an odd length is padded by one byte
        what = f"{found.rows} x {found.columns} pixels" + (f" in {found.frames} frames" if found.frames > 1 else "")
        raise RefusedError(f"{what} need {needed:,} bytes; PixelData has {size:,}.")
    if len(data) < start + needed:
        raise RefusedError(f"cut off: holds {len(data) - start:,} of {needed:,} bytes of pixels.")
    places = range(start, start + needed, each)
    pad = size - needed if found.frames == 1 else 0  # pydicom looks at it to tell a plain frame from a padded one
    return [_decoded(memoryview(data)[place : place + each + pad], found, element[4:6]) for place in places]


def _decoded(frame: Any, found: Format, vr: bytes) -> NDArray[np.integer]:
    """Return the stored values (H, W) of a frame."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    syntax, plugin = found.syntax, DECODERS[found.syntax]
    options: Any = {
        "rows": found.rows, "columns": found.columns, "number_of_frames": 1, "samples_per_pixel": 1,
        "bits_allocated": found.allocated, "bits_stored": found.stored, "pixel_representation": int(found.signed),
        "photometric_interpretation": "MONOCHROME2", "pixel_keyword": "PixelData", "view_only": True,
        "pixel_vr": "OW" if vr == b"OW" else "OB",
    }  # fmt: skip
    try:
        with WITHOUT_WARNINGS:
            if syntax in LOSSLESS_JPEG:
                pixels = decode_lossless_jpeg(frame, found.rows, found.columns, found.allocated)
                frame, syntax, plugin = pixels.astype(f"<u{found.allocated // 8}").tobytes(), EXPLICIT, ""
            elif plugin:
                check_frame(frame, syntax, found.rows, found.columns, found.allocated)
                frame = encapsulate([frame])
            decoder = get_decoder(UID(syntax))
            return decoder.as_array(frame, raw=True, index=0, decoding_plugin=plugin, **options)[0]
    except Exception as error:  # a decoder may raise anything on damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()
        raise RefusedError(f"damaged: its pixels cannot be decoded ({reason[:200]}).") from None


def _image(stored: NDArray[np.integer], found: Format, frame: int) -> Array:
    """Return the image: as stored, int16 or float32; see `read_dicom`."""
    import numpy as np

    values = stored.astype(np.int32)
    if found.inverted:  # the lowest stored value becomes the highest
        values = (-1 if found.signed else (1 << found.stored) - 1) - values
    slope, intercept = found.rescale[frame]
    low, high = int(values.min()), int(values.max())
    if (slope, intercept) == (1.0, 0.0) and low >= 0:
        return values.astype(np.uint8 if found.allocated == 8 else np.uint16)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    whole = abs(slope) < 2**16 and slope.is_integer() and intercept.is_integer()
    if whole and ends[0] >= -(2**15) and ends[1] < 2**15:
        return (values.astype(np.int64) * int(slope) + int(intercept)).astype(np.int16)
    rescaled = values.astype(np.float64) * slope + intercept
    if not np.isfinite(rescaled).all() or np.abs(rescaled).max() > np.finfo(np.float32).max:
        raise RefusedError(f"RescaleSlope {slope:g} and RescaleIntercept {intercept:g} overflow.")
    return rescaled.astype(np.float32)
