"""The optimizer registry: which of torch's are there, what a recipe may set, and that they step as torch's do."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import nn

from segkit import UserError, optimizers
from segkit.training.parameters import check_groups, for_optimizer, matching
from segkit.types import Fraction, Positive

FIRST_STUDY = [
    ("Adam", {"lr": 2e-3}),
    ("Adam", {"lr": 2e-3, "weight_decay": 0.1}),
    ("SGD", {"lr": 2e-3, "momentum": 0.95}),
    ("RMSprop", {"lr": 2e-3}),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_net() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.BatchNorm2d(8),
        torch.nn.Conv2d(8, 2, 3, padding=1),
    )


def train(net: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(2, 1, 16, 16, generator=generator)
    target = (torch.rand(2, 2, 16, 16, generator=generator) > 0.5).float()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(net(image), target)
        torch.autograd.backward(loss)
        optimizer.step()


def usable(cls: type[torch.optim.Optimizer]) -> bool:
    """Whether an optimizer moves the weight of a convolution without a closure."""
    weight = torch.nn.Parameter(torch.ones(2, 2, 3, 3))
    weight.grad = torch.ones_like(weight)
    try:
        cls([weight]).step()  # type: ignore[call-arg]
    except (TypeError, ValueError, RuntimeError):
        return False
    return not torch.equal(weight, torch.ones_like(weight))


def test_every_usable_optimizer_of_torch_is_there_and_no_other() -> None:
    found = {
        name
        for name, cls in vars(torch.optim).items()
        if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer
        if usable(cls)
    }
    assert set(optimizers.names()) >= found
    assert {entry.name for entry in optimizers if entry.origin == "torch.optim"} == found
    assert {"Adam", "AdamW", "SGD", "RMSprop"} <= found


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer_steps_with_its_defaults_and_says_what_it_is(name: str) -> None:
    net = small_net()
    before = copy.deepcopy(net.state_dict())
    train(net, optimizers.build(name, {}, net.parameters()), 2)
    assert all(torch.isfinite(weight).all() for weight in net.parameters())
    assert not torch.equal(before["0.weight"], net.state_dict()["0.weight"])
    assert optimizers[name].summary


@pytest.mark.parametrize("name", optimizers.names())
def test_defaults_are_those_of_torch(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    ours = optimizers.build(name, {}, [weight]).defaults
    theirs = getattr(torch.optim, name)([weight]).defaults
    for key, value in theirs.items():
        if key != "fused" and value != (None, 0.001):
            assert ours[key] == value, key


def test_adafactors_none_becomes_the_number_it_stands_for() -> None:
    a, b = small_net(), small_net()
    train(a, optimizers.build("Adafactor", {}, a.parameters()), 5)
    train(b, torch.optim.Adafactor(b.parameters()), 5)
    for ours, theirs in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("name", "values"), FIRST_STUDY)
def test_first_weights_equal_plain_torch(name: str, values: dict[str, Any]) -> None:
    a, b = small_net(), small_net()
    ours = optimizers.build(name, values, a.parameters())
    theirs = getattr(torch.optim, name)(b.parameters(), **values)
    for _ in range(10):
        train(a, ours, 1)
        train(b, theirs, 1)
        for mine, plain in zip(a.parameters(), b.parameters(), strict=True):
            assert (mine - plain).abs().max() <= 1e-6 * plain.abs().max()


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adagrad"])
def test_fused_where_torch_has_it(name: str) -> None:
    assert optimizers.build(name, {}, small_net().parameters()).defaults["fused"] is True


def test_falls_back_where_no_fused_step_exists() -> None:
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    assert not optimizers.build("Adam", {}, [weight]).defaults["fused"]


def test_takes_parameter_groups() -> None:
    net = small_net()
    groups = [{"params": list(net[0].parameters()), "lr": 0.5}, {"params": list(net[3].parameters())}]
    optimizer = optimizers.build("Adam", {"lr": 0.1}, groups)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]


def grouped(name: str, groups: list[dict[str, Any]]) -> tuple[torch.nn.Sequential, torch.optim.Optimizer]:
    net, component = small_net(), optimizers.component(name, {"lr": 0.1, "groups": groups})
    return net, component(for_optimizer(net, component))


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer_takes_groups_of_which_the_first_match_wins(name: str) -> None:
    groups = [{"match": "3.*", "lr": 0.5}, {"match": ["norms", "biases"], "lr": 0.01}]
    net, optimizer = grouped(name, groups)
    names = {id(weight): name for name, weight in net.named_parameters()}
    found = [([names[id(weight)] for weight in group["params"]], group["lr"]) for group in optimizer.param_groups]
    assert found == [(["0.weight"], 0.1), (["3.weight", "3.bias"], 0.5), (["0.bias", "2.weight", "2.bias"], 0.01)]
    before = copy.deepcopy(net.state_dict())
    train(net, optimizer, 2)
    assert not any(torch.equal(before[name], net.state_dict()[name]) for name in names.values())


def test_norms_and_biases_are_spared_decay_and_no_group_is_empty() -> None:
    _, optimizer = grouped("AdamW", [{"match": ["norms", "biases"], "weight_decay": 0}, {"match": "*", "lr": 0.2}])
    assert [(len(g["params"]), g["weight_decay"], g["lr"]) for g in optimizer.param_groups] == [
        (4, 0, 0.1),
        (2, 0.01, 0.2),
    ]


def test_a_parameter_of_a_plugin_that_its_optimizer_shares_cannot_be_set_for_a_group() -> None:
    def shared(parameters: Any, *, lr: Positive = 0.1, smoothing: Fraction = 0.5) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(parameters, lr=lr)

    before = optimizers.snapshot()
    optimizers.register("shared")(shared)
    try:
        component = optimizers.component("shared", {"groups": [{"match": "biases", "smoothing": 0.1}]})
        made = component(for_optimizer(small_net(), component))
        with pytest.raises(UserError, match="'smoothing' is one number for all weights, and cannot be set for a group"):
            check_groups(component, made)
    finally:
        optimizers.restore(before)


def test_of_several_words_one_may_match_nothing_but_not_all() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.InstanceNorm2d(2))
    assert matching(model, ["norms", "biases"], "here") == {"0.bias"}
    with pytest.raises(UserError, match=r"^here: the model has no norms with parameters to match\.$"):
        matching(model, ["norms"], "here")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [{"match": "norms", "weight_dcay": 0}],
            r"groups.0.weight_dcay: no such parameter. Did you mean 'weight_decay",
        ),
        ([{"match": "norms", "lr": -1}], r"groups.0.lr: must be above 0, got -1"),
        ([{"match": "norms"}], "groups: group 0 sets no parameter"),
        ([{"lr": 1}], "groups.0.match: this parameter is required"),
        ([{"match": "4.*", "lr": 1}], r"groups.0.match: '4.\*' matches no parameter of the model. Did you mean '3.\*'"),
        (
            [{"match": "3.*", "lr": 1}, {"match": "3.bias", "lr": 2}],
            "groups.1: all that it matches belongs to an earlier",
        ),
    ],
)
def test_wrong_groups_are_refused(groups: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        grouped("AdamW", groups)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("Adam", {"learning_rate": 1e-3}, "learning_rate: no such parameter"),
        ("Adam", {"lr": 0}, "must be above 0"),
        ("Adam", {"lr": "1e-3"}, "must be a number, got"),
        ("Adam", {"lr": True}, "must be a number, got"),
        ("Adam", {"betas": [0.9]}, "betas"),
        ("Adam", {"betas": [0.9, 1.0]}, "must be below 1"),
        ("Adam", {"amsgrad": 1}, "must be true or false"),
        ("SGD", {"maximize": True}, "maximize: no such parameter"),
        ("SGD", {"fused": True}, "fused: no such parameter"),
        ("SGD", {"momentum": 95}, "must be 1 or less"),
        ("LBFGS", {}, "no such optimizer"),
        ("Muon", {}, "no such optimizer"),
        ("Adm", {}, "Did you mean 'Adam'"),
    ],
)
def test_wrong_values_are_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        optimizers.component(name, values)


def test_torch_refuses_what_only_it_can_judge() -> None:
    component = optimizers.component("SGD", {"nesterov": True})
    with pytest.raises(UserError, match=r"optimizer\.SGD: Nesterov momentum requires a momentum"):
        component(small_net().parameters())


def test_names_match_loosely() -> None:
    assert optimizers["rms_prop"].name == "RMSprop"


def test_the_dump_holds_every_default_and_builds_the_same() -> None:
    dumped = optimizers.component("Adafactor", {"lr": 0.5}).dump()["Adafactor"]
    assert None not in dumped["eps"]
    assert optimizers.component("Adafactor", dumped).dump() == {"Adafactor": dumped}
