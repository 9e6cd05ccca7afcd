"""What transforms of Albumentations do to grey levels, on tensors; see `Intensity.change`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segkit.components.device_forms.form import Drawn, drawn_by

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def brightened(images: Tensor, top: float, *, alpha: Tensor, beta: Tensor, of_mean: Tensor) -> Tensor:
    """Multiply levels, and add to them a number, and one in units of the mean of their image."""
    return images * alpha + beta + of_mean * images.mean(dim=(1, 2, 3), keepdim=True)


def draw_brightness(transform: Any, image: NDArray[Any]) -> Drawn:
    """Draw what `brightened` takes."""
    drawn = drawn_by(transform, np.ones((1, 1), image.dtype))  # of this image the mean is 1
    by_max = transform.brightness_by_max
    return {"alpha": drawn["alpha"], "beta": drawn["beta"] * by_max, "of_mean": drawn["beta"] * (not by_max)}


def gamma(images: Tensor, top: float, *, gamma: Tensor) -> Tensor:
    """Raise levels, from 0 to 1, to a power."""
    return (images / top) ** gamma * top


def noisy(images: Tensor, top: float, *, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    """Add normal noise."""
    return images + (mean + std * noise) * top


def blurred(images: Tensor, top: float, *, kernel: Tensor) -> Tensor:
    """Blur by a kernel (N, K) of odd length along rows and columns; reflected beyond the border."""
    import torch

    reach = kernel.shape[1] // 2
    for axis in (1, 2):
        side = images.shape[axis]
        places = torch.arange(-reach, side + reach, device=images.device).abs()
        places = (side - 1) - ((side - 1) - places % max(2 * side - 2, 1)).abs()
        wide = images.index_select(axis, places)
        images = sum(wide.narrow(axis, at, side) * kernel[:, at, None, None, None] for at in range(2 * reach + 1))  # type: ignore[assignment]
    return images


def draw_noise(transform: Any, image: NDArray[Any]) -> Drawn:
    """Draw its mean and deviation, but not the noise."""
    std, mean = (transform.py_random.uniform(*limits) for limits in (transform.std_range, transform.mean_range))
    return {"std": std, "mean": mean}


def coarse_noise(transform: Any) -> str:
    """Return the setting with which noise is not drawn for each pixel and input."""
    if not transform.per_channel:
        return "per_channel = false"
    scale = transform.noise_scale_factor
    return "" if scale == 1 else f"noise_scale_factor = {scale:g}"


def range_of_mean(transform: Any) -> str:
    """Return the setting with which limits depend on the mean of an image."""
    ensured = transform.ensure_safe_range and not transform.brightness_by_max
    return "ensure_safe_range beside brightness_by_max = false" if ensured else ""
