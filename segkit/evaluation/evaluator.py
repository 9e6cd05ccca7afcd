"""A model and cases become one row a case, channel and metric. The loop and `segkit eval` share it.

Masks are decided here, once, at native resolution: a structure is where its probability is one half or more, or, where
classes exclude each other, where it is the likeliest of all classes, background included.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from segkit.components.datasets.case import Case
from segkit.components.metrics import as_number, hard
from segkit.components.models import checked
from segkit.data.pipeline import Pipeline
from segkit.data.samples import pack_masks, to_device_float, to_uint8
from segkit.device import Device
from segkit.evaluation.rows import Row
from segkit.recipe.model import Recipe
from segkit.registry.component import Component
from segkit.registry.faults import ComponentError, fault
from segkit.registry.source import ComponentCode

if TYPE_CHECKING:
    from segkit.types import Array, Spacing


@dataclass(frozen=True)
class Normalization:
    """How grey levels enter the model: (grey - mean) / std, of images scaled to 0..255."""

    mean: float
    std: float


class Prediction(NamedTuple):
    """The prediction of one case, at the resolution of its own image.

    Attributes:
        case: its number among the cases.
        probability: (C, H, W) float32; softmax's where classes exclude each other.
        mask: (C, H, W) bool, as decided.
        loss: of the batch that the case was in; NaN without a loss.
    """

    case: int
    probability: Array
    mask: Array
    loss: float


class Evaluator:
    """Whole images, `eval` transforms, model in eval mode, metrics at native resolution.

    Args:
        channels: the structures' names.
        recipe: of the training; images of one size share a batch of `train.batch_size`, in the order of the cases.
        normalization: of the training.
        device: where and in which precision to compute.

    Raises:
        UserError: an eval transform is random or moves pixels other than by scaling the whole image.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        channels: Sequence[str],
        recipe: Recipe,
        normalization: Normalization,
        device: Device,
    ) -> None:
        self.cases, self.channels, self.recipe = tuple(cases), tuple(channels), recipe
        self.normalization, self.device, self.exclusive = normalization, device, recipe.channels == "exclusive"
        batch_size, pipeline = recipe.train.batch_size, Pipeline(recipe.transforms.eval, exclusive=self.exclusive)
        pipeline.check_eval()
        self.images: list[Array] = []
        self.masks: list[Array] = []
        of_size: dict[tuple[int, ...], list[int]] = {}
        for number, case in enumerate(self.cases):
            image, mask = pipeline(to_uint8(case.image), pack_masks(case.masks), key=(0, 0, number), name=case.name)
            self.images.append(image)
            self.masks.append(mask)
            of_size.setdefault(image.shape, []).append(number)
        self._groups = [
            numbers[start : start + batch_size]
            for numbers in of_size.values()
            for start in range(0, len(numbers), batch_size)
        ]

    @torch.inference_mode()
    def predict(self, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] | None = None) -> Iterator[Prediction]:
        """Yield the prediction of each case, computed in batches; the model is put into eval mode and back.

        The loss is computed last: what it does to the scores reaches no prediction.

        Raises:
            ComponentError: the model or the loss failed; the message names it.
        """
        forward = checked(model, self.recipe.model, len(self.channels) + self.exclusive)
        norm, training = self.normalization, model.training
        model.eval()
        try:
            for numbers in self._groups:
                images, masks = (
                    torch.from_numpy(np.stack([arrays[n] for n in numbers])).to(self.device.device)
                    for arrays in (self.images, self.masks)
                )
                image, target = to_device_float(images, masks, norm.mean, norm.std, len(self.channels), self.exclusive)
                with self.device.autocast():
                    scores = forward(image).float()
                chance = torch.softmax(scores, dim=1) if self.exclusive else torch.sigmoid(scores)
                batch_loss = float(loss(scores, target)) if loss else float("nan")
                for number, probability in zip(numbers, chance, strict=True):
                    yield Prediction(number, *self._decided(number, probability), batch_loss)
        finally:
            model.train(training)

    def _decided(self, number: int, probability: Tensor) -> tuple[Array, Array]:
        """Return probabilities and masks at the size of the case's own image; classes are resampled all together."""
        size = self.cases[number].image.shape
        if tuple(probability.shape[1:]) != tuple(size):
            probability = torch.nn.functional.interpolate(
                probability[None], size=size, mode="bilinear", align_corners=False
            )[0]
        if not self.exclusive:
            found: Array = np.ascontiguousarray(probability.cpu().numpy())
            return found, hard(found)
        likeliest = probability.argmax(dim=0).cpu().numpy()
        masks = likeliest == np.arange(1, len(self.channels) + 1)[:, None, None]
        return np.ascontiguousarray(probability[1:].cpu().numpy()), masks

    def run(
        self,
        model: nn.Module,
        metrics: Sequence[Component],
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        on_case: Callable[[int, Array], Any] | None = None,
    ) -> tuple[list[Row], float]:
        """Evaluate and return the rows in the order of the cases, and the mean loss a case (NaN without one).

        Args:
            model: image (N, 1, H, W) to scores (N, C, H, W).
            loss: scores and target to a scalar.
            on_case: called with the number of each case and its decided masks.

        Raises:
            ComponentError: model, metric or loss failed; the message names it.
        """
        rows: dict[int, list[Row]] = {}
        losses = []
        for found in self.predict(model, loss):
            rows[found.case] = score(self.cases[found.case], found.probability, found.mask, self.channels, metrics)
            losses.append(found.loss)
            if on_case:
                on_case(found.case, found.mask)
        mean = float(np.mean(losses)) if losses else float("nan")
        return [row for number in sorted(rows) for row in rows[number]], mean


def score(
    case: Case, probability: Array, mask: Array, channels: Sequence[str], metrics: Sequence[Component]
) -> list[Row]:
    """Return the rows of one case; `probability` and `mask` are (C, H, W) at the size of the case's image."""
    rows = []
    for channel, name in enumerate(channels):
        truth = case.masks[channel]
        pixels = int(np.count_nonzero(truth)), int(np.count_nonzero(mask[channel]))
        for metric in metrics:
            given = probability if metric.entry.traits["uses"] == "probability" else mask
            inputs = given[channel], truth, case.spacing_mm
            value = checked_value(metric, *inputs) if metric.entry.foreign else float(metric(*inputs))
            rows.append(Row(case.name, case.patient or "", name, metric.name, value, *pixels))
    return rows


def checked_value(metric: Component, predicted: Array, truth: Array, spacing_mm: Spacing) -> float:
    """Return the value of a plugin's metric for one channel, computed from copies of the arrays.

    Raises:
        ComponentError: it raised, returned something other than a number, or wrote to what it was given.
    """
    copies = predicted.copy(), truth.copy()
    value = metric(*copies, spacing_mm)
    for name, copy, original in zip(("prediction", "truth"), copies, (predicted, truth), strict=True):
        if not np.array_equal(copy, original, equal_nan=copy.dtype != bool):
            place = _writing_line(metric, predicted, truth, spacing_mm)
            raise fault(metric, f"it writes to its {name}, which others use too. Work on a copy.", place)
    try:
        return as_number(value)
    except ValueError as error:
        raise fault(metric, str(error)) from None


def _writing_line(metric: Component, predicted: Array, truth: Array, spacing_mm: Spacing) -> str | None:
    """Return the line of a metric that writes to its arrays, where numpy can tell."""
    copies = predicted.copy(), truth.copy()
    for copy in copies:
        copy.flags.writeable = False
    with warnings.catch_warnings(action="ignore"):
        try:
            metric(*copies, spacing_mm)
        except ComponentError as error:
            return ComponentCode(metric.entry.factory).of_error(error.__cause__ or error)
    return None
