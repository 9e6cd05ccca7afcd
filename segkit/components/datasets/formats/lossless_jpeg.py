"""Lossless JPEG (ITU-T T.81, annex H), the commonest compression of DICOM files: one grey component, Huffman codes.

No decoder under a permissive licence was fit: that of GDCM ends the process on damaged data, that of libjpeg-turbo
comes with 26 MB of other codecs. The codes at all bits are looked up at once; only the walk along them is a loop.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segkit.errors import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRAME, TABLES, INTERVAL, SCAN = 0xC3, 0xC4, 0xDD, 0xDA  # the markers SOF3, DHT, DRI and SOS
RESTARTS = [bytes([0xFF, marker]) for marker in range(0xD0, 0xD8)]
CHUNK = 1 << 16  # bytes that are looked up at once, which bounds the memory
NO_CODE = 255
PREDICTED: dict[int, Callable[[int, int, int], int]] = {  # from left, above, and left above; T.81, table H.1
    3: lambda left, above, corner: corner,
    5: lambda left, above, corner: left + ((above - corner) >> 1),
    6: lambda left, above, corner: above + ((left - corner) >> 1),
    7: lambda left, above, corner: (left + above) >> 1,
}


@dataclass
class _Scan:
    """What the segments before the codes state."""

    precision: int = 0
    size: tuple[int, int, int] = (0, 0, 0)  # rows, columns, components
    tables: dict[int, bytes] = field(default_factory=dict)  # 16 counts, then values, by number
    interval: int = 0
    table: int = 0
    predictor: int = 0
    shift: int = 0
    start: int = 0


def decode_lossless_jpeg(data: bytes, rows: int, columns: int, bits: int) -> NDArray[np.uint16]:
    """Return the pixels (rows, columns) of a frame for `bits` bits per pixel, 8 or 16.

    Raises:
        ValueError: it is damaged, or holds other pixels than as many of `bits` bits.
        struct.error: it is cut off in a segment.
    """
    import numpy as np

    scan = _segments(data)
    if scan.size != (rows, columns, 1) or not 2 <= scan.precision <= 16 or (scan.precision > 8) != (bits > 8):
        held = f"{scan.size[0]} x {scan.size[1]} of {scan.precision} bits in {counted(scan.size[2], 'component')}"
        raise ValueError(f"the header states {rows} x {columns} pixels, the compressed data hold {held}")
    if not 1 <= scan.predictor <= 7 or scan.interval % columns or scan.shift >= scan.precision:
        raise ValueError(f"predictor {scan.predictor}, restart interval {scan.interval} or shift {scan.shift} is wrong")
    each = scan.interval // columns or rows
    lengths, categories = _lookup(scan.tables.get(scan.table, b""))
    blocks = []
    for part, first in zip(_parts(data[scan.start :], bool(scan.interval)), range(0, rows, each), strict=False):
        height = min(each, rows - first)
        differences = _differences(part, height * columns, lengths, categories).reshape(height, columns)
        blocks.append(_undone(differences, scan.predictor, 1 << (scan.precision - scan.shift - 1)))
    if len(blocks) * each < rows:
        raise ValueError("cut off")
    return (np.concatenate(blocks) << scan.shift).astype(np.uint16)


def _segments(data: bytes) -> _Scan:
    found, at = _Scan(), 2
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG")
    while not found.start:
        prefix, marker, size = struct.unpack(">BBH", data[at : at + 4])
        if prefix != 0xFF:
            raise ValueError("a segment does not begin with a marker")
        body, at = data[at + 4 : at + 2 + size], at + 2 + size
        if marker == FRAME:
            found.precision, *size_found = struct.unpack(">BHHB", body[:6])
            found.size = (size_found[0], size_found[1], size_found[2])
        elif marker == INTERVAL:
            (found.interval,) = struct.unpack(">H", body)
        elif marker == TABLES:
            while body:
                count = sum(body[1:17])
                found.tables[body[0]], body = body[1 : 17 + count], body[17 + count :]
        elif marker == SCAN:
            _, _, table, found.predictor, _, found.shift = struct.unpack(">6B", body)
            found.table, found.shift, found.start = table >> 4, found.shift & 15, at
        elif 0xC0 <= marker < 0xD0:
            raise ValueError("a JPEG of another process than lossless Huffman coding")
    return found


def _parts(data: bytes, divided: bool) -> Iterator[bytes]:
    """Yield the codes between restart markers, without the zeros that are stuffed behind bytes of 255."""
    end = data.find(b"\xff\xd9")
    data = data[:end] if end >= 0 else data
    for marker in RESTARTS[1:] if divided else ():
        data = data.replace(marker, RESTARTS[0])
    for part in data.split(RESTARTS[0]) if divided else [data]:
        yield part.replace(b"\xff\x00", b"\xff")


def _lookup(table: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return length and category of the code at the start of each possible 16 bits."""
    import numpy as np

    lengths, categories = np.full(1 << 16, NO_CODE, np.uint8), np.zeros(1 << 16, np.uint8)
    at, value = 0, 16
    if len(table) < 16 or len(table) != 16 + sum(table[:16]):
        raise ValueError("its Huffman table is missing or cut off")
    for length, count in enumerate(table[:16], 1):
        for category in table[value : value + count]:
            end = at + (1 << (16 - length))
            if category > 16 or end > 1 << 16:
                raise ValueError("its Huffman table is wrong")
            lengths[at:end], categories[at:end] = length, category
            at = end
        value += count
    return lengths, categories


def _differences(
    data: bytes, count: int, lengths: NDArray[np.uint8], categories: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Return the first `count` differences that are coded."""
    import numpy as np

    if 8 * len(data) < count:
        raise ValueError("cut off")
    steps = np.where(lengths == NO_CODE, NO_CODE, lengths + np.where(categories < 16, categories, 0)).astype(np.uint8)
    found, done, at = [], 0, 0
    padded = np.frombuffer(data + bytes(8), np.uint8).astype(np.uint64)
    for start in range(0, len(data), CHUNK):
        here = padded[start : start + CHUNK + 4]
        joined = here[:-4] << 32 | here[1:-3] << 24 | here[2:-2] << 16 | here[3:-1] << 8 | here[4:]
        windows = (joined[:, None] >> np.arange(8, 0, -1, dtype=np.uint64)).astype(np.uint32).ravel()  # 32 bits each
        places, at = _walk(steps[windows >> 16].tobytes(), at, count - done)
        codes = windows[places].astype(np.int64)
        long, extra = lengths[codes >> 16].astype(np.int64), categories[codes >> 16].astype(np.int64)
        value = codes >> np.where(extra < 16, 32 - long - extra, 0) & ((1 << np.where(extra < 16, extra, 0)) - 1)
        value = np.where(value < (1 << extra >> 1), value - (1 << extra) + 1, value)
        found.append(np.where(extra < 16, value, 1 << 15))
        done += len(places)
        if done == count:
            break
        at -= 8 * CHUNK
    if done < count or at > 8 * (len(data) - start):
        raise ValueError("cut off")
    return np.concatenate(found)


def _walk(steps: bytes, at: int, most: int) -> tuple[list[int], int]:
    """Return where the codes begin, at most so many, and where the next one does."""
    places: list[int] = []
    while at < len(steps) and len(places) < most:
        places.append(at)
        step = steps[at]
        if step == NO_CODE:
            raise ValueError("a code that is not in its Huffman table")
        at += step
    return places, at


def _undone(differences: NDArray[np.int64], predictor: int, first: int) -> NDArray[np.int64]:
    """Return the pixels whose differences to their predictions these are, by T.81, H.1.2."""
    found = differences.copy()
    found[0, 0] += first
    found[0] = found[0].cumsum() & 0xFFFF
    if predictor == 1:
        found[:, 0] = found[:, 0].cumsum()
        found[1:] = found[1:].cumsum(axis=1)
    elif predictor == 2:
        found = found.cumsum(axis=0)
    elif predictor == 4:
        found[1:] = found[1:].cumsum(axis=1)
        found = found.cumsum(axis=0)
    else:
        above: list[int] = found[0].tolist()
        for row in range(1, len(found)):
            line = [int(found[row, 0]) + above[0] & 0xFFFF]
            for column, difference in enumerate(found[row, 1:].tolist(), 1):
                guess = PREDICTED[predictor](line[-1], above[column], above[column - 1])
                line.append(difference + guess & 0xFFFF)
            found[row] = above = line
    return found & 0xFFFF
