"""A model and cases become one row a case, channel and metric. The loop and `segkit eval` share it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segkit.components.metrics import Counts
from segkit.data.cases import Data, StoredCase
from segkit.device import Device, fetch
from segkit.evaluation.masks import decide, likely, postprocessed
from segkit.evaluation.rows import Row
from segkit.evaluation.scoring import score, score_counts, uses_probability
from segkit.evaluation.slices import Loss, Normalization, Scored, Slices
from segkit.evaluation.volume import Volume
from segkit.recipe.model import Recipe
from segkit.recipe.sections import Evaluation
from segkit.registry.component import Component

if TYPE_CHECKING:
    from segkit.types import Array, Mask

SMALL = 8  # rows, columns and slices of the masks on which postprocesses are tried


class Prediction(NamedTuple):
    """The prediction of one case, at the resolution of its own image.

    Attributes:
        case: its place among the cases.
        probability: (C, H, W) or (C, D, H, W) float32; softmax's where classes exclude each other. (C, 0) if it was not
            asked for.
        mask: (C, H, W) or (C, D, H, W) bool, as decided and postprocessed.
        loss: of the batch that the case was in, of a volume the mean over its slices; NaN without a loss.
    """

    case: int
    probability: Array
    mask: Array
    loss: float


class Fetched(NamedTuple):
    """Slices on their way to the host.

    Attributes:
        indices: of the slices.
        arrived: waits, in any thread, and returns the loss of their batch, their masks (N, C, H, W), and if they were
            asked for their probabilities.
    """

    indices: Sequence[int]
    arrived: Callable[[], tuple[Tensor, ...]]


class Evaluator:
    """Whole images, `eval` transforms, model in eval mode, metrics at native resolution; volumes slice by slice.

    Test-time augmentation, windows and postprocess are those of the recipe's `[evaluation]`, unless others are given.

    Args:
        data, cases, recipe, normalization, device: as for `Slices`.

    Raises:
        UserError: as for `Slices`; a postprocess cannot take such cases.
    """

    def __init__(
        self, data: Data, cases: Sequence[int], recipe: Recipe, normalization: Normalization, device: Device
    ) -> None:
        self.data, self.recipe, self.channels = data, recipe, data.channels
        self.cases = tuple(data.cases[number] for number in cases)
        self.numbers = tuple(cases)
        self.exclusive = recipe.channels == "exclusive"
        self._try_postprocess()
        self._slices = Slices(data, cases, recipe, normalization, device)

    def _try_postprocess(self) -> None:
        """Postprocess empty masks of each kind of case: what cannot be is then said before any training."""
        with torch.random.fork_rng(devices=[]):  # it changes nothing about that training
            for case in {case.spacing_mm or len(case.shape): case for case in self.cases}.values():
                empty = np.zeros((len(self.channels), *(SMALL,) * len(case.shape)), bool)
                self._postprocessed(case, empty, self.recipe.evaluation)

    def predict(
        self,
        model: nn.Module,
        loss: Loss | None = None,
        *,
        probabilities: bool = True,
        settings: Evaluation | None = None,
    ) -> Iterator[Prediction]:
        """Yield the prediction of each case.

        Args:
            model, loss: as for `Slices.scored`.
            probabilities: whether they are wanted; they take four times as much memory as the masks.
            settings: in place of the recipe's.

        Raises:
            ComponentError: the model, the loss or a postprocess failed; the message names it.
        """
        settings = settings or self.recipe.evaluation
        scored = self.scored(model, loss, settings)
        yield from self.decided((self.fetched(some, probabilities=probabilities) for some in scored), settings)

    def scored(self, model: nn.Module, loss: Loss | None, settings: Evaluation, **wanted: bool) -> Iterator[Scored]:
        """Yield the slices of the cases after the network; see `Slices.scored`."""
        return self._slices.scored(model, loss, settings, **wanted)

    def fetched(self, some: Scored, *, probabilities: bool) -> Fetched:
        """Decide masks, and begin to copy them to the host, and if asked for the probabilities."""
        masks = likely(some.probability, exclusive=self.exclusive, classes=1)
        chances = [some.probability[:, int(self.exclusive) :]] if probabilities else []
        return Fetched(some.indices, fetch(some.loss, masks, *chances))

    def decided(self, fetched: Iterable[Fetched], settings: Evaluation) -> Iterator[Prediction]:
        """Yield the prediction of each case all of whose slices are among those that come; as `predict` does."""
        waiting = dict[int, Volume]()
        for some in fetched:
            loss, *arrays = some.arrived()
            batch_loss, (masks, *kept) = float(loss), [np.ascontiguousarray(each.numpy()) for each in arrays]
            for at, index in enumerate(some.indices):
                place, number = self._slices.places[index]
                case = self.cases[place]
                chance = kept[0][at] if kept else np.empty((len(self.channels), 0), np.float32)
                if len(case.shape) == 2:
                    yield Prediction(place, chance, self._postprocessed(case, masks[at], settings), batch_loss)
                    continue
                if place not in waiting:
                    waiting[place] = Volume(len(self.channels), case.shape, probabilities=bool(kept))
                if waiting[place].add(number - case.first, chance, masks[at], batch_loss):
                    yield self._of_volume(place, waiting.pop(place), settings)

    def _of_volume(self, place: int, whole: Volume, settings: Evaluation) -> Prediction:
        mask = self._postprocessed(self.cases[place], whole.mask, settings)
        return Prediction(place, whole.probability, mask, float(np.mean(whole.losses)))

    def probabilities(self, model: nn.Module) -> Iterator[tuple[int, Array]]:
        """Yield place and probabilities of each case, float32, the background first where classes exclude each other.

        They are (C, H, W) or (C, D, H, W), at the resolution of the case; `of_mean` takes a mean of several models'.

        Raises:
            ComponentError: the model failed.
        """
        waiting: dict[int, tuple[Array, list[int]]] = {}
        for some in self.scored(model, None, self.recipe.evaluation):
            for index, chance in zip(some.indices, some.probability.cpu().numpy(), strict=True):
                place, number = self._slices.places[index]
                case = self.cases[place]
                if place not in waiting:
                    waiting[place] = np.empty((len(chance), *case.shape), np.float32), list(case.slices)
                found, missing = waiting[place]
                (found if len(case.shape) == 2 else found[:, number - case.first])[...] = chance
                missing.remove(number)
                if not missing:
                    del found, missing  # before the next ones are made: a volume may be large
                    yield place, waiting.pop(place)[0]

    def of_mean(self, place: int, probability: Array) -> Prediction:
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

    def counted(self, scored: Iterable[Scored], metrics: Sequence[Component]) -> tuple[list[Row], float]:
        """Return the rows of metrics that are functions of counts, and the mean loss, to the bits of `rows_of`.

        Masks are decided and pixels counted on the device, and only the numbers copied. Nothing is postprocessed.

        Args:
            scored: all slices of the cases, with their truth.
            metrics: of which each is `counted`.
        """
        indices, parts, values = list[int](), [], []
        for some in scored:
            indices += some.indices
            parts.append(self._slices.counts(some))
            values.append(some.loss.expand(len(some.indices)))
        found = dict[int, tuple[NDArray[np.int64], list[float]]]()
        losses = list[float]()
        for index, count, loss in zip(indices, torch.cat(parts).cpu().numpy(), torch.cat(values).tolist(), strict=True):
            place = self._slices.places[index][0]
            total, own = found.setdefault(place, (np.zeros_like(count), []))
            total += count
            own.append(loss)
            if len(own) == len(self.cases[place].slices):
                losses.append(float(np.mean(own)))
        rows = list[Row]()
        for place in sorted(found):
            size = math.prod(self.cases[place].shape)
            counts = [Counts(predicted, true, both, size) for predicted, true, both in found[place][0].tolist()]
            rows += score_counts(self.cases[place], counts, self.channels, metrics)
        return rows, float(np.mean(losses))

    def picture(self, place: int, plane: int) -> Array:
        """Return what the model sees of a slice of a case, (H, W) or (H, W, I).

        Where that has another size than the case, its image before the transforms is returned.
        """
        case = self.cases[place]
        index = self._slices.places.index((place, case.slices[plane]))
        shown = self._slices.transformed(index)[0]
        return shown if shown.shape[:2] == case.shape[-2:] else self.data.slices.image(case.slices[plane])
