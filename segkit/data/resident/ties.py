"""Ties as on the CPU, where half-covered pixels take turns on a chessboard that begins in the part that is mapped."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from segkit.components.device_forms.form import Move, Size
from segkit.data.coverage import Bits, is_rigid, is_slight
from segkit.data.resampling import box, centred, window


def phase(transform: Any, move: Move, bits: Bits) -> int:
    """Return which colour of the chessboard the first pixel of a result has, 0 or 1.

    Args:
        transform: geometric, of Albumentations.
        move: as it was drawn.
        bits: what is transformed.
    """
    import albumentations as a

    if isinstance(transform, (a.Affine, a.Rotate)):
        if transform.border_mode != cv2.BORDER_CONSTANT or getattr(transform, "crop_border", False):
            return 0
        forward = _flat(np.linalg.inv(move.matrix))
        if is_rigid(forward) and not is_slight(forward):
            return 0
        return _begins(bits, forward, move.size)
    if isinstance(transform, (a.RandomScale, a.Resize, a.RandomResizedCrop)):
        return _resized(move, bits)
    return 0


def _resized(move: Move, bits: Bits) -> int:
    wide, tall = float(move.matrix[0, 0]), float(move.matrix[1, 1])
    left, top = round(move.matrix[0, 2] - (wide - 1) / 2), round(move.matrix[1, 2] - (tall - 1) / 2)
    part = bits[top : top + round(tall * move.size[0]), left : left + round(wide * move.size[1])]
    if wide.is_integer() and tall.is_integer():
        x, y, _, _ = box(part)
        return (x // int(wide) + y // int(tall)) % 2
    return _begins(part, centred([tall, wide]), move.size)


def _begins(bits: Bits, matrix: Any, size: Size) -> int:
    found = window(bits, matrix, size)
    return sum(found.low) % 2 if found is not None else 0


def _flat(matrix: Any) -> Any:
    return tuple(matrix[:2].ravel().tolist())
