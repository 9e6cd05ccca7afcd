"""Compiled models: each architecture once in a process."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from segkit.training import compiling


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trace without a compiler, which takes most of the time."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    compiling._kept.clear()
    counters.clear()
    yield
    torch.compiler.reset()
    compiling._kept.clear()


def run(channels: int, batch: int = 2) -> str:
    model = nn.Sequential(nn.Conv2d(1, channels, 3), nn.ReLU())
    forward, told = compiling.compiled(model)
    found = forward(torch.ones(batch, 1, 8, 8))
    assert isinstance(found, torch.Tensor)
    assert found.requires_grad
    return told


def programs() -> int:
    return int(counters["stats"]["unique_graphs"])


def test_models_that_are_built_alike_are_compiled_once() -> None:
    told = [run(4) for _ in range(3)]
    assert told == ["with compiling", *["its network known from an earlier trial"] * 2]
    assert programs() == 1
    run(5)
    assert programs() == 2


def test_every_size_of_a_batch_has_a_program_of_its_own() -> None:
    """So that a training that resumes at its smaller last batch computes as one that came there from full ones."""
    for batch in (4, 2, 3, 4, 2):
        run(4, batch)
    assert programs() == 3


def test_every_one_of_many_architectures_is_compiled() -> None:
    """Torch by itself runs the ninth uncompiled."""
    for channels in range(1, 21):
        run(channels)
    assert programs() == 20
    run(20)
    assert programs() == 20
    run(1)  # that of an early one was given up
    assert programs() == 21
