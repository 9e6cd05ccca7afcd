"""Reading, caching and feeding large data: `python -m tests.benchmarks.data` (about 3 minutes, 3 GB of disk).

- 262 NIfTI volumes of 35 x 51 x 35 voxels with labels, read, checked, scaled and stored: seconds.
- 800 slices of 256 x 256: the seconds of data work before the second trial of a study trains, in the same process, in
  another one, and after a second command, which lists the files again.
- 20,000 slices of 256 x 256: the private memory of the training's process and of each of two workers, after batches of
  all of an epoch.
"""

from __future__ import annotations

import argparse
import functools
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import segkit
from segkit.components.datasets.case import Case, Dataset
from segkit.data.batches import Batches
from segkit.data.cache import DataCache
from segkit.data.cases import Data
from segkit.data.samples import Samples
from segkit.data.splits import split_cases
from segkit.types import Array
from tests.volumes import decathlon

TRANSFORMS: list[tuple[str, dict[str, Any]]] = [
    ("CLAHE", {"clip_limit": 2.0, "tile_grid_size": [6, 6], "p": 1}),
    ("Rotate", {"limit": 180, "p": 0.5}),
    ("RandomCrop", {"height": 192, "width": 192}),
]
SIDE = 256
VOLUMES, VOLUMES_BOUND = 262, 5.0
SECOND, SECOND_BOUND = 800, 0.3
MANY, MEMORY_BOUND = 20_000, 1 << 30


def _draw(number: int) -> tuple[Array, Array]:
    """Return an image, (SIDE, SIDE) uint16, and its masks."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    away = np.hypot(rows - 60 - number % 97, columns - 70 - number % 89)
    noise = np.random.default_rng(number).integers(0, 300, (SIDE, SIDE), dtype=np.uint16)
    return (noise + 2000 * (away < 40)).astype(np.uint16), np.stack([(away < 40) & (away >= 30), away < 30])


def _slices(count: int) -> Dataset:
    cases = (Case(f"p{n // 10}/{n}", f"p{n // 10}", load=functools.partial(_draw, n)) for n in range(count))
    return Dataset("drawn", ("wall", "cavity"), tuple(cases))


if "drawn" not in segkit.datasets:

    @segkit.datasets.register("drawn")
    def drawn(*, count: int) -> Dataset:
        """Slices with a ring, drawn when they are read."""
        return _slices(count)


def _read(cache: DataCache, name: str, values: dict[str, Any]) -> Data:
    return cache.read(segkit.datasets.component(name, values), segkit.intensities.component("percentile"))


def _samples(data: Data) -> Samples:
    """Return what a trial needs of its data before it trains."""
    split = split_cases(data, validation=0.2, train_fraction=1.0, seed=1)
    components = [segkit.transforms.component(name, values) for name, values in TRANSFORMS]
    samples = Samples.of(data, split.train, components, exclusive=False)
    samples.mean_std()
    return samples


def _seconds(work: Callable[[], Any], rounds: int = 1) -> float:
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def volumes(folder: Path) -> float:
    """Return the seconds in which a Decathlon task's volumes are read and stored."""
    decathlon(folder / "task", VOLUMES, shape=(35, 51, 35))
    values = {"root": str(folder / "task")}
    return _seconds(lambda: _read(DataCache(folder / "cache"), "nnunet", values))


def second_trial(folder: Path) -> dict[str, float]:
    """Return the seconds of data work before a trial trains, the first and further ones."""
    values = {"count": SECOND}
    cache = DataCache(folder)
    found = {"first trial": _seconds(lambda: _samples(_read(cache, "drawn", values)))}
    found["second trial, same process"] = _seconds(lambda: _samples(_read(cache, "drawn", values)), 5)
    sent = pickle.dumps(cache)
    found["second trial, other process"] = _seconds(lambda: _samples(_read(pickle.loads(sent), "drawn", values)), 5)
    found["second command"] = _seconds(lambda: _samples(_read(DataCache(folder), "drawn", values)), 5)
    return found


def private_bytes(pid: int | str = "self") -> int:
    """Return the memory of a process that no other one shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def memory(folder: Path, count: int = MANY, workers: int = 2) -> list[int]:
    """Return the private memory of this process and of its workers after an epoch's batches, in bytes."""
    samples = _samples(_read(DataCache(folder), "drawn", {"count": count}))
    with Batches(samples, batch_size=32, seed=1, workers=workers) as batches:
        for _ in batches.epoch(1):
            pass
        assert batches._workers is not None
        return [private_bytes(), *(private_bytes(process.pid) for process in batches._workers.processes)]


def main() -> None:
    """Print each figure with its bound."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{VOLUMES} NIfTI volumes read and stored: {volumes(folder):.2f} s (bound {VOLUMES_BOUND:g})")
        for what, seconds in second_trial(folder / "second").items():
            print(
                f"{SECOND} slices, {what}: {seconds:.3f} s"
                + (f" (bound {SECOND_BOUND})" if "first" not in what else "")
            )
        used = ", ".join(f"{found >> 20:,}" for found in memory(folder / "many"))
        print(
            f"{MANY:,} slices: {used} MiB of private memory, the process and its workers (bound {MEMORY_BOUND >> 20:,})"
        )


if __name__ == "__main__":
    main()
