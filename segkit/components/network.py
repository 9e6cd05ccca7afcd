"""A model as the loop and the evaluation run it: where it fails, or gives no scores, it is named."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from segkit.errors import counted
from segkit.registry.component import Component
from segkit.registry.faults import blame, fault


def complete(module: nn.Module, in_channels: int, size: tuple[int, int]) -> str | None:
    """Give torch's lazy layers their weights, by showing the module an empty image; say which are left without.

    Args:
        module: as it was built; one without lazy layers is left alone.
        in_channels: of the image.
        size: its height and width.
    """
    if not any(map(is_lazy, itertools.chain(module.parameters(), module.buffers()))):
        return None
    training = module.training
    with torch.no_grad():
        module.eval()(torch.zeros(1, in_channels, *size))
    module.train(training)
    left = [name for name, weight in module.named_parameters() if is_lazy(weight)]
    if not left:
        return None
    return f"an image does not pass all of its lazy layers: {', '.join(left)} stay without a size. Give it to them."


def guarded(model: Callable[[Tensor], Tensor], named: Component | None, outputs: int) -> Callable[[Tensor], Tensor]:
    """Return what runs a model on an image (N, I, H, W) and gives its scores (N, outputs, H, W).

    Args:
        model: the module, or what compiles it.
        named: the component that made it; without one the module itself is returned.
        outputs: C, with the background where classes exclude each other.

    Raises (when called):
        ComponentError: the model raised, or gave something else; the message names it.
    """
    if named is None:
        return model

    def forward(image: Tensor) -> Tensor:
        try:
            scores = model(image)
        except BaseException as error:
            blame(named, error)
        size = image.shape
        expected = (size[0], outputs, size[2], size[3])
        if not isinstance(scores, Tensor):
            raise fault(named, f"it gives a {type(scores).__name__}, no tensor of scores.")
        if scores.shape != expected:
            given = f"given an image {tuple(size)} it gives {tuple(scores.shape)}"
            raise fault(named, f"{given}; for {counted(outputs, 'channel')} of scores that should be {expected}.")
        if not scores.is_floating_point():
            raise fault(named, f"its scores are {scores.dtype}: give the numbers before any rounding or arg max.")
        if not scores.requires_grad and torch.is_grad_enabled():
            raise fault(named, "its scores have no gradient, so that nothing is learned: is there a detach or no_grad?")
        return scores

    return forward
