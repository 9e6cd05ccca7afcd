"""Initializers: the spread of the weights, zero biases, and what is left alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from segkit import initializers

NAMES = initializers.names()


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(64), nn.Sequential(nn.Linear(64, 128)))


def weights(name: str, module: nn.Sequential) -> list[torch.Tensor]:
    initializers.build(name)(module)
    return [value for key, value in module.state_dict().items() if key in ("0.weight", "2.0.weight")]


FANS = [(32 * 9, 64 * 9), (64, 128)]


@pytest.mark.parametrize("name, variance", [("xavier", lambda i, o: 2 / (i + o)), ("kaiming", lambda i, o: 2 / i)])
def test_variances_follow_the_papers(name, variance) -> None:  # type: ignore[no-untyped-def]
    for kind in ("normal", "uniform"):
        for weight, fans in zip(weights(f"{name}_{kind}", layers()), FANS, strict=True):
            expected = variance(*fans)
            assert weight.var().item() == pytest.approx(expected, rel=0.1)
            assert weight.mean().item() == pytest.approx(0, abs=4 * math.sqrt(expected / weight.numel()))
            widest = weight.abs().max().item() / math.sqrt(expected)
            assert widest > 2.5 if kind == "normal" else widest <= math.sqrt(3) + 1e-6


def test_orthogonal_rows_or_columns() -> None:
    for weight in weights("orthogonal", layers()):
        matrix = weight.flatten(1)
        small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        assert torch.allclose(small, torch.eye(len(small)), atol=1e-5)


def test_default_changes_nothing() -> None:
    module = layers()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    initializers.build("default")(module)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_finite_weights_and_norm_layers_stay(name: str) -> None:
    states = []
    for _ in range(2):
        module = layers()
        initializers.build(name)(module)
        states.append(module.state_dict())
    for key, value in states[0].items():
        assert torch.isfinite(value).all()
        assert torch.equal(value, states[1][key])
        if key.startswith("1.weight"):
            assert torch.equal(value, torch.ones_like(value))
        if key.endswith("bias") and name != "default":
            assert torch.equal(value, torch.zeros_like(value))


@pytest.mark.parametrize("name", NAMES)
def test_layers_without_bias_and_transposed_layers_are_filled_too(name: str) -> None:
    module = nn.ConvTranspose2d(4, 8, 2, stride=2, bias=False)
    nn.init.zeros_(module.weight)
    initializers.build(name)(module)
    assert (module.weight.abs().sum() > 0) == (name != "default")
