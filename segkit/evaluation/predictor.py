"""A trained model ready to predict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from segkit.components.datasets.case import AXES, KINDS, Case, Dataset
from segkit.data.cases import Data
from segkit.data.filling import fill
from segkit.device import Device, cpu_threads, restored_determinism
from segkit.errors import UserError, counted
from segkit.evaluation.evaluator import Evaluator, Prediction
from segkit.evaluation.slices import Normalization
from segkit.evaluation.volume import Volume
from segkit.recipe.model import Recipe
from segkit.types import Array, Spacing


class Parts(NamedTuple):
    """The cases that an image is predicted as.

    Attributes:
        images: the image itself, or the slices of a volume.
        spacing_mm: of each.
        shape: (D, H, W) of a volume in slices, None of an image as a whole.
    """

    images: list[Array]
    spacing_mm: Spacing
    shape: tuple[int, ...] | None

    def joined(self, predictions: Iterable[Prediction]) -> Prediction:
        """Return the prediction of the image from those of its parts, in any order."""
        if self.shape is None:
            (whole,) = predictions  # a view of what was copied from a GPU, whose pinned memory is not the caller's
            return whole._replace(probability=whole.probability.copy(), mask=whole.mask.copy())
        volume: Volume | None = None
        for part in predictions:
            volume = volume or Volume(len(part.mask), self.shape, probabilities=True)
            volume.add(part.case, part.probability, part.mask, part.loss)
        assert volume is not None, "a volume has slices"
        return Prediction(0, volume.probability, volume.mask, math.nan)


@dataclass(frozen=True, repr=False)
class Predictor:
    """A trained model ready to predict.

    Attributes:
        model: image (N, I, H, W), normalised, to scores (N, C, H, W); in eval mode.
        recipe: the recipe it was trained from; the parts named in `missing` are segkit's defaults instead.
        meta: the metadata of the checkpoint.
        missing: parts of the recipe that prediction does not need and that are not available, each with the reason.
    """

    model: nn.Module
    recipe: Recipe
    channels: tuple[str, ...]
    meta: dict[str, Any]
    device: Device
    missing: dict[str, str]

    def __repr__(self) -> str:
        meta = self.meta
        return (
            f"<segkit Predictor: {self.recipe.model.name} of variant {meta['variant']}, {meta['kind']} checkpoint, "
            f"epoch {meta['epoch']}; inputs {', '.join(self.inputs)}, "
            f"channels {', '.join(self.channels)}>"
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the inputs, e.g. ("image",) or ("red", "green", "blue")."""
        return tuple(self.meta["inputs"])

    @property
    def overlapping(self) -> bool:
        """Whether the masks that it was trained on overlap."""
        return bool(self.meta["overlapping"])

    def evaluator(self, data: Data, cases: Sequence[int]) -> Evaluator:
        """Return the evaluator of the training, over some cases of other data."""
        normalization = Normalization(**{name: tuple(found) for name, found in self.meta["normalization"].items()})
        return Evaluator(data, cases, self.recipe, normalization, self.device)

    @contextmanager
    def as_trained(self) -> Iterator[None]:
        """Compute as in the training, to the last bit: with as many CPU threads, and as deterministically."""
        threads = cpu_threads(self.meta["threads"]) if self.device.device.type == "cpu" else nullcontext()
        with threads, restored_determinism(self.recipe.train.deterministic):
            yield

    def predict(self, image: Array | Mapping[str, Array]) -> Array:
        """Return the probabilities of an image, (C, H, W), or of a volume, (C, D, H, W); float32.

        Where classes exclude each other, masks cannot be derived from them: use `segment`.

        Args:
            image: (H, W), (I, H, W) of the model's inputs in their order, or a volume (I, D, H, W), of any size and
                number type; or an array (H, W) or (D, H, W) for each input, by name.

        Raises:
            UserError: it is something else, or lacks an input.
        """
        return self.without_postprocess().infer(image).probability

    def without_postprocess(self) -> Predictor:
        """Return the same model with a recipe that does nothing to its masks, and so asks nothing of an image."""
        evaluation = self.recipe.evaluation.model_copy(update={"postprocess": ()})
        return replace(self, recipe=self.recipe.model_copy(update={"evaluation": evaluation}))

    def segment(self, image: Array | Mapping[str, Array], spacing_mm: Spacing = None) -> Array:
        """Return the masks, (C, H, W) or (C, D, H, W), bool: decided as for the metrics, at the image's own size.

        The arguments and errors are those of `infer`.
        """
        return self.infer(image, spacing_mm).mask

    def infer(self, image: Array | Mapping[str, Array], spacing_mm: Spacing = None) -> Prediction:
        """Return probabilities and masks, those of `predict` and `segment`, in one go.

        If the cases of the training were slices (`volumes = false`), each slice of a volume is a case of its own.

        Args:
            image: as for `predict`.
            spacing_mm: (row, column) or (slice, row, column) of the image, for a postprocess by size; as in the
                training, the `spacing_mm` of the recipe's data goes before it.

        Raises:
            UserError: as for `predict`; or a postprocess cannot take such an image.
        """
        parts = self.parts(image, spacing_mm)
        evaluator = self.evaluator(self.data_of(parts), range(len(parts.images)))
        with self.as_trained():
            return parts.joined(evaluator.predict(self.model))

    def parts(self, image: Array | Mapping[str, Array], spacing_mm: Spacing = None) -> Parts:
        """Return the cases that an image is predicted as; arguments and errors are those of `infer`."""
        found = self._inputs_of(image)
        arguments = {} if "data" in self.missing else self.recipe.data.arguments
        spacing = _own_spacing(arguments.get("spacing_mm"), max(found.ndim - 1, 2)) or spacing_mm
        if found.ndim < 4 or arguments.get("volumes", True):
            return Parts([found], spacing, None)
        slices = [found[:, index] for index in range(found.shape[1])]
        return Parts(slices, spacing and spacing[1:], found.shape[1:])

    def data_of(self, parts: Parts) -> Data:
        """Return the parts of an image as cases, after the intensity of the training."""
        images = enumerate(parts.images, 1)
        cases = tuple(Case(f"image {number}", None, image, None, parts.spacing_mm) for number, image in images)
        return fill(Dataset("images", self.channels, cases, inputs=self.inputs), self.recipe.intensity)

    def _inputs_of(self, image: Any) -> Array:
        """Return an image as `Case` takes it, with the model's inputs in order."""
        if isinstance(image, Mapping):
            if set(image) != set(self.inputs):
                raise UserError(f"the model's inputs are {', '.join(self.inputs)}; got {', '.join(map(str, image))}.")
            arrays = [np.asarray(image[name]) for name in self.inputs]
            if len({array.shape for array in arrays}) > 1:
                raise UserError(f"the inputs of an image must have one size; got {[array.shape for array in arrays]}.")
            image = np.stack(arrays)
        if (
            not isinstance(image, np.ndarray)
            or image.ndim not in AXES
            or not image.size
            or image.dtype.kind not in "buif"
        ):
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(f"an image is a numpy array of numbers, {', '.join(AXES.values())}; got {got}.")
        count = 1 if image.ndim == 2 else len(image)
        if count != len(self.inputs):
            raise UserError(
                f"the model takes {counted(len(self.inputs), 'input')} ({', '.join(self.inputs)}); an image of shape "
                f"{image.shape} has {count}."
            )
        image = np.asarray(image)  # of a masked one, all pixels
        found: Array = (
            image if image.dtype.name in KINDS else image.astype(np.uint8 if image.dtype == bool else np.float32)
        )
        return found


def _own_spacing(stated: Any, axes: int) -> Spacing:
    """Return the lengths that a recipe's data state for so many axes, if they do; a table may name columns instead."""
    if not isinstance(stated, tuple) or len(stated) < axes or any(isinstance(part, str) for part in stated):
        return None
    return tuple(float(part) for part in stated[-axes:])
