"""What a device form is: a move of pixels, or a change of grey levels, and what of it is drawn on the host."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
"""Rows and columns."""
Matrix = NDArray[np.float64]
"""(3, 3), on (x, y, 1) of pixel centres."""
Drawn = dict[str, Any]
NOISE = "noise"
"""What a change of grey levels names that is not drawn by the transform."""

BORDERS = {
    cv2.BORDER_CONSTANT: "constant",
    cv2.BORDER_REPLICATE: "replicate",
    cv2.BORDER_REFLECT: "reflect",
    cv2.BORDER_REFLECT_101: "reflect_101",
}
INTERPOLATIONS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Move:
    """A geometric transform as it was drawn for one sample.

    Attributes:
        matrix: from (x, y, 1) of the result to that of what is transformed.
        size: of the result.
        part: the only part of what is transformed that it sees, as (top, left, rows, columns), if it cuts that out.
    """

    matrix: Matrix
    size: Size
    part: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Geometry:
    """The device form of a geometric transform.

    Attributes:
        move: takes the transform, the size of what is transformed and the drawn parameters.
        leaves: whether results may show what lies beyond the border.
        border: OpenCV's number of what lies there; None: what the transform's `border_mode` says.
        resizes: whether it is made to change the number of pixels that show the same; it never takes the nearest ones.
    """

    move: Callable[[Any, Size, Drawn], Move]
    leaves: bool = True
    border: int | None = None
    resizes: bool = False

    def obstacle(self, transform: Any) -> str:
        """Return the setting of a transform that this form does not know, e.g. "interpolation = 2"; "" for none."""
        if not self.leaves_of(transform):
            return ""
        if getattr(transform, "area_for_downscale", None):
            return f'area_for_downscale = "{transform.area_for_downscale}"'
        flag, border = getattr(transform, "interpolation", cv2.INTER_LINEAR), self.border_of(transform)
        if flag not in INTERPOLATIONS or (flag == cv2.INTER_NEAREST and self.resizes):
            return f"interpolation = {flag}"
        if border not in BORDERS:
            return f"border_mode = {border}"
        fill = fill_of(transform)  # Albumentations extends a list by zeros, to as many inputs as there are
        return "" if isinstance(fill, (int, float)) or not any(fill) else f"fill = {fill}"

    def leaves_of(self, transform: Any) -> bool:
        """Return whether results of a transform may show what lies beyond the border: not those of a plain crop."""
        return self.leaves and getattr(transform, "pad_if_needed", True)

    def border_of(self, transform: Any) -> int:
        """Return OpenCV's number of how images are continued beyond their border."""
        return int(getattr(transform, "border_mode", cv2.BORDER_CONSTANT)) if self.border is None else self.border

    def draw(self, transform: Any, image: NDArray[Any]) -> Drawn:
        """Draw the parameters of a sample, for an image of its type and shape."""
        return drawn_by(transform, image)


@dataclass(frozen=True)
class Intensity:
    """The device form of a transform of grey levels.

    Attributes:
        change: takes images (N, H, W, I) float32 from 0 to `top`, the number `top`, and by name the drawn parameters
            that it has as keyword-only ones: numbers as (N, 1, 1, 1), lists as (N, K). `noise` is not drawn, but
            standard normal numbers of the images' shape, a stream for each sample. It returns the new images; levels
            below 0 and above `top` are then cut off, if there were none before.
        refuses: returns the setting of a transform that it does not know, or "".
        draws: draws the parameters for an image of some type and shape; by default the transform does.
    """

    change: Callable[..., Tensor]
    refuses: Callable[[Any], str] = lambda transform: ""
    draws: Callable[[Any, Any], Drawn] | None = None

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The drawn parameters that it takes."""
        found = inspect.signature(self.change).parameters.values()
        return tuple(one.name for one in found if one.kind is one.KEYWORD_ONLY)

    def obstacle(self, transform: Any) -> str:
        """Return the setting of a transform that this form does not know; "" for none."""
        return self.refuses(transform)

    def draw(self, transform: Any, image: NDArray[Any]) -> Drawn:
        """Draw the parameters of a sample, for an image of its type and shape."""
        return (self.draws or drawn_by)(transform, image)


Form = Geometry | Intensity


def fill_of(transform: Any) -> Any:
    """Return the level, or that of each input, which a transform puts beyond the border."""
    return getattr(transform, "fill", 0)


def drawn_by(transform: Any, image: NDArray[Any]) -> Drawn:
    """Draw parameters as Albumentations does before it applies them."""
    data = {"image": image, "mask": np.broadcast_to(np.uint8(0), image.shape[:2])}
    params = transform.update_transform_params(params=transform.get_params(), data=data)
    return {**params, **transform.get_params_dependent_on_data(params=params, data=data)}
