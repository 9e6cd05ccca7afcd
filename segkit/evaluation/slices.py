"""The slices of cases through the network: prepared once, in batches of one size, to probabilities on the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from segkit.components.models import checked
from segkit.data.cases import Data
from segkit.data.pipeline import Pair, Pipeline
from segkit.data.preparing import prepare
from segkit.data.samples import planes, to_device_float
from segkit.device import Device, put
from segkit.evaluation.inference import images_at_once, predictor_of, probabilities_of, resampled, scores_of
from segkit.evaluation.masks import likely
from segkit.recipe.model import Recipe
from segkit.recipe.sections import Evaluation

if TYPE_CHECKING:
    from segkit.types import Array

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


class Scored(NamedTuple):
    """Slices of one size after the network.

    Attributes:
        indices: of the slices.
        probability: (N, C, H, W) float32, of all classes, at the size of the slices' cases, on the device.
        loss: of the batch that they were in, a scalar on the device; NaN without a loss.
        truth: their true masks as bit maps (N, H, W), on the device; None if they were not asked for.
    """

    indices: Sequence[int]
    probability: Tensor
    loss: Tensor
    truth: Tensor | None


class Slices:
    """All slices of some cases, one after another.

    Args:
        data: the cases.
        cases: the numbers of those to evaluate.
        recipe: of the training; images of one size share a batch of `train.batch_size`, in the order of the cases.
        normalization: of the training.
        device: where and in which precision to compute.

    Attributes:
        places: of each slice, the place of its case among `cases`, and its number in the data.

    Raises:
        UserError: an eval transform is random or moves pixels other than by scaling the whole image.
    """

    def __init__(
        self, data: Data, cases: Sequence[int], recipe: Recipe, normalization: Normalization, device: Device
    ) -> None:
        self._data, self._recipe, self._normalization, self._device = data, recipe, normalization, device
        self._exclusive, self._channels = recipe.channels == "exclusive", len(data.channels)
        Pipeline(recipe.transforms.eval, exclusive=self._exclusive).check_eval(data.kind)
        self._prepared, self._rest = prepare(data, recipe.transforms.eval, exclusive=self._exclusive)
        self._cases = [data.cases[number] for number in cases]
        self.places = [(place, number) for place, case in enumerate(self._cases) for number in case.slices]
        self._pairs: dict[int, Pair] = {}  # after plugins' transforms, which the store does not hold
        if len(self._rest):
            self._pairs = {index: self.transformed(index) for index in range(len(self.places))}
        self._of_size: dict[tuple[int, ...], list[int]] = {}
        for index, (_, number) in enumerate(self.places):
            self._prepared.check(number)
            found = self._pairs[index][1].shape if self._pairs else self._prepared.shape(number)
            self._of_size.setdefault(found, []).append(index)
        self._kept: dict[tuple[str, tuple[int, ...]], tuple[Tensor, ...]] = {}

    def transformed(self, index: int) -> Pair:
        """Return image and bit map of a slice as the model sees them."""
        if index in self._pairs:
            return self._pairs[index]
        place, number = self.places[index]
        pair = self._prepared.image(number), self._prepared.bits(number)
        name = self._cases[place].slice_name(number)
        return self._rest(*pair, key=(0, 0, index), name=name) if len(self._rest) else pair

    def scored(
        self, model: nn.Module, loss: Loss | None, settings: Evaluation, *, truth: bool = False, keep: bool = False
    ) -> Iterator[Scored]:
        """Yield the slices with their probabilities; the model is put into eval mode and back.

        The loss is computed last: what it does to the scores reaches no probability. Where probabilities are averaged,
        it is that of the scores that have these probabilities.

        Args:
            model: image (N, I, H, W) to scores (N, C, H, W).
            loss: scores and target to a scalar.
            settings: of the evaluation.
            truth: whether the true masks are wanted on the device too.
            keep: whether what is copied to the device stays there, for the next time.

        Raises:
            ComponentError: the model or the loss failed; the message names it.
        """
        forward = checked(model, self._recipe.model, self._channels + self._exclusive)
        training = model.training
        model.eval()
        try:
            for size, indices in self._of_size.items():
                count = images_at_once(size, settings, self._recipe.train.batch_size)
                for start in range(0, len(indices), count):
                    yield from self._of_batch(indices[start : start + count], forward, loss, settings, truth, keep)
        finally:
            model.train(training)

    @torch.inference_mode()  # not of a generator, which would keep it between its values
    def _of_batch(
        self,
        indices: Sequence[int],
        forward: Callable[[Tensor], Tensor],
        loss: Loss | None,
        settings: Evaluation,
        truth: bool,
        keep: bool,
    ) -> list[Scored]:
        """Return the slices of a batch, those of one size together."""
        norm = self._normalization
        images, bits = self._on_device("seen", indices, self.transformed, keep)
        runs = self._runs(indices)
        true = [self._on_device("true", run, self._truth, keep)[0] if truth else None for run, _ in runs]
        image, target = to_device_float(images, bits, norm.mean, norm.std, self._channels, self._exclusive)

        def scores(image: Tensor) -> Tensor:
            with self._device.autocast():
                return forward(image).float()

        if settings.averages:
            of_windows = self._recipe.train.batch_size
            chance = predictor_of(scores, settings, exclusive=self._exclusive, batch_size=of_windows)(image)
            found = scores_of(chance, exclusive=self._exclusive) if loss else None
        else:
            found = scores(image)
            chance = probabilities_of(found, exclusive=self._exclusive)
        split = torch.split(chance, [len(run) for run, _ in runs])
        parts = [resampled(part, size) for part, (_, size) in zip(split, runs, strict=True)]
        nothing = torch.full((), torch.nan, device=chance.device)
        value = loss(found, target) if loss and found is not None else nothing
        return [Scored(run, part, value, own) for (run, _), part, own in zip(runs, parts, true, strict=True)]

    def _runs(self, indices: Sequence[int]) -> list[tuple[Sequence[int], tuple[int, ...]]]:
        """Return the uninterrupted runs of slices whose cases have one size, with that size."""
        grouped = itertools.groupby(indices, lambda index: self._cases[self.places[index][0]].shape[-2:])
        return [(list(run), size) for size, run in grouped]

    @torch.inference_mode()
    def counts(self, found: Scored) -> Tensor:
        """Return the pixels of each slice and structure, (N, C, 3) int64: predicted, true, both; on the device."""
        assert found.truth is not None, "the true masks were asked for"
        masks = likely(found.probability, exclusive=self._exclusive, classes=1)
        true = planes(found.truth, self._channels).permute(0, 3, 1, 2).bool()
        return torch.stack([each.sum(dim=(2, 3)) for each in (masks, true, masks & true)], dim=2)

    def _truth(self, index: int) -> tuple[Array]:
        return (self._data.slices.bits(self.places[index][1]),)

    def _on_device(
        self, what: str, indices: Sequence[int], of: Callable[[int], tuple[Array, ...]], keep: bool
    ) -> tuple[Tensor, ...]:
        """Return arrays of slices put together, on the device."""
        key = what, tuple(indices)
        if key in self._kept:
            return self._kept[key]
        made = tuple(put(np.stack(each), self._device.device) for each in zip(*map(of, indices), strict=True))
        if keep:
            self._kept[key] = made
        return made
