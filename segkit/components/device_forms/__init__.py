"""Device forms of transforms: what a transform of Albumentations does, told so that it runs on tensors of a device.

A transform draws its parameters as ever, on the host, from the generators of its sample. Its device form says what
they mean: a geometric transform moves pixels by a matrix (`Move`), an intensity transform changes grey levels by a
function of tensors. Transforms without one, and settings that have none, keep a pipeline on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

from segkit.components.device_forms import levels, moves
from segkit.components.device_forms.form import Drawn, Form, Geometry, Intensity, Move, Size

FORMS: Mapping[str, Form] = {
    "Affine": Geometry(moves.affine),
    "CenterCrop": Geometry(moves.cropped),
    "Crop": Geometry(moves.cropped),
    "D4": Geometry(moves.of_square, leaves=False),
    "GaussNoise": Intensity(levels.noisy, refuses=levels.coarse_noise, draws=levels.draw_noise),
    "GaussianBlur": Intensity(levels.blurred),
    "HorizontalFlip": Geometry(moves.mirrored, leaves=False),
    "Pad": Geometry(moves.padded),
    "PadIfNeeded": Geometry(moves.padded),
    "RandomBrightnessContrast": Intensity(
        levels.brightened, refuses=levels.range_of_mean, draws=levels.draw_brightness
    ),
    "RandomCrop": Geometry(moves.cropped),
    "RandomGamma": Intensity(levels.gamma),
    "RandomResizedCrop": Geometry(moves.resized_crop, border=cv2.BORDER_REPLICATE, resizes=True),
    "RandomRotate90": Geometry(moves.turned, leaves=False),
    "RandomScale": Geometry(moves.resized, border=cv2.BORDER_REPLICATE, resizes=True),
    "Resize": Geometry(moves.resized, border=cv2.BORDER_REPLICATE, resizes=True),
    "Rotate": Geometry(moves.rotated),
    "SafeRotate": Geometry(moves.affine),
    "ShiftScaleRotate": Geometry(moves.affine),
    "SquareSymmetry": Geometry(moves.of_square, leaves=False),
    "Transpose": Geometry(moves.transposed, leaves=False),
    "VerticalFlip": Geometry(moves.upside_down, leaves=False),
}
"""Those of Albumentations, by the name of the class."""


def form_of(transform: Any, own: Callable[..., Any] | None = None) -> Form | None:
    """Return the device form of a transform; None if it has none.

    Args:
        transform: an Albumentations transform.
        own: what a plugin registered for it as `on_device`.
    """
    from albumentations import DualTransform

    made = type(transform)
    if own is not None:
        if not isinstance(transform, DualTransform):
            return Intensity(own)

        def move(transform: Any, size: Size, drawn: Drawn) -> Move:
            matrix, (rows, columns) = own(transform, size, drawn)
            return Move(np.asarray(matrix, np.float64), (int(rows), int(columns)))

        return Geometry(move)
    return FORMS.get(made.__name__) if made.__module__.startswith("albumentations.") else None
