"""What samples draw on the host: for each transform where pixels come from, or the numbers that change grey levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.components.device_forms import form_of
from segkit.components.device_forms.form import NOISE, Drawn, Form, Geometry, Move, Size
from segkit.components.transforms import transforms
from segkit.data.order import Member
from segkit.data.pipeline import Key, Pipeline
from segkit.data.resident.ties import phase
from segkit.data.samples import MOST_TRIES, Samples
from segkit.data.transform_faults import TransformError, explained_failure, failure, is_albumentations
from segkit.errors import first_few


class Step(NamedTuple):
    """A transform as a recipe names it, and its device form."""

    name: str
    transform: Any
    form: Form

    @property
    def interpolation(self) -> int | None:
        """OpenCV's number of how it samples images; None if it takes whole pixels."""
        moves = isinstance(self.form, Geometry) and self.form.leaves
        return getattr(self.transform, "interpolation", None) if moves else None

    @property
    def resizes(self) -> bool:
        """Whether it is made to change the number of pixels that show the same."""
        return isinstance(self.form, Geometry) and not self.form.nearest


@dataclass(frozen=True)
class Part:
    """Transforms that run at once: an uninterrupted run of geometric ones, or one of intensity.

    A run samples images in one way, and resizes them once: what is lost by shrinking is not there to be enlarged.
    """

    steps: list[Step]

    @property
    def moves(self) -> bool:
        """Whether they are geometric."""
        return isinstance(self.steps[0].form, Geometry)

    def takes(self, step: Step) -> bool:
        """Return whether a transform belongs to the run."""
        if not self.moves or not isinstance(step.form, Geometry):
            return False
        ways = {each.interpolation for each in (*self.steps, step)} - {None}
        return len(ways) < 2 and not (step.resizes and any(each.resizes for each in self.steps))


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

    @property
    def result(self) -> Size:
        """The size of what comes out."""
        return self.size if self.move is None else self.move.size


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
        steps, lacking = forms_of(samples.pipeline)
        assert not lacking, f"{first_few(lacking)} has no device form"
        self.parts: list[Part] = []
        for step in steps:
            if self.parts and self.parts[-1].takes(step):
                self.parts[-1].steps.append(step)
            else:
                self.parts.append(Part([step]))

    def __call__(self, seed: int, member: Member) -> Sample:
        """Draw what a member of a batch needs, again if it should show foreground, and does not.

        Raises:
            TransformError: a transform failed; the message names it and the sample.
        """
        draw, index = member
        try:
            found = self._drawn((seed, draw, index), index)
            if draw >= 0:
                return found
            foreground = self._foreground(index)
            for again in range(1, MOST_TRIES):
                if _is_shown(foreground, found.moves):
                    break
                found = self._drawn((seed, draw, index, again), index)
            return found
        except TransformError as error:
            raise TransformError(f"{self._samples.names[index]}: {error}") from error

    def _drawn(self, key: Key, index: int) -> Sample:
        slices, number = self._samples.slices, self._samples.numbers[index]
        size, found = slices.shape(number), list[list[Draw]]()
        bits = slices.bits(number) if slices.labels[number] else None
        self._samples.pipeline.reseed(key)
        for part in self.parts:
            draws = []
            for step in part.steps:
                draw = _draw(step, size, self._dtype)
                if draw.move is not None:
                    size = draw.move.size
                    if bits is not None:
                        draw = replace(draw, phase=phase(step.transform, draw.move, bits))
                    bits = None  # those of a result are not known here
                draws.append(draw)
            found.append(draws)
        return Sample(index, found, size)

    def _foreground(self, index: int) -> NDArray[np.float64]:
        """Return (x, y, 1) of the pixels with labels, (3, P)."""
        rows, columns = np.nonzero(self._samples.slices.bits(self._samples.numbers[index]))
        return np.stack([columns, rows, np.ones(len(rows))]).astype(np.float64)


def _is_shown(points: NDArray[np.float64], moves: Sequence[Move]) -> bool:
    """Return whether pixels (x, y, 1) are still there after moves, each of which may cut some off, and fill one."""
    each = 1.0  # how many of them make a pixel of the result
    for move in moves:
        points, each = np.linalg.inv(move.matrix) @ points, each * abs(np.linalg.det(move.matrix))
        x, y, _ = points
        rows, columns = move.size
        points = points[:, (x > -0.5) & (x < columns - 0.5) & (y > -0.5) & (y < rows - 0.5)]
    return bool(points.shape[1] >= max(1.0, each))


def forms_of(pipeline: Pipeline) -> tuple[list[Step], list[str]]:
    """Return the transforms that have a device form, and the names of those that have none, with the setting."""
    found, lacking = list[Step](), list[str]()
    for name, transform in pipeline.steps:
        own = None if is_albumentations(transform) else transforms[name].traits["on_device"]
        form = form_of(transform, own)
        obstacle = "" if form is None else form.obstacle(transform)
        if form is None or obstacle:
            lacking.append(f"{name} with {obstacle}" if obstacle else name)
        else:
            found.append(Step(name, transform, form))
    return found, lacking


def _draw(step: Step, size: Size, dtype: Any) -> Draw:
    name, transform, form = step
    try:
        if not transform.should_apply():
            return Draw(size)
        numbers = form.draw(transform, size, dtype)
        if not isinstance(form, Geometry):
            seed = transform.py_random.getrandbits(63) if NOISE in form.names else 0
            return Draw(size, numbers=numbers, seed=seed)
        move = form.move(transform, size, numbers)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise explained_failure(name, transform, error) from error
    if move.matrix.shape != (3, 3) or not np.isfinite(move.matrix).all():
        raise failure(name, transform, f"`on_device` must return a finite matrix (3, 3), got {move.matrix.tolist()}.")
    if min(move.size) < 1:
        raise failure(name, transform, f"leaves an image of {move.size[0]} x {move.size[1]} pixels.")
    return Draw(size, move=move)


def phase_of(draws: Sequence[Draw]) -> int:
    """Return the phase of ties in the result of a run: that of the first move, as those after it shift it."""
    applied = [draw for draw in draws if draw.move is not None]
    if not applied:
        return 0
    corner = np.array([0.0, 0, 1])
    for draw in reversed(applied[1:]):
        corner = draw.move.matrix @ corner  # type: ignore[union-attr]
    return (applied[0].phase + round(float(corner[0] + corner[1]))) % 2
