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
        plugins.load()
        recipe = Recipe.load(self.recipe or task.recipe, overlays=task.overlays, sets=self._sets(task, 1, 1))
        return _digest(training_identity(recipe), evaluation_identity(recipe))

    def train(self, task: Task, fold: int, epochs: int) -> Training:
        """Run the recipe; a training that was interrupted continues."""
        out = task.out / "runs" / f"{_digest(self.identity(task), task.threads, epochs)}-fold-{fold}"
        recipe, sets = self.recipe or task.recipe, self._sets(task, fold, epochs)
        outcome = segkit.run(recipe, out=out, overlays=task.overlays, sets=sets, cache=task.cache)
        if outcome.interrupted:
            raise KeyboardInterrupt
        if outcome.failed:
            raise segkit.UserError("; ".join(outcome.failures.values()))
        (status,) = out.glob("*/*/*/trial.json")
        history, best = History.read(status.parent / "metrics.csv"), status.parent / "best.safetensors"
        images = len(task.split(fold).train)
        return Training(
            steps=int(history[-1]["step"]),
            seconds=[images / rate for rate in history.column("images_per_second")],
            parameters=sum(part.numel() for part in segkit.load(best).model.parameters()),
            rows=[row for row in segkit.evaluate(best, cache=DataCache(task.cache)) if row.metric in metrics()],
        )

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
