"""Models: networks that turn an image into scores.

A model takes `in_channels` and `out_channels` and returns a module: image (N, in, H, W) to scores (N, out, H, W),
without an activation at the end. In training it may also return a tuple of scores, the finest first, then others of
lower resolution; in evaluation always one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

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


def _wrong_levels(
    *, widths: tuple[int, ...], convolutions: int | tuple[int, ...], deep_supervision: bool, **_: Any
) -> str | None:
    levels = f"widths has {counted(len(widths), 'level')}"
    if not isinstance(convolutions, int) and len(convolutions) != len(widths):
        return f"convolutions has {counted(len(convolutions), 'number')}, but {levels}: give one number a level"
    if deep_supervision and len(widths) < 3:
        return f"deep_supervision has no effect, since {levels}: only from 3 on is there a coarser one to supervise"
    return None


@models.register("unet", conflict=_wrong_levels)
def unet(
    in_channels: int,
    out_channels: int,
    *,
    widths: Annotated[tuple[Count, ...], MinLen(1)] = (64, 128, 256, 512),
    convolutions: Count | tuple[Count, ...] = 2,
    residual: bool = False,
    downsampling: Literal["max_pool", "strided"] = "max_pool",
    dropout: Fraction = 0.0,
    norm: Literal["batch", "instance", "group", "none"] = "batch",
    norm_order: Literal["after", "before"] = "after",
    activation: Literal["relu", "leaky_relu"] = "relu",
    upsampler: Annotated[Component, upsamplers] = "conv_transpose",  # type: ignore[assignment]
    initializer: Annotated[Component, initializers] = "xavier_normal",  # type: ignore[assignment]
    deep_supervision: bool = False,
) -> nn.Module:
    """U-Net: two 3 x 3 convolutions a level, concatenating skips; 7.7 million weights by default.

    Images may have any size: their border is repeated up to a multiple of 2^(levels - 1), and for at least 2 pixels on
    the lowest level, which a norm averages; the scores are cropped to the image.

    Args:
        in_channels: of the image.
        out_channels: of the scores.
        widths: channels of each level, the finest first; their number is the depth.
        convolutions: of each level, on the path down and on the path up: one number, or one a level.
        residual: on the path down, add the input of every two convolutions to their result, before the last activation
            (He et al. 2016); brought to its shape by an average over 2 x 2 pixels and a 1 x 1 convolution, as in
            nnU-Net's ResEnc (Isensee et al. 2024).
        downsampling: "max_pool" over 2 x 2 pixels, or "strided": the first convolution of a level has a stride of 2.
        dropout: probability that a channel is dropped after each convolution of the path down, lowest level
            included: whole channels (Tompson et al. 2015), since neighbouring pixels say the same.
        norm: "batch", "instance", "group" (8 groups, or as many as divide the width) or "none".
        norm_order: norm "after" the activation, as in the first study, or "before" it, as is common.
        activation: "relu", or "leaky_relu" with a slope of 0.01 below 0.
        upsampler: doubles the size and brings the channels to the next level's.
        initializer: fills the weights.
        deep_supervision: in training, also scores of each coarser level of the path up, by a 1 x 1 convolution: all
            levels but the lowest (Lee et al. 2015). Evaluation computes the finest alone.

    Source: Ronneberger, Fischer, Brox 2015, with padded convolutions and norms.
    """
    from segkit.components.unet import Convolutions, UNet

    model = UNet(
        in_channels,
        out_channels,
        widths=widths,
        convolutions=(convolutions,) * len(widths) if isinstance(convolutions, int) else convolutions,
        blocks=Convolutions(norm, norm_order, activation),
        residual=residual,
        downsampling=downsampling,
        dropout=dropout,
        upsampler=upsampler,
        deep_supervision=deep_supervision,
    )
    initializer(model)
    return model


def padded(inner: nn.Module, multiple: int, least: int = 1) -> nn.Module:
    """Return a model that takes images of any size, from one that takes sides of certain multiples only.

    The border of the image is repeated, on both sides, and the scores are cropped to the image, also those of lower
    resolution that it may return in training: they cover exactly the image.

    Args:
        inner: image (N, in, H, W) to scores (N, out, H, W), or in training to a tuple of scores, the finest first.
        multiple: of which each side of its image must be, in pixels; usually 2 to the number of times that it halves.
        least: the smallest side that it takes, in pixels.
    """
    from segkit.components.padding import Padded

    return Padded(inner, multiple, least)


def checked(model: Callable[[Tensor], Any], named: Component | None, outputs: int) -> Callable[[Tensor], Any]:
    """Return the forward pass of a model, checked: image (N, I, H, W) to scores (N, outputs, H, W).

    In training a model may also return a tuple of scores, the finest first, of the image's size; each of the others is
    at most as large as the one before it.

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

    def forward(image: Tensor) -> Any:
        try:
            found = model(image)
        except BaseException as error:
            raise_fault(named, error)
        several = isinstance(found, (tuple, list)) and getattr(model, "training", False)
        flaw = _flaw_of_several(found, image, outputs) if several else _flaw_of_scores(found, image, outputs)
        if flaw is None and torch.is_grad_enabled():
            flaw = _without_gradient(found if several else [found])
        if flaw is not None:
            raise fault(named, flaw)
        return tuple(found) if several else found

    return forward


def _flaw_of_scores(scores: Any, image: Tensor, outputs: int) -> str | None:
    """Return what is wrong with scores that are to have the image's size, None if nothing is."""
    import torch

    expected = (image.shape[0], outputs, *image.shape[2:])
    if isinstance(scores, (tuple, list)):
        return f"in evaluation it returns a {type(scores).__name__} of {len(scores)}: return the finest scores alone."
    if not isinstance(scores, torch.Tensor):
        return wrong_type(scores, torch.Tensor, "tensor of scores")
    if scores.shape != expected:
        found = f"for an image {tuple(image.shape)} it returns {tuple(scores.shape)}"
        return f"{found}; for {counted(outputs, 'channel')} it must be {expected}."
    if not scores.is_floating_point():
        return f"its scores are {scores.dtype}: return the numbers before any rounding or arg max."
    return None


def _flaw_of_several(scores: Sequence[Any], image: Tensor, outputs: int) -> str | None:
    """Return what is wrong with a training's tuple of scores, None if nothing is."""
    import torch

    if not scores:
        return "it returns no scores, but an empty tuple."
    flaw, last = _flaw_of_scores(scores[0], image, outputs), image.shape[2:]
    for number, auxiliary in enumerate(scores[1:], 1):
        if flaw is not None:
            break
        if not isinstance(auxiliary, torch.Tensor) or auxiliary.ndim != 4 or not auxiliary.is_floating_point():
            flaw = f"item {number} of its tuple must be scores (N, C, h, w) of floating-point numbers."
        elif auxiliary.shape[:2] != (image.shape[0], outputs) or not all(auxiliary.shape[2:]):
            given = f"item {number} of its tuple is {tuple(auxiliary.shape)}"
            flaw = f"{given}; it must be ({image.shape[0]}, {outputs}, h, w), in cases and channels like the first."
        elif any(size > before for size, before in zip(auxiliary.shape[2:], last, strict=True)):
            flaw = f"item {number} of its tuple, {tuple(auxiliary.shape)}, is larger than the one before: finest first."
        last = auxiliary.shape[2:] if flaw is None else last
    return flaw


def _without_gradient(scores: Sequence[Tensor]) -> str | None:
    missing = [number for number, item in enumerate(scores) if not item.requires_grad]
    if not missing:
        return None
    which = f"item {missing[0]} of its tuple has" if missing[0] else "its scores have"
    return f"{which} no gradient, so nothing is learned: is there a detach or no_grad?"
