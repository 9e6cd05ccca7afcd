"""Results as lines of JSON, a training each, so that a comparison can be interrupted and continued."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import torch

from segkit.device import hardware_name
from segkit.evaluation.rows import Row
from tests.benchmarks import versions_of
from tests.benchmarks.accuracy.task import Contestant, Task, Training

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

    def add(self, key: Key, training: Training) -> Result:
        """Add a result, and return it."""
        values = asdict(training) | {"rows": [astuple(row) for row in training.rows]}
        known = {"hardware": hardware_name(torch.device("cpu")), "versions": versions_of(PACKAGES)}
        _append(self._trainings, {"key": asdict(key), "training": values, **known})
        return Result(key, training, **known)

    def seconds_of_a_step(self, contestant: Contestant, task: Task, key: Key) -> float:
        """Return how long a step of a contestant takes, measured once."""
        known = [key.contestant, key.identity, key.threads]
        for found in _lines(self._calibrations):
            if found["key"] == known:
                return float(found["seconds"])
        seconds = contestant.calibrate(task)
        _append(self._calibrations, {"key": known, "seconds": seconds})
        return seconds


def measure(
    results: Results, contestant: Contestant, task: Task, key: Key, log: Callable[[str], Any] = print
) -> Result:
    """Return the result of a contestant on a fold; if it is new, train for the steps that fit into the minutes."""
    found = results.find(key)
    if found is not None:
        return found
    a_step = results.seconds_of_a_step(contestant, task, key)
    log(f"{key.contestant}, fold {key.fold}: {key.minutes:g} minutes of steps of {a_step:.3f} s")
    training = contestant.train(task, key.fold, max(1, int(60 * key.minutes / a_step)))
    dice = statistics.fmean(row.value for row in training.rows if row.metric == "dice")
    minutes = training.seconds / 60
    log(f"{key.contestant}, fold {key.fold}: Dice {dice:.3f} after {training.steps} steps in {minutes:.2f} minutes")
    return results.add(key, training)


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
