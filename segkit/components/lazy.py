"""Torch's lazy layers, which find their sizes with the first image that they see."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn.parameter import is_lazy


def materialize(module: nn.Module, in_channels: int, size: tuple[int, int]) -> str | None:
    """Give lazy layers their weights by showing the module an empty image; return what is wrong where some get none.

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
    left = ", ".join(name for name, weight in module.named_parameters() if is_lazy(weight))
    if not left:
        return None
    return f"an image does not pass all of its lazy layers: {left} stay without a size. State their input sizes."
