"""What the first bytes of a file say: the size of a PNG, TIFF, JPEG or BMP image, or which other kind of file it is."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from segkit.components.datasets.reading import SIDE

MOST_DECODED = 256 << 20  # bytes of decoded pixels; 8192 x 8192 of three bytes have 192 MiB
DENSEST = 1100  # decoded bytes that one byte of deflate can stand for, at most (1032), and some
VOLUME_ENDINGS = {
    ".nii": "NIfTI", ".nii.gz": "NIfTI", ".mha": "MetaImage", ".mhd": "MetaImage", ".nrrd": "NRRD", ".mgz": "MGH",
    ".mgh": "MGH", ".mnc": "MINC",
}  # fmt: skip
VOLUMES = "this version reads 2-D images (PNG, TIFF, JPEG, BMP, DICOM): convert the slices to one of them"
MARKS = (
    (0, b"\x89PNG", "a PNG picture"), (0, b"\xff\xd8\xff", "a JPEG picture"), (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"GIF8", "a GIF picture"), (8, b"WEBP", "a WebP picture"), (4, b"jP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"), (4, b"ftyp", "a HEIF picture or a film"),
    (0, b"II+\0", "a BigTIFF picture"), (0, b"MM\0+", "a BigTIFF picture"), (0, b"8BPS", "a Photoshop document"),
    (0, b"%PDF", "a PDF document"), (0, b"\x93NUMPY", "a NumPy array"), (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"MATLAB ", "a MATLAB file"), (0, b"PK\3\4", "a ZIP archive"), (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"), (0, b"Rar!", "a RAR archive"), (257, b"ustar", "a TAR archive"),
    (0, b"version https://git-lfs", "a pointer of Git LFS in the place of the file (`git lfs pull` gets it)"),
    (0, b"\x80\x02", "a pickle"), (0, b"\x7fELF", "a program"), (0, b"<", "an HTML, SVG or XML file"),
)  # fmt: skip
WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES, TILE_WIDTH, TILE_HEIGHT = 256, 257, 258, 262, 274, 277, 322, 323
FOLLOWING = -1
TIFF_NUMBERS = {1: "B", 3: "H", 4: "I"}
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
SAMPLES_OF_PNG = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}  # as decoded: a palette becomes colour, grey with alpha four channels


class NotReadError(Exception):
    """Why an image is not read though it may be whole; the caller adds its name."""


@dataclass(frozen=True)
class Header:
    """The size of an image.

    Attributes:
        rows: as stored.
        columns: as stored.
        depth: bytes a pixel once decoded.
    """

    rows: int
    columns: int
    depth: int


def read_header(data: bytes) -> Header:
    """Return the size of a PNG, TIFF, JPEG or BMP image, before any memory is taken for its pixels.

    Raises:
        NotReadError: of another kind, too large, with several pictures, other colours than grey or RGB, or turned.
        ValueError, struct.error, IndexError: damaged.
    """
    if data[:4] == b"\x89PNG":
        found = _png(data)
    elif data[:2] == b"\xff\xd8":
        found = _jpeg(data)
    elif data[:4] in (b"II*\0", b"MM\0*"):
        found = _tiff(data)
    elif data[:2] == b"BM":
        found = _bmp(data)
    elif not data:
        raise ValueError("it is empty, 0 bytes")
    else:
        kind = kind_of(data)
        advice = VOLUMES if kind.endswith("volume") else "images are PNG, TIFF, JPEG, BMP or DICOM files"
        raise NotReadError(f"{kind}; {advice}.")
    if not (1 <= found.rows <= SIDE and 1 <= found.columns <= SIDE):
        raise NotReadError(f"{found.rows} x {found.columns} pixels; images are read from 1 x 1 to {SIDE} x {SIDE}.")
    decoded = found.rows * found.columns * found.depth
    if decoded > MOST_DECODED:
        raise NotReadError(f"{decoded >> 20} MiB of pixels; images are read up to {MOST_DECODED >> 20} MiB.")
    return found


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the body of each chunk of a PNG that `read_header` found whole."""
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def to_png(parts: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the PNG of some chunks."""
    packed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"".join([b"\x89PNG\r\n\x1a\n", *packed])


def kind_of(data: bytes) -> str:
    """Return what the bytes of a file are, such as "a NIfTI volume" or "a text file"."""
    start = data[:4096]
    if start[:2] == b"\x1f\x8b":
        start = _inflated(start) or start
    kind = None
    if start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0"):
        kind = "NIfTI"
    elif start[:4] == b"NRRD":
        kind = "NRRD"
    elif start[:10] in (b"ObjectType", b"NDims = 3\n", b"NDims = 2\n"):
        kind = "MetaImage"
    if kind:
        return f"a {kind} volume"
    found = next((what for at, mark, what in MARKS if data[at : at + len(mark)] == mark), None)
    unknown = "an empty file" if not data else "a text file" if _is_text(start) else "of a kind that is not known"
    return found or unknown


def volume(name: str) -> str | None:
    """Return the kind of volume that a file's name says it is."""
    return next((kind for ending, kind in VOLUME_ENDINGS.items() if name.lower().endswith(ending)), None)


def _inflated(start: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(start, 512)
    except zlib.error:
        return b""


def _is_text(start: bytes) -> bool:
    return not any((byte < 32 and byte not in b"\t\r\n\f") or byte == 127 for byte in start)


def _png(data: bytes) -> Header:
    """Return the size of a PNG whose every chunk is whole."""
    packed, at, ended = 0, 8, False
    while not ended:
        if len(data) < at + 12:
            raise ValueError("cut off")
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = memoryview(data)[at + 4 : at + 8 + length]
        if len(data) < at + 12 + length:
            raise ValueError("cut off")
        (check,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        if zlib.crc32(body) != check:
            raise ValueError(f"a chunk at byte {at} fails its checksum")
        if kind == b"acTL" and struct.unpack(">I", body[4:8])[0] > 1:
            raise NotReadError(f"an animation of {struct.unpack('>I', body[4:8])[0]} pictures; one a file is read.")
        if kind == b"eXIf":
            _upright(bytes(body[4:]))
        packed += length if kind == b"IDAT" else 0
        at, ended = at + 12 + length, kind == b"IEND"
    kind, columns, rows, bits, colours = struct.unpack(">4sIIBB", data[12:26])
    if kind != b"IHDR" or colours not in SAMPLES_OF_PNG:
        raise ValueError("it does not begin with its size")
    found = Header(rows, columns, SAMPLES_OF_PNG[colours] * (2 if bits == 16 else 1))
    if max(rows, columns) <= SIDE and rows * (columns * bits // 8 + 1) > packed * DENSEST:
        raise ValueError(f"{packed} bytes cannot hold its {rows} x {columns} pixels")
    return found


def _jpeg(data: bytes) -> Header:
    """Return the size of a JPEG that is not cut off."""
    if not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        raise ValueError("cut off: it lacks the end mark")
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError(f"no mark at byte {at}")
        mark = data[at + 1]
        if mark == 0xFF:  # a fill byte
            at += 1
        elif mark in JPEG_FRAMES:
            rows, columns, samples = struct.unpack(">HHB", data[at + 5 : at + 10])
            if samples == 4:
                raise NotReadError("in CMYK colours, for print; save it as a grey image.")
            return Header(rows, columns, samples)
        else:
            length = max(2, struct.unpack(">H", data[at + 2 : at + 4])[0])
            if mark == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
                _upright(data[at + 10 : at + 2 + length])
            at += 2 + length


def _upright(exif: bytes) -> None:
    """Raise if EXIF data say that the picture is to be turned: some programs do that, others do not."""
    try:
        turned = {number for tag, number in _tags(exif) if tag == ORIENTATION} - {0, 1}
    except (struct.error, IndexError):
        return  # unreadable, so nobody turns it
    if turned:
        raise NotReadError(
            f"to be shown turned or mirrored (EXIF orientation {min(turned)}), which not every program does, so that "
            "image and mask may not match. Save it upright, without EXIF data."
        )


def _tags(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the tags of a TIFF's first directory, each with its first number; then FOLLOWING: where the next one is."""
    order = "<" if data[:1] == b"I" else ">"
    (at,) = struct.unpack(order + "I", data[4:8])
    (count,) = struct.unpack(order + "H", data[at : at + 2])
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack(order + "HHI", data[entry : entry + 8])
        if kind in TIFF_NUMBERS:
            number = order + TIFF_NUMBERS[kind]
            place = entry + 8
            if length * struct.calcsize(number) > 4:  # the values lie elsewhere
                (place,) = struct.unpack(order + "I", data[place : place + 4])
            yield tag, struct.unpack(number, data[place : place + struct.calcsize(number)])[0]
    yield FOLLOWING, struct.unpack(order + "I", data[at + 2 + 12 * count : at + 6 + 12 * count])[0]


def _tiff(data: bytes) -> Header:
    """Return the size of a TIFF's only image."""
    found: dict[int, int] = {}
    for tag, number in _tags(data):
        found.setdefault(tag, number)
    if found[FOLLOWING]:
        raise NotReadError("several images in one file; one a file is read. Split it first.")
    if not {HEIGHT, WIDTH} <= set(found):
        raise ValueError("it states no size")
    if found.get(PHOTOMETRIC) == 5:
        raise NotReadError("in CMYK colours, for print; save it as a grey image.")
    if found.get(ORIENTATION, 1) not in (0, 1):
        _upright(data)
    sides = [found.get(tag, 0) for tag in (TILE_HEIGHT, TILE_WIDTH)]  # a tile can be larger than the image
    samples = 3 if found.get(PHOTOMETRIC) == 3 else found.get(SAMPLES, 1)
    depth = max(1, found.get(BITS, 8) // 8) * (4 if samples > 3 else samples)
    largest = max(sides)
    rows, columns = (largest, largest) if largest > SIDE else (found[HEIGHT], found[WIDTH])
    return Header(rows, columns, depth)


def _bmp(data: bytes) -> Header:
    """Return the size of a BMP."""
    header, columns, rows, _, bits = struct.unpack("<IiiHH", data[14:30])
    if header < 40:
        raise ValueError("a header of OS/2")
    return Header(abs(rows), abs(columns), 4 if bits == 32 else 3)
