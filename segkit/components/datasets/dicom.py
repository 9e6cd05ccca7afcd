"""DICOM files: one grey frame and its spacing, or one message.

Supported: one frame, one sample per pixel, 8 or 16 bits, up to 8192 x 8192; uncompressed, or compressed as RLE, 8-bit
JPEG or JPEG 2000. Bits above BitsStored are dropped, MONOCHROME1 is inverted within the stored range, and rescale slope
and intercept are applied. Windows and look-up tables, which are for display, are ignored. Everything else is refused
before memory is allocated for pixels.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segkit.components.datasets.compressed import BIG_ENDIAN, DECODERS, EXPLICIT, IMPLICIT, check_frame, joined_frame
from segkit.components.datasets.decoding import RefusedError, kind_of
from segkit.components.datasets.reading import SIDE, read_bytes
from segkit.errors import UserError
from segkit.files import unreadable
from segkit.types import Array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset as Header

MOST_HEADER = 4 << 20  # bytes before the pixels
PIXEL_DATA = b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"  # the element's tag, little and big endian
DEFLATED = b"1.2.840.10008.1.2.1.99"
COMPRESSED = "its compression ({!r}) is not supported. Decompress it first, e.g. with `gdcmconv --raw` or `dcmdjpeg`."
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


def read_dicom(path: Path) -> tuple[Array, tuple[float, float] | None]:
    """Return a file's image (H, W), and the distance between its rows and columns in mm, or None.

    The image is uint8 or uint16 as stored, float32 where values are negative or rescaled.

    Raises:
        UserError: the file is damaged or of a kind that is not read; the message names it and the reason.
    """
    return parse_dicom(read_bytes(path), str(path))


def read_spacing(path: Path) -> tuple[float, float] | None:
    """Return the distance between rows and columns in mm that a file's header states, or None; no pixels are read.

    Raises:
        UserError: as for `read_dicom`, as far as the header shows.
    """
    try:
        with path.open("rb") as file:
            return _format(_header(file.read(MOST_HEADER))[0]).spacing_mm
    except OSError as error:
        raise UserError(unreadable(path, error)) from None
    except RefusedError as reason:
        raise UserError(f"{path}: {reason}") from None


def parse_dicom(data: bytes, name: str) -> tuple[Array, tuple[float, float] | None]:
    """Return what `read_dicom` does, from the bytes of a file."""
    try:
        header, at = _header(data)
        found = _format(header)
        return _image(_stored(data, at, found), found), found.spacing_mm
    except RefusedError as reason:
        raise UserError(f"{name}: {reason}") from None


def _header(data: bytes) -> tuple[Header, int]:
    """Return the elements before the pixels, and where the pixels' element begins."""
    from pydicom import config, dcmread

    marked = data[128:132] == b"DICM"
    if not marked and data[:2] not in (b"\x02\x00", b"\x08\x00"):  # the first groups of files that predate the mark
        raise RefusedError(f"not a DICOM file (it lacks the mark DICM): {kind_of(data)}.")
    if DEFLATED in data[:MOST_HEADER]:  # pydicom would inflate it without a bound
        raise RefusedError(COMPRESSED.format("Deflated Explicit VR Little Endian"))
    file = io.BytesIO(data[:MOST_HEADER])
    try:
        with warnings.catch_warnings(), config.disable_value_validation():
            warnings.simplefilter("ignore")
            header = dcmread(file, stop_before_pixels=True, force=not marked, specific_tags=list(KEYWORDS))
    except Exception as error:  # pydicom may raise anything on damaged bytes
        raise RefusedError(f"damaged: its header cannot be parsed ({type(error).__name__}: {error}).") from None
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and str(syntax) not in DECODERS:
        raise RefusedError(COMPRESSED.format(str(getattr(syntax, "name", syntax))[:80]))
    return header, file.tell()


def _format(header: Header) -> Format:
    modality = str(_get(header, "Modality", "")).strip()[:16]
    if "Rows" not in header and modality.isalpha():
        raise RefusedError(f"contains no image: Rows is missing, Modality is {modality}.")
    rows, columns = _whole(header, "Rows", None, 1, 65535), _whole(header, "Columns", None, 1, 65535)
    if max(rows, columns) > SIDE:
        raise RefusedError(f"{rows} x {columns} pixels; images are read up to {SIDE} x {SIDE}.")
    frames, samples = _whole(header, "NumberOfFrames", 1), _whole(header, "SamplesPerPixel", 1)
    if frames != 1:
        raise RefusedError(f"{frames} frames in one file; only files of one frame are read. Split it first.")
    photometric = str(_get(header, "PhotometricInterpretation", "MONOCHROME2")).strip()
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise RefusedError(f"not a grey image: {samples} samples per pixel, {photometric[:40]!r}.")
    allocated = _whole(header, "BitsAllocated", None)
    if allocated not in (8, 16):
        raise RefusedError(f"{allocated} bits per pixel; only 8 and 16 are supported.")
    stored = _whole(header, "BitsStored", allocated, 1, allocated)
    if _whole(header, "HighBit", stored - 1) != stored - 1:
        raise RefusedError("its pixels do not start at the lowest bit (HighBit is not BitsStored - 1).")
    implicit, little = header.original_encoding
    plain = IMPLICIT if implicit else EXPLICIT if little else BIG_ENDIAN
    slope, intercept = _number(header, "RescaleSlope", 1.0), _number(header, "RescaleIntercept", 0.0)
    if slope == 0:
        raise RefusedError("RescaleSlope is 0: every pixel would be the same.")
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
    """Return an element's value, which pydicom converts only now and may raise anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = header.get(keyword)
    except Exception as error:
        raise RefusedError(f"damaged: {keyword} cannot be parsed ({type(error).__name__}: {error}).") from None
    value = default if value in (None, "") else value
    if value is None:
        raise RefusedError(f"{keyword} is missing.")
    return value


def _number(header: Header, keyword: str, default: float | None) -> float:
    value = _get(header, keyword, default)
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise RefusedError(f"{keyword} must be a number, got {str(value)[:40]!r}.") from None
    if not math.isfinite(found):
        raise RefusedError(f"{keyword} is {found}.")
    return found


def _whole(header: Header, keyword: str, default: int | None, low: int = 0, high: int = 2**31) -> int:
    found = _number(header, keyword, default)
    if found != int(found) or not low <= found <= high:
        raise RefusedError(f"{keyword} must be a whole number from {low} to {high}, got {found:g}.")
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
        raise RefusedError(f"PixelSpacing must be two lengths in mm above 0, got {str(value)[:60]}.")
    return row, column


def _stored(data: bytes, at: int, found: Format) -> NDArray[np.integer]:
    """Return the stored values (H, W) of the PixelData element at `at`."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    element = data[at : at + 12]
    order: Literal["big", "little"] = "big" if found.syntax == BIG_ENDIAN else "little"
    if element[:4] not in PIXEL_DATA or len(element) < 12:
        raise RefusedError(f"contains no PixelData in its first {MOST_HEADER >> 20} MiB, or is cut off before it.")
    explicit = element[4:6] in (b"OB", b"OW", b"UN")
    size = int.from_bytes(element[8:12] if explicit else element[4:8], order)
    start = at + (12 if explicit else 8)
    needed = found.rows * found.columns * found.allocated // 8
    plugin = DECODERS[found.syntax]
    frame: Any = memoryview(data)[start : start + size]
    if plugin:
        frame = joined_frame(data, start, found.syntax)
    elif size not in (needed, needed + needed % 2):  # an odd length is padded by one byte
        raise RefusedError(f"{found.rows} x {found.columns} pixels need {needed:,} bytes; PixelData has {size:,}.")
    elif len(data) < start + needed:
        raise RefusedError(f"cut off: holds {len(data) - start:,} of {needed:,} bytes of pixels.")
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
                check_frame(frame, found.syntax, found.rows, found.columns, found.allocated)
                frame = encapsulate([frame])
            decoder = get_decoder(UID(found.syntax))
            return decoder.as_array(frame, raw=True, index=0, decoding_plugin=plugin, **options)[0]
    except Exception as error:  # a decoder may raise anything on damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()
        raise RefusedError(f"damaged: its pixels cannot be decoded ({reason[:200]}).") from None


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
        raise RefusedError(f"RescaleSlope {found.slope:g} and RescaleIntercept {found.intercept:g} overflow.")
    return rescaled.astype(np.float32)
