"""What samples draw on the host: for each transform where pixels come from, or the numbers that change grey levels."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segkit.components.device_forms import form_of
from segkit.components.device_forms.form import NOISE, Drawn, Form, Geometry, Intensity, Move, Size
from segkit.components.transforms import transforms
from segkit.data.coverage import Bits
from segkit.data.order import Member
from segkit.data.pipeline import Key, Pipeline
from segkit.data.resident.ties import phase
from segkit.data.samples import MOST_TRIES, Samples
from segkit.data.transform_faults import TransformError, explained_failure, failure, is_albumentations
from segkit.errors import first_few

LEAST_AREA = 1e-9  # of what is transformed, that a pixel of the result shows, in pixels


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
        return isinstance(self.form, Geometry) and self.form.resizes


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


class Drawing:
    """Draws for samples, all of whose transforms have a device form."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
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
            found, shows = self._drawn((seed, draw, index), index, look=draw < 0)
            for again in range(1, MOST_TRIES):
                if shows:
                    break
                found, shows = self._drawn((seed, draw, index, again), index, look=True)
            return found
        except TransformError as error:
            raise TransformError(f"{self._samples.names[index]}: {error}") from error

    def _drawn(self, key: Key, index: int, *, look: bool) -> tuple[Sample, bool]:
        """Return what a sample draws, and whether its masks show something after that, if one should look."""
        slices, number = self._samples.slices, self._samples.numbers[index]
        size, found = slices.shape(number), list[list[Draw]]()
        untouched = slices.bits(number) if slices.labels[number] else None
        followed = untouched.copy() if look and untouched is not None else None
        self._samples.pipeline.reseed(key)
        for place, part in enumerate(self.parts):
            draws = []
            for step in part.steps:
                draw, followed = _draw(step, _example(size, slices.inputs, slices.dtype), followed)
                if draw.move is not None:
                    if untouched is not None:
                        draw = replace(draw, phase=phase(step.transform, draw.move, untouched))
                    size, untouched = draw.result, None  # the masks of a result are known of few samples
                if isinstance(step.form, Intensity) and NOISE in step.form.names:
                    draw = replace(draw, seed=_seed(key, place))
                draws.append(draw)
            found.append(draws)
        return Sample(index, found, size), not look or (followed is not None and bool(followed.any()))


@functools.lru_cache(maxsize=1024)
def _example(size: Size, inputs: int, dtype: str) -> NDArray[Any]:
    """Return an image of which only type and shape count."""
    return np.broadcast_to(np.zeros((), dtype), size if inputs == 1 else (*size, inputs))


def _seed(key: Key, place: int) -> int:
    """Return the seed of a part's noise, for which no number is drawn: the others are drawn as on the CPU."""
    digest = hashlib.blake2b(",".join(map(str, (*key, "noise", place))).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


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


def _draw(step: Step, image: NDArray[Any], bits: Bits | None) -> tuple[Draw, Bits | None]:
    """Return what is drawn for an image, and what becomes of its masks, if they are given."""
    name, transform, form = step
    size = image.shape[:2]
    try:
        if not transform.should_apply():
            return Draw(size), bits
        drawn = form.draw(transform, image)
        if not isinstance(form, Geometry):
            return Draw(size, numbers=drawn), bits
        move = form.move(transform, size, drawn)
        if bits is not None:
            bits = transform.apply_with_params(drawn, mask=bits)["mask"]
            if not isinstance(bits, np.ndarray):
                raise TypeError(f"must return the masks as a numpy array, got {type(bits).__name__}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise explained_failure(name, transform, error) from error
    _check(name, transform, move)
    return Draw(size, move=move), bits


def _check(name: str, transform: Any, move: Move) -> None:
    """Raise TransformError unless pixels can be moved so."""
    matrix = move.matrix
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise failure(name, transform, f"`on_device` must return a finite matrix (3, 3), got {matrix.tolist()}.")
    if not np.array_equal(matrix[2], [0, 0, 1]):
        raise failure(name, transform, f"the last row of a matrix must be (0, 0, 1), got {matrix[2].tolist()}.")
    if abs(np.linalg.det(matrix)) < LEAST_AREA:
        raise failure(name, transform, "makes a line or a point of the image.")
    if min(move.size) < 1:
        raise failure(name, transform, f"leaves an image of {move.size[0]} x {move.size[1]} pixels.")


def phase_of(draws: Sequence[Draw]) -> int:
    """Return the phase of ties in the result of a run: that of the first move, as those after it shift it."""
    applied = [draw for draw in draws if draw.move is not None]
    if not applied:
        return 0
    corner = np.array([0.0, 0, 1])
    for draw in reversed(applied[1:]):
        corner = draw.move.matrix @ corner  # type: ignore[union-attr]
    return (applied[0].phase + round(float(corner[0] + corner[1]))) % 2
