"""What every contestant is given, the data, the folds, the threads, and what it gives back."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import segkit
from segkit.data.cache import DataCache
from segkit.data.cases import Data
from segkit.data.splits import Split, split_cases
from segkit.evaluation.rows import Row
from segkit.recipe.model import Recipe

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("SEGKIT_TEST_DATA", ROOT.parent / "shared/data")) / "sunnybrook_endo"
METRICS = ("dice", "hd95", "nsd")


@dataclass(frozen=True)
class Task:
    """A comparison.

    Attributes:
        out: the folder of all that it leaves.
        root: the folder of images and masks, with a folder a patient.
        threads: of torch, for each contestant.
        recipe, overlays: those of `strong`, whose `split.seed` draws the folds.
        folds: groups of patients, each validated once.
    """

    out: Path
    root: Path = DATA
    threads: int = 2
    recipe: Path = ROOT / "recipes/strong.toml"
    overlays: tuple[Path, ...] = (ROOT / "recipes/overlays/laptop.toml",)
    folds: int = 5

    @property
    def cache(self) -> Path:
        """Where the decoded images are kept."""
        return self.out / "cache"

    @functools.cached_property
    def seed(self) -> int:
        """The seed of the folds."""
        return Recipe.load(self.recipe, overlays=self.overlays).split.seed

    @functools.cached_property
    def data(self) -> Data:
        """The images and their masks."""
        dataset = segkit.datasets.component("image_folder", {"root": str(self.root)})
        return DataCache(self.cache).read(dataset, segkit.intensities.component("percentile"))

    def split(self, fold: int) -> Split:
        """Return the cases that are trained on and those that are validated in a fold, counted from 1."""
        return split_cases(self.data, validation=0.2, train_fraction=1.0, seed=self.seed, folds=self.folds, fold=fold)


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        steps: of the optimizer.
        seconds: of loading, augmenting and training, without validation.
        parameters: numbers that were trained.
        rows: the last weights on the validation cases.
    """

    steps: int
    seconds: float
    parameters: int
    rows: Sequence[Row]


class Contestant(Protocol):
    """What is compared."""

    @property
    def label(self) -> str:
        """Its row of the table."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The packages without which it cannot run."""

    def identity(self, task: Task) -> str:
        """Return a hash of all that its results depend on, but minutes, threads and fold."""

    def calibrate(self, task: Task) -> float:
        """Return the seconds of a step, measured in a short training on fold 1."""

    def train(self, task: Task, fold: int, steps: int) -> Training:
        """Train on a fold, with a schedule that ends after at most so many steps (but one epoch), and evaluate."""


def metrics() -> tuple[str, ...]:
    """Return the names of the metrics, those that segkit has."""
    return tuple(name for name in METRICS if name in segkit.metrics)
