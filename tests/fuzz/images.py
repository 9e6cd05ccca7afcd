"""The image readers, fed with damaged PNG, TIFF, JPEG and BMP files and TIFF stacks, as images and as masks."""

from __future__ import annotations

import functools
import os
import random
import tempfile
from pathlib import Path

import cv2
import numpy as np

from segkit import UserError
from segkit.components.datasets.formats.images import read_picture
from segkit.components.datasets.formats.masks import read_levels
from tests.fuzz.mutation import mutated

STACK = "stack"
ENDINGS = (".png", ".tif", ".jpg", ".bmp", STACK)
FILE = Path(tempfile.gettempdir()) / f"segkit-fuzz-{os.getpid()}.png"  # the content counts, not the name


@functools.cache
def seed(ending: str, channels: int) -> bytes:
    """Return a small valid file."""
    pixels = np.arange(9 * 7 * channels, dtype=np.uint8).reshape(9, 7, channels)
    page = pixels[..., 0] if channels == 1 else pixels
    if ending == STACK:
        return cv2.imencodemulti(".tif", [page, page, page])[1].tobytes()
    return cv2.imencode(ending, page)[1].tobytes()


def mutate(chance: random.Random) -> bytes:
    """Return a file that is nearly right."""
    return mutated(seed(chance.choice(ENDINGS), chance.choice([1, 3])), chance)


def one(data: bytes) -> bool:
    """Read it both ways; return whether both were refused. Anything but a message is a crash."""
    FILE.write_bytes(data)
    refused = 0
    try:
        image = read_picture(FILE).pixels
        assert image.ndim == 2 or (image.ndim == 4 and len(image) == 1)
        assert image.dtype in (np.uint8, np.uint16, np.float32)
        assert np.isfinite(image).all()
    except UserError as error:
        assert FILE.name in str(error)
        refused += 1
    try:
        assert read_levels(FILE)[0].ndim in (2, 3)
    except UserError as error:
        assert FILE.name in str(error)
        refused += 1
    finally:
        FILE.unlink()
    return refused == 2
