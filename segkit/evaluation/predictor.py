"""A trained model ready to predict."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from segkit.components.datasets.case import Case
from segkit.device import Device, cpu_threads
from segkit.errors import UserError
from segkit.evaluation.evaluator import Evaluator, Normalization, Prediction
from segkit.recipe.model import Recipe
from segkit.types import Array


@dataclass(frozen=True, repr=False)
class Predictor:
    """A trained model ready to predict.

    Attributes:
        model: image (N, 1, H, W), normalised, to scores (N, C, H, W); in eval mode.
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
            f"epoch {meta['epoch']}; channels {', '.join(self.channels)}>"
        )

    def evaluator(self, cases: Sequence[Case]) -> Evaluator:
        """Return the evaluator of the training, over other cases."""
        normalization = Normalization(**self.meta["normalization"])
        return Evaluator(cases, self.channels, self.recipe, normalization, self.device)

    def threads(self) -> AbstractContextManager[None]:
        """Return the context in which a CPU computes with as many threads as in the training, to the last bit."""
        return cpu_threads(self.meta["threads"]) if self.device.device.type == "cpu" else nullcontext()

    def predict(self, image: Array) -> Array:
        """Return the probabilities (C, H, W), float32, of one grey image (H, W) of any size and number type.

        Where classes exclude each other, masks cannot be derived from them: use `segment`.
        """
        return self._of(image).probability

    def segment(self, image: Array) -> Array:
        """Return the masks (C, H, W), bool, of one grey image (H, W): decided as for the metrics, at its own size."""
        return self._of(image).mask

    def _of(self, image: Array) -> Prediction:
        if not isinstance(image, np.ndarray) or image.ndim != 2 or not image.size or image.dtype.kind not in "buif":
            got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(f"an image is a numpy array of numbers (rows, columns), one grey channel; got {got}.")
        image = np.asarray(image)  # of a masked one, all pixels
        masks = np.zeros((len(self.channels), *image.shape), dtype=bool)
        case = Case(name="image", patient=None, image=image, masks=masks, spacing_mm=None)
        found: Prediction
        with self.threads():
            (found,) = self.evaluator([case]).predict(self.model)
        return found
