"""Models: networks that turn an image into scores.

A model takes `in_channels` and `out_channels` and returns a module: image (N, in, H, W) to scores (N, out, H, W),
without an activation at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import MinLen

from segkit.components.initializers import initializers
from segkit.components.upsamplers import flaw_of_module, upsamplers
from segkit.errors import counted
from segkit.registry.component import Component
from segkit.registry.faults import fault, raise_fault, wrong_type
from segkit.registry.registry import Registry
from segkit.types import Count, Fraction, Tensor

if TYPE_CHECKING:
    from torch import nn

SIZE = (64, 64)  # of the image on which lazy layers find their sizes


models = Registry(
    "model",
    "models",
    home=__name__,
    handed=("in_channels", "out_channels"),
    check=lambda made, in_channels, out_channels: flaw_of_module(made, in_channels, SIZE),
)


@models.register("unet")
def unet(
    in_channels: int,
    out_channels: int,
    *,
    widths: Annotated[tuple[Count, ...], MinLen(1)] = (64, 128, 256, 512),
    dropout: Fraction = 0.0,
    norm: Literal["batch", "instance", "group", "none"] = "batch",
    norm_order: Literal["after", "before"] = "after",
    upsampler: Annotated[Component, upsamplers] = "conv_transpose",  # type: ignore[assignment]
    initializer: Annotated[Component, initializers] = "xavier_normal",  # type: ignore[assignment]
) -> nn.Module:
    """U-Net: two 3 x 3 convolutions a level, concatenating skips; 7.7 million weights by default.

    Images may have any size: their border is repeated up to a multiple of 2^(levels - 1), and for at least 2 pixels on
    the lowest level, which a norm averages; the scores are cropped to the image.

    Args:
        in_channels: of the image.
        out_channels: of the scores.
        widths: channels of each level, the finest first; their number is the depth.
        dropout: probability that a channel is dropped after each convolution of the path down, lowest level
            included: whole channels (Tompson et al. 2015), since neighbouring pixels say the same.
        norm: "batch", "instance", "group" (8 groups, or as many as divide the width) or "none".
        norm_order: norm "after" the ReLU, as in the first study, or "before" it, as is common.
        upsampler: doubles the size and brings the channels to the next level's.
        initializer: fills the weights.

    Source: Ronneberger, Fischer, Brox 2015, with padded convolutions and norms.
    """
    from segkit.components.unet import UNet

    model = UNet(
        in_channels, out_channels, widths=widths, dropout=dropout, norm=norm, norm_order=norm_order, upsampler=upsampler
    )
    initializer(model)
    return model


def checked(model: Callable[[Tensor], Tensor], named: Component | None, outputs: int) -> Callable[[Tensor], Tensor]:
    """Return the forward pass of a model, checked: image (N, I, H, W) to scores (N, outputs, H, W).

    Args:
        model: the module, compiled or not.
        named: the component that built it; without one, `model` is returned as it is.
        outputs: C, with the background where classes are exclusive.

    Raises (when called):
        ComponentError: the model raised, or returned something else; the message names it.
    """
    import torch

    if named is None:
        return model

    def forward(image: Tensor) -> Tensor:
        try:
            scores = model(image)
        except BaseException as error:
            raise_fault(named, error)
        expected = (image.shape[0], outputs, *image.shape[2:])
        if not isinstance(scores, torch.Tensor):
            raise fault(named, str(wrong_type(scores, torch.Tensor, "tensor of scores")))
        if scores.shape != expected:
            found = f"for an image {tuple(image.shape)} it returns {tuple(scores.shape)}"
            raise fault(named, f"{found}; for {counted(outputs, 'channel')} it must be {expected}.")
        if not scores.is_floating_point():
            raise fault(named, f"its scores are {scores.dtype}: return the numbers before any rounding or arg max.")
        if not scores.requires_grad and torch.is_grad_enabled():
            raise fault(named, "its scores have no gradient, so nothing is learned: is there a detach or no_grad?")
        return scores

    return forward
