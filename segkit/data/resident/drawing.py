"""What samples draw on the host: for each transform where pixels come from, or the numbers that change grey levels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segkit.components.device_forms import form_of
from segkit.components.device_forms.form import NOISE, Drawn, Form, Geometry, Move, Size
from segkit.components.transforms import transforms
from segkit.data.order import Member
from segkit.data.pipeline import Key, Pipeline, is_albumentations
from segkit.data.resident.ties import phase
from segkit.data.samples import MOST_TRIES, Samples


@dataclass(frozen=True)
class Part:
    """Transforms that run at once: an uninterrupted run of geometric ones, or one of intensity."""

    forms: list[tuple[Any, Form]]

    @property
    def moves(self) -> bool:
        """Whether they are geometric."""
        return isinstance(self.forms[0][1], Geometry)


@dataclass(frozen=True)
class Draw:
    """What a sample drew for a transform; neither a move nor numbers if it is not applied.

    Attributes:
        size: of what is transformed.
        move: of a geometric transform.
        numbers: of one of intensity.
        seed: of its noise.
        phase: of ties in the masks; see `segkit.data.resident.ties`.
    """

    size: Size
    move: Move | None = None
    numbers: Drawn | None = None
    seed: int = 0
    phase: int = 0


@dataclass(frozen=True)
class Sample:
    """A sample of a batch: what it drew, by part and transform, and the size that results."""

    index: int
    draws: list[list[Draw]]
    size: Size

    @property
    def moves(self) -> list[Move]:
        """Those that are applied, in order."""
        return [draw.move for draws in self.draws for draw in draws if draw.move is not None]


class Drawing:
    """Draws for samples, all of whose transforms have a device form."""

    def __init__(self, samples: Samples) -> None:
        self._samples, self._dtype = samples, np.dtype(samples.slices.dtype)
        self._foregrounds: dict[int, NDArray[np.float64]] = {}
        forms, lacking = forms_of(samples.pipeline)
        assert not lacking, f"{lacking} has no device form"
        self.parts: list[Part] = []
        for moves, group in itertools.groupby(forms, key=lambda form: isinstance(form[1], Geometry)):
            several = list(group)
            self.parts += [Part(several)] if moves else [Part([form]) for form in several]

    def __call__(self, seed: int, member: Member) -> Sample:
        """Draw what a member of a batch needs, again if it should show foreground, and does not."""
        draw, index = member
        found = self._drawn((seed, draw, index), index)
        for again in range(1, MOST_TRIES if draw < 0 else 1):
            if self._shows_foreground(found):
                break
            found = self._drawn((seed, draw, index, again), index)
        return found

    def _drawn(self, key: Key, index: int) -> Sample:
        slices, number = self._samples.slices, self._samples.numbers[index]
        size, found = slices.shape(number), list[list[Draw]]()
        bits = slices.bits(number) if slices.labels[number] else None
        self._samples.pipeline.reseed(key)
        for part in self.parts:
            draws = []
            for transform, form in part.forms:
                draw = _draw(transform, form, size, self._dtype)
                if draw.move is not None:
                    size = draw.move.size
                    if bits is not None:
                        draw = replace(draw, phase=phase(transform, draw.move, bits))
                    bits = None  # those of a result are not known here
                draws.append(draw)
            found.append(draws)
        return Sample(index, found, size)

    def _shows_foreground(self, sample: Sample) -> bool:
        matrix = np.eye(3)
        for move in sample.moves:
            matrix = matrix @ move.matrix
        x, y, _ = np.linalg.inv(matrix) @ self._foreground(sample.index)
        rows, columns = sample.size
        return bool(((x > -0.5) & (x < columns - 0.5) & (y > -0.5) & (y < rows - 0.5)).any())

    def _foreground(self, index: int) -> NDArray[np.float64]:
        """Return (x, y, 1) of the pixels with labels, (3, P)."""
        if index not in self._foregrounds:
            rows, columns = np.nonzero(self._samples.slices.bits(self._samples.numbers[index]))
            self._foregrounds[index] = np.stack([columns, rows, np.ones(len(rows))]).astype(np.float64)
        return self._foregrounds[index]


def forms_of(pipeline: Pipeline) -> tuple[list[tuple[Any, Form]], str]:
    """Return each transform with its device form, and the first that has none, with the setting; "" if all have."""
    found = list[tuple[Any, Form]]()
    for name, transform in pipeline.steps:
        own = None if is_albumentations(transform) else transforms[name].traits["on_device"]
        form = form_of(transform, own)
        if form is None:
            return found, name
        obstacle = form.obstacle(transform)
        if obstacle:
            return found, f"{name} with {obstacle}"
        found.append((transform, form))
    return found, ""


def _draw(transform: Any, form: Form, size: Size, dtype: Any) -> Draw:
    if not transform.should_apply():
        return Draw(size)
    if isinstance(form, Geometry):
        return Draw(size, move=form.move(transform, size, form.draw(transform, size, dtype)))
    numbers = form.draw(transform, size, dtype)
    return Draw(size, numbers=numbers, seed=transform.py_random.getrandbits(63) if NOISE in form.names else 0)


def phase_of(draws: Sequence[Draw]) -> int:
    """Return the phase of ties in the result of a run: that of the first move, as those after it shift it."""
    applied = [draw for draw in draws if draw.move is not None]
    if not applied:
        return 0
    corner = np.array([0.0, 0, 1])
    for draw in reversed(applied[1:]):
        corner = draw.move.matrix @ corner  # type: ignore[union-attr]
    return (applied[0].phase + round(float(corner[0] + corner[1]))) % 2
