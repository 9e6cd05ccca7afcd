"""Contestants that segkit trains: a recipe and settings, by `segkit.run`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import segkit
from segkit import plugins
from segkit.data.cache import DataCache
from segkit.recipe.identity import evaluation_identity, training_identity
from segkit.recipe.model import Recipe
from segkit.training.results import History
from tests.benchmarks.accuracy.task import Task, Training, metrics

CALIBRATION_EPOCHS = 5  # the first is slower, and left out
CALIBRATION_STEPS = 40  # of an epoch, where the recipe lets one choose


@dataclass(frozen=True)
class Inside:
    """A recipe, trained and evaluated by segkit.

    Attributes:
        settings: laid over the recipe, by their paths.
        shares: settings that are a share of the epochs, for schedules that count them.
        recipe: in place of the task's.
    """

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    recipe: Path | None = None

    def identity(self, task: Task) -> str:
        """Return the hash of the recipe, filled, and of its plugins."""
        recipe = self._filled(task)
        return _digest(training_identity(recipe), evaluation_identity(recipe))

    def calibrate(self, task: Task) -> float:
        """Return the mean seconds of a step in the fastest epoch of a short training, its first one left out."""
        steps, flexible = self._epoch(task, 1)
        steps = min(steps, CALIBRATION_STEPS) if flexible else steps
        history, _ = self._run(task, 1, CALIBRATION_EPOCHS, steps if flexible else None)
        return min(self._seconds(task, 1, history)[1:]) / steps

    def train(self, task: Task, fold: int, steps: int) -> Training:
        """Run the recipe for whole epochs, at least one; a training that was interrupted continues.

        Where the recipe says how many steps an epoch has, its epochs are stretched to fill the steps.
        """
        each, flexible = self._epoch(task, fold)
        epochs = max(1, steps // each)
        history, best = self._run(task, fold, epochs, max(1, steps // epochs) if flexible else None)
        return Training(
            steps=int(history[-1]["step"]),
            seconds=sum(self._seconds(task, fold, history)),
            parameters=sum(part.numel() for part in segkit.load(best).model.parameters()),
            rows=[row for row in segkit.evaluate(best, cache=DataCache(task.cache)) if row.metric in metrics()],
        )

    def _run(self, task: Task, fold: int, epochs: int, steps: int | None) -> tuple[History, Path]:
        """Return metrics.csv and the checkpoint of the last of some epochs, of so many steps or of the recipe's own."""
        out = task.out / "runs" / f"{_digest(self.identity(task), task.threads, epochs, steps)}-fold-{fold}"
        sets = self._sets(task, fold, epochs) + ([] if steps is None else [f"train.steps_per_epoch={steps}"])
        recipe = self.recipe or task.recipe
        outcome = segkit.run(recipe, out=out, overlays=task.overlays, sets=sets, cache=task.cache)
        if outcome.interrupted:
            raise KeyboardInterrupt
        if outcome.failed:
            raise segkit.UserError("; ".join(outcome.failures.values()))
        (status,) = out.glob("*/*/*/trial.json")
        return History.read(status.parent / "metrics.csv"), status.parent / "best.safetensors"

    def _filled(self, task: Task) -> Recipe:
        plugins.load()
        return Recipe.load(self.recipe or task.recipe, overlays=task.overlays, sets=self._sets(task, 1, 1))

    def _epoch(self, task: Task, fold: int) -> tuple[int, bool]:
        """Return the steps of an epoch, and whether the recipe says how many they are."""
        settings = self._filled(task).train
        if settings.steps_per_epoch is not None:
            return settings.steps_per_epoch, True
        return -(-len(task.split(fold).train) // (settings.batch_size * settings.accumulate)), False

    def _seconds(self, task: Task, fold: int, history: History) -> list[float]:
        """Return the seconds that each epoch trained: metrics.csv has images a second, without validation."""
        settings, images = self._filled(task).train, float(len(task.split(fold).train))
        if settings.steps_per_epoch is not None:
            images = history[0]["step"] * settings.accumulate * settings.batch_size
        return [images / rate for rate in history.column("images_per_second")]

    def _sets(self, task: Task, fold: int, epochs: int) -> list[str]:
        """Return the settings of one training, in the words of `--set`."""
        settings = {
            "data.image_folder.root": str(task.root.resolve()),
            "split.folds": task.folds,
            "split.fold": fold,
            "split.seed": task.seed,
            "study.seeds": [1],
            "train.epochs": epochs,
            "train.select": "last",
            "train.device": "cpu",
            "train.precision": "float32",
            "train.threads": task.threads,
            "train.workers": 0,
            **self.settings,
            **{path: max(1, round(share * epochs)) for path, share in self.shares.items()},
        }
        sets = [f"{path}={json.dumps(value)}" for path, value in settings.items()]  # JSON of these values is TOML
        return sets + [f"metrics.{name}={{}}" for name in metrics()]


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
