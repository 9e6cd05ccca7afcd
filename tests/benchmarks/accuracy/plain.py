"""Contestants that a plain PyTorch loop trains, as the tutorials of their libraries do."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import segkit
from segkit.components.metrics import hard
from segkit.device import preserved_process_state
from segkit.evaluation.evaluator import score
from segkit.evaluation.rows import Row
from segkit.types import Array
from tests.benchmarks.accuracy.task import Task, Training, metrics

SEED = 1
MULTIPLE = 32
"""Sides of images are padded to a multiple of it for the prediction: no network halves them more than five times."""

Pair = tuple[Array, Array]
"""An image (H, W) uint8 and its mask (H, W) uint8 in {0, 1}."""


class Loader(Protocol):
    """The batches of an epoch, each time anew."""

    def __len__(self) -> int:
        """Return their number."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (N, 1, H, W) and targets (N, 1, H, W)."""


@dataclass
class Setting:
    """What a tutorial trains.

    Attributes:
        network: image (N, 1, H, W) to scores in eval mode: one channel, or background and structure.
        loss: of the network's output in training mode, and targets.
        prepared: an image (H, W) uint8 as the network takes it, without augmentation: (1, H, W) float32.
        rate: the factor of the learning rate after a share of all steps, from 0 to 1.
        clip_norm: the largest norm of the gradient.
    """

    network: nn.Module
    batches: Loader
    loss: Callable[[Any, Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    prepared: Callable[[Array], Tensor]
    rate: Callable[[float], float] = lambda done: 1.0
    clip_norm: float | None = None


@dataclass(frozen=True)
class Plain:
    """A tutorial's network, augmentation, loss and optimizer in a plain loop.

    Attributes:
        setting: made of the training images.
    """

    label: str
    setting: Callable[[Sequence[Pair]], Setting]
    needs: tuple[str, ...] = ()

    def identity(self, task: Task) -> str:
        """Return the hash of the sources, the data and the folds."""
        sources = [Path(path).read_text("utf-8") for path in (inspect.getfile(self.setting), __file__)]
        known = [self.label, task.data.fingerprint, task.seed, task.folds, metrics(), *sources]
        return hashlib.sha256(repr(known).encode()).hexdigest()[:12]

    def train(self, task: Task, fold: int, epochs: int) -> Training:
        """Train, and evaluate the last weights; nothing is kept of a training that was interrupted."""
        data, split = task.data, task.split(fold)
        pairs = [(data.slices.image(number), data.masks(number)[0].astype(np.uint8)) for number in split.train]
        with preserved_process_state(task.threads):
            torch.manual_seed(SEED)
            setting = self.setting(pairs)
            seconds = fit(setting, epochs)
            rows = [row for number in split.validation for row in _evaluated(setting, task, number)]
        parameters = sum(part.numel() for part in setting.network.parameters())
        return Training(epochs * len(setting.batches), seconds, parameters, rows)


def fit(setting: Setting, epochs: int) -> list[float]:
    """Train; return the seconds of each epoch."""
    network, optimizer, seconds = setting.network, setting.optimizer, []
    first = [group["lr"] for group in optimizer.param_groups]
    steps = epochs * len(setting.batches)
    network.train()
    for epoch in range(epochs):
        started = time.perf_counter()
        for step, (image, target) in enumerate(setting.batches, epoch * len(setting.batches)):
            for group, rate in zip(optimizer.param_groups, first, strict=True):
                group["lr"] = rate * setting.rate(step / steps)
            optimizer.zero_grad()
            setting.loss(network(image), target).backward()  # type: ignore[no-untyped-call]
            if setting.clip_norm is not None:
                nn.utils.clip_grad_norm_(network.parameters(), setting.clip_norm)
            optimizer.step()
        seconds.append(time.perf_counter() - started)
    return seconds


@torch.inference_mode()
def probability(setting: Setting, image: Array) -> Array:
    """Return the structure's probability (1, H, W) in an image (H, W), predicted as a whole."""
    height, width = image.shape
    below, right = -height % MULTIPLE, -width % MULTIPLE
    setting.network.eval()
    whole = functional.pad(setting.prepared(image)[None], (0, right, 0, below), mode="replicate")
    scores = setting.network(whole)[:, :, :height, :width]
    chance = torch.sigmoid(scores) if scores.shape[1] == 1 else torch.softmax(scores, dim=1)[:, 1:]
    return chance[0].numpy()


def _evaluated(setting: Setting, task: Task, number: int) -> list[Row]:
    data, components = task.data, [segkit.metrics.component(name) for name in metrics()]
    chance = probability(setting, data.slices.image(number))
    return score(data.cases[number], data.masks(number), chance, hard(chance), data.channels, components)
