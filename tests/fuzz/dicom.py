"""The DICOM reader, fed with damaged files and headers that contradict their pixels."""

from __future__ import annotations

import functools
import io
import random

import numpy as np

from segkit import UserError
from segkit.components.datasets.dicom import parse_dicom
from tests.fuzz.mutation import mutated

SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")


@functools.cache
def seed(syntax: str, bits: int, rows: int) -> bytes:
    """Return a small valid file."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    made = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    made.Rows, made.Columns, made.SamplesPerPixel = rows, 6, 1
    made.BitsAllocated = made.BitsStored = bits
    made.HighBit, made.PixelRepresentation, made.PhotometricInterpretation = bits - 1, 0, "MONOCHROME2"
    made.PixelSpacing, made.RescaleSlope, made.RescaleIntercept = [1.25, 1.5], 1, 0
    pixels = np.arange(rows * 6, dtype=f"{'>' if syntax.endswith('2.2') else '<'}u{bits // 8}")
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OW"
    out = io.BytesIO()
    pydicom.dcmwrite(out, made, little_endian=not syntax.endswith("2.2"), implicit_vr=syntax == SYNTAXES[0])
    return out.getvalue()


def mutate(chance: random.Random) -> bytes:
    """Return a file that is nearly right."""
    return mutated(seed(chance.choice(SYNTAXES), chance.choice([8, 16]), chance.choice([4, 7])), chance)


def one(data: bytes) -> bool:
    """Read it; return whether it was refused. Anything but a message is a crash."""
    try:
        image, spacing = parse_dicom(data, "x.dcm")
    except UserError as error:
        assert "x.dcm" in str(error)
        return True
    assert image.ndim == 2
    assert image.dtype in (np.uint8, np.uint16, np.float32)
    assert np.isfinite(image).all()
    assert spacing is None or min(spacing) > 0
    return False
