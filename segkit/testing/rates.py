"""Try what moves weights: optimizers, and schedulers of their learning rates."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from segkit.components.schedulers import Schedule
from segkit.errors import ended
from segkit.registry.component import Component
from segkit.testing.examples import network
from segkit.testing.report import Report
from segkit.testing.surroundings import leaves_alone
from segkit.training.flatten import flatten, unflatten

STEPS = 40
MEANT = ("not trained", "frozen", "leaves out")
EPOCHS, STEPS_PER_EPOCH = 6, 4
VAL_LOSSES = (1.0, 0.8, 0.9, 0.9, 0.7, 0.9)


def examine_optimizer(report: Report, component: Component) -> None:
    """Try an optimizer: it goes downhill, and goes on from a saved state to the bit."""
    module = network()
    optimizer = report.build(component, list(module.parameters()))
    if optimizer is None:
        return
    before = report.faults
    with report.trying(f"asked for {STEPS} steps down a quadratic"):
        _goes_down(report, module, optimizer)
        if report.faults == before:
            _follows(report, component)
    if report.faults == before:
        with report.trying("saved and loaded"):
            _optimizer_goes_on(report, component)
    with report.trying("built and asked to step"):
        leaves_alone(report, lambda: _moved(component), may_draw=("torch",))
    with report.trying("asked to step where nothing has a gradient"):
        optimizer.zero_grad()
        optimizer.step()


def _moved(component: Component) -> None:
    module = network()
    _pull(module, component.build(list(module.parameters())))


def _pull(module: nn.Module, optimizer: Optimizer, target: float = 0.3) -> float:
    """Make a step towards weights of `target`; return the squared distance before it."""
    optimizer.zero_grad()
    distance = sum((parameter - target).square().sum() for parameter in module.parameters())
    torch.autograd.backward(distance)  # type: ignore[arg-type]
    optimizer.step()
    return float(distance)


def _goes_down(report: Report, module: nn.Module, optimizer: Optimizer) -> None:
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    missing = [name for name, parameter in module.named_parameters() if id(parameter) not in held]
    if missing:
        say = report.note if report.says(*MEANT) else report.fault
        say(
            f"it leaves out parameters, which are not trained: {', '.join(missing)}. If so meant, say in its docstring."
        )
    values = [_pull(module, optimizer) for _ in range(STEPS)]
    if not all(map(math.isfinite, values)):
        report.fault(f"weights are not finite after {STEPS} steps down a quadratic at its own learning rate.")
    elif values[-1] >= values[0]:
        report.fault(
            f"it does not go downhill: after {STEPS} steps the squared distance from the minimum is {values[-1]:.4g}, "
            f"at first {values[0]:.4g}."
        )


def _follows(report: Report, component: Component) -> None:
    """Pull two equal networks apart: the weights have to follow."""
    pulled = []
    for target in (0.3, -0.3):
        module, state = network(), torch.get_rng_state()
        optimizer = component.build(list(module.parameters()))
        for _ in range(STEPS):
            _pull(module, optimizer, target)
        torch.set_rng_state(state)
        pulled.append(module)
    if all(map(torch.equal, *(module.parameters() for module in pulled))):
        report.fault("its steps are the same whatever the gradients are: use `weight.grad`.")


def _optimizer_goes_on(report: Report, component: Component) -> None:
    """Save after 3 steps, as a checkpoint does, load, and compare the next 3."""
    module, twin = network(), network()
    optimizer = component.build(list(module.parameters()))
    for _ in range(3):
        _pull(module, optimizer)
    try:
        tensors, skeleton = flatten(optimizer.state_dict())
    except TypeError as error:
        report.fault(f"its state cannot be saved: {ended(error)} Keep tensors, numbers, strings, lists and dicts.")
        return
    saved = {key: tensor.clone() for key, tensor in tensors.items()}
    twin.load_state_dict(module.state_dict())
    other = component.build(list(twin.parameters()))
    other.load_state_dict(unflatten(json.loads(json.dumps(skeleton)), saved))
    generator = torch.get_rng_state()  # a checkpoint holds it too
    for weights, stepping in ((module, optimizer), (twin, other)):
        torch.set_rng_state(generator)
        for _ in range(3):
            _pull(weights, stepping)
    if not all(map(torch.equal, module.parameters(), twin.parameters())):
        report.fault(
            "it does not go on from a saved state: steps differ after loading. Keep all it remembers in `self.state` "
            "and `param_groups`.",
            report.source.state_line(),
        )


def examine_scheduler(report: Report, component: Component) -> None:
    """Try a scheduler: finite rates of 0 or more over a training, and the same ones resumed."""
    make: Callable[[], tuple[Optimizer, Any]] = lambda: _scheduled(component)  # noqa: E731
    if report.build(component, _sgd(), EPOCHS, STEPS_PER_EPOCH) is None:
        return
    before = report.faults
    with report.trying(f"stepped through {EPOCHS} epochs of {STEPS_PER_EPOCH} steps"):
        _rates_are_sane(report, _run(*make(), 0, EPOCHS))
    if report.faults > before:
        return
    with report.trying("built and stepped"):
        leaves_alone(report, lambda: _run(*make(), 0, 1))
    with report.trying("saved and loaded"):
        _schedule_goes_on(report, make)


def _sgd() -> Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)


def _scheduled(component: Component) -> tuple[Optimizer, Schedule]:
    optimizer = _sgd()
    return optimizer, Schedule.of(component.build(optimizer, EPOCHS, STEPS_PER_EPOCH))


def _run(optimizer: Optimizer, schedule: Schedule, first: int, last: int) -> list[float]:
    """Return the learning rate of each step of some epochs."""
    rates = []
    for epoch in range(first, last):
        for _ in range(STEPS_PER_EPOCH):
            weight = optimizer.param_groups[0]["params"][0]
            weight.grad = torch.ones_like(weight)
            optimizer.step()
            rates.append(float(optimizer.param_groups[0]["lr"]))
            schedule.step_batch()
        schedule.step_epoch(VAL_LOSSES[epoch])
    return rates


def _rates_are_sane(report: Report, rates: list[float]) -> None:
    for number, rate in enumerate(rates, 1):
        if not math.isfinite(rate) or rate < 0:
            report.fault(f"the learning rate of step {number} of {len(rates)} is {rate}.")
            return
    if 0 in rates:
        report.note(f"the learning rate is 0 in {rates.count(0)} of {len(rates)} steps: nothing is learned there.")
    if not any(rates):
        report.fault("the learning rate is 0 from start to end: nothing is learned.")


def _schedule_goes_on(report: Report, make: Callable[[], tuple[Optimizer, Any]]) -> None:
    """Save halfway as a checkpoint does, load, and compare the rates that follow."""
    half = EPOCHS // 2
    optimizer, schedule = make()
    _run(optimizer, schedule, 0, half)
    try:
        tensors, skeleton = flatten([optimizer.state_dict(), schedule.state_dict()])
    except TypeError as error:
        report.fault(f"its state cannot be saved: {ended(error)} Keep numbers, strings, lists and dicts.")
        return
    own, state = unflatten(json.loads(json.dumps(skeleton)), {key: tensor.clone() for key, tensor in tensors.items()})
    other, resumed = make()
    other.load_state_dict(own)
    resumed.load_state_dict(state)
    expected, found = _run(optimizer, schedule, half, EPOCHS), _run(other, resumed, half, EPOCHS)
    if expected != found:
        report.fault(
            f"it does not go on from a saved state: rates {found} instead of {expected}. Keep what it remembers in "
            "plain attributes.",
            report.source.state_line(),
        )
