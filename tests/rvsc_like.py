"""Folders laid out as the Right Ventricle Segmentation Challenge's, and DICOM files, for tests."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.encaps
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID

from segkit.components.datasets import Dataset
from segkit.components.datasets.reading import DatasetError, collected

EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
RLE, JPEG, JPEG_2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"
LOSSLESS_JPEG, JPEG_LS = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80"
PLAIN = ("1.2.840.10008.1.2", EXPLICIT, BIG_ENDIAN)


def dicom(
    pixels: Any,
    *,
    syntax: str = EXPLICIT,
    spacing: Any = (1.25, 1.5),
    frame: bytes | None = None,
    frames: Sequence[bytes] = (),
    **elements: Any,
) -> bytes:
    """Return a DICOM file of pixels (H, W).

    Args:
        pixels: uint8, uint16 or int16.
        syntax: the transfer syntax.
        spacing: in mm, or None.
        frame: the pixels, compressed as the transfer syntax says.
        frames: several.
        elements: replace what is written by default; None leaves an element out.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    made = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    bits = 8 * pixels.dtype.itemsize
    plain = {
        "Rows": pixels.shape[0], "Columns": pixels.shape[1], "SamplesPerPixel": 1, "BitsAllocated": bits,
        "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PhotometricInterpretation": "MONOCHROME2", "PixelSpacing": list(spacing) if spacing else None,
    }  # fmt: skip
    for name, value in (plain | elements).items():
        if value is not None:
            setattr(made, name, value)
    order = ">" if syntax == BIG_ENDIAN else "<"
    raw = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    made.PixelData = raw if syntax in PLAIN else pydicom.encaps.encapsulate([*frames] or [frame or raw])
    made["PixelData"].VR = "OW" if bits == 16 and syntax in PLAIN else "OB"
    out = io.BytesIO()
    pydicom.dcmwrite(out, made, little_endian=syntax != BIG_ENDIAN, implicit_vr=syntax == "1.2.840.10008.1.2")
    return out.getvalue()


def jpeg(pixels: Any, kind: str = "JPEG", **options: Any) -> bytes:
    """Return pixels as Pillow compresses them."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def runs(pixels: Any) -> bytes:
    """Return pixels (H, W) as DICOM's RLE: one segment a byte of a pixel, the higher first, of literal runs."""
    planes = pixels.astype(f">u{pixels.itemsize}").tobytes()
    segments = []
    for number in range(pixels.itemsize):
        plane = planes[number :: pixels.itemsize]
        packed = b"".join(
            bytes([len(part) - 1]) + part for i in range(0, len(plane), 99) if (part := plane[i : i + 99])
        )
        segments.append(packed + b"\x80" * (len(packed) % 2))
    starts = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    return struct.pack("<16I", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(segments)


def lossless_jpeg(pixels: Any, predictor: int = 1, *, rows: int = 0, shift: int = 0) -> bytes:
    """Return pixels (H, W) as lossless JPEG (ITU-T T.81, annex H), each category coded by 5 bits.

    Args:
        pixels: uint8 or uint16.
        predictor: 1 to 7.
        rows: in a restart interval; 0 for none.
        shift: the point transform, which drops the lowest bits.
    """
    bits, (height, width) = 8 * pixels.itemsize, pixels.shape
    values = (pixels.astype(int) >> shift).tolist()
    predict: Callable[[int, int, int], int] = {
        1: lambda a, b, c: a, 2: lambda a, b, c: b, 3: lambda a, b, c: c, 4: lambda a, b, c: a + b - c,
        5: lambda a, b, c: a + ((b - c) >> 1), 6: lambda a, b, c: b + ((a - c) >> 1), 7: lambda a, b, c: (a + b) >> 1,
    }[predictor]  # fmt: skip
    parts = []
    for top in range(0, height, rows or height):
        coded = ""
        for row in range(top, min(top + (rows or height), height)):
            for column in range(width):
                if row == top:
                    guess = values[row][column - 1] if column else 1 << (bits - shift - 1)
                elif column == 0:
                    guess = values[row - 1][0]
                else:
                    guess = predict(values[row][column - 1], values[row - 1][column], values[row - 1][column - 1])
                difference = (values[row][column] - guess + 2**15) % 2**16 - 2**15
                category = 16 if difference == -(2**15) else abs(difference).bit_length()
                coded += f"{category:05b}"
                if 0 < category < 16:
                    coded += f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}"
        coded += "1" * (-len(coded) % 8)
        packed = bytes(int(coded[i : i + 8], 2) for i in range(0, len(coded), 8))
        parts.append(packed.replace(b"\xff", b"\xff\0"))
    marked = b"".join(part + bytes([255, 0xD0 + number % 8]) for number, part in enumerate(parts))[:-2]
    segments = [
        (0xC3, struct.pack(">BHH4B", bits, height, width, 1, 1, 0x11, 0)),
        (0xC4, bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])),
        (0xDD, struct.pack(">H", rows * width)),
        (0xDA, bytes([1, 1, 0, predictor, 0, shift])),
    ]
    head = b"".join(struct.pack(">BBH", 255, marker, len(body) + 2) + body for marker, body in segments)
    return b"\xff\xd8" + head + marked + b"\xff\xd9"


def arrays(dataset: Dataset) -> Dataset:
    """Return a dataset whose cases have been read, with all notes."""
    problems: list[str] = []
    cases = []
    for case in dataset.cases:
        with collected(problems):
            image, masks = case.read()
            cases.append(replace(case, image=image, masks=masks, load=None))
    if problems:
        raise DatasetError(problems)
    more = dataset.conclude() if dataset.conclude else ()
    return replace(dataset, cases=tuple(cases), notes=(*dataset.notes, *more), conclude=None)


def square(top: float, left: float, bottom: float, right: float, end: str = "\n") -> str:
    """Return a contour along a rectangle, x and y a line."""
    return end.join(f"{x} {y}" for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))) + end


def patient(
    root: Path,
    number: int,
    frames: Sequence[int],
    shape: tuple[int, int] = (40, 30),
    header: Callable[[int], dict[str, Any]] = lambda frame: {},
    **more: Any,
) -> Path:
    """Write a patient: labelled frames, one that is not, and the list with Windows separators.

    `header` returns the elements of a frame's DICOM file, `more` are those of all.
    """
    folder, short = root / f"patient{number:02d}", f"P{number:02d}"
    (folder / f"{short}dicom").mkdir(parents=True)
    (folder / f"{short}contours-manual").mkdir()
    random, listed = np.random.default_rng(number), []
    for frame in (*frames, 999):
        pixels = random.integers(0, 900, shape, dtype=np.uint16)
        (folder / f"{short}dicom" / f"{short}-{frame:04d}.dcm").write_bytes(dicom(pixels, **(more | header(frame))))
        if frame == 999:
            continue
        for kind, text in (("i", square(12, 10, 20, 18)), ("o", square(9, 7, 23, 21))):
            name = f"{short}-{frame:04d}-{kind}contour-manual.txt"
            (folder / f"{short}contours-manual" / name).write_text(text)
            listed.append(f".\\{short}\\{short}contours-manual\\{name}")
    (folder / f"{short}list.txt").write_bytes(("\r\n".join(listed) + "\r\n").encode())
    return folder
