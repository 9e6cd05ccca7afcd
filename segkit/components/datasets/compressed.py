"""Compressed DICOM frames: the supported transfer syntaxes, and checks of a frame before it is decoded."""

from __future__ import annotations

import io
import struct

from segkit.components.datasets.decoding import RefusedError, without_exif

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RLE, JPEG = "1.2.840.10008.1.2.5", ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
DECODERS = {  # pydicom's plugin for each transfer syntax, fixed so that pixels do not depend on what is installed
    IMPLICIT: "", EXPLICIT: "", BIG_ENDIAN: "", RLE: "pydicom", **dict.fromkeys((*JPEG, *JPEG_2000), "pillow"),
}  # fmt: skip
ITEM, LAST_ITEM = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
MOST_FRAGMENTS = 10_000


def joined_frame(data: bytes, at: int, syntax: str) -> bytes:
    """Return the joined fragments of the only frame of encapsulated PixelData, whose first item is at `at`."""
    items: list[bytes] = []
    while data[at : at + 4] == ITEM and len(items) <= MOST_FRAGMENTS:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        items.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    if data[at : at + 4] != LAST_ITEM:
        raise RefusedError("cut off: its compressed pixels have no end.")
    frame = b"".join(items[1:])  # the first lists offsets of frames
    return without_exif(frame) if syntax in JPEG else frame


def check_frame(frame: bytes, syntax: str, rows: int, columns: int, bits: int) -> None:
    """Raise unless a compressed frame holds as many pixels as the header states: it might decompress to any size."""
    from PIL import Jpeg2KImagePlugin, JpegImagePlugin

    if syntax == RLE:
        segments, *starts = struct.unpack("<3I", frame[:12])
        ends = [*starts[1:segments], len(frame)]
        sizes = [_unpacked(frame[start:end]) for start, end in zip(starts, ends, strict=False)]
        good = segments == bits // 8 and max(sizes) <= rows * columns + 1  # a byte of padding
        held = f"{segments} segments of up to {max(sizes):,} bytes"
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
