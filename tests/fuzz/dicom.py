"""The DICOM reader, fed with damaged files and headers that contradict their pixels."""

from __future__ import annotations

import base64
import functools
import random

import numpy as np

from segkit import UserError
from segkit.components.datasets.formats.dicom import parse_dicom
from tests.fuzz.mutation import mutated
from tests.rvsc_like import JPEG, JPEG_2000, JPEG_LS, LOSSLESS_JPEG, PLAIN, RLE, dicom, jpeg, lossless_jpeg, runs

PIXELS = np.arange(42, dtype=np.uint16).reshape(7, 6)
SMALL = PIXELS.astype(np.uint8)
# 7 x 6 pixels of 8 bits, by CharLS 2.4.
LS_FRAME = "/9j/9wALCAAHAAYBAREA/9oACAEBAAAAAI5zpOAABBFI4QAACYmyibbZBJJLiKqwgqkA/9k="


@functools.cache
def seeds() -> list[bytes]:
    """Return small valid files."""
    plain = [dicom(pixels, syntax=syntax) for syntax in PLAIN for pixels in (PIXELS, SMALL, SMALL[:4])]
    return [
        *plain,
        dicom(PIXELS, syntax=RLE, frame=runs(PIXELS)),
        dicom(SMALL, syntax=JPEG, frame=jpeg(SMALL)),
        dicom(PIXELS, syntax=JPEG_2000, frame=jpeg(PIXELS, "JPEG2000", no_jp2=True)),
        dicom(SMALL, syntax=LOSSLESS_JPEG, frame=lossless_jpeg(SMALL, 7)),
        dicom(PIXELS, syntax=LOSSLESS_JPEG, frame=lossless_jpeg(PIXELS, rows=2)),
        dicom(SMALL, syntax=JPEG_LS, frame=base64.b64decode(LS_FRAME)),
    ]


def mutate(chance: random.Random) -> bytes:
    """Return a file that is nearly right."""
    return mutated(chance.choice(seeds()), chance)


def one(data: bytes) -> bool:
    """Read it; return whether it was refused. Anything but a message is a crash."""
    try:
        image, spacing = parse_dicom(data, "x.dcm")
    except UserError as error:
        assert "x.dcm" in str(error)
        return True
    assert image.ndim == 2
    assert image.dtype in (np.uint8, np.uint16, np.int16, np.float32)
    assert np.isfinite(image).all()
    assert spacing is None or min(spacing) > 0
    return False
