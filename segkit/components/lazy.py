"""Torch's lazy layers, which infer their sizes from the first image."""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn.parameter import is_lazy


def materialize(module: nn.Module, in_channels: int, size: tuple[int, int]) -> str | None:
    """Create the weights of lazy layers by passing an empty image (1, in_channels, *size) through the module.

    Returns what is wrong if some layers get none, else None.
    """
    if not any(map(is_lazy, itertools.chain(module.parameters(), module.buffers()))):
        return None
    training = module.training
    with torch.no_grad():
        module.eval()(torch.zeros(1, in_channels, *size))
    module.train(training)
    left = ", ".join(name for name, weight in module.named_parameters() if is_lazy(weight))
    wrong = f"an image does not reach all of its lazy layers: {left} stay without a size. State their input sizes."
    return wrong if left else None
