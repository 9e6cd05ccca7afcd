"""The module behind the step `supervised`."""

from __future__ import annotations

from torch import Tensor, nn

from segkit.types import Batch, Forward, Losses


class Supervised(nn.Module):
    """The recipe's losses of the model's scores."""

    def forward(self, model: Forward, batch: Batch, objective: Losses) -> dict[str, Tensor]:
        """Return the losses by name."""
        return objective(model(batch.image), batch.target)
