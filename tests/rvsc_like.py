"""Folders laid out as the Right Ventricle Segmentation Challenge's, and DICOM files, for tests."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.encaps
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID

EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
RLE, JPEG, JPEG_2000 = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90"
PLAIN = ("1.2.840.10008.1.2", EXPLICIT, BIG_ENDIAN)


def dicom(
    pixels: Any, *, syntax: str = EXPLICIT, spacing: Any = (1.25, 1.5), frame: bytes | None = None, **elements: Any
) -> bytes:
    """Return a DICOM file of pixels (H, W).

    Args:
        pixels: uint8, uint16 or int16.
        syntax: the transfer syntax.
        spacing: in mm, or None.
        frame: the pixels, compressed as the transfer syntax says.
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
    made.PixelData = raw if syntax in PLAIN else pydicom.encaps.encapsulate([frame or raw])
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


def square(top: float, left: float, bottom: float, right: float, end: str = "\n") -> str:
    """Return a contour along a rectangle, x and y a line."""
    return end.join(f"{x} {y}" for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))) + end


def patient(root: Path, number: int, frames: Sequence[int], shape: tuple[int, int] = (40, 30), **more: Any) -> Path:
    """Write a patient: labelled frames, one that is not, and the list with Windows separators."""
    folder, short = root / f"patient{number:02d}", f"P{number:02d}"
    (folder / f"{short}dicom").mkdir(parents=True)
    (folder / f"{short}contours-manual").mkdir()
    random, listed = np.random.default_rng(number), []
    for frame in (*frames, 999):
        pixels = random.integers(0, 900, shape, dtype=np.uint16)
        (folder / f"{short}dicom" / f"{short}-{frame:04d}.dcm").write_bytes(dicom(pixels, **more))
        if frame == 999:
            continue
        for kind, text in (("i", square(12, 10, 20, 18)), ("o", square(9, 7, 23, 21))):
            name = f"{short}-{frame:04d}-{kind}contour-manual.txt"
            (folder / f"{short}contours-manual" / name).write_text(text)
            listed.append(f".\\{short}\\{short}contours-manual\\{name}")
    (folder / f"{short}list.txt").write_bytes(("\r\n".join(listed) + "\r\n").encode())
    return folder
