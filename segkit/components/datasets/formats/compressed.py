"""Compressed DICOM frames: the supported transfer syntaxes, and checks of a frame before it is decoded."""

from __future__ import annotations

import io
import struct

from segkit.components.datasets.formats.decoding import without_exif
from segkit.components.datasets.reading import RefusedError
from segkit.errors import counted

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RLE, JPEG = "1.2.840.10008.1.2.5", ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
DECODERS = {  # pydicom's plugin for each transfer syntax, fixed so that pixels do not depend on what is installed
    IMPLICIT: "", EXPLICIT: "", BIG_ENDIAN: "", RLE: "pydicom", **dict.fromkeys((*JPEG, *JPEG_2000), "pillow"),
    **dict.fromkeys(JPEG_LS, "pyjpegls"), **dict.fromkeys(LOSSLESS_JPEG, "segkit"),
}  # fmt: skip
ITEM, LAST_ITEM = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
MOST_FRAGMENTS = 10_000
START_OF_SCAN = b"\xda"


def joined_frames(data: bytes, at: int, syntax: str, frames: int) -> list[bytes]:
    """Return the frames of encapsulated PixelData, whose first item is at `at`: the fragments of one, or one each."""
    items: list[bytes] = []
    while data[at : at + 4] == ITEM and len(items) <= MOST_FRAGMENTS:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        items.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    if data[at : at + 4] != LAST_ITEM:
        raise RefusedError("cut off: its compressed pixels have no end.")
    found = items[1:]  # the first lists offsets of frames
    if frames == 1:
        found = [b"".join(found)]
    elif len(found) != frames:
        raise RefusedError(f"its {frames} frames are in {len(found)} fragments; only one for each frame is read.")
    return [without_exif(frame) if syntax in JPEG else frame for frame in found]


def check_frame(frame: bytes, syntax: str, rows: int, columns: int, bits: int) -> None:
    """Raise unless a compressed frame holds as many pixels as the header states: it might decompress to any size."""
    from PIL import Jpeg2KImagePlugin, JpegImagePlugin

    if syntax == RLE:
        segments, *starts = struct.unpack("<3I", frame[:12])
        ends = [*starts[1:segments], len(frame)]
        sizes = [_unpacked(frame[start:end]) for start, end in zip(starts, ends, strict=False)]
        good = segments == bits // 8 and max(sizes) <= rows * columns + 1  # a byte of padding
        held = f"{segments} segments of up to {max(sizes):,} bytes"
    elif syntax in JPEG_LS:
        precision, *held_size = _stated(frame)
        good = held_size == [rows, columns, 1] and (precision > 8) == (bits > 8)
        held = f"{held_size[0]} x {held_size[1]} of {precision} bits in {counted(held_size[2], 'component')}"
    else:
        kind = JpegImagePlugin.JpegImageFile if syntax in JPEG else Jpeg2KImagePlugin.Jpeg2KImageFile
        image = kind(io.BytesIO(frame))
        good = image.size == (columns, rows) and image.mode in ("L", "I;16")
        held = f"{image.size[1]} x {image.size[0]} of mode {image.mode}"
    if not good:
        raise ValueError(f"the header states {rows} x {columns} pixels, the compressed data hold {held}")


def _unpacked(segment: bytes) -> int:
    """Return the length of a segment of run-length encoded bytes once decoded."""
    at = total = 0
    while at < len(segment):
        code = segment[at]
        total += code + 1 if code < 128 else 257 - code if code > 128 else 0
        at += code + 2 if code < 128 else 2 if code > 128 else 1
    return total


def _stated(frame: bytes) -> tuple[int, int, int, int]:
    """Return precision, rows, columns and components of a JPEG-LS frame."""
    at, found = 2, (0, 0, 0, 0)
    while frame[at : at + 1] == b"\xff" and frame[at + 1 : at + 2] != START_OF_SCAN:
        if frame[at + 1 : at + 2] == b"\xf7":
            if any(found):
                raise ValueError("it states its size twice")
            found = struct.unpack(">BHHB", frame[at + 4 : at + 10])
        if frame[at + 1 : at + 2] == b"\xf8" and frame[at + 4 : at + 5] == b"\4":
            raise ValueError("it states a size of more than 16 bits")
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return found
