"""Microseconds that segkit's loop adds to a bare hand-written one: `python -m tests.benchmarks.loop`.

Same model, tensors, loss and optimizer; the two are interleaved in one process, epochs of 6 steps. What a step adds
comes from long epochs, what an epoch border adds from the difference between many short epochs and one long one.
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

STEPS = 6
EPOCHS = 20


class Tensors:
    """Batches that are already tensors."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.batches, self.steps_per_epoch = batches, len(batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same batches every epoch."""
        yield from self.batches[start:]


def bare(model: nn.Module, batches: list[tuple[Tensor, Tensor]], epochs: int) -> float:
    """Return the seconds of a hand-written loop."""
    loss = segkit.losses.build("dice_mix")
    optimizer = segkit.optimizers.build("SGD", {"lr": 1e-3}, model.parameters())
    started = time.perf_counter()
    for _ in range(epochs):
        model.train()
        for image, target in batches:
            value = loss(model(image), target)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
    return time.perf_counter() - started


def ours(model: nn.Module, batches: list[tuple[Tensor, Tensor]], epochs: int) -> float:
    """Return the seconds of segkit's loop."""
    device = choose(str(batches[0][0].device), "float32")
    objective = Objective([segkit.losses.component("dice_mix")], [], model, exclusive=False)
    optimizer = segkit.optimizers.build("SGD", {"lr": 1e-3}, model.parameters())
    state = State(model, optimizer, Schedule.constant(optimizer), device.scaler(), objective)
    state.first_batch = [{}]  # the table of the first batch is made once a trial, not once a step
    started = time.perf_counter()
    for _ in train(state, Tensors(batches), device, epochs=epochs):
        pass
    return time.perf_counter() - started


def measure(rounds: int, device: str) -> tuple[list[float], list[float]]:
    """Return the microseconds added a step and an epoch border, one of each a round."""
    torch.manual_seed(0)
    model = segkit.models.build("unet", {"widths": [4, 8]}, 1, 2).to(device, memory_format=torch.channels_last)
    batches = [
        (torch.randn(2, 1, 32, 32, device=device), (torch.rand(2, 2, 32, 32, device=device) > 0.5).float())
        for _ in range(STEPS)
    ]
    steps, borders = [], []
    for number in range(rounds):
        times = {}
        pairs = [("bare", bare), ("ours", ours)]
        for name, loop in pairs if number % 2 else pairs[::-1]:
            times[name, "long"] = loop(copy.deepcopy(model), batches * EPOCHS, 1)
            times[name, "short"] = loop(copy.deepcopy(model), batches, EPOCHS)
        steps.append((times["ours", "long"] - times["bare", "long"]) / (STEPS * EPOCHS) * 1e6)
        border = {name: (times[name, "short"] - times[name, "long"]) / (EPOCHS - 1) for name in ("bare", "ours")}
        borders.append((border["ours"] - border["bare"]) * 1e6)
    return steps, borders


def main() -> None:
    """Print the medians and quartiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure(3, options.device)
    steps, borders = measure(options.rounds, options.device)
    for name, found, bound in (("step", steps, 60), ("epoch border", borders, 1000)):
        low, middle, high = statistics.quantiles(found, n=4)
        print(f"added per {name}: {middle:.0f} us (quartiles {low:.0f} to {high:.0f}; bound {bound})")


if __name__ == "__main__":
    main()
