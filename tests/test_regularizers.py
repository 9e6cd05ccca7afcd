"""Regularizers against naive float64 formulas, and every registered one against its slot's contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from segkit import regularizers
from segkit.errors import UserError

NAMES = regularizers.names()
Named = list[tuple[str, nn.Parameter]]


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 2, 2, stride=2), nn.Conv2d(2, 1, 1)]
    return nn.Sequential(*layers).to(dtype)


def named(module: nn.Module) -> Named:
    return list(module.named_parameters())


def values(module: nn.Module, apply_to: str) -> list[float]:
    chosen = [p for _, p in module.named_parameters() if apply_to == "all" or p.ndim > 1]
    return [value for p in chosen for value in p.flatten().tolist()]


def build(name: str, **parameters: Any) -> Any:
    return regularizers.build(name, parameters)


@pytest.mark.parametrize("apply_to", ["all", "weights"])
def test_penalties_equal_their_formula_in_float64(apply_to: str) -> None:
    module = network()
    numbers = values(module, apply_to)
    assert len(numbers) == (65 if apply_to == "all" else 53)
    absolutes, square = sum(abs(w) for w in numbers), sum(w * w for w in numbers)
    expected: dict[str, tuple[float, dict[str, Any]]] = {
        "l1": (absolutes, {}),
        "l2": (square**0.5, {}),
        "l2 squared": (square, {"squared": True}),
        "l1l2": (0.3 * absolutes + 0.2 * square**0.5, {"l1": 0.3, "l2": 0.2}),
        "l1l2 squared": (0.3 * absolutes + 0.2 * square, {"l1": 0.3, "l2": 0.2, "squared": True}),
    }
    for case, (value, parameters) in expected.items():
        regularizer = build(case.split()[0], apply_to=apply_to, **parameters)
        assert regularizer(named(module)).item() == pytest.approx(value, rel=1e-12), case


def test_orthogonal_is_0_for_orthogonal_layers_and_counts_each_deviation() -> None:
    conv = nn.Conv2d(2, 3, 2, bias=False).double()
    nn.init.orthogonal_(conv.weight)
    orthogonal = build("orthogonal")
    assert orthogonal(named(conv)).item() == pytest.approx(0, abs=1e-12)
    with torch.no_grad():
        conv.weight[0] *= 2  # a row of length 2: its square misses 1 by 3
    assert orthogonal(named(conv)).item() == pytest.approx(9)
    tall = nn.Linear(2, 5, bias=False).double()
    nn.init.orthogonal_(tall.weight)
    assert orthogonal(named(tall)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["l1", "l2", "l1l2"])
def test_millions_of_float32_weights_keep_six_digits(name: str) -> None:
    torch.manual_seed(0)
    weights = [("a", nn.Parameter(0.02 * torch.randn(512, 512, 3, 3))), ("b", nn.Parameter(0.1 * torch.randn(64)))]
    exact = [(key, nn.Parameter(weight.detach().double())) for key, weight in weights]
    assert build(name)(weights).item() == pytest.approx(build(name)(exact).item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("squared", [False, True])
def test_gradients_are_right(name: str, squared: bool) -> None:
    if squared and "squared" not in regularizers[name].fields:
        pytest.skip("this one has no square")
    regularizer = build(name, **({"squared": True} if squared else {}))
    names, parameters = zip(*network().named_parameters(), strict=True)
    with torch.no_grad():
        parameters[3].fill_(0.1)  # biases of a norm start at 0, where an absolute has no derivative
    assert torch.autograd.gradcheck(lambda *p: regularizer(zip(names, p, strict=True)), parameters)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_finite_where_all_weights_are_0(name: str) -> None:
    module = network(torch.float32)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    regularizer = build(name)
    value = regularizer(iter(named(module)))
    assert value.shape == ()
    assert torch.isfinite(value)
    value.backward()
    for parameter in module.parameters():
        assert parameter.grad is None or torch.equal(parameter.grad, torch.zeros_like(parameter))


@pytest.mark.parametrize("name", NAMES)
def test_no_parameters_cost_nothing(name: str) -> None:
    assert build(name)([]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_step_along_the_gradient_makes_the_penalty_smaller(name: str) -> None:
    regularizer, module = build(name), network()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    before = regularizer(named(module))
    before.backward()
    optimizer.step()
    assert regularizer(named(module)) < before


@pytest.mark.parametrize("apply_to", ["all", "weights"])
def test_proximal_l1_pulls_each_weight_towards_0_and_stops_there(apply_to: str) -> None:
    module = network()
    expected = {
        key: p.detach().clone() if p.ndim == 1 and apply_to == "weights" else p.sign() * (p.abs() - 0.1).clamp_min(0)
        for key, p in module.named_parameters()
    }
    regularizer = build("l1", proximal=True, apply_to=apply_to)
    assert regularizer.proximal
    regularizer.step(named(module), 0.1)
    for key, parameter in module.named_parameters():
        assert torch.allclose(parameter, expected[key], rtol=0, atol=1e-12)
        assert torch.equal(parameter == 0, expected[key] == 0)
    assert sum(value == 0 for value in values(module, "weights")) > 5


def test_proximal_l1_adds_no_gradient_but_tells_its_value() -> None:
    module = network()
    value = build("l1", proximal=True)(named(module))
    assert not value.requires_grad
    assert value == build("l1")(named(module))
    assert not build("l1").proximal


def test_proximal_l1_with_sgd_finds_the_lasso_solution_with_exact_zeros() -> None:
    """For 1/2 ||w - target||^2 + weight |w|_1 that is the target, soft-thresholded at the weight."""
    target = torch.tensor([1.0, -0.3, 0.05, -0.02], dtype=torch.float64)
    weight = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer, regularizer = torch.optim.SGD([weight], lr=0.5), build("l1", proximal=True)
    for _ in range(100):
        optimizer.zero_grad()
        (0.5 * (weight - target).square().sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        regularizer.step([("weight", weight)], 0.5 * 0.1)
    assert torch.allclose(weight, torch.tensor([0.9, -0.2, 0.0, 0.0], dtype=torch.float64))
    assert (weight == 0).tolist() == [False, False, True, True]


def test_a_step_of_no_parameters_does_nothing() -> None:
    build("l1", proximal=True).step([], 0.1)


def test_a_negative_factor_is_refused() -> None:
    with pytest.raises(UserError, match=r"regularizer\.l1l2\.l1.*must be 0 or more"):
        build("l1l2", l1=-1.0)
