"""The files of a prediction: a label map or masks in the format and geometry of the image, and an overlay."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segkit import files
from segkit.components.datasets.conventions import Conventions, conventions_of, label_values
from segkit.components.datasets.scans import Form, Opened
from segkit.components.intensities import scaled
from segkit.evaluation.ensemble import Ensemble
from segkit.evaluation.overlay import draw_overlay
from segkit.evaluation.predictor import Predictor
from segkit.recipe.variants import assign_folders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from segkit.evaluation.evaluator import Prediction
    from segkit.types import Array

OVERLAY, PROBABILITY = "overlay", "probability"
LEGEND = "labels.json"
MOST_SLICES = 9  # of a volume in its overlay


@dataclass(frozen=True)
class Written:
    """What was written of an image.

    Attributes:
        sizes: pixels or voxels of each structure.
        noun: which of the two.
        target: where, for messages.
        overlapping: whether masks overlap, so that each structure has a file.
    """

    sizes: dict[str, int]
    noun: str
    target: str
    overlapping: bool


class Outputs:
    """Writes predictions into a folder.

    Of each image `NAME.EXT` is a label map with the values that the recipe's data give the structures, else 1, 2, ...;
    `labels.json` says which is which. A single structure without a value of its own is 255 in pictures, 1 in volumes.
    Where structures overlap, there or in the masks of the training, each has a mask, `NAME-STRUCTURE.EXT`.

    Args:
        predictor: whose predictions they are.
        folder: where they go.
        probabilities: whether to write these too.
    """

    def __init__(self, predictor: Predictor | Ensemble, folder: Path, *, probabilities: bool = False) -> None:
        self.predictor, self.folder, self.probabilities = predictor, folder, probabilities
        self.channels = predictor.channels
        # different for each, also on file systems that ignore case
        self._suffixes = assign_folders(f"-{name}" for name in (OVERLAY, *self.channels))
        data = predictor.recipe.data
        self._data = ("", {}) if "data" in predictor.missing else (data.name, data.arguments)
        self.values = label_values(*self._data, self.channels)
        self._has_legend = False

    def conventions(self) -> Conventions:
        """Return which images the model takes, as the data of its training name them."""
        suffixes = *self._suffixes.values(), *(self._probability(name) for name in self.channels)
        return conventions_of(*self._data, self.predictor.inputs, suffixes)

    def write(self, name: str, opened: Opened, found: Prediction) -> Written:
        """Write what was predicted of an image.

        Args:
            name: of the image, with "/" between folders.
            opened: the image.
            found: its prediction.

        Raises:
            UserError: a file cannot be written.
        """
        form, stem = opened.form, self.folder / name
        files.make_folder(stem.parent)
        decided: NDArray[np.bool_] = np.asarray(found.mask, bool)
        labels = self._label_map(decided, form)
        whole = self._path(stem, "", form.ending)
        single = [self._path(stem, self._suffixes[f"-{channel}"], form.ending) for channel in self.channels]
        if labels is not None:
            form.write(whole, labels)
            self._write_legend()
        else:
            for path, mask in zip(single, decided, strict=True):
                form.write(path, mask.astype(np.uint8) * np.uint8(form.full))
        for path in single if labels is not None else [whole]:
            path.unlink(missing_ok=True)  # of an earlier prediction, which would contradict this one
        if self.probabilities:
            for channel, values in zip(self.channels, found.probability, strict=True):
                form.write(self._path(stem, self._probability(channel), form.ending_of_numbers), values)
        picture = self._overlay(opened.image, decided)
        files.write_bytes(self._path(stem, self._suffixes[f"-{OVERLAY}"], ".png"), _encoded(picture))
        sizes = {channel: int(mask.sum()) for channel, mask in zip(self.channels, decided, strict=True)}
        noun = "voxel" if decided.ndim == 4 else "pixel"
        target = whole if labels is not None else self._path(stem, "-*", form.ending)
        return Written(sizes, noun, str(target), labels is None)

    def _write_legend(self) -> None:
        """Write once which value is which structure, unless there is only one, and that has no value of its own."""
        if self.values is not None and not self._has_legend:
            legend = dict(zip(self.channels, self.values, strict=True))
            files.write_text(self.folder / LEGEND, json.dumps(legend, indent=1, ensure_ascii=False) + "\n")
            self._has_legend = True

    def _label_map(self, masks: NDArray[np.bool_], form: Form) -> Array | None:
        """Return a label map of masks; None where they overlap, or those of the training do."""
        values = self.values if self.values is not None else (form.full,) if len(masks) == 1 else None
        if values is None or self.predictor.overlapping or (masks.sum(axis=0, dtype=np.uint8) > 1).any():
            return None
        labels: NDArray[Any] = np.zeros(masks.shape[1:], np.uint8 if max(values) < 256 else np.uint16)
        for value, mask in zip(values, masks, strict=True):
            labels[mask] = value
        return labels

    def _probability(self, channel: str) -> str:
        return f"{self._suffixes[f'-{channel}']}-{PROBABILITY}"

    def _path(self, stem: Path, suffix: str, ending: str) -> Path:
        return stem.with_name(f"{stem.name}{suffix}{ending}")

    def _overlay(self, image: Array, masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return a picture of the masks on the image; of a volume, a sheet of some of its slices."""
        planes = shown_slices(masks) if masks.ndim == 4 else [0]
        volume = masks if masks.ndim == 4 else masks[:, None]
        inputs: NDArray[Any] = np.reshape(image, (-1, *volume.shape[1:]))[:, planes]
        seen: NDArray[Any] = np.moveaxis(scaled(self.predictor.recipe.intensity, np.ascontiguousarray(inputs)), 0, -1)
        chosen = volume[:, planes]
        empty = np.zeros_like(chosen[:, 0])
        return sheet([draw_overlay(plane[..., 0] if plane.shape[-1] == 1 else plane, empty, chosen[:, number])
                      for number, plane in enumerate(seen)])  # fmt: skip


def shown_slices(masks: NDArray[np.bool_], most: int = MOST_SLICES) -> list[int]:
    """Return up to `most` slices of masks (C, D, H, W), evenly among those with a structure; else the middle one."""
    marked = np.flatnonzero(masks.any(axis=(0, 2, 3)))
    if not len(marked):
        return [masks.shape[1] // 2]
    places = np.linspace(0, len(marked) - 1, min(most, len(marked))).round().astype(int)
    return [int(marked[place]) for place in places]


def sheet(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return pictures (H, W, 3) of one size beside and below each other, in rows from left to right."""
    columns = math.ceil(math.sqrt(len(pictures)))
    black = np.zeros_like(pictures[0])
    padded = [*pictures, *[black] * (-len(pictures) % columns)]
    rows = [np.concatenate(padded[start : start + columns], axis=1) for start in range(0, len(padded), columns)]
    return np.concatenate(rows)


def _encoded(picture: NDArray[np.uint8]) -> bytes:
    """Return an RGB picture as PNG."""
    import cv2

    return cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()
