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

from segkit.components.metrics import as_number, hard
from segkit.components.models import checked
from segkit.data.cases import Data, StoredCase
from segkit.data.pipeline import Pair, Pipeline
from segkit.data.preparing import prepare
from segkit.data.samples import to_device_float
from segkit.device import Device
from segkit.evaluation.rows import Row
from segkit.recipe.model import Recipe
from segkit.registry.component import Component
from segkit.registry.faults import ComponentError, fault
from segkit.registry.source import ComponentCode

if TYPE_CHECKING:
    from segkit.types import Array, Spacing

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Normalization:
    """How the image after intensity enters the model: (value - mean) / std, with one of each an input."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def identity(cls, inputs: int) -> Normalization:
        """Return the one that changes nothing."""
        return cls((0.0,) * inputs, (1.0,) * inputs)


class Prediction(NamedTuple):
    """The prediction of one case, at the resolution of its own image.

    Attributes:
        case: its place among the cases.
        probability: (C, H, W) or (C, D, H, W) float32; softmax's where classes exclude each other. (C, 0) of a volume
            whose probabilities were not asked for.
        mask: (C, H, W) or (C, D, H, W) bool, as decided.
        loss: of the batch that the case was in, of a volume the mean over its slices; NaN without a loss.
    """

    case: int
    probability: Array
    mask: Array
    loss: float


class _Volume:
    """The prediction of a volume while its slices arrive: kept once, since it may be large."""

    def __init__(self, channels: int, shape: tuple[int, ...], *, probabilities: bool) -> None:
        self.probability = np.empty((channels, *shape) if probabilities else (channels, 0), np.float32)
        self.mask = np.empty((channels, *shape), bool)
        self.losses: list[float] = []

    def add(self, plane: int, probability: Array, mask: Array, loss: float) -> bool:
        """Add a slice, (C, H, W) each; return whether it was the last one."""
        if self.probability.size:
            self.probability[:, plane] = probability
        self.mask[:, plane] = mask
        self.losses.append(loss)
        return len(self.losses) == self.mask.shape[1]

    def prediction(self, place: int) -> Prediction:
        """Return the prediction of the case at a place, once all slices are added."""
        return Prediction(place, self.probability, self.mask, float(np.mean(self.losses)))


class Evaluator:
    """Whole images, `eval` transforms, model in eval mode, metrics at native resolution; volumes slice by slice.

    Args:
        data: the cases.
        cases: the numbers of those to evaluate.
        recipe: of the training; images of one size share a batch of `train.batch_size`, in the order of the cases.
        normalization: of the training.
        device: where and in which precision to compute.

    Raises:
        UserError: an eval transform is random or moves pixels other than by scaling the whole image.
    """

    def __init__(
        self, data: Data, cases: Sequence[int], recipe: Recipe, normalization: Normalization, device: Device
    ) -> None:
        self.data, self.recipe, self.channels = data, recipe, data.channels
        self.cases = tuple(data.cases[number] for number in cases)
        self.numbers = tuple(cases)
        self.normalization, self.device, self.exclusive = normalization, device, recipe.channels == "exclusive"
        batch_size, pipeline = recipe.train.batch_size, Pipeline(recipe.transforms.eval, exclusive=self.exclusive)
        pipeline.check_eval(data.kind)
        self._prepared, self._rest = prepare(data, recipe.transforms.eval, exclusive=self.exclusive)
        self._slices = [(place, number) for place, case in enumerate(self.cases) for number in case.slices]
        self._pairs: dict[int, Pair] = {}  # after plugins' transforms, which the store does not hold
        if len(self._rest):
            self._pairs = {index: self._transformed(index) for index in range(len(self._slices))}
        of_size: dict[tuple[int, ...], list[int]] = {}
        for index, (_, number) in enumerate(self._slices):
            self._prepared.check(number)
            found = self._pairs[index][1].shape if self._pairs else self._prepared.shape(number)
            of_size.setdefault(found, []).append(index)
        self._groups = [
            indices[start : start + batch_size]
            for indices in of_size.values()
            for start in range(0, len(indices), batch_size)
        ]

    def _transformed(self, index: int) -> Pair:
        """Return image and bit map of a slice as the model sees them."""
        if index in self._pairs:
            return self._pairs[index]
        place, number = self._slices[index]
        pair = self._prepared.image(number), self._prepared.bits(number)
        name = self.cases[place].slice_name(number)
        return self._rest(*pair, key=(0, 0, index), name=name) if len(self._rest) else pair

    def predict(
        self, model: nn.Module, loss: Loss | None = None, *, probabilities: bool = True
    ) -> Iterator[Prediction]:
        """Yield the prediction of each case, computed in batches; the model is put into eval mode and back.

        The loss is computed last: what it does to the scores reaches no prediction.

        Args:
            model: image (N, I, H, W) to scores (N, C, H, W).
            loss: scores and target to a scalar.
            probabilities: whether to keep those of volumes, which take four times as much memory as the masks.

        Raises:
            ComponentError: the model or the loss failed; the message names it.
        """
        forward = checked(model, self.recipe.model, len(self.channels) + self.exclusive)
        training, waiting = model.training, dict[int, _Volume]()
        model.eval()
        try:
            for indices in self._groups:
                parts, batch_loss = self._computed(indices, forward, loss)
                for index, decided in zip(indices, parts, strict=True):
                    place, number = self._slices[index]
                    case = self.cases[place]
                    if len(case.shape) == 2:
                        yield Prediction(place, *decided, batch_loss)
                        continue
                    if place not in waiting:
                        waiting[place] = _Volume(len(self.channels), case.shape, probabilities=probabilities)
                    if waiting[place].add(number - case.first, *decided, batch_loss):
                        yield waiting.pop(place).prediction(place)
        finally:
            model.train(training)

    @torch.inference_mode()  # not of `predict`: it would keep each case's prediction until the next is made
    def _computed(
        self, indices: Sequence[int], forward: Callable[[Tensor], Tensor], loss: Loss | None
    ) -> tuple[list[tuple[Array, Array]], float]:
        """Return probabilities and masks of each slice of a batch, (C, H, W), and the loss of the batch."""
        pairs, norm = [self._transformed(index) for index in indices], self.normalization
        images, masks = (
            torch.from_numpy(np.stack(arrays)).to(self.device.device) for arrays in zip(*pairs, strict=True)
        )
        image, target = to_device_float(images, masks, norm.mean, norm.std, len(self.channels), self.exclusive)
        with self.device.autocast():
            scores = forward(image).float()
        chance = torch.softmax(scores, dim=1) if self.exclusive else torch.sigmoid(scores)
        batch_loss = float(loss(scores, target)) if loss else float("nan")
        places = (self._slices[index][0] for index in indices)
        return [self._decided(*found) for found in zip(places, chance, strict=True)], batch_loss

    def _decided(self, place: int, probability: Tensor) -> tuple[Array, Array]:
        """Return probabilities and masks of a slice at the size of the case; classes are resampled all together."""
        size = self.cases[place].shape[-2:]
        if tuple(probability.shape[1:]) != size:
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
        loss: Loss | None = None,
        on_case: Callable[[int, Array, Array], Any] | None = None,
    ) -> tuple[list[Row], float]:
        """Evaluate and return the rows in the order of the cases, and the mean loss a case (NaN without one).

        Args:
            model: image (N, I, H, W) to scores (N, C, H, W).
            loss: scores and target to a scalar.
            on_case: called with the place of each case, its true and its decided masks.

        Raises:
            ComponentError: model, metric or loss failed; the message names it.
        """
        rows: dict[int, list[Row]] = {}
        losses, probabilities = [], any(_uses_probability(metric) for metric in metrics)
        for found in self.predict(model, loss, probabilities=probabilities):
            truth = self.data.masks(self.numbers[found.case])
            rows[found.case] = score(
                self.cases[found.case], truth, found.probability, found.mask, self.channels, metrics
            )
            losses.append(found.loss)
            if on_case:
                on_case(found.case, truth, found.mask)
            del found, truth  # before the next ones are made: a volume may be large
        mean = float(np.mean(losses)) if losses else float("nan")
        return [row for number in sorted(rows) for row in rows[number]], mean

    def picture(self, place: int, plane: int) -> Array:
        """Return what the model sees of a slice of a case, (H, W) or (H, W, I).

        Where that has another size than the case, its image before the transforms is returned.
        """
        case = self.cases[place]
        index = self._slices.index((place, case.slices[plane]))
        shown = self._transformed(index)[0]
        return shown if shown.shape[:2] == case.shape[-2:] else self.data.slices.image(case.slices[plane])


def _uses_probability(metric: Component) -> bool:
    return bool(metric.entry.traits["uses"] == "probability")


def score(
    case: StoredCase,
    truths: Array,
    probability: Array,
    mask: Array,
    channels: Sequence[str],
    metrics: Sequence[Component],
) -> list[Row]:
    """Return the rows of one case; the arrays are (C, H, W) or (C, D, H, W) at the size of the case's image."""
    rows = []
    for channel, name in enumerate(channels):
        truth = truths[channel]
        pixels = int(np.count_nonzero(truth)), int(np.count_nonzero(mask[channel]))
        for metric in metrics:
            given = probability if _uses_probability(metric) else mask
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
