"""Which epoch's weights a trial keeps and evaluates: the best by one number of the validation, or the last."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

from segkit.components.metrics import direction
from segkit.recipe.sections import Train

WORST = -sys.float_info.max  # a number that a checkpoint can hold


def keeps(train: Train, score: float, best: tuple[float, int] | None, epoch: int, epochs: int) -> bool:
    """Return whether the weights after an epoch replace those kept so far.

    Args:
        train: its `select` decides.
        score: of this epoch, see `score_of`.
        best: score and epoch of the weights kept so far.
        epoch, epochs: this epoch, counted from 1, and the last one.
    """
    if train.select == "last":
        return epoch == epochs
    return best is None or score > best[0]


def patience_ended(train: Train, done: int, best_epoch: int | None) -> bool:
    """Return whether `train.patience` has ended a training of `done` epochs, before the last one."""
    if train.patience is None or best_epoch is None or done >= train.epochs:
        return False
    return done - best_epoch >= train.patience


def score_of(select_by: str, means: Mapping[str, float], val_loss: float) -> float:
    """Return by what epochs are compared: larger is better.

    Args:
        select_by: "val_loss", or a metric; smaller values of some metrics are better.
        means: of each metric over the validation cases. Dice that is undefined gives way to the loss, below every
            Dice; another undefined metric is worse than any value.
        val_loss: finite.
    """
    value = means.get(select_by, math.nan)
    if select_by == "val_loss" or (select_by == "dice" and math.isnan(value)):
        return -val_loss
    return WORST if math.isnan(value) else max(WORST, min(-WORST, value * (direction(select_by) or 1)))
