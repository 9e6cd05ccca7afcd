"""Upsamplers: modules that double height and width, and change the number of channels.

An upsampler takes `in_channels` and `out_channels` and returns a module (N, in, H, W) -> (N, out, 2H, 2W).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from segkit.registry.faults import wrong_type
from segkit.registry.registry import Registry

if TYPE_CHECKING:
    from torch import nn

TRIED = (3, 4)  # rows and columns of the image on which an upsampler is tried


def flaw_of_module(made: Any, in_channels: int, size: tuple[int, int]) -> str | None:
    """Return what is wrong with a component's module, None if nothing is; lazy layers get their weights.

    Lazy layers infer their sizes from an empty image (1, in_channels, *size).
    """
    import torch
    from torch import nn
    from torch.nn.parameter import is_lazy

    if wrong := wrong_type(made, nn.Module, "torch.nn.Module"):
        return wrong
    if not any(map(is_lazy, itertools.chain(made.parameters(), made.buffers()))):
        return None
    training = made.training
    with torch.no_grad():
        made.eval()(torch.zeros(1, in_channels, *size))
    made.train(training)
    left = ", ".join(name for name, weight in made.named_parameters() if is_lazy(weight))
    wrong = f"an image does not reach all of its lazy layers: {left} stay without a size. State their input sizes."
    return wrong if left else None


def _check_made(made: Any, in_channels: int, out_channels: int) -> str | None:
    """Try it on a few pixels, since inside a model a failure would not name it."""
    import torch

    if wrong := flaw_of_module(made, in_channels, TRIED):
        return wrong
    training, image = made.training, torch.zeros(1, in_channels, *TRIED)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        found = made.eval()(image)
    made.train(training)
    expected = (1, out_channels, 2 * TRIED[0], 2 * TRIED[1])
    if tuple(getattr(found, "shape", ())) == expected:
        return None
    given = tuple(found.shape) if hasattr(found, "shape") else f"a {type(found).__name__}"
    return f"given {tuple(image.shape)} it gives {given}, not {expected}: twice the height and width."


upsamplers = Registry(
    "upsampler", "upsamplers", home=__name__, handed=("in_channels", "out_channels"), check=_check_made
)


@upsamplers.register("conv_transpose")
def conv_transpose(in_channels: int, out_channels: int) -> nn.Module:
    """Transposed convolution, 2 x 2 with stride 2: learned upsampling of every pixel to four.

    Source: Ronneberger, Fischer, Brox 2015 (U-Net), section 2.
    """
    from torch import nn

    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)


@upsamplers.register("bilinear")
def bilinear(in_channels: int, out_channels: int) -> nn.Module:
    """Bilinear interpolation (align_corners false) and a 1 x 1 convolution.

    The convolution runs first, on a quarter of the pixels: the two commute, since interpolation weights sum to 1. The
    gradient is deterministic on every device, unlike that of torch's interpolation on CUDA.

    Source: Odena, Dumoulin, Olah 2016 (resize, then convolve).
    """
    from torch import nn

    from segkit.components.autograd import Bilinear

    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size=1), Bilinear())


@upsamplers.register("nearest")
def nearest(in_channels: int, out_channels: int) -> nn.Module:
    """Nearest-neighbour interpolation and a 1 x 1 convolution, in the cheaper order, as for `bilinear`.

    Source: Odena, Dumoulin, Olah 2016 (resize, then convolve).
    """
    from torch import nn

    return nn.Sequential(nn.Conv2d(in_channels, out_channels, kernel_size=1), nn.Upsample(scale_factor=2))


@upsamplers.register("pixel_shuffle")
def pixel_shuffle(in_channels: int, out_channels: int) -> nn.Module:
    """Convolution to four times the channels, 3 x 3, rearranged into 2 x 2 pixels.

    The kernel is 3 x 3, since with a 1 x 1 this would be `conv_transpose`.

    Source: Shi et al. 2016 (sub-pixel convolution), section 3.
    """
    from torch import nn

    return nn.Sequential(nn.Conv2d(in_channels, 4 * out_channels, kernel_size=3, padding=1), nn.PixelShuffle(2))
