"""A model as the loop and the evaluation run it: where it fails, or gives no scores, it is named."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from segkit.blame import blame, fault
from segkit.component import Component


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
            raise fault(named, f"{given}; for {outputs} channels of scores that should be {expected}.")
        if not scores.is_floating_point():
            raise fault(named, f"its scores are {scores.dtype}: give the numbers before any rounding or arg max.")
        if not scores.requires_grad and torch.is_grad_enabled():
            raise fault(named, "its scores have no gradient, so that nothing is learnt: is there a detach or no_grad?")
        return scores

    return forward
