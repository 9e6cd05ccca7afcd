"""Intensities: how a case's image, in its own units, becomes the uint8 or float32 image that transforms see.

Each input of a case is scaled by itself, over all of its pixels or voxels, and without knowledge of other cases. What
is 8 bits deep then goes from 0 to 255, what is 32 bits deep from 0 to 1 without rounding; the mean and the deviation of
the training images are removed later, on the device, unless an intensity is registered with `standardized=True`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from segkit.registry.component import Component
from segkit.registry.faults import fault
from segkit.registry.registry import Registry
from segkit.types import Array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Percent = Annotated[float, Ge(0), Le(100)]
Bits = Literal[8, 32]

intensities = Registry(
    "intensity", "intensities", home=__name__, handed=("image",), called=True, traits={"standardized": bool}
)


def scaled(intensity: Component, image: Array) -> Array:
    """Return the image that transforms see, uint8 or float32, of the same shape.

    Args:
        intensity: of a recipe.
        image: of a case: (H, W), (I, H, W), or a volume (I, D, H, W); finite. It is not changed.

    Raises:
        ComponentError: the intensity fails, changes the shape, or gives another type or values that are not finite.
    """
    import numpy as np

    inputs = image.view() if image.ndim > 2 else image[None]
    inputs.flags.writeable = False  # it is shared: an intensity that writes to it fails, with its line
    found = intensity(inputs)
    if not isinstance(found, np.ndarray) or found.shape != inputs.shape:
        got = found.shape if isinstance(found, np.ndarray) else type(found).__name__
        raise fault(intensity, f"must return an array of the image's shape, {inputs.shape}, got {got}.")
    if found.dtype not in (np.uint8, np.float32):
        raise fault(intensity, f"must return uint8 or float32, got {found.dtype}.")
    if found.dtype == np.float32 and not np.isfinite(found).all():
        raise fault(intensity, "it returned values that are not finite (NaN or infinity) for a finite image.")
    return found if image.ndim > 2 else found[0]


@intensities.register("percentile")
class Percentile:
    """Linear between two percentiles of the image, clipped; images of 8 bits stay as they are.

    Where the two coincide, from the minimum to the maximum; an image of a single value becomes 0. By default from the
    minimum to the 99.9th percentile, so that a few hot pixels do not darken the rest.

    Args:
        low: the percentile that becomes 0.
        high: the percentile that becomes 255, or 1.
        bits: 8 for uint8, 0 to 255; 32 for float32, 0 to 1.

    Raises:
        ValueError: `low` is not below `high`.
    """

    def __init__(self, *, low: Percent = 0.0, high: Percent = 99.9, bits: Bits = 8) -> None:
        _check_order(low, high)
        self.low, self.high, self.bits = low, high, bits

    def __call__(self, image: Array) -> Array:
        """Return an image (I, H, W) or (I, D, H, W) as uint8, or float32."""
        import numpy as np

        if image.dtype == np.uint8:
            return image if self.bits == 8 else image.astype(np.float32) / np.float32(255)
        return _by_input(image, self._scaled)

    def _scaled(self, values: NDArray[np.float64]) -> Array:
        import numpy as np

        low, high = map(float, np.percentile(values, (self.low, self.high)))
        if high <= low:
            low, high = float(values.min()), float(values.max())
        return _linear(values, low, high, self.bits)


@intensities.register("window")
class Window:
    """A window of the image's own units, clipped, e.g. of Hounsfield units in CT.

    Args:
        low: the value that becomes 0, e.g. -160 for soft tissue.
        high: the value that becomes 255, or 1, e.g. 240.
        bits: 8 for uint8, 0 to 255; 32 for float32, 0 to 1.

    Raises:
        ValueError: `low` is not below `high`.
    """

    def __init__(self, *, low: float, high: float, bits: Bits = 8) -> None:
        _check_order(low, high)
        self.low, self.high, self.bits = low, high, bits

    def __call__(self, image: Array) -> Array:
        """Return an image (I, H, W) or (I, D, H, W) as uint8, or float32."""
        return _by_input(image, lambda values: _linear(values, self.low, self.high, self.bits))


@intensities.register("minmax")
def minmax(image: Array, *, bits: Bits = 8) -> Array:
    """Linear from the image's minimum to its maximum; an image of a single value becomes 0.

    Args:
        image: (I, H, W) or (I, D, H, W).
        bits: 8 for uint8, 0 to 255; 32 for float32, 0 to 1.
    """
    return _by_input(image, lambda values: _linear(values, float(values.min()), float(values.max()), bits))


@intensities.register("zscore", standardized=True)
def zscore(image: Array, *, foreground: bool = False) -> Array:
    """Less the case's mean, divided by its standard deviation, float32; an image of a single value becomes 0.

    The network gets it as it is: nothing is computed from the other cases. Transforms that expect 0 to 1 cannot be
    used with it.

    Args:
        image: (I, H, W) or (I, D, H, W).
        foreground: mean and deviation are those of what is not background: of the values above the image's minimum.
    """
    import numpy as np

    def standardized(values: NDArray[np.float64]) -> Array:
        chosen = values[values > values.min()] if foreground else values
        deviation = float(chosen.std()) if chosen.size else 0.0
        if deviation == 0:
            return np.zeros(values.shape, np.float32)
        values -= chosen.mean()
        values /= deviation
        return values.astype(np.float32)

    return _by_input(image, standardized)


@intensities.register("none")
def none(image: Array) -> Array:
    """The image in its own units: uint8 stays uint8, everything else becomes float32.

    Args:
        image: (I, H, W) or (I, D, H, W).
    """
    import numpy as np

    return image if image.dtype == np.uint8 else image.astype(np.float32, copy=False)


def _check_order(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"low must be below high, got low = {low:g} and high = {high:g}")


def _by_input(image: Array, scale: Callable[[NDArray[np.float64]], Array]) -> Array:
    """Return the inputs of an image, each scaled by itself; `scale` may write to what it is given."""
    import numpy as np

    return np.stack([scale(values.astype(np.float64)) for values in image])


def _linear(values: NDArray[np.float64], low: float, high: float, bits: int) -> Array:
    """Return values, in place, from [low, high] to 0..255 rounded, or to 0..1; 0 where the two are equal."""
    import numpy as np

    top = 255.0 if bits == 8 else 1.0
    values -= low  # in place: a volume may be large
    values *= top / (high - low) if high > low else 0.0
    np.clip(values, 0, top, out=values)
    if bits == 32:
        return values.astype(np.float32)
    values += 0.5
    return values.astype(np.uint8)  # which rounds down
