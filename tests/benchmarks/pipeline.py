"""Images a second of segkit's input pipeline and of plain Albumentations: `python -m tests.benchmarks.pipeline`.

CLAHE, rotation and crop of the first study on 243 slices, batches of 32, to float images and targets on the CPU. The
plain one is a Dataset with a Compose behind a torch DataLoader, as one writes it, with what its manuals recommend:
persistent workers, no OpenCV threads, one array of masks. The two alternate in one process; each time, the batches
that its workers made while the other one ran are taken before the clock starts.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import segkit
from segkit.components.datasets.case import Case
from segkit.data.batches import Batches
from segkit.data.filling import fill
from segkit.data.samples import Samples, to_device_float, to_uint8

BATCH = 32
AHEAD, TIMED = 8, 40  # batches: more than any workers hold ready; those that are timed, epoch borders among them
BOUND = 2.0
TRANSFORMS: list[tuple[str, dict[str, Any]]] = [
    ("CLAHE", {"clip_limit": 2.0, "tile_grid_size": [6, 6], "p": 1}),
    ("Rotate", {"limit": 180, "p": 0.5}),
    ("RandomCrop", {"height": 192, "width": 192}),
]


class Plain(Dataset[tuple[Tensor, Tensor]]):
    """Albumentations as one writes it."""

    def __init__(self, cases: tuple[Case, ...], mean: float, std: float) -> None:
        import albumentations as a

        read = [case.read() for case in cases]
        self.images = [to_uint8(image) for image, _ in read]
        self.masks = [np.ascontiguousarray(np.moveaxis(np.asarray(masks), 0, 2)).astype(np.uint8) for _, masks in read]
        self.mean, self.std = mean, std
        clahe = a.CLAHE(clip_limit=(2.0, 2.0), tile_grid_size=(6, 6), p=1)
        self.transform = a.Compose([clahe, a.Rotate(limit=180, p=0.5), a.RandomCrop(height=192, width=192)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        done = self.transform(image=self.images[index], mask=self.masks[index])
        image = (torch.from_numpy(done["image"]).float() - self.mean) / self.std
        return image[None], torch.from_numpy(done["mask"]).permute(2, 0, 1).float()


def plain(cases: tuple[Case, ...], mean: float, std: float, workers: int) -> Iterator[int]:
    """Yield the number of images of each batch of the DataLoader, epoch after epoch."""
    loader = DataLoader(
        Plain(cases, mean, std),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_one_thread,
    )
    while True:
        yield from (len(image) for image, _ in loader)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)


def ours(samples: Samples, channels: int, workers: int) -> Iterator[int]:
    """Yield the number of images of each batch of segkit's, epoch after epoch."""
    mean, std = samples.mean_std()
    with Batches(samples, batch_size=BATCH, seed=1, workers=workers) as batches:
        for epoch in itertools.count(1):
            for images, bits in batches.epoch(epoch):
                yield len(to_device_float(images, bits, mean, std, channels)[0])


def measure(rounds: int, workers: int) -> tuple[list[float], list[float]]:
    """Return images a second of segkit and of the plain pipeline, one of each a round."""
    dataset = segkit.datasets.build("phantom", {})
    components = [segkit.transforms.component(name, values) for name, values in TRANSFORMS]
    with tempfile.TemporaryDirectory() as folder:
        data = fill(dataset, segkit.intensities.component("percentile"), Path(folder))
        samples = Samples.of(data, range(len(data.cases)), components, exclusive=False)
        (mean,), (std,) = samples.mean_std()
        loops = {
            "segkit": ours(samples, len(dataset.channels), workers),
            "plain": plain(dataset.cases, mean, std, workers),
        }
        return _compared(loops, rounds)


def _compared(loops: dict[str, Iterator[int]], rounds: int) -> tuple[list[float], list[float]]:
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds):
        for name in list(loops) if number % 2 else list(loops)[::-1]:
            for _ in range(AHEAD):
                next(loops[name])
            started = time.perf_counter()
            images = sum(itertools.islice(loops[name], TIMED))
            speeds[name].append(images / (time.perf_counter() - started))
    return speeds["segkit"], speeds["plain"]


def main() -> None:
    """Print medians and quartiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    for workers in options.workers:
        fast, slow = measure(options.rounds, workers)
        ratios = [a / b for a, b in zip(fast, slow, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{workers} workers: segkit {statistics.median(fast):.0f} images/s, plain {statistics.median(slow):.0f}; "
            f"{middle:.2f} times (quartiles {low:.2f} to {high:.2f}; bound {BOUND:g})"
        )


if __name__ == "__main__":
    main()
