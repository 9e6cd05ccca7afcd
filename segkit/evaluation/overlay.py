"""Draw truth and prediction on an image: outlines that do not hide the anatomy."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit import files
from segkit.data.samples import to_uint8
from segkit.locks import Folder

Picture = NDArray[np.uint8]
Masks = NDArray[np.bool_]
SCALE = 2
DASH = 4
MAX_NAME = 200  # bytes; file systems allow 255, and temporary files have longer names
TRUTH_RGB = (86, 180, 233)
PREDICTION_RGB = (230, 159, 0)


def draw_overlay(image: Any, truth: Masks, prediction: Masks) -> Picture:
    """Return the image, twice its size, with truth outlined solid sky blue and prediction dashed orange.

    The colours are of a palette for colour-blind readers (Okabe and Ito 2008); in grey prints the dashes distinguish
    the outlines. Where both coincide they alternate.

    Args:
        image: (H, W), or (H, W, I): of three 8-bit inputs red, green and blue, of others the first is drawn.
        truth, prediction: (C, H, W) bool.

    Returns:
        (2 H, 2 W, 3) uint8, red first.
    """
    import cv2

    height, width = image.shape[:2]
    coloured = image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    shown = image if coloured else to_uint8(image if image.ndim == 2 else image[..., 0])
    large = cv2.resize(np.ascontiguousarray(shown), (SCALE * width, SCALE * height), interpolation=cv2.INTER_LINEAR)
    picture: Picture = np.ascontiguousarray(large if coloured else np.repeat(large[..., None], 3, axis=2), np.uint8)
    for masks, colour, dashed in ((truth, TRUTH_RGB, False), (prediction, PREDICTION_RGB, True)):
        for mask in masks:
            enlarged = np.kron(mask.astype(np.uint8), np.ones((SCALE, SCALE), np.uint8))
            outlines, _ = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)  # holes included
            for outline in outlines:
                shown = outline[np.arange(len(outline)) // DASH % 2 == 0] if dashed else outline
                picture[shown[:, 0, 1], shown[:, 0, 0]] = colour
    return picture


def shown_slice(truth: Masks, prediction: Masks) -> int:
    """Return the slice of a volume to draw, of masks (C, D, H, W): that in which most is true.

    It is the same for every variant, unless nothing is true: then most is predicted there, or it is the middle one.
    """
    shown = truth if truth.any() else prediction
    marked = shown.sum(axis=(0, 2, 3))
    return int(marked.argmax()) if marked.any() else len(marked) // 2


def write_overlay(folder: Folder, case: str, image: Any, truth: Masks, prediction: Masks) -> None:
    """Write an image, (H, W) or (H, W, I), with masks (C, H, W) outlined, to `overlays/` of a trial."""
    import cv2

    picture = draw_overlay(image, truth, prediction)
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    assert done, "a PNG of 8-bit RGB can always be encoded"
    target = folder / "overlays"
    target.mkdir(parents=True, exist_ok=True)
    files.write_bytes(target / picture_name(case), encoded.tobytes())


def picture_name(case: str) -> str:
    """Return the file name of a case's overlay; names that are too long or ambiguous end in digits of their hash."""
    name = case.replace("/", "__")
    if len(name.encode()) > MAX_NAME or "__" in case or "_/" in case or "/_" in case:
        name = f"{name.encode()[:MAX_NAME].decode(errors='ignore')}-{hashlib.sha256(case.encode()).hexdigest()[:12]}"
    return f"{name}.png"
