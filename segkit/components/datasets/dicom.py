"""DICOM files: one grey frame and its spacing, or one message.

What is read: one frame, one sample a pixel, 8 or 16 bits, up to 8192 x 8192; uncompressed, or compressed as RLE,
8-bit JPEG or JPEG 2000. Bits above BitsStored are dropped, MONOCHROME1 is inverted within the stored range, and
rescale slope and intercept are applied. A file without PixelSpacing has none. Windows and look-up tables are for
display and do not count. Everything else is refused before memory is taken for pixels.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.components.datasets.decoding import without_exif
from segkit.components.datasets.kinds import kind_of
from segkit.components.datasets.reading import SIDE, read_bytes
from segkit.errors import UserError
from segkit.types import Array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset as Header

MOST_HEADER = 4 << 20  # bytes before the pixels
PIXEL_DATA = b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"  # the element's tag, little and big endian
ITEM, LAST_ITEM = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
MOST_FRAGMENTS = 10_000
DEFLATED = b"1.2.840.10008.1.2.1.99"
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RLE, JPEG = "1.2.840.10008.1.2.5", ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
DECODERS = {  # of transfer syntaxes: the plugin of pydicom, so that pixels do not depend on what else is installed
    IMPLICIT: "", EXPLICIT: "", BIG_ENDIAN: "", RLE: "pydicom", **dict.fromkeys((*JPEG, *JPEG_2000), "pillow"),
}  # fmt: skip
KEYWORDS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "Modality", "NumberOfFrames", "PhotometricInterpretation", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip


@dataclass(frozen=True)
class Format:
    """How the pixels of a file are stored."""

    rows: int
    columns: int
    allocated: int
    stored: int
    signed: bool
    inverted: bool
    syntax: str
    slope: float
    intercept: float
    spacing_mm: tuple[float, float] | None


class _RefusedError(Exception):
    """Why a file is not read; the caller adds its name."""


def read_dicom(path: Path) -> tuple[Array, tuple[float, float] | None]:
    """Return a file's image (H, W), and the distance between its rows and columns in mm, or None.

    The image is uint8 or uint16 as stored, float32 where values are negative or rescaled.

    Raises:
        UserError: the file is damaged or of a kind that is not read; the message names it and the reason.
    """
    return parse_dicom(read_bytes(path), str(path))


def parse_dicom(data: bytes, name: str) -> tuple[Array, tuple[float, float] | None]:
    """Return what `read_dicom` does, from the bytes of a file."""
    try:
        header, at = _header(data)
        found = _format(header)
        return _image(_stored(data, at, found), found), found.spacing_mm
    except _RefusedError as reason:
        raise UserError(f"{name}: {reason}") from None


def _header(data: bytes) -> tuple[Header, int]:
    """Return the elements before the pixels, and where the pixels' element begins."""
    from pydicom import config, dcmread

    # Files from before the file format have no preamble; they begin with one of the first groups.
    bare = data[:2] in (b"\x02\x00", b"\x08\x00") and data[128:132] != b"DICM"
    if not bare and data[128:132] != b"DICM":
        raise _RefusedError(f"no DICOM file (it lacks the mark DICM): {kind_of(data)}.")
    if DEFLATED in data[:MOST_HEADER]:  # pydicom would inflate it without a bound
        raise _RefusedError(_compressed("Deflated Explicit VR Little Endian"))
    file = io.BytesIO(data[:MOST_HEADER])
    # Whatever pydicom raises on damaged bytes means the same here, and its warnings are no help to the user.
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            header = dcmread(file, stop_before_pixels=True, force=bare, specific_tags=list(KEYWORDS))
    except Exception as error:
        raise _RefusedError(f"damaged: its header cannot be parsed ({type(error).__name__}: {error}).") from None
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and str(syntax) not in DECODERS:
        raise _RefusedError(_compressed(str(getattr(syntax, "name", syntax))))
    return header, file.tell()


def _compressed(syntax: str) -> str:
    return (
        f"its pixels are compressed in a way that is not read ({syntax[:80]!r}). "
        "Decompress it first, e.g. with `gdcmconv --raw` or `dcmdjpeg`."
    )


def _format(header: Header) -> Format:
    """Return how the pixels are stored, checked."""
    modality = str(_get(header, "Modality", "")).strip()[:16]
    if "Rows" not in header and modality.isalpha():
        raise _RefusedError(f"holds no image: Rows is missing, Modality is {modality}.")
    rows, columns = _whole(header, "Rows", None, 1, 65535), _whole(header, "Columns", None, 1, 65535)
    if max(rows, columns) > SIDE:
        raise _RefusedError(f"{rows} x {columns} pixels; images are read up to {SIDE} x {SIDE}.")
    frames, samples = _whole(header, "NumberOfFrames", 1), _whole(header, "SamplesPerPixel", 1)
    if frames != 1:
        raise _RefusedError(f"{frames} frames in one file; one frame a file is read. Split it first.")
    photometric = str(_get(header, "PhotometricInterpretation", "MONOCHROME2")).strip()
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise _RefusedError(f"no grey image: {samples} samples a pixel, {photometric[:40]!r}.")
    allocated = _whole(header, "BitsAllocated", None)
    if allocated not in (8, 16):
        raise _RefusedError(f"{allocated} bits a pixel; 8 and 16 are read.")
    stored = _whole(header, "BitsStored", allocated, 1, allocated)
    if _whole(header, "HighBit", stored - 1) != stored - 1:
        raise _RefusedError("its pixels do not begin at the lowest bit (HighBit is not BitsStored - 1).")
    implicit, little = header.original_encoding
    plain = IMPLICIT if implicit else EXPLICIT if little else BIG_ENDIAN
    slope, intercept = _number(header, "RescaleSlope", 1.0), _number(header, "RescaleIntercept", 0.0)
    if slope == 0:
        raise _RefusedError("RescaleSlope is 0: every pixel would be the same.")
    return Format(
        rows, columns, allocated, stored,
        signed=_whole(header, "PixelRepresentation", 0, 0, 1) == 1,
        inverted=photometric == "MONOCHROME1",
        syntax=str(header.file_meta.get("TransferSyntaxUID") or plain),
        slope=slope,
        intercept=intercept,
        spacing_mm=_spacing(header),
    )  # fmt: skip


def _get(header: Header, keyword: str, default: Any) -> Any:
    """Return an element's value; pydicom converts it only now, and may raise anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = header.get(keyword)
    except Exception as error:
        raise _RefusedError(f"damaged: {keyword} cannot be parsed ({type(error).__name__}: {error}).") from None
    value = default if value is None or value == "" else value
    if value is None:
        raise _RefusedError(f"{keyword} is missing.")
    return value


def _number(header: Header, keyword: str, default: float | None) -> float:
    value = _get(header, keyword, default)
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise _RefusedError(f"{keyword} is {str(value)[:40]!r}, no number.") from None
    if not math.isfinite(found):
        raise _RefusedError(f"{keyword} is {found}.")
    return found


def _whole(header: Header, keyword: str, default: int | None, low: int = 0, high: int = 2**31) -> int:
    found = _number(header, keyword, default)
    if found != int(found) or not low <= found <= high:
        raise _RefusedError(f"{keyword} is {found:g}; it should be a whole number from {low} to {high}.")
    return int(found)


def _spacing(header: Header) -> tuple[float, float] | None:
    """Return the distance between rows and between columns, in mm."""
    value = _get(header, "PixelSpacing", ())
    if isinstance(value, str) or not hasattr(value, "__len__"):
        value = (value,)
    if len(value) == 0:
        return None
    try:
        row, column = (float(part) for part in value)
    except (TypeError, ValueError, OverflowError):
        row = column = math.nan
    if not (0 < row < math.inf and 0 < column < math.inf):
        raise _RefusedError(f"PixelSpacing is {str(value)[:60]}; it should be two lengths in mm, above 0.")
    return row, column


def _stored(data: bytes, at: int, found: Format) -> NDArray[np.integer]:
    """Return the stored values (H, W) of the element PixelData that begins at `at`."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    element = data[at : at + 12]
    if element[:4] not in PIXEL_DATA or len(element) < 12:
        raise _RefusedError(f"holds no PixelData within its first {MOST_HEADER >> 20} MiB, or is cut off before it.")
    explicit = element[4:6] in (b"OB", b"OW", b"UN")
    size = int.from_bytes(
        element[8:12] if explicit else element[4:8], "big" if found.syntax == BIG_ENDIAN else "little"
    )
    start = at + (12 if explicit else 8)
    needed = found.rows * found.columns * found.allocated // 8
    plugin = DECODERS[found.syntax]
    frame: Any
    if plugin:
        frame = _frame(data, start)
    elif size not in (needed, needed + needed % 2):  # an odd length is padded by one byte
        raise _RefusedError(f"{found.rows} x {found.columns} pixels need {needed:,} bytes; PixelData has {size:,}.")
    elif len(data) < start + needed:
        raise _RefusedError(f"cut off: {len(data) - start:,} of {needed:,} bytes of pixels are there.")
    else:
        frame = memoryview(data)[start : start + size]
    options: Any = {
        "rows": found.rows, "columns": found.columns, "number_of_frames": 1, "samples_per_pixel": 1,
        "bits_allocated": found.allocated, "bits_stored": found.stored, "pixel_representation": int(found.signed),
        "photometric_interpretation": "MONOCHROME2", "pixel_keyword": "PixelData", "view_only": True,
        "pixel_vr": "OW" if element[4:6] == b"OW" else "OB",
    }  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if plugin:
                frame = without_exif(frame) if found.syntax in JPEG else frame
                _check_frame(frame, found)
                frame = encapsulate([frame])
            values: NDArray[np.integer] = get_decoder(UID(found.syntax)).as_array(
                frame, raw=True, index=0, decoding_plugin=plugin, **options
            )[0]
            return values
    except Exception as error:  # whatever a decoder raises on damaged bytes means the same here
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()
        raise _RefusedError(f"damaged: its pixels cannot be decoded ({reason[:200]}).") from None


def _frame(data: bytes, at: int) -> bytes:
    """Return the only frame of encapsulated PixelData whose first item is at `at`, its fragments joined."""
    items: list[bytes] = []
    while data[at : at + 4] == ITEM and len(items) <= MOST_FRAGMENTS:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        items.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    if data[at : at + 4] != LAST_ITEM:
        raise _RefusedError("cut off: its compressed pixels have no end.")
    return b"".join(items[1:])  # the first lists offsets of frames


def _check_frame(frame: bytes, found: Format) -> None:
    """Raise unless a compressed frame holds as many pixels as the header states: it might unfold to any size."""
    from PIL import Jpeg2KImagePlugin, JpegImagePlugin

    if found.syntax == RLE:
        segments, *starts = struct.unpack("<3I", frame[:12])
        ends = [*starts[1:segments], len(frame)]
        sizes = [_unpacked(frame[start:end]) for start, end in zip(starts, ends, strict=False)]
        good = segments == found.allocated // 8 and max(sizes) <= found.rows * found.columns + 1  # a byte of padding
        held = f"{segments} segments of up to {max(sizes):,} bytes"
    else:
        kind = JpegImagePlugin.JpegImageFile if found.syntax in JPEG else Jpeg2KImagePlugin.Jpeg2KImageFile
        image = kind(io.BytesIO(frame))
        good = image.size == (found.columns, found.rows) and image.mode in ("L", "I;16")
        held = f"{image.size[1]} x {image.size[0]} of mode {image.mode}"
    if not good:
        raise ValueError(f"the header states {found.rows} x {found.columns} pixels, the compressed data hold {held}")


def _unpacked(segment: bytes) -> int:
    """Return the length of a segment of run-length encoded bytes once decoded."""
    at = total = 0
    while at < len(segment):
        code = segment[at]
        total += code + 1 if code < 128 else 257 - code if code > 128 else 0
        at += code + 2 if code < 128 else 2 if code > 128 else 1
    return total


def _image(stored: NDArray[np.integer], found: Format) -> Array:
    """Return the image: uint8 or uint16 as stored, float32 where values are negative or rescaled."""
    import numpy as np

    values = stored.astype(np.int32)
    if found.inverted:  # the lowest stored value becomes the highest
        values = (-1 if found.signed else (1 << found.stored) - 1) - values
    if (found.slope, found.intercept) == (1.0, 0.0) and values.min() >= 0:
        return values.astype(np.uint8 if found.allocated == 8 else np.uint16)
    rescaled = values.astype(np.float64) * found.slope + found.intercept
    if not np.isfinite(rescaled).all() or np.abs(rescaled).max() > np.finfo(np.float32).max:
        raise _RefusedError(f"RescaleSlope {found.slope:g} and RescaleIntercept {found.intercept:g} overflow.")
    return rescaled.astype(np.float32)
