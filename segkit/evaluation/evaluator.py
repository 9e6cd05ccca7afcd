"""A model and cases become one row a case, channel and metric. The loop and `segkit eval` share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from segkit.components.models import checked
from segkit.data.cases import Data, StoredCase
from segkit.data.pipeline import Pair, Pipeline
from segkit.data.preparing import prepare
from segkit.data.samples import to_device_float
from segkit.device import Device
from segkit.evaluation.inference import images_at_once, predictor_of, probabilities_of, resampled, scores_of
from segkit.evaluation.masks import decide, likely, postprocessed
from segkit.evaluation.rows import Row
from segkit.evaluation.scoring import score, uses_probability
from segkit.evaluation.volume import Volume
from segkit.recipe.model import Recipe
from segkit.recipe.sections import Evaluation
from segkit.registry.component import Component

if TYPE_CHECKING:
    from segkit.types import Array, Mask

Loss = Callable[[Tensor, Tensor], Tensor]
SMALL = 8  # rows, columns and slices of the masks on which postprocesses are tried


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
        mask: (C, H, W) or (C, D, H, W) bool, as decided and postprocessed.
        loss: of the batch that the case was in, of a volume the mean over its slices; NaN without a loss.
    """

    case: int
    probability: Array
    mask: Array
    loss: float


class Evaluator:
    """Whole images, `eval` transforms, model in eval mode, metrics at native resolution; volumes slice by slice.

    Test-time augmentation, windows and postprocess are those of the recipe's `[evaluation]`, unless others are given.

    Args:
        data: the cases.
        cases: the numbers of those to evaluate.
        recipe: of the training; images of one size share a batch of `train.batch_size`, in the order of the cases.
        normalization: of the training.
        device: where and in which precision to compute.

    Raises:
        UserError: an eval transform is random or moves pixels other than by scaling the whole image; a postprocess
            cannot take such cases.
    """

    def __init__(
        self, data: Data, cases: Sequence[int], recipe: Recipe, normalization: Normalization, device: Device
    ) -> None:
        self.data, self.recipe, self.channels = data, recipe, data.channels
        self.cases = tuple(data.cases[number] for number in cases)
        self.numbers = tuple(cases)
        self.normalization, self.device, self.exclusive = normalization, device, recipe.channels == "exclusive"
        Pipeline(recipe.transforms.eval, exclusive=self.exclusive).check_eval(data.kind)
        self._try_postprocess()
        self._prepared, self._rest = prepare(data, recipe.transforms.eval, exclusive=self.exclusive)
        self._slices = [(place, number) for place, case in enumerate(self.cases) for number in case.slices]
        self._pairs: dict[int, Pair] = {}  # after plugins' transforms, which the store does not hold
        if len(self._rest):
            self._pairs = {index: self._transformed(index) for index in range(len(self._slices))}
        self._of_size: dict[tuple[int, ...], list[int]] = {}
        for index, (_, number) in enumerate(self._slices):
            self._prepared.check(number)
            found = self._pairs[index][1].shape if self._pairs else self._prepared.shape(number)
            self._of_size.setdefault(found, []).append(index)

    def _try_postprocess(self) -> None:
        """Postprocess empty masks of each kind of case: what cannot be is then said before any training."""
        with torch.random.fork_rng(devices=[]):  # it changes nothing about that training
            for case in {case.spacing_mm or len(case.shape): case for case in self.cases}.values():
                empty = np.zeros((len(self.channels), *(SMALL,) * len(case.shape)), bool)
                self._postprocessed(case, empty, self.recipe.evaluation)

    def _transformed(self, index: int) -> Pair:
        """Return image and bit map of a slice as the model sees them."""
        if index in self._pairs:
            return self._pairs[index]
        place, number = self._slices[index]
        pair = self._prepared.image(number), self._prepared.bits(number)
        name = self.cases[place].slice_name(number)
        return self._rest(*pair, key=(0, 0, index), name=name) if len(self._rest) else pair

    def _batches(self, settings: Evaluation) -> Iterator[list[int]]:
        """Yield the slices of each batch."""
        for size, indices in self._of_size.items():
            count = images_at_once(size, settings, self.recipe.train.batch_size)
            yield from (indices[start : start + count] for start in range(0, len(indices), count))

    def predict(
        self,
        model: nn.Module,
        loss: Loss | None = None,
        *,
        probabilities: bool = True,
        settings: Evaluation | None = None,
    ) -> Iterator[Prediction]:
        """Yield the prediction of each case, computed in batches; the model is put into eval mode and back.

        The loss is computed last: what it does to the scores reaches no prediction. Where probabilities are averaged,
        it is that of the scores that have these probabilities.

        Args:
            model: image (N, I, H, W) to scores (N, C, H, W).
            loss: scores and target to a scalar.
            probabilities: whether to keep those of volumes, which take four times as much memory as the masks.
            settings: in place of the recipe's.

        Raises:
            ComponentError: the model, the loss or a postprocess failed; the message names it.
        """
        settings, waiting = settings or self.recipe.evaluation, dict[int, Volume]()
        for index, chance, batch_loss in self._computed(model, loss, settings):
            place, number = self._slices[index]
            case, decided = self.cases[place], likely(chance, exclusive=self.exclusive)
            found: Array = np.ascontiguousarray(chance[int(self.exclusive) :].cpu().numpy())
            if len(case.shape) == 2:
                yield Prediction(place, found, self._postprocessed(case, decided, settings), batch_loss)
                continue
            if place not in waiting:
                waiting[place] = Volume(len(self.channels), case.shape, probabilities=probabilities)
            if waiting[place].add(number - case.first, found, decided, batch_loss):
                yield self._of_volume(place, waiting.pop(place), settings)

    def _of_volume(self, place: int, whole: Volume, settings: Evaluation) -> Prediction:
        mask = self._postprocessed(self.cases[place], whole.mask, settings)
        return Prediction(place, whole.probability, mask, float(np.mean(whole.losses)))

    def probabilities(self, model: nn.Module) -> Iterator[tuple[int, Array]]:
        """Yield place and probabilities of each case, float32, the background first where classes exclude each other.

        They are (C, H, W) or (C, D, H, W), at the resolution of the case; `decided` takes a mean of several models'.

        Raises:
            ComponentError: the model failed.
        """
        waiting: dict[int, tuple[Array, list[int]]] = {}
        for index, chance, _ in self._computed(model, None, self.recipe.evaluation):
            place, number = self._slices[index]
            case = self.cases[place]
            if place not in waiting:
                waiting[place] = np.empty((len(chance), *case.shape), np.float32), list(case.slices)
            found, missing = waiting[place]
            (found if len(case.shape) == 2 else found[:, number - case.first])[...] = chance.cpu().numpy()
            missing.remove(number)
            if not missing:
                del found, missing  # before the next ones are made: a volume may be large
                yield place, waiting.pop(place)[0]

    def decided(self, place: int, probability: Array) -> Prediction:
        """Return the prediction of the case at a place, decided and postprocessed; probabilities as above."""
        mask = decide(
            probability,
            self.channels,
            exclusive=self.exclusive,
            postprocess=self.recipe.evaluation.postprocess,
            spacing_mm=self.cases[place].spacing_mm,
        )
        return Prediction(place, probability[int(self.exclusive) :], mask, float("nan"))

    def _postprocessed(self, case: StoredCase, masks: Mask, settings: Evaluation) -> Mask:
        return postprocessed(masks, self.channels, settings.postprocess, case.spacing_mm, exclusive=self.exclusive)

    def _computed(
        self, model: nn.Module, loss: Loss | None, settings: Evaluation
    ) -> Iterator[tuple[int, Tensor, float]]:
        """Yield each slice with its probabilities (C, H, W), all classes, and the loss of its batch."""
        forward = checked(model, self.recipe.model, len(self.channels) + self.exclusive)
        training = model.training
        model.eval()
        try:
            for indices in self._batches(settings):
                parts, batch_loss = self._of_batch(indices, forward, loss, settings)
                yield from ((index, part, batch_loss) for index, part in zip(indices, parts, strict=True))
        finally:
            model.train(training)

    @torch.inference_mode()  # not of a generator, which would keep it between its values
    def _of_batch(
        self, indices: Sequence[int], forward: Callable[[Tensor], Tensor], loss: Loss | None, settings: Evaluation
    ) -> tuple[list[Tensor], float]:
        """Return each slice's probabilities, (C, H, W) at the size of its case, and the loss of the batch."""
        pairs, norm = [self._transformed(index) for index in indices], self.normalization
        images, masks = (
            torch.from_numpy(np.stack(arrays)).to(self.device.device) for arrays in zip(*pairs, strict=True)
        )
        image, target = to_device_float(images, masks, norm.mean, norm.std, len(self.channels), self.exclusive)

        def scores(image: Tensor) -> Tensor:
            with self.device.autocast():
                return forward(image).float()

        if settings.averages:
            of_windows = self.recipe.train.batch_size
            chance = predictor_of(scores, settings, exclusive=self.exclusive, batch_size=of_windows)(image)
            found = scores_of(chance, exclusive=self.exclusive) if loss else None
        else:
            found = scores(image)
            chance = probabilities_of(found, exclusive=self.exclusive)
        batch_loss = float(loss(found, target)) if loss and found is not None else float("nan")
        sizes = (self.cases[self._slices[index][0]].shape[-2:] for index in indices)
        return [resampled(*part) for part in zip(chance, sizes, strict=True)], batch_loss

    def run(
        self,
        model: nn.Module,
        metrics: Sequence[Component],
        loss: Loss | None = None,
        on_case: Callable[[int, Array, Array], Any] | None = None,
        *,
        settings: Evaluation | None = None,
    ) -> tuple[list[Row], float]:
        """Evaluate and return the rows in the order of the cases, and the mean loss a case (NaN without one).

        Args:
            model: image (N, I, H, W) to scores (N, C, H, W).
            loss: scores and target to a scalar.
            on_case: called with the place of each case, its true and its decided masks.
            settings: in place of the recipe's.

        Raises:
            ComponentError: model, metric, loss or postprocess failed; the message names it.
        """
        kept = any(uses_probability(metric) for metric in metrics)
        return self.rows_of(self.predict(model, loss, probabilities=kept, settings=settings), metrics, on_case)

    def rows_of(
        self,
        predictions: Iterable[Prediction],
        metrics: Sequence[Component],
        on_case: Callable[[int, Array, Array], Any] | None = None,
    ) -> tuple[list[Row], float]:
        """Return the rows of predictions in the order of the cases, and their mean loss; as `run` does."""
        rows: dict[int, list[Row]] = {}
        losses = []
        for found in predictions:
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
