"""The moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of a model's parameters; buffers are the model's own.

    After step n, from 0, every averaged parameter becomes d * average + (1 - d) * parameter, with
    d = min(decay, (1 + n) / (10 + n)), so that the average forgets the initial weights (Tarvainen & Valpola 2017 and
    TensorFlow's ExponentialMovingAverage).

    Args:
        model: whose weights are averaged; they are where the average begins.
        decay: the largest d.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._source, self._decay = model, decay
        self._model = copy.deepcopy(model).requires_grad_(False)
        self._averaged: list[Tensor] = list(self._model.parameters())
        self._parameters: list[Tensor] = list(model.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the model's parameters after step number `step`, from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averaged, self._parameters, 1 - decay)

    @property
    def model(self) -> nn.Module:
        """A copy of the model with the averaged parameters, to be evaluated."""
        for own, buffer in zip(self._model.buffers(), self._source.buffers(), strict=True):
            own.copy_(buffer)
        return self._model
