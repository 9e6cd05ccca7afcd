"""DICOM headers: how the pixels of a file are stored, and where its frames lie; parsed without the pixels.

Everything that a frame needs is stated by the file or, in enhanced (multi-frame) files, by its functional groups.
Headers are read up to 4 MiB, and a value that cannot be one is a message.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.components.datasets.formats.compressed import BIG_ENDIAN, DECODERS, EXPLICIT, IMPLICIT
from segkit.components.datasets.formats.kinds import kind_of
from segkit.components.datasets.formats.quiet import WITHOUT_WARNINGS
from segkit.components.datasets.reading import SIDE, RefusedError, read_bytes, refused_by

if TYPE_CHECKING:
    from pydicom import Dataset as Header

MOST_HEADER = 4 << 20  # bytes before the pixels
USUAL_HEADER = 64 << 10  # most headers are shorter
MOST_FRAMES = 4096
MOST_PIXELS = 1 << 27  # of all frames of a file
PIXEL_DATA = b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10"  # the element's tag, little and big endian
DEFLATED = b"1.2.840.10008.1.2.1.99"
COMPRESSED = "its compression ({!r}) is not supported. Decompress it first, e.g. with `gdcmconv --raw` or `dcmdjpeg`."
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
KEYWORDS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
    "Modality", "NumberOfFrames", "PhotometricInterpretation", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
    "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient", "SpacingBetweenSlices",
    "SliceThickness", SHARED, PER_FRAME,
)  # fmt: skip
GROUPS = {  # the functional group that holds an element in enhanced files
    "PixelSpacing": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}


@dataclass(frozen=True)
class Format:
    """How the pixels of a file are stored."""

    rows: int
    columns: int
    frames: int
    allocated: int
    stored: int
    signed: bool
    inverted: bool
    syntax: str
    rescale: tuple[tuple[float, float], ...]  # slope and intercept of each frame
    spacing_mm: tuple[float, float] | None


def read_header(path: Path) -> Header:
    """Return the elements of a file that `KEYWORDS` names, without reading its pixels.

    Raises:
        UserError: it cannot be read, or is no DICOM file.
    """
    try:
        header, at = parse_header(data := read_bytes(path, first=USUAL_HEADER))
        if data[at : at + 4] in PIXEL_DATA:
            return header
    except RefusedError:
        pass  # perhaps it is only longer
    with refused_by(path):
        return parse_header(read_bytes(path, first=MOST_HEADER))[0]


def read_format(path: Path) -> Format:
    """Return how the pixels of a file are stored, from its header alone.

    Raises:
        UserError: it cannot be read, or is no DICOM image of a kind that is read.
    """
    header = read_header(path)
    with refused_by(path):
        return format_of(header)


def parse_header(data: bytes) -> tuple[Header, int]:
    """Return the elements before the pixels, and where the pixels' element begins.

    Raises:
        RefusedError: the bytes are no DICOM file, or compressed in a way that is not read.
    """
    from pydicom import dcmread

    marked = data[128:132] == b"DICM"
    if not marked and data[:2] not in (b"\x02\x00", b"\x08\x00"):  # the first groups of files that predate the mark
        raise RefusedError(f"not a DICOM file (it lacks the mark DICM): {kind_of(data)}.")
    if DEFLATED in data[:MOST_HEADER]:  # pydicom would inflate it without a bound
        raise RefusedError(COMPRESSED.format("Deflated Explicit VR Little Endian"))
    file = io.BytesIO(data[:MOST_HEADER])
    try:
        with WITHOUT_WARNINGS:
            header = dcmread(file, stop_before_pixels=True, force=not marked, specific_tags=list(KEYWORDS))
    except Exception as error:  # pydicom may raise anything on damaged bytes
        raise RefusedError(f"damaged: its header cannot be parsed ({type(error).__name__}: {error}).") from None
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and str(syntax) not in DECODERS:
        raise RefusedError(COMPRESSED.format(str(getattr(syntax, "name", syntax))[:80]))
    return header, file.tell()


def format_of(header: Header) -> Format:
    """Return how the pixels are stored.

    Raises:
        RefusedError: an element is missing or wrong, or the pixels are of a kind that is not read.
    """
    modality = str(_get(header, "Modality", "")).strip()[:16]
    if "Rows" not in header and modality.isalpha():
        raise RefusedError(f"contains no image: Rows is missing, Modality is {modality}.")
    rows, columns = _whole(header, "Rows", None, 1, 65535), _whole(header, "Columns", None, 1, 65535)
    if max(rows, columns) > SIDE:
        raise RefusedError(f"{rows} x {columns} pixels; images are read up to {SIDE} x {SIDE}.")
    frames, samples = _whole(header, "NumberOfFrames", 1), _whole(header, "SamplesPerPixel", 1)
    if not 1 <= frames <= MOST_FRAMES or (frames > 1 and frames * rows * columns > MOST_PIXELS):
        raise RefusedError(
            f"{frames:,} frames of {rows} x {columns} pixels; files are read up to {MOST_FRAMES:,} frames and "
            f"{MOST_PIXELS:,} pixels."
        )
    photometric = str(_get(header, "PhotometricInterpretation", "MONOCHROME2")).strip()
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise RefusedError(f"not a grey image: {samples} samples per pixel, {photometric[:40]!r}.")
    allocated, stored = _bits(header)
    implicit, little = header.original_encoding
    plain = IMPLICIT if implicit else EXPLICIT if little else BIG_ENDIAN
    return Format(
        rows, columns, frames, allocated, stored,
        signed=_whole(header, "PixelRepresentation", 0, 0, 1) == 1,
        inverted=photometric == "MONOCHROME1",
        syntax=str(header.file_meta.get("TransferSyntaxUID") or plain),
        rescale=tuple(_rescale(header, frame) for frame in range(frames)),
        spacing_mm=spacing_of(header),
    )  # fmt: skip


def _bits(header: Header) -> tuple[int, int]:
    """Return how many bits a pixel takes, and how many of them count."""
    allocated = _whole(header, "BitsAllocated", None)
    if allocated not in (8, 16):
        raise RefusedError(f"{allocated} bits per pixel; only 8 and 16 are supported.")
    stored = _whole(header, "BitsStored", allocated, 1, allocated)
    if _whole(header, "HighBit", stored - 1) != stored - 1:
        raise RefusedError("its pixels do not start at the lowest bit (HighBit is not BitsStored - 1).")
    return allocated, stored


def _rescale(header: Header, frame: int) -> tuple[float, float]:
    group = group_of(header, "RescaleSlope", frame)
    slope, intercept = _number(group, "RescaleSlope", 1.0), _number(group, "RescaleIntercept", 0.0)
    if slope == 0:
        raise RefusedError("RescaleSlope is 0: every pixel would be the same.")
    return slope, intercept


def group_of(header: Header, keyword: str, frame: int) -> Header:
    """Return what holds an element of a frame: its functional group, that of all frames, or the file itself."""
    for name, index in ((PER_FRAME, frame), (SHARED, 0)):
        items = _get(header, name, ())
        if isinstance(items, Sequence) and not isinstance(items, str) and index < len(items):
            inner: Any = _get(items[index], GROUPS[keyword], ())
            if isinstance(inner, Sequence) and not isinstance(inner, str) and len(inner) and keyword in inner[0]:
                group: Header = inner[0]
                return group
    return header


def numbers_of(header: Header, keyword: str, count: int, frame: int = 0) -> tuple[float, ...] | None:
    """Return the numbers of an element, in an enhanced file those of a frame; None if it is not there.

    Raises:
        RefusedError: it does not hold `count` finite numbers.
    """
    value = _get(group_of(header, keyword, frame) if keyword in GROUPS else header, keyword, ())
    if isinstance(value, str) or not hasattr(value, "__len__"):
        value = (value,)
    if len(value) == 0:
        return None
    try:
        found = tuple(float(part) for part in value)
    except (TypeError, ValueError, OverflowError):
        found = ()
    if len(found) != count or not all(map(math.isfinite, found)):
        wanted = "a number" if count == 1 else f"{count} numbers"
        raise RefusedError(f"{keyword} must be {wanted}, got {str(value)[:60]}.")
    return found


def spacing_of(header: Header, frame: int = 0) -> tuple[float, float] | None:
    """Return the distance between rows and between columns, in mm."""
    try:
        found = numbers_of(header, "PixelSpacing", 2, frame)
    except RefusedError:
        found = (0.0, 0.0)
    if found is not None and min(found) <= 0:
        value = _get(group_of(header, "PixelSpacing", frame), "PixelSpacing", "")
        raise RefusedError(f"PixelSpacing must be two lengths in mm above 0, got {str(value)[:60]}.")
    return None if found is None else (found[0], found[1])


def text_of(header: Header, keyword: str) -> str:
    """Return an element as text, "" if it is not there."""
    return str(_get(header, keyword, "")).strip()


def _get(header: Header, keyword: str, default: Any) -> Any:
    """Return an element's value, which pydicom converts only now and may raise anything."""
    try:
        with WITHOUT_WARNINGS:
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
