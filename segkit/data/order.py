"""Which samples a batch consists of: in passes over all, or by weight; a share of them shows foreground."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from segkit.data.cases import Data
from segkit.errors import UserError, suggest

Member = tuple[int, int]
"""(draw, index) of a sample in a batch. The draw is the pass, or counts the draws where samples have weights; negative
where the crop must show foreground. No two members of a training have the same."""


class Order:
    """The samples of each batch: a function of the seed and the batch's number since the start of the trial.

    Samples are drawn in passes, each in an order of its own; an epoch may be shorter or longer than a pass.

    Args:
        samples: their number.
        samples_per_epoch, batch_size: of the training.
        seed: of the trial.
        weights: how often each sample is drawn, relative to others; by default alike.
        foreground: the samples that have foreground.
        share: of the members, drawn among these alone; spread evenly, so that batches differ by one at most.

    Raises:
        UserError: there is no sample to draw.
    """

    def __init__(
        self,
        samples: int,
        samples_per_epoch: int,
        batch_size: int,
        seed: int,
        *,
        weights: Sequence[float] | None = None,
        foreground: Sequence[int] = (),
        share: float = 0.0,
    ) -> None:
        self.samples_per_epoch, self.batch_size, self.share = samples_per_epoch, batch_size, share
        self.steps_per_epoch = -(-samples_per_epoch // batch_size)
        self._all = _Draws(range(samples), weights, (seed,))
        self._foreground = _Draws(foreground, weights, (seed,), (1,)) if share else self._all

    def __call__(self, number: int) -> list[Member]:
        """Return the members of a batch."""
        epoch, step = divmod(number, self.steps_per_epoch)
        begin = step * self.batch_size
        end = min(begin + self.batch_size, self.samples_per_epoch)
        return [self._member(epoch * self.samples_per_epoch + place) for place in range(begin, end)]

    def _member(self, place: int) -> Member:
        """Return the member at a place, counted from the start of the trial."""
        before = math.floor(place * self.share)  # of those that must show foreground
        if math.floor((place + 1) * self.share) == before:
            return self._all(place - before)
        draw, index = self._foreground(before)
        return -draw, index


class _Draws:
    """Draws without end from some samples, by their place: block by block, each as long as there are samples.

    Without weights a block is a pass, each sample once. With weights it has each sample as often as its share of the
    weights says, rounded up or down at random (systematic sampling).
    """

    def __init__(
        self, chosen: Sequence[int], weights: Sequence[float] | None, seed: tuple[int, ...], own: tuple[int, ...] = ()
    ) -> None:
        self._chosen, self._seed, self._own, self._bounds = chosen, seed, own, None
        if not chosen:
            raise UserError("train.oversample_foreground: no slice of the training cases has foreground.")
        if weights is not None:
            total = np.cumsum([weights[index] for index in chosen])
            if not total[-1] > 0:
                raise UserError("train.sampling_weights: every sample has weight 0: there is nothing to draw.")
            self._bounds = total / total[-1]
        self._block = functools.lru_cache(maxsize=4)(self._drawn)

    def _drawn(self, number: int) -> list[int]:
        """Return block `number`, from 1, as places among the chosen."""
        random, count = np.random.default_rng([*self._seed, number, *self._own]), len(self._chosen)
        if self._bounds is None:
            return list(map(int, random.permutation(count)))
        even = (np.arange(count) + random.random()) / count
        return list(map(int, random.permutation(np.searchsorted(self._bounds, even, side="right"))))

    def __call__(self, place: int) -> Member:
        block, rest = divmod(place, len(self._chosen))
        index = self._chosen[self._block(block + 1)[rest]]
        return (block + 1 if self._bounds is None else place + 1), index


def weights_by_tag(data: Data, numbers: Sequence[int], wanted: Mapping[str, float]) -> list[float]:
    """Return the weight of each slice: the product of those of its case's tags.

    Args:
        data: whose cases have tags.
        numbers: of the slices.
        wanted: weights by tag, written "name=value".

    Raises:
        UserError: no case has a tag.
    """
    tags = [{f"{name}={value}" for name, value in case.tags.items()} for case in data.cases]
    known = set[str]().union(*tags)
    for name in wanted:
        if name not in known:
            raise UserError(f"train.sampling_weights: no case has the tag '{name}'. {suggest(name, known)}")
    weights = [math.prod(weight for name, weight in wanted.items() if name in own) for own in tags]
    by_slice = {number: weights[at] for at, case in enumerate(data.cases) for number in case.slices}
    return [by_slice[number] for number in numbers]
