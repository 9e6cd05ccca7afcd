"""The scheduler registry: torch's learning rates, each in its own unit, whole or resumed from plain data."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from segkit import UserError, schedulers
from segkit.components.schedulers import Schedule, scaled_rates, warmth

EPOCHS, STEPS = 12, 5

# What each needs beside its defaults; a new entry of the registry that is not here is tried with its defaults alone.
SETTINGS: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 4, "gamma": 0.1},
    "MultiStepLR": {"milestones": [3, 7]},
    "ExponentialLR": {"gamma": 0.97},
    "CosineAnnealingWarmRestarts": {"T_0": 3, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 7},
    "OneCycleLR": {"max_lr": 0.1},
    "PolynomialLR": {"total_iters": 10, "power": 0.9},
    "ReduceLROnPlateau": {"patience": 1, "factor": 0.5},
    "SequentialLR": {"schedulers": [{"LinearLR": {"total_iters": 4}}, {"CosineAnnealingLR": {}}], "milestones": [4]},
    "ChainedScheduler": {"schedulers": [{"LinearLR": {}}, {"ExponentialLR": {"gamma": 0.9}}]},
}
VAL_LOSSES = [1.0, 0.8, 0.9, 0.9, 0.9, 0.7, 0.9, 0.9, 0.9, 0.9, 0.2, 0.1]


def make_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)


def step(optimizer: torch.optim.Optimizer) -> None:
    weight = optimizer.param_groups[0]["params"][0]
    weight.grad = torch.ones_like(weight)
    optimizer.step()


def state_of(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    return optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]


def run(schedule: Schedule, optimizer: torch.optim.Optimizer, first: int, last: int) -> list[tuple[float, float]]:
    """Return learning rate and momentum of each step."""
    seen = []
    for epoch in range(first, last):
        for _ in range(STEPS):
            step(optimizer)
            seen.append(state_of(optimizer))
            schedule.step_batch()
        schedule.step_epoch(VAL_LOSSES[epoch])
    return seen


def build(name: str, values: dict[str, Any], optimizer: torch.optim.Optimizer) -> Schedule:
    return Schedule.of(schedulers.component(name, values)(optimizer, EPOCHS, STEPS))


def plain(name: str, optimizer: torch.optim.Optimizer) -> tuple[Any, str]:
    """Return torch's own scheduler, as one writes it by hand, and its unit."""
    values = SETTINGS.get(name, {})
    if name == "CosineAnnealingLR":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS), "epoch"
    if name == "OneCycleLR":
        return lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, epochs=EPOCHS, steps_per_epoch=STEPS), "step"
    if name == "SequentialLR":
        parts = [lr_scheduler.LinearLR(optimizer, total_iters=4), lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[4]), "epoch"
    if name == "ChainedScheduler":
        both = [lr_scheduler.LinearLR(optimizer), lr_scheduler.ExponentialLR(optimizer, gamma=0.9)]
        return lr_scheduler.ChainedScheduler(both), "epoch"
    return getattr(lr_scheduler, name)(optimizer, **values), "step" if name == "CyclicLR" else "epoch"


def run_plain(name: str) -> list[tuple[float, float]]:
    optimizer = make_optimizer()
    scheduler, unit = plain(name, optimizer)
    seen = []
    for epoch in range(EPOCHS):
        for _ in range(STEPS):
            step(optimizer)
            seen.append(state_of(optimizer))
            if unit == "step":
                scheduler.step()
        if unit == "epoch":
            scheduler.step(*[VAL_LOSSES[epoch]] if name == "ReduceLROnPlateau" else [])
    return seen


@pytest.mark.parametrize("name", schedulers.names())
def test_the_rates_of_parameter_groups_keep_their_ratio(name: str) -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    groups: list[dict[str, Any]] = [
        {"params": [weights[0]]},
        {"params": [weights[1]], "lr": 0.01},
        {"params": [weights[2]], "lr": 0.2},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    values = SETTINGS.get(name, {}) | ({"min_lr": 0.03} if name == "ReduceLROnPlateau" else {})
    schedule, alone = build(name, values, optimizer), make_optimizer()
    expected = iter(run(build(name, values, alone), alone, 0, EPOCHS))
    for epoch in range(EPOCHS):
        for _ in range(STEPS):
            rate = next(expected)[0]
            assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate, rate / 10, rate * 2])
            for weight in weights:
                weight.grad = torch.ones_like(weight)
            optimizer.step()
            schedule.step_batch()
        schedule.step_epoch(VAL_LOSSES[epoch])


def test_a_warm_up_scales_the_rates_of_a_step_and_leaves_the_schedule_alone() -> None:
    optimizer = make_optimizer()
    with scaled_rates(optimizer, warmth(0, 4)):
        assert optimizer.param_groups[0]["lr"] == 0.1 / 4
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert [warmth(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert warmth(0, 0) == 1.0


def test_every_scheduler_that_plain_values_can_set_is_there() -> None:
    classes = {
        name
        for name, cls in vars(lr_scheduler).items()
        if inspect.isclass(cls) and issubclass(cls, lr_scheduler.LRScheduler) and not name.startswith("_")
    }
    assert set(schedulers.names()) == classes - {"LRScheduler", "LambdaLR", "MultiplicativeLR"}


@pytest.mark.parametrize("name", schedulers.names())
def test_learning_rates_equal_plain_torch(name: str) -> None:
    optimizer = make_optimizer()
    seen = run(build(name, SETTINGS.get(name, {}), optimizer), optimizer, 0, EPOCHS)
    assert seen == run_plain(name)
    assert len({lr for lr, _ in seen}) > 1


@pytest.mark.parametrize("name", schedulers.names())
@pytest.mark.parametrize("stop", [1, 4, 7])
def test_resumed_from_plain_data_equals_never_stopped(name: str, stop: int) -> None:
    optimizer = make_optimizer()
    schedule = build(name, SETTINGS.get(name, {}), optimizer)
    run(schedule, optimizer, 0, stop)
    state = json.loads(json.dumps(schedule.state_dict(), allow_nan=False))
    fresh = make_optimizer()
    resumed = build(name, SETTINGS.get(name, {}), fresh)
    fresh.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(state)
    assert run(resumed, fresh, stop, EPOCHS) == run_plain(name)[stop * STEPS :]
    assert resumed.state_dict() == run_and_state(name)


def run_and_state(name: str) -> dict[str, Any]:
    optimizer = make_optimizer()
    schedule = build(name, SETTINGS.get(name, {}), optimizer)
    run(schedule, optimizer, 0, EPOCHS)
    return schedule.state_dict()


@pytest.mark.parametrize("name", schedulers.names())
def test_the_shortest_training_works(name: str) -> None:
    optimizer = make_optimizer()
    schedule = Schedule.of(schedulers.component(name, SETTINGS.get(name, {}))(optimizer, 1, 1))
    step(optimizer)
    schedule.step_batch()
    schedule.step_epoch(1.0)
    assert optimizer.param_groups[0]["lr"] >= 0


@pytest.mark.parametrize("name", schedulers.names())
def test_the_dump_builds_the_same(name: str) -> None:
    component = schedulers.component(name, SETTINGS.get(name, {}))
    assert schedulers.component(name, component.dump()[name]).dump() == component.dump()
    assert schedulers[name].summary.endswith(".")


def test_units() -> None:
    optimizer = make_optimizer()
    by_step = {name for name in schedulers.names() if build(name, SETTINGS.get(name, {}), optimizer).unit == "step"}
    assert by_step == {"OneCycleLR", "CyclicLR"}


def test_a_sequence_of_steps_has_its_milestones_in_steps() -> None:
    optimizer = make_optimizer()
    values = {
        "schedulers": [{"CyclicLR": SETTINGS["CyclicLR"]}, {"CyclicLR": {**SETTINGS["CyclicLR"], "max_lr": 0.5}}],
        "milestones": [30],
    }
    schedule = build("SequentialLR", values, optimizer)
    assert schedule.unit == "step"
    seen = [lr for lr, _ in run(schedule, optimizer, 0, EPOCHS)]
    assert max(seen[:30]) <= 0.1 < max(seen[30:])


def test_lengths_are_those_of_the_part() -> None:
    optimizer = make_optimizer()
    values = {
        "schedulers": [{"CosineAnnealingLR": {}}, {"CosineAnnealingLR": {}}, {"CosineAnnealingLR": {"T_max": 3}}],
        "milestones": [2, 7],
    }
    parts = build("SequentialLR", values, optimizer).scheduler._schedulers  # type: ignore[attr-defined]
    assert [part.T_max for part in parts] == [2, 5, 3]


def test_milestones_beyond_a_shortened_training_do_no_harm() -> None:
    optimizer = make_optimizer()
    run(
        build("SequentialLR", {**SETTINGS["SequentialLR"], "milestones": [EPOCHS + 3]}, optimizer), optimizer, 0, EPOCHS
    )


def test_a_chain_may_hold_a_sequence() -> None:
    optimizer = make_optimizer()
    sequence = {"SequentialLR": SETTINGS["SequentialLR"]}
    schedule = build("ChainedScheduler", {"schedulers": [sequence, {"ConstantLR": {}}]}, optimizer)
    run(schedule, optimizer, 0, EPOCHS)
    assert json.loads(json.dumps(schedule.state_dict(), allow_nan=False)) == schedule.state_dict()


def test_loss_scaling_may_skip_the_first_step_of_the_optimizer() -> None:
    optimizer = make_optimizer()
    schedule = build("OneCycleLR", {"max_lr": 0.1}, optimizer)
    schedule.step_batch()  # nothing stepped before; torch alone would warn, and warnings are errors here


def test_a_component_may_give_a_scheduler_a_pair_or_a_schedule() -> None:
    scheduler = lr_scheduler.StepLR(make_optimizer(), 3)
    assert Schedule.of(scheduler).unit == "epoch"
    assert Schedule.of((scheduler, "step")).unit == "step"
    schedule = Schedule(scheduler)
    assert Schedule.of(schedule) is schedule
    for wrong in ("StepLR", (scheduler, "batch"), (scheduler, "step", 1)):
        with pytest.raises(ValueError, match="alone or with its unit 'epoch' or 'step'"):
            Schedule.of(wrong)


def test_a_sequence_has_at_least_two_parts() -> None:
    with pytest.raises(UserError, match=r"SequentialLR\.schedulers: must be a list of at least 2 values, got the list"):
        build("SequentialLR", {"schedulers": [{"LinearLR": {}}], "milestones": []}, make_optimizer())


MIXED = {"schedulers": [{"OneCycleLR": {"max_lr": 0.1}}, {"StepLR": {"step_size": 3}}]}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("SequentialLR", {**MIXED, "milestones": [3]}, "different units: OneCycleLR by step, StepLR by epoch"),
        ("ChainedScheduler", MIXED, "different units"),
        ("SequentialLR", {**SETTINGS["SequentialLR"], "milestones": [3, 5]}, "2 schedulers need 1 milestone, got 2"),
        (
            "SequentialLR",
            {"schedulers": [{"LinearLR": {}}, {"LinearLR": {}}, {"LinearLR": {}}], "milestones": [5, 3]},
            "milestones must increase",
        ),
        (
            "SequentialLR",
            {"schedulers": [{"LinearLR": {}}, {"ChainedScheduler": SETTINGS["ChainedScheduler"]}], "milestones": [5]},
            "cannot start a ChainedScheduler at a milestone",
        ),
        ("ChainedScheduler", {"schedulers": [{"ReduceLROnPlateau": {}}]}, "does not support `ReduceLROnPlateau`"),
        ("ReduceLROnPlateau", {"factor": 1.0}, "Factor should be < 1.0"),
    ],
)
def test_what_makes_no_sense_together_is_refused_when_built(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(name, values, make_optimizer())


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("StepLR", {}, "step_size: this parameter is required"),
        ("StepLR", {"step_size": 0}, "must be 1 or more"),
        ("StepLR", {"step_size": 1.5}, "must be a whole number"),
        ("StepLR", {"stepsize": 3, "step_size": 3}, "Did you mean 'step_size'"),
        ("StepLR", {"step_size": 3, "last_epoch": 4}, "last_epoch: no such parameter"),
        ("ReduceLROnPlateau", {"mode": "max"}, "mode: no such parameter"),
        ("OneCycleLR", {"max_lr": 0.1, "anneal_strategy": "cosine"}, 'must be "cos" or "linear"'),
        ("SequentialLR", {"schedulers": [{"StepLR": {"size": 3}}], "milestones": []}, "size: no such parameter"),
        ("LambdaLR", {}, "no such scheduler"),
        ("SWALR", {}, "no such scheduler"),
    ],
)
def test_wrong_values_are_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        schedulers.component(name, values)
