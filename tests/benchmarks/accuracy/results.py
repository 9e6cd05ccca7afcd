"""Results as lines of JSON, a training each, so that a comparison can be interrupted and continued."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from segkit.device import hardware_name
from segkit.evaluation.rows import Row
from tests.benchmarks.accuracy.task import Contestant, Task, Training

CALIBRATION_EPOCHS = 3  # the first is slower, and left out
PACKAGES = ("segkit", "torch", "albumentations", "monai", "segmentation_models_pytorch")


@dataclass(frozen=True)
class Key:
    """Which training it is.

    Attributes:
        identity: see `Contestant.identity`: results of what has changed since are not used.
        minutes: its budget.
    """

    contestant: str
    identity: str
    threads: int
    minutes: float
    fold: int


@dataclass(frozen=True)
class Result:
    """A training, and where it took place."""

    key: Key
    training: Training
    hardware: str
    versions: str


class Results:
    """Those in a folder."""

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._trainings, self._calibrations = out / "results.jsonl", out / "calibration.jsonl"

    def find(self, key: Key) -> Result | None:
        """Return a result, None where there is none yet."""
        for found in _lines(self._trainings):
            if found["key"] == asdict(key):
                rows = [Row(*values) for values in found["training"].pop("rows")]
                training = Training(**found["training"], rows=rows)
                return Result(key, training, found["hardware"], found["versions"])
        return None

    def add(self, key: Key, training: Training) -> None:
        """Add a result."""
        values = asdict(training) | {"rows": [astuple(row) for row in training.rows]}
        known = {"hardware": hardware_name(torch.device("cpu")), "versions": _versions()}
        _append(self._trainings, {"key": asdict(key), "training": values, **known})

    def calibration(self, contestant: str, identity: str, threads: int) -> float | None:
        """Return the seconds that a contestant trains on an image, None where they are not measured yet."""
        key = [contestant, identity, threads]
        return next((float(found["seconds"]) for found in _lines(self._calibrations) if found["key"] == key), None)

    def add_calibration(self, contestant: str, identity: str, threads: int, seconds: float) -> None:
        """Add the seconds that a contestant trains on an image."""
        _append(self._calibrations, {"key": [contestant, identity, threads], "seconds": seconds})


def measure(
    results: Results,
    name: str,
    contestant: Contestant,
    task: Task,
    minutes: float,
    fold: int,
    log: Callable[[str], Any],
) -> None:
    """Train a contestant on a fold, unless it is done, for the whole epochs that fit into the minutes, at least one."""
    identity = contestant.identity(task)
    key = Key(name, identity, task.threads, minutes, fold)
    if results.find(key) is not None:
        return
    an_image = results.calibration(name, identity, task.threads)
    if an_image is None:
        seconds = contestant.train(task, 1, CALIBRATION_EPOCHS).seconds
        an_image = statistics.median(seconds[1:]) / len(task.split(1).train)
        results.add_calibration(name, identity, task.threads, an_image)
    an_epoch = an_image * len(task.split(fold).train)
    epochs = max(1, int(60 * minutes / an_epoch))
    log(f"{name}, fold {fold}: {epochs} epochs of {an_epoch:.1f} s")
    training = contestant.train(task, fold, epochs)
    results.add(key, training)
    dice = statistics.fmean(row.value for row in training.rows if row.metric == "dice")
    log(f"{name}, fold {fold}: Dice {dice:.3f} after {sum(training.seconds) / 60:.2f} minutes, {training.steps} steps")


def _versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:  # the process ended while it was written
                continue


def _append(path: Path, values: dict[str, Any]) -> None:
    begun = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if begun else "") + json.dumps(values) + "\n")
