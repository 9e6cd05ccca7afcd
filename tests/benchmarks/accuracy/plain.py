"""Contestants that a plain PyTorch loop trains, as the tutorials of their libraries do."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import segkit
from segkit.components.metrics import hard
from segkit.device import preserved_process_state
from segkit.evaluation.rows import Row
from segkit.evaluation.scoring import score
from segkit.types import Array
from tests.benchmarks.accuracy.task import Task, Training, metrics

NUMBER = 1
"""Raised when plain loops train or predict otherwise: results of before are then not used."""
SEED = 1
CALIBRATION_RUNS, CALIBRATION_STEPS = 4, 10  # the first steps are slower, and left out
MULTIPLE = 32
"""Sides of images are padded to a multiple of it for the prediction: no network halves them more than five times."""

Pair = tuple[Array, Array]
"""An image (H, W) uint8 and its mask (H, W) uint8 in {0, 1}."""


@dataclass
class Setting:
    """What a tutorial trains.

    Attributes:
        network: image (N, 1, H, W) to scores in eval mode: one channel, or background and structure.
        batches: of an epoch, each time in another order: images (N, 1, H, W) and targets (N, 1, H, W).
        loss: of the network's output in training mode, and targets.
        prepared: an image (H, W) uint8 as the network takes it, without augmentation: (1, H, W) float32.
        rate: the factor of the learning rate after a share of all steps, from 0 to 1.
        clip_norm: the largest norm of the gradient.
        flips: whether the probability is the mean over the four mirrorings of an image.
    """

    network: nn.Module
    batches: Iterable[tuple[Tensor, Tensor]]
    loss: Callable[[Any, Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    prepared: Callable[[Array], Tensor]
    rate: Callable[[float], float] = lambda done: 1.0
    clip_norm: float | None = None
    flips: bool = False


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
        """Return the hash of the number of its kind, the data and the folds."""
        known = [NUMBER, self.label, task.data.fingerprint, task.seed, task.folds, metrics()]
        return hashlib.sha256(repr(known).encode()).hexdigest()[:12]

    def calibrate(self, task: Task) -> float:
        """Return the mean seconds of a step in the fastest run of a short training, its first one left out."""
        with preserved_process_state(task.threads):
            seconds = fit(self._set(task, 1), CALIBRATION_RUNS * CALIBRATION_STEPS)
        return float(np.reshape(seconds, (CALIBRATION_RUNS, CALIBRATION_STEPS)).mean(axis=1)[1:].min())

    def train(self, task: Task, fold: int, steps: int) -> Training:
        """Train, and evaluate the last weights; nothing is kept of a training that was interrupted."""
        with preserved_process_state(task.threads):
            setting = self._set(task, fold)
            seconds = sum(fit(setting, steps))
            rows = [row for number in task.split(fold).validation for row in _evaluated(setting, task, number)]
        return Training(steps, seconds, sum(part.numel() for part in setting.network.parameters()), rows)

    def _set(self, task: Task, fold: int) -> Setting:
        data = task.data
        torch.manual_seed(SEED)
        return self.setting([(data.slices.image(n), data.masks(n)[0].astype(np.uint8)) for n in task.split(fold).train])


def fit(setting: Setting, steps: int) -> list[float]:
    """Train; return the seconds of each step, that of its batch among them."""
    network, optimizer, seconds = setting.network, setting.optimizer, []
    first = [group["lr"] for group in optimizer.param_groups]
    network.train()
    batches = itertools.chain.from_iterable(itertools.repeat(setting.batches))
    for step in range(steps):
        started = time.perf_counter()
        image, target = next(batches)
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
    views = [(), (2,), (3,), (2, 3)] if setting.flips else [()]
    chances = [_chance(setting.network(whole.flip(axes))).flip(axes) for axes in views]
    return torch.stack(chances).mean(dim=0)[0, :, :height, :width].numpy()


def _chance(scores: Tensor) -> Tensor:
    return torch.sigmoid(scores) if scores.shape[1] == 1 else torch.softmax(scores, dim=1)[:, 1:]


def _evaluated(setting: Setting, task: Task, number: int) -> list[Row]:
    data, components = task.data, [segkit.metrics.component(name) for name in metrics()]
    chance = probability(setting, data.slices.image(number))
    return score(data.cases[number], data.masks(number), chance, hard(chance), data.channels, components)
