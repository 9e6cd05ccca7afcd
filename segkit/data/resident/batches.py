"""Training samples on a device: their batches are transformed and put together there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from segkit.components.device_forms.form import BORDERS, NOISE, Geometry, Intensity, fill_of
from segkit.data.order import Member
from segkit.data.resident import labels, warp
from segkit.data.resident.drawing import Draw, Drawing, Part, Sample, Step, phase_of
from segkit.data.resident.warp import Source, Stage
from segkit.data.samples import Samples, other_size
from segkit.data.transform_faults import explained_failure, failure
from segkit.device import put
from segkit.registry.faults import lacks_memory

Pair = tuple[Tensor, Tensor]


class _Slices(NamedTuple):
    """Slices in a source: the place of each one's first pixel, and their sizes, (N,) and (N, 2)."""

    source: Source
    begins: Any
    sizes: Any


class Resident:
    """Samples on a device.

    Args:
        samples: all of whose transforms have a device form.
        device: where they live.
        exclusive: whether the channels are exclusive classes.
    """

    def __init__(self, samples: Samples, device: torch.device, *, exclusive: bool) -> None:
        self._samples, self._device, self._exclusive = samples, device, exclusive
        slices = samples.slices
        distinct = list(dict.fromkeys(samples.numbers))  # beside unlabelled ones, the others repeat
        for number in distinct:
            slices.check(number)
        sizes = np.array([slices.shape(number) for number in distinct], np.int64)
        ends = np.cumsum([0, *sizes.prod(1)])
        images = np.empty((ends[-1], slices.inputs), slices.dtype)
        bits = np.empty(ends[-1], np.uint8 if slices.bits(distinct[0]).dtype == np.uint8 else np.int32)
        for number, (begin, end) in zip(distinct, itertools.pairwise(ends), strict=True):
            images[begin:end] = slices.image(number).reshape(-1, slices.inputs)
            bits[begin:end] = slices.bits(number).ravel()
        source = Source(*(torch.from_numpy(array).to(device) for array in (images, bits)))
        place = {number: at for at, number in enumerate(distinct)}
        of_samples = np.array([place[number] for number in samples.numbers])
        self._slices = _Slices(source, ends[:-1][of_samples], sizes[of_samples])
        self._labels = sorted({label for number in samples.numbers for label in slices.labels[number]} - {0})
        known = [[label in slices.labels[number] for label in self._labels] for number in samples.numbers]
        self._known = np.array(known).reshape(len(samples), len(self._labels))
        self._drawing = Drawing(samples)
        self._whole, (least, most) = slices.dtype == "uint8", slices.bounds
        self._top = 255.0 if self._whole else 1.0
        self._bounded = least >= 0 and most <= self._top

    @property
    def size(self) -> int:
        """The bytes that the samples take."""
        source = self._slices.source
        return source.images.nbytes + source.bits.nbytes

    def batch(self, seed: int, chosen: Sequence[Member]) -> Pair:
        """Return a batch: images (N, H, W) or (N, H, W, I) float32, and bit maps (N, H, W) uint8 or int32.

        Args:
            seed: of the trial.
            chosen: (draw, index) of each member; its randomness depends on these and the seed alone.

        Raises:
            UserError: a transform failed, or sizes differ; the message names the sample.
        """
        drawn, names = [self._drawing(seed, member) for member in chosen], self._samples.names
        for sample in drawn:
            if sample.size != drawn[0].size:
                raise other_size(names[sample.index], sample.size, names[drawn[0].index], drawn[0].size)
        images, bits = self._transformed(drawn)
        return (images[..., 0] if images.shape[3] == 1 else images), bits

    def _transformed(self, drawn: Sequence[Sample]) -> Pair:
        """Return images (N, H, W, I) and bit maps of samples, together of those that have the same sizes on the way."""
        if len(groups := _by_size([_sizes(self._drawing.parts, sample) for sample in drawn])) > 1:
            pairs = [self._transformed([drawn[place] for place in group]) for group in groups]
            order = self._put(np.argsort(np.concatenate(groups)))
            images, bits = (torch.cat(found)[order] for found in zip(*pairs, strict=True))
            return images, bits
        parts, members = self._drawing.parts, np.array([sample.index for sample in drawn])
        at = self._slices._replace(begins=self._slices.begins[members], sizes=self._slices.sizes[members])
        if not (parts and parts[0].moves):
            images, bits = self._gathered(at)
        for place, part in enumerate(parts):
            draws = [sample.draws[place] for sample in drawn]
            if not part.moves:
                images = self._changed(part, [draw for (draw,) in draws], images)
                continue
            images, bits = self._moved(part, draws, at if not place else _as_slices(images, bits), self._known[members])
        return images, bits

    def _gathered(self, at: _Slices) -> Pair:
        """Return slices of one size as they are."""
        rows, columns = at.sizes[0].tolist()
        pixels = self._put(at.begins)[:, None] + torch.arange(rows * columns, device=self._device)
        shape = (len(at.begins), rows, columns)
        return at.source.images[pixels].float().view(*shape, -1), at.source.bits[pixels].view(shape)

    def _moved(self, part: Part, draws: Sequence[Sequence[Draw]], at: _Slices, known: Any) -> Pair:
        """Return what a run of geometric transforms makes of slices, of which each knows some of the labels, (N, L)."""
        stages = [
            stage
            for place, step in enumerate(part.steps)
            for stage in _stages(step, [draw[place] for draw in draws], whole=self._whole)
        ]
        found = warp.places(warp.joined(stages), draws[0][-1].result, self._put)
        grid = warp.Grid(*(self._put(array)[:, None, None] for array in (at.begins, *at.sizes.T)))
        images = warp.sample_images(at.source, found, grid, whole=warp.takes_pixels(stages))
        if not self._labels:
            return images, torch.zeros_like(found.x, dtype=at.source.bits.dtype)
        weights, averaged = map(self._put, warp.weights_of(stages))
        planes = warp.sample_coverage(at.source, self._labels, found, grid, weights, averaged)
        phases = self._put(np.array([phase_of(draw) for draw in draws], np.int16))
        kind, known = at.source.bits.dtype, self._put(known)
        return images, labels.decided(planes, self._labels, known, kind, phases, exclusive=self._exclusive)

    def _changed(self, part: Part, draws: Sequence[Draw], images: Tensor) -> Tensor:
        """Return images after a transform of intensity, where it is applied."""
        ((name, transform, form),) = part.steps
        assert isinstance(form, Intensity)
        applied = [place for place, draw in enumerate(draws) if draw.numbers is not None]
        if not applied:
            return images
        chosen, numbers = self._put(np.array(applied)), [draws[place].numbers or {} for place in applied]
        some = images[chosen]
        for wanted in form.names:
            if wanted != NOISE and not all(wanted in each for each in numbers):
                raise failure(name, transform, f"`on_device` takes '{wanted}', which is not always drawn.")
        try:
            given = {name: self._stacked([each[name] for each in numbers]) for name in form.names if name != NOISE}
            if NOISE in form.names:
                given[NOISE] = torch.stack([self._noise(draws[place].seed, some.shape[1:]) for place in applied])
            changed = form.change(some, self._top, **given)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or lacks_memory(error):
                raise
            raise explained_failure(name, transform, error) from error
        if not isinstance(changed, Tensor) or (changed.shape, changed.dtype) != (some.shape, some.dtype):
            shown = f"{tuple(changed.shape)} {changed.dtype}" if isinstance(changed, Tensor) else type(changed).__name__
            text = f"`on_device` must return images as it gets them, {tuple(some.shape)} {some.dtype}, got {shown}."
            raise failure(name, transform, text)
        return images.index_copy(0, chosen, changed.clamp(0, self._top) if self._bounded else changed)

    def _stacked(self, values: Sequence[Any]) -> Tensor:
        """Return numbers as (N, 1, 1, 1), lists of them as (N, K), the shorter ones with as many zeros at both ends."""
        arrays = [np.ravel(np.asarray(value, np.float32)) for value in values]
        most = max(map(len, arrays))
        found = self._put(np.stack([np.pad(array, (most - len(array)) // 2) for array in arrays]))
        return found[..., None, None] if np.ndim(values[0]) == 0 else found

    def _noise(self, seed: int, shape: Sequence[int]) -> Tensor:
        generator = torch.Generator(self._device).manual_seed(seed)
        return torch.randn(*shape, generator=generator, device=self._device)

    def _put(self, array: Any) -> Tensor:
        """Return an array on the device; the host does not wait for it."""
        return put(np.ascontiguousarray(array), self._device)


def _stages(step: Step, draws: Sequence[Draw], *, whole: bool) -> list[Stage]:
    """Return a geometric transform as it was drawn, as the one or two stages that it consists of.

    Args:
        step: with the transform.
        draws: of each sample.
        whole: whether levels are whole numbers from 0 to 255, so that others become the nearest of these.
    """
    _, transform, form = step
    assert isinstance(form, Geometry)
    matrices = np.stack([draw.move.matrix if draw.move else np.eye(3) for draw in draws])
    sizes, applied = np.array([draw.size for draw in draws]), np.array([draw.move is not None for draw in draws])
    nearest = applied & (getattr(transform, "interpolation", 1) == 0)
    if not form.leaves_of(transform):
        return [Stage(matrices, sizes, "", 0.0, np.zeros_like(nearest))]
    border, fill = BORDERS[form.border_of(transform)], float(np.ravel(fill_of(transform))[0])
    fill = float(np.rint(np.clip(fill, 0, 255))) if whole else fill
    parts = [draw.move.part if draw.move else None for draw in draws]
    if not any(parts):
        return [Stage(matrices, sizes, border, fill, nearest)]
    corners = np.stack([np.eye(3) for _ in draws])
    corners[:, 0, 2], corners[:, 1, 2] = ([part[axis] if part else 0 for part in parts] for axis in (1, 0))
    inner = np.array([part[2:] if part else size for part, size in zip(parts, sizes.tolist(), strict=True)])
    return [
        Stage(corners, sizes, "", 0.0, np.zeros_like(nearest)),
        Stage(np.linalg.inv(corners) @ matrices, inner, border, fill, nearest),
    ]


def _sizes(parts: Sequence[Part], sample: Sample) -> tuple[int, ...]:
    """Return the sizes that a sample has before each transform of grey levels, and at the end."""
    first = [] if parts and parts[0].moves else [sample.draws[0][0].size if sample.draws else (0, 0)]
    found = [*first, *(draws[-1].result for draws in sample.draws)]
    return tuple(side for size in found for side in size)


def _by_size(sizes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Return the places of the sizes that are equal, together."""
    kinds = {size: number for number, size in enumerate(dict.fromkeys(sizes))}
    numbers = np.array([kinds[size] for size in sizes])
    return [np.flatnonzero(numbers == kind) for kind in range(len(kinds))]


def _as_slices(images: Tensor, bits: Tensor) -> _Slices:
    """Return a batch as slices one after another."""
    count, rows, columns, inputs = images.shape
    sizes = np.tile(np.array([rows, columns], np.int64), (count, 1))
    return _Slices(Source(images.reshape(-1, inputs), bits.reshape(-1)), np.arange(count) * rows * columns, sizes)
