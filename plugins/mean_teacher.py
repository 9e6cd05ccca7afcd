"""Mean teacher: the model learns to agree with a moving average of itself, also on cases without masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Lt

from segkit import steps
from segkit.types import Batch, Count, Forward, Losses, NonNegative, Tensor

if TYPE_CHECKING:
    from torch import nn


@steps.register("mean_teacher", unlabelled=True)
def mean_teacher(
    *,
    consistency: NonNegative = 0.1,
    ramp_up: Count = 400,
    decay: Annotated[float, Ge(0), Lt(1)] = 0.99,
    noise: NonNegative = 0.1,
) -> nn.Module:
    """Mean teacher: the recipe's losses where there are masks, and everywhere the distance from a teacher.

    The teacher has the moving average of the model's weights, and sees each image with noise. The distance is the mean
    squared difference of the two probabilities. The teacher itself is evaluated with `train.ema` at the same decay.

    Args:
        consistency: the factor of the distance, once it has risen.
        ramp_up: steps over which it rises, as exp(-5 (1 - t)^2).
        decay: of the average; in step n at most 1 - 1 / (n + 1), so that the first weights are forgotten.
        noise: deviation of the Gaussian noise on the teacher's image, whose own is about 1; cut off at twice that.

    Source: Tarvainen & Valpola 2017, section 3; factor and noise as in Yu et al. 2019, for segmentation.
    """
    import copy
    import math

    import torch
    from torch import nn

    class MeanTeacher(nn.Module):
        teacher: nn.Module
        updates = 0

        def prepare(self, model: nn.Module) -> None:
            self.teacher = copy.deepcopy(model).requires_grad_(False)
            self.updates = 0

        def forward(self, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
            scores = model(batch.image)
            blur = noise * torch.randn_like(batch.image).clamp_(-2, 2)
            with torch.no_grad():
                taught = objective.probabilities(self.teacher(batch.image + blur))
            distance = (objective.probabilities(scores) - taught).square().mean()
            factor = consistency * math.exp(-5 * (1 - min(1, self.updates / ramp_up)) ** 2)
            return {**objective(scores, batch.target, batch.labelled), "consistency": factor * distance}

        @torch.no_grad()
        def updated(self, model: nn.Module) -> None:
            share = 1 - min(decay, 1 - 1 / (self.updates + 1))
            for averaged, weight in zip(self.teacher.parameters(), model.parameters(), strict=True):
                averaged.lerp_(weight, share)
            self.updates += 1

    return MeanTeacher()
