"""A model and cases become one row a case, channel and metric. The loop and `segkit eval` share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from segkit.component import Component
from segkit.datasets.case import Case
from segkit.errors import UserError
from segkit.training.batches import pack_masks, to_device_float, to_uint8
from segkit.training.device import Device
from segkit.transforms import Pipeline

if TYPE_CHECKING:
    from segkit.types import Array

HEADER = ("case", "patient", "channel", "metric", "value", "truth_pixels", "predicted_pixels")


@dataclass(frozen=True)
class Row:
    """One number: a case, a channel, a metric.

    Attributes:
        value: the metric; NaN where it is undefined.
        truth_pixels: foreground pixels of the truth.
        predicted_pixels: pixels with a probability of 0.5 or more.
    """

    case: str
    patient: str
    channel: str
    metric: str
    value: float
    truth_pixels: int
    predicted_pixels: int


@dataclass(frozen=True)
class Normalization:
    """How grey levels enter the model: (grey - mean) / std, of images scaled to 0..255."""

    mean: float
    std: float


class Evaluator:
    """Whole images, `eval` transforms, model in eval mode, metrics at native resolution.

    Args:
        cases: the cases to evaluate.
        channels: the structures' names.
        transforms: the recipe's `transforms.eval`.
        normalization: of the training.
        device: where and in which precision to compute.
        batch_size: images a batch; images of one size share a batch, in the order of the cases.
        exclusive: whether scores are of exclusive classes, background first.

    Raises:
        UserError: an eval transform is random or moves pixels other than by scaling the whole image.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        channels: Sequence[str],
        transforms: Sequence[Component],
        normalization: Normalization,
        device: Device,
        *,
        batch_size: int,
        exclusive: bool,
    ) -> None:
        self.cases, self.channels = tuple(cases), tuple(channels)
        self.normalization, self.device, self.exclusive = normalization, device, exclusive
        pipeline = Pipeline(transforms, exclusive=exclusive)
        pipeline.check_eval()
        self.images: list[Array] = []
        self.masks: list[Array] = []
        for number, case in enumerate(self.cases):
            image, mask = pipeline(to_uint8(case.image), pack_masks(case.masks), key=(0, 0, number), name=case.name)
            self.images.append(image)
            self.masks.append(mask)
        self._groups = list(_by_size([image.shape for image in self.images], batch_size))

    def _batches(self, model: nn.Module) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Yield (case numbers, scores, target) of each batch of equally sized images."""
        for numbers in self._groups:
            images = torch.from_numpy(np.stack([self.images[n] for n in numbers])).to(self.device.device)
            masks = torch.from_numpy(np.stack([self.masks[n] for n in numbers])).to(self.device.device)
            norm = self.normalization
            image, target = to_device_float(images, masks, norm.mean, norm.std, len(self.channels), self.exclusive)
            with self.device.autocast():
                scores = model(image)
            yield numbers, scores.float(), target

    @torch.inference_mode()
    def predict(
        self, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> Iterator[tuple[int, Array, float]]:
        """Yield (case number, probabilities (C, H, W) float32 at native resolution, loss of its batch).

        The model is put into eval mode and left as it was.
        """
        training = model.training
        model.eval()
        try:
            for numbers, scores, target in self._batches(model):
                batch_loss = float(loss(scores, target)) if loss else float("nan")
                chance = torch.softmax(scores, dim=1)[:, 1:] if self.exclusive else torch.sigmoid(scores)
                for number, probability in zip(numbers, chance, strict=True):
                    yield number, self._native(number, probability), batch_loss
        finally:
            model.train(training)

    def _native(self, number: int, probability: Tensor) -> Array:
        """Return probabilities at the size of the case's own image."""
        size = self.cases[number].image.shape
        if tuple(probability.shape[1:]) != tuple(size):
            probability = torch.nn.functional.interpolate(
                probability[None], size=size, mode="bilinear", align_corners=False
            )[0]
        return np.ascontiguousarray(probability.cpu().numpy())

    def run(
        self,
        model: nn.Module,
        metrics: Sequence[Component],
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        on_case: Callable[[Case, Array], Any] | None = None,
    ) -> tuple[list[Row], float]:
        """Evaluate and return the rows in the order of the cases, and the mean loss a case (NaN without one).

        Args:
            model: image (N, 1, H, W) to scores (N, C, H, W).
            metrics: the metrics to compute.
            loss: scores and target to a scalar.
            on_case: called with each case and its probabilities.
        """
        rows: dict[int, list[Row]] = {}
        losses = []
        for number, probability, batch_loss in self.predict(model, loss):
            case = self.cases[number]
            rows[number] = score(case, probability, self.channels, metrics)
            losses.append(batch_loss)
            if on_case:
                on_case(case, probability)
        mean = float(np.mean(losses)) if losses else float("nan")
        return [row for number in sorted(rows) for row in rows[number]], mean


def score(case: Case, probability: Array, channels: Sequence[str], metrics: Sequence[Component]) -> list[Row]:
    """Return the rows of one case; `probability` is (C, H, W) at the size of the case's image."""
    rows = []
    for channel, name in enumerate(channels):
        predicted, truth = probability[channel], case.masks[channel]
        pixels = int(np.count_nonzero(truth)), int(np.count_nonzero(predicted >= 0.5))
        for metric in metrics:
            value = metric(predicted, truth, case.spacing_mm)
            try:
                value = float(value)
            except (TypeError, ValueError):
                kind = type(value).__name__
                raise UserError(f"metric {metric.name} ({metric.entry.origin}) gave a {kind}, no number.") from None
            rows.append(Row(case.name, case.patient or "", name, metric.name, value, *pixels))
    return rows


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Return each metric's mean over cases and channels; undefined values are left out, NaN if all are."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.metric, []).append(row.value)
    return {
        name: float(np.nanmean(found)) if not np.isnan(found).all() else float("nan") for name, found in values.items()
    }


def cells(row: Row) -> list[str]:
    """Return a row as `cases.csv` holds it: full precision, an undefined value empty."""
    value = "" if np.isnan(row.value) else repr(row.value)
    return [row.case, row.patient, row.channel, row.metric, value, str(row.truth_pixels), str(row.predicted_pixels)]


def _by_size(shapes: Sequence[tuple[int, ...]], batch_size: int) -> Iterator[list[int]]:
    """Yield case numbers in batches of one image size each, sizes in the order in which they first occur."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, shape in enumerate(shapes):
        groups.setdefault(tuple(shape), []).append(number)
    for numbers in groups.values():
        for start in range(0, len(numbers), batch_size):
            yield numbers[start : start + batch_size]
