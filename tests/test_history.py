"""The rows of metrics.csv: what goes in comes out, through a checkpoint too, and takes little memory."""

from __future__ import annotations

import math
import tracemalloc

import torch

from segkit.training.flatten import flatten, unflatten
from segkit.training.results import History


def row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "step": 3 * epoch, "val_loss": 1 / epoch} | {f"val_{n}": epoch / (n + 1) for n in range(17)}


def test_rows_come_out_as_they_went_in_through_a_checkpoint() -> None:
    history = History()
    for epoch in range(1, 6):
        history.append(row(epoch))
    tensors, skeleton = flatten(history.state())
    again = History.of(unflatten(skeleton, tensors))
    assert list(again) == list(history) == [row(epoch) for epoch in range(1, 6)]
    assert type(again[-1]["epoch"]) is int
    assert again[-1] == row(5)


def test_columns_may_come_and_go() -> None:
    history = History()
    history.append({"epoch": 1, "val_dice": 0.5})
    history.append({"epoch": 2, "val_iou": 0.25})
    assert history.names == ["epoch", "val_dice", "val_iou"]
    assert [math.isnan(value) for value in history[0].values()] == [False, False, True]
    assert [math.isnan(value) for value in history[1].values()] == [False, True, False]


def test_the_sizes_that_are_saved_are_few() -> None:
    history, sizes = History(), set()
    for epoch in range(1, 200):
        history.append(row(epoch))
        values: torch.Tensor = history.state()["values"]
        sizes.add(tuple(values.shape))
    assert len(sizes) == 8


def test_an_epoch_takes_little_memory_and_little_of_a_checkpoint() -> None:
    tracemalloc.start()
    history = History()
    for epoch in range(1, 1001):
        history.append(row(epoch))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held / 1000 < 400, "bytes an epoch of 20 numbers; as dictionaries they take over 1,000"
    tensors, skeleton = flatten(history.state())
    assert len(str(skeleton)) < 1000
    assert sum(tensor.nbytes for tensor in tensors.values()) == 20 * 1024 * 8
