"""Several trained models that predict together: their probabilities are averaged, and masks are decided once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from segkit.data.cache import DataCache
from segkit.data.cases import Data
from segkit.errors import UserError, counted, first_few
from segkit.evaluation.evaluator import Evaluator, Prediction
from segkit.evaluation.predictor import Predictor
from segkit.evaluation.rows import Row
from segkit.evaluation.sets import NEW, nameless, voters
from segkit.recipe.model import Recipe
from segkit.types import Array, Spacing

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, repr=False)
class Ensemble:
    """Trained models that predict together; their networks, intensities, normalizations and transforms may differ.

    Each has the test-time augmentation and windows of its own recipe. The mean of their probabilities, the background's
    among them, is decided and postprocessed as the recipe of the first one says.

    Attributes:
        members: the models.
        names: of each, for messages: its file.

    Raises:
        UserError: there is none; or one takes other inputs or predicts other structures than the first, or takes them
            to exclude each other where the first does not.
    """

    members: tuple[Predictor, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise UserError("an ensemble needs at least one checkpoint.")
        first = self.members[0]
        for name, member in zip(self.names, self.members, strict=True):
            for what, own, other in (
                ("takes the inputs", ", ".join(member.inputs), ", ".join(first.inputs)),
                ("predicts", ", ".join(member.channels), ", ".join(first.channels)),
                ("has classes that are", member.recipe.channels, first.recipe.channels),
            ):
                if own != other:
                    raise UserError(
                        f"{name}: {what} {own}, and {self.names[0]} {other}: their probabilities cannot be averaged. "
                        "Leave one of the two out."
                    )

    def __repr__(self) -> str:
        return f"<segkit Ensemble of {counted(len(self.members), 'checkpoint')}: {first_few(self.names, 3)}>"

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the structures."""
        return self.members[0].channels

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return self.members[0].inputs

    @property
    def recipe(self) -> Recipe:
        """The recipe of the first member: its data, metrics and `[evaluation]` are those of the ensemble."""
        return self.members[0].recipe

    @property
    def missing(self) -> dict[str, str]:
        """Parts of that recipe that are not available, each with the reason."""
        return self.members[0].missing

    @property
    def overlapping(self) -> bool:
        """Whether the masks that a member was trained on overlap."""
        return any(member.overlapping for member in self.members)

    @property
    def metas(self) -> dict[str, dict[str, Any]]:
        """The metadata of each checkpoint, by its name."""
        return {name: member.meta for name, member in zip(self.names, self.members, strict=True)}

    def predict(self, image: Array | Mapping[str, Array]) -> Array:
        """Return the mean of what the members' `predict` returns: probabilities (C, H, W) or (C, D, H, W), float32."""
        return (
            replace(self, members=tuple(member.without_postprocess() for member in self.members))
            .infer(image)
            .probability
        )

    def segment(self, image: Array | Mapping[str, Array], spacing_mm: Spacing = None) -> Array:
        """Return the masks, (C, H, W) or (C, D, H, W), bool, decided from the mean."""
        return self.infer(image, spacing_mm).mask

    def infer(self, image: Array | Mapping[str, Array], spacing_mm: Spacing = None) -> Prediction:
        """Return probabilities and masks, those of `predict` and `segment`, in one go; see `Predictor.infer`."""
        parts = self.members[0].parts(image, spacing_mm)
        data = [member.data_of(parts) for member in self.members]
        deciding = self.members[0].evaluator(data[0], range(len(parts.images)))
        return parts.joined(self._predictions(deciding, data, range(len(self.members))))

    def evaluate(self, cache: DataCache, on: str, on_note: Callable[[str], Any]) -> list[Row]:
        """Return the rows of the cases of a set, in the order of the cases, each predicted by the members that may.

        A batch of images, or a volume, is predicted by one member after the other, and no more is held at a time.

        Args:
            cache: that reads the data of the first member's recipe.
            on: "validation", "test" or "all"; see `voters`.
            on_note: called with a line that says how many members were averaged.

        Raises:
            UserError: as of `voters`.
        """
        data = self._read(cache)
        chosen = voters(data[0].cases, self.metas, on)
        counts = sorted(len(own) for own in chosen.values())
        each = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        unsure = nameless(data[0].cases, self.metas)
        if unsure:
            older = f"{counted(unsure, 'checkpoint')} of an older segkit"
            on_note(f"note: {older} may have been chosen by patients of these data: the files do not name them")
        on_note(f"averaged: {each} of {counted(len(self.members), 'checkpoint')} for each case")
        rows: list[Row] = []
        for numbers, members in self._batches(data[0], {number: tuple(own) for number, own in chosen.items()}):
            evaluator = self.members[0].evaluator(data[0], numbers)
            rows += evaluator.rows_of(self._predictions(evaluator, data, members), self.recipe.metrics)[0]
        place = {data[0].cases[number].name: number for number in chosen}
        rows = [replace(row, set=_common(chosen[place[row.case]])) for row in rows]
        return sorted(rows, key=lambda row: place[row.case])

    def _read(self, cache: DataCache) -> list[Data]:
        """Return the cases of the first member's data after each member's intensity."""
        read: dict[str, Data] = {}
        for member in self.members:
            key = json.dumps(member.recipe.intensity.dump())
            read[key] = read.get(key) or cache.read(self.recipe.data, member.recipe.intensity)
        return [read[json.dumps(member.recipe.intensity.dump())] for member in self.members]

    def _batches(
        self, data: Data, members: Mapping[int, tuple[int, ...]]
    ) -> Iterator[tuple[list[int], tuple[int, ...]]]:
        """Yield cases that the same members predict: a volume, or a batch of images; and these members."""
        size, alike = self.recipe.train.batch_size, dict[tuple[tuple[int, ...], bool], list[int]]()
        for number, own in members.items():
            alike.setdefault((own, len(data.cases[number].shape) > 2), []).append(number)
        for (own, volumes), numbers in alike.items():
            step = 1 if volumes else size
            yield from ((numbers[start : start + step], own) for start in range(0, len(numbers), step))

    def _predictions(self, deciding: Evaluator, data: Sequence[Data], members: Sequence[int]) -> Iterator[Prediction]:
        """Yield the prediction of each case of an evaluator, which decides the mean of some members.

        Args:
            deciding: of the first member.
            data: for each member the same cases, after its own intensity.
            members: the places of those that predict.
        """
        total: dict[int, NDArray[Any]] = {}
        for place in members:
            member = self.members[place].without_postprocess()
            with member.as_trained():
                for case, found in member.evaluator(data[place], deciding.numbers).probabilities(member.model):
                    total[case] = np.add(total[case], found, out=total[case]) if case in total else np.asarray(found)
        for case in sorted(total):
            mean = total.pop(case)
            yield deciding.of_mean(case, np.divide(mean, len(members), out=mean))


def _common(sets: Mapping[int, str]) -> str:
    """Return the set that a case counts as, which may be in several of those of the checkpoints that predict it."""
    return next((name for name in ("validation", "test") if name in sets.values()), NEW)
