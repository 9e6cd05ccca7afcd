"""The validation after an epoch: what something waits for at once, the rest beside the next epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass

from torch import nn

from segkit.components.metrics import metrics
from segkit.evaluation.evaluator import Evaluator, Fetched, Prediction
from segkit.evaluation.rows import Row, means
from segkit.evaluation.scoring import counted, uses_probability
from segkit.evaluation.slices import Loss, Scored
from segkit.recipe.model import Recipe
from segkit.registry.component import Component

ALWAYS = "dice"  # computed each epoch, whatever the recipe's metrics
KEPT = 1 << 30
"""Bytes of masks and probabilities that wait on the host for their metrics while the next epoch is trained."""


@dataclass(frozen=True)
class Validated:
    """What a validation found.

    Attributes:
        rows: of the metrics that are known by now; Dice is among them.
        loss: the mean over the cases.
        later: the rows of the other metrics.
    """

    rows: list[Row]
    loss: float
    later: Future[list[Row]] | None = None


class Validation:
    """Validates after each epoch.

    Metrics that are counts are counted on the device. Others need masks on the host; on a GPU, those that neither the
    choice of the epoch nor a plugin's code waits for are computed beside the next epoch, by a thread.

    Args:
        evaluator: of the validation cases.
        recipe: of the trial.
        beside: whether anything is computed beside the next epoch.
        resident: whether images and masks stay on the device.

    Attributes:
        metrics: those computed each epoch, in the order in which their means are written.
        settings: of the evaluation after each epoch.
    """

    def __init__(self, evaluator: Evaluator, recipe: Recipe, *, beside: bool, resident: bool = False) -> None:
        self.evaluator, self.settings = evaluator, recipe.evaluation.of_epochs
        self.metrics = _every_epoch(recipe.metrics)
        others = [metric for metric in self.metrics if not counted(metric)]
        waited_for = any(metric.entry.foreign or metric.name == recipe.train.select_by for metric in others)
        separate = not waited_for and not self.settings.postprocess
        self._counted = [metric for metric in self.metrics if counted(metric)] if separate else []
        self._probabilities = any(uses_probability(metric) for metric in others)
        fits = _size(evaluator, probabilities=self._probabilities) <= KEPT
        self._later = others if separate and beside and fits else []
        self._resident, self._closed = resident, False
        self._thread: ThreadPoolExecutor | None = None

    def __call__(self, model: nn.Module, loss: Loss) -> Validated:
        """Validate a model; raises as `Evaluator.run` does, and so does the result of what is computed later."""
        evaluator, settings, fetched = self.evaluator, self.settings, list[Fetched]()
        if not self._later and len(self._counted) < len(self.metrics):
            return Validated(*evaluator.run(model, self.metrics, loss, settings=settings))

        def scored() -> Iterator[Scored]:
            for some in evaluator.scored(model, loss, settings, truth=True, keep=self._resident):
                if self._later:
                    fetched.append(evaluator.fetched(some, probabilities=self._probabilities))
                yield some

        rows, value = evaluator.counted(scored(), self._counted)
        if not self._later:
            return Validated(rows, value)
        self._thread = self._thread or ThreadPoolExecutor(1, "metrics")
        return Validated(rows, value, self._thread.submit(self._rest, fetched))

    def _rest(self, fetched: Sequence[Fetched]) -> list[Row]:
        """Return the rows of the metrics that are computed later, unless nobody wants them any more."""

        def decided() -> Iterator[Prediction]:
            for found in self.evaluator.decided(fetched, self.settings):
                if self._closed:
                    raise CancelledError
                yield found

        return self.evaluator.rows_of(decided(), self._later)[0]

    def means(self, found: Validated) -> dict[str, float]:
        """Return the mean of every metric, in their order; waits for those that are computed later."""
        known = means([*found.rows, *(found.later.result() if found.later else ())])
        return {metric.name: known[metric.name] for metric in self.metrics if metric.name in known}

    def close(self) -> None:
        """End the thread, after the case that it is at."""
        self._closed = True
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)


def _size(evaluator: Evaluator, *, probabilities: bool) -> int:
    """Return the bytes of the masks of all cases, and of their probabilities."""
    pixels = sum(math.prod(case.shape) for case in evaluator.cases) * len(evaluator.channels)
    return pixels * 5 if probabilities else pixels


def _every_epoch(chosen: Sequence[Component]) -> list[Component]:
    """Return the metrics to compute each epoch, which choose the best epoch; always Dice."""
    quick = [metric for metric in chosen if not metric.entry.traits["final_only"]]
    return quick if ALWAYS in {metric.name for metric in quick} else [*quick, metrics.component(ALWAYS)]
