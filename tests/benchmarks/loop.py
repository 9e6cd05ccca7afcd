"""Microseconds that segkit's loop adds to a bare hand-written one: `python -m tests.benchmarks.loop`.

Same model, tensors, loss and optimizer. Epochs of the two alternate in one process, short ones of 6 steps and long ones
of 30: the slope of the difference is what a step adds, the rest is what an epoch border adds.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import segkit
from segkit.schedulers import Schedule
from segkit.training.device import choose
from segkit.training.loop import State, train
from segkit.training.objective import Objective

SHORT, LONG = 6, 30


class Tensors:
    """Batches that are already tensors."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.batches, self.steps_per_epoch = batches, len(batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same batches every epoch."""
        yield from self.batches[start:]


def bare(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Train with a hand-written loop; yield after each epoch."""
    loss = segkit.losses.build("dice_mix")
    optimizer = segkit.optimizers.build("SGD", {"lr": 1e-3}, model.parameters())
    while True:
        model.train()
        for image, target in batches:
            value = loss(model(image), target)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
        yield


def ours(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Iterator[object]:
    """Train with segkit's loop; yield after each epoch."""
    device = choose(str(batches[0][0].device), "float32")
    objective = Objective([segkit.losses.component("dice_mix")], [], model, exclusive=False)
    optimizer = segkit.optimizers.build("SGD", {"lr": 1e-3}, model.parameters())
    state = State(model, optimizer, Schedule.constant(optimizer), device.scaler(), objective)
    state.first_batch = [{}]  # the table of the first batch is made once a trial, not once a step
    yield from train(state, Tensors(batches), device, epochs=10**9)


def measure(rounds: int, device: str) -> tuple[list[float], list[float]]:
    """Return the microseconds added a step and an epoch border, one of each a round."""
    torch.manual_seed(0)
    model = segkit.models.build("unet", {"widths": [4, 8]}, 1, 2).to(device, memory_format=torch.channels_last)
    batches = [
        (torch.randn(2, 1, 16, 16, device=device), (torch.rand(2, 2, 16, 16, device=device) > 0.5).float())
        for _ in range(LONG)
    ]
    loops = {
        (loop, length): loop(copy.deepcopy(model), batches[:length])
        for loop in (bare, ours)
        for length in (SHORT, LONG)
    }
    steps, borders = [], []
    for number in range(rounds + 5):
        times = {}
        for key in list(loops) if number % 2 else list(loops)[::-1]:
            started = time.perf_counter()
            next(loops[key])
            if device != "cpu":
                torch.cuda.synchronize()
            times[key] = time.perf_counter() - started
        short, long = (times[ours, length] - times[bare, length] for length in (SHORT, LONG))
        if number >= 5:
            steps.append((long - short) / (LONG - SHORT) * 1e6)
            borders.append((short - SHORT * (long - short) / (LONG - SHORT)) * 1e6)
    return steps, borders


def main() -> None:
    """Print the medians and quartiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps, borders = measure(options.rounds, options.device)
    for name, found, bound in (("step", steps, 60), ("epoch border", borders, 1000)):
        low, middle, high = statistics.quantiles(found, n=4)
        print(f"added per {name}: {middle:.0f} us (quartiles {low:.0f} to {high:.0f}; bound {bound})")


if __name__ == "__main__":
    main()
