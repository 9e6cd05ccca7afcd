"""Microseconds that segkit's loop adds to a bare hand-written one: `python -m tests.benchmarks.loop`.

Same model (one convolution: what is measured is the loop), tensors, loss, optimizer and schedule; epochs of 6 steps of
the two alternate in one process. The batches hold the clock: a step lasts from one batch to the request for the next, a
border from the last request to the first batch.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import nn

import segkit
from segkit.components.schedulers import Schedule
from segkit.device import choose
from segkit.training.loop import State, train
from segkit.training.objective import Objective
from segkit.types import Batch

STEPS = 6


class Tensors:
    """Batches that are already tensors, and the times at which a loop asked for them."""

    steps_per_epoch = STEPS

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.asked: list[float] = []

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the same batches every epoch."""
        self.asked = []
        for batch in self.batches:
            self.asked.append(time.perf_counter())
            yield batch
        self.asked.append(time.perf_counter())

    def measured(self, began: float, ended: float) -> tuple[float, float]:
        """Return the median seconds of a step, and those before the first and after the last."""
        steps = [later - earlier for earlier, later in itertools.pairwise(self.asked)]
        return statistics.median(steps), self.asked[0] - began + ended - self.asked[-1]


def bare(model: nn.Module, batches: Tensors) -> Iterator[None]:
    """Train with a hand-written loop; yield after each epoch."""
    loss = segkit.losses.build("dice_mix")
    optimizer = segkit.optimizers.build("SGD", {"lr": 1e-3}, model.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 100)
    while True:
        model.train()
        for image, target, _ in batches.epoch(1):
            value = loss(model(image), target)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
        schedule.step()
        yield


def ours(model: nn.Module, batches: Tensors) -> Iterator[object]:
    """Train with segkit's loop; yield after each epoch."""
    device = choose(str(batches.batches[0][0].device), "float32")
    objective = Objective([segkit.losses.component("dice_mix")], [], model, exclusive=False)
    optimizer = segkit.optimizers.build("SGD", {"lr": 1e-3}, model.parameters())
    schedule = Schedule(torch.optim.lr_scheduler.StepLR(optimizer, 100))
    state = State(model, optimizer, schedule, device.scaler(), objective)
    state.first_batch = [{}]  # the table of the first batch is made once a trial, not once a step
    for report in train(state, batches, device, epochs=10**9):
        if report.complete:
            schedule.step_epoch(0.0)
            yield report


def measure(rounds: int, device: str) -> dict[str, list[float]]:
    """Return for each round the seconds of a step in both, and what ours adds to a step and to a border."""
    torch.manual_seed(0)
    model = nn.Conv2d(1, 2, 3, padding=1).to(device)
    tensors = [
        Batch(image, (torch.rand(2, 2, 16, 16, device=device) > 0.5).float(), torch.ones(2, dtype=torch.bool))
        for image in torch.randn(STEPS, 2, 1, 16, 16, device=device)
    ]
    batches = {loop: Tensors(tensors) for loop in (bare, ours)}
    loops = {loop: loop(copy.deepcopy(model), batches[loop]) for loop in batches}
    found: dict[str, list[float]] = {"bare": [], "ours": [], "step": [], "border": []}
    for number in range(rounds + 5):
        times = {}
        for loop in list(loops) if number % 2 else list(loops)[::-1]:
            began = time.perf_counter()
            next(loops[loop])
            if device != "cpu":
                torch.cuda.synchronize()
            times[loop] = batches[loop].measured(began, time.perf_counter())
        if number >= 5:
            (bare_step, bare_border), (our_step, our_border) = times[bare], times[ours]
            row = {
                "bare": bare_step,
                "ours": our_step,
                "step": our_step - bare_step,
                "border": our_border - bare_border,
            }
            for name, value in row.items():
                found[name].append(value)
    return found


def main() -> None:
    """Print the medians and their 95 % intervals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.rounds, options.device)
    for name, bound in (("step", 60), ("border", 1000)):
        values = np.array(found[name]) * 1e6
        interval = bootstrap((values,), np.median, n_resamples=1000, method="percentile", rng=0).confidence_interval
        print(
            f"added per {'step' if name == 'step' else 'epoch border'}: {np.median(values):.0f} us "
            f"(95 % interval {interval.low:.0f} to {interval.high:.0f}; bound {bound})"
        )
    ratio = np.array(found["ours"]) / np.array(found["bare"])
    low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
    print(f"a step of segkit's takes {middle:.3f} times a bare one's (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
