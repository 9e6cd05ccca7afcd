"""Everything that a training changes; saved and restored, it continues to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from segkit.components.schedulers import Schedule
from segkit.registry.component import Component
from segkit.training.loss_watch import LossWatch
from segkit.training.objective import Objective
from segkit.training.step_watch import StepWatch


@dataclass
class State:
    """The model and what moves it, and how far the training has come.

    Attributes:
        scaler: of the loss, for float16.
        parts: the recipe's components by slot, to be named where one fails.
        epoch: the epoch under way, from 1.
        batch: batches done of that epoch.
        step: optimizer steps done in all.
        rate: the learning rate at the beginning of the epoch.
        sums: per summand, the sum of its batch means in this epoch; on the device.
        first_batch: value, weight and gradient share of each summand on the first batch.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    objective: Objective
    parts: Mapping[str, Component] = field(default_factory=dict)
    epoch: int = 1
    batch: int = 0
    step: int = 0
    rate: float = 0.0
    sums: Tensor | None = None
    first_batch: list[dict[str, Any]] = field(default_factory=list)

    def blamed(self, slot: str) -> list[Component]:
        """Return the component of a slot, if the recipe has one, to be named in an error."""
        return [self.parts[slot]] if slot in self.parts else []

    def __post_init__(self) -> None:
        self.step_watch = StepWatch(self.objective, self.optimizer, self.parts)
        self.loss_watch = LossWatch(self.objective, self.step_watch, self.parts.get("model"))
