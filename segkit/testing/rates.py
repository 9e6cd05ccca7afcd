"""Try optimizers and schedulers of their learning rates."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from segkit.components.optimizers import wrong_rate
from segkit.components.schedulers import Schedule
from segkit.errors import ContractError, sentence
from segkit.registry.component import Component
from segkit.registry.faults import described
from segkit.testing.examples import network, seeded
from segkit.testing.report import Report
from segkit.training.flatten import flatten, unflatten
from segkit.training.objective import Objective
from segkit.training.step_watch import StepWatch

STEPS = 40
FROZEN = ("not trained", "frozen", "leaves out")
EPOCHS, STEPS_PER_EPOCH = 6, 4
VAL_LOSSES = (1.0, 0.8, 0.9, 0.9, 0.7, 0.9)


def examine_optimizer(report: Report, component: Component) -> None:
    """Try an optimizer: it goes downhill, and resumes from a saved state to the bit."""
    module = network()
    optimizer = report.build(component, list(module.parameters()))
    with report.trying(f"run for {STEPS} steps on a quadratic function"):
        _goes_down(report, component, module, optimizer)
        if not report.faults:
            _uses_gradients(report, component)
    if not report.faults:
        with report.trying("saved and loaded"):
            _optimizer_resumes(report, component)
    if not report.faults:
        _takes_groups(report, component)
    with report.trying("built and stepped"):
        report.check_side_effects(lambda: _stepped(component, 1), may_draw=("torch",))
    with report.trying("stepped without any gradient"):
        optimizer.zero_grad()
        optimizer.step()


def _backward(module: nn.Module, target: float = 0.3) -> float:
    """Make the gradients of the squared distance of all weights from `target`; return it."""
    module.zero_grad()
    distance = sum((parameter - target).square().sum() for parameter in module.parameters())
    torch.autograd.backward(distance)  # type: ignore[arg-type]
    return float(distance)


def _stepped(component: Component, steps: int, target: float = 0.3) -> tuple[nn.Module, Optimizer]:
    """Return the network and its optimizer after some steps towards weights of `target`."""
    module = network()
    optimizer: Optimizer = component.build(list(module.parameters()))
    for _ in range(steps):
        _backward(module, target)
        optimizer.step()
    return module, optimizer


def _goes_down(report: Report, component: Component, module: nn.Module, optimizer: Optimizer) -> None:
    """Step towards a minimum, checked as training checks each step."""
    watch = StepWatch(Objective((), (), module, exclusive=False), optimizer, {"optimizer": component})
    left_out, values = watch.left_out(), []
    if left_out is not None:
        add = report.note if report.documents(*FROZEN) else report.fault
        add(f"{left_out.text} If intended, say so in its docstring.")
    for step in range(STEPS):
        values.append(_backward(module))
        watch.before_step(step)
        optimizer.step()
        watch.after_step()
        wrong = watch.infinite_weights(step + 1)
        if wrong is not None:
            raise wrong
    watch.end_epoch()
    if not values[-1] < values[0]:
        change = f"the squared distance from the minimum goes from {values[0]:.4g} to {values[-1]:.4g}"
        report.fault(f"it does not go downhill: {change} in {STEPS} steps.")


def _uses_gradients(report: Report, component: Component) -> None:
    """Pull two equal networks in opposite directions: their weights must differ."""
    pulled = []
    for target in (0.3, -0.3):
        with seeded():
            pulled.append(_stepped(component, STEPS, target)[0].parameters())
    if all(map(torch.equal, *pulled)):
        report.fault("its steps do not depend on the gradients: use `weight.grad`.")


def _takes_groups(report: Report, component: Component) -> None:
    """Note an optimizer that a recipe cannot give `groups`."""
    first, *others = network().parameters()
    try:
        component.build([{"params": others}, {"params": [first], "lr": 0.01}])
    except Exception as error:
        text = f"a recipe cannot give it `groups` of parameters: {described(error)}."
        report.note(
            f"{text} Pass what it is handed on to torch.optim.Optimizer as it is.", report.source.of_error(error)
        )


def _saved(state: Any) -> Any:
    """Return a state as a checkpoint saves and loads it."""
    try:
        tensors, skeleton = flatten(state)
    except TypeError as error:
        text = f"its state cannot be saved: {sentence(error)} Keep tensors, numbers, strings, lists and dicts."
        raise ContractError(text) from None
    return unflatten(json.loads(json.dumps(skeleton)), {key: tensor.clone() for key, tensor in tensors.items()})


def _optimizer_resumes(report: Report, component: Component) -> None:
    """Save after 3 steps, load, and compare the next 3."""
    twin, (module, optimizer) = network(), _stepped(component, 3)
    state = _saved(optimizer.state_dict())
    twin.load_state_dict(module.state_dict())
    other = component.build(list(twin.parameters()))
    other.load_state_dict(state)
    for weights, stepping in ((module, optimizer), (twin, other)):
        with seeded():  # a checkpoint holds torch's generator too
            for _ in range(3):
                _backward(weights)
                stepping.step()
    if not all(map(torch.equal, module.parameters(), twin.parameters())):
        text = "it does not resume from a saved state: the steps after loading differ."
        report.fault(f"{text} Keep all state in `self.state` and `param_groups`.")


def examine_scheduler(report: Report, component: Component) -> None:
    """Try a scheduler: finite learning rates of 0 or more over a training, and the same ones when it resumes."""
    make = functools.partial(_scheduled, component)
    report.build(component, _sgd(), EPOCHS, STEPS_PER_EPOCH)
    with report.trying(f"stepped through {EPOCHS} epochs of {STEPS_PER_EPOCH} steps", needed=True):
        rates = _run(*make(), 0, EPOCHS)
        if not any(rates):
            report.fault("the learning rate is 0 from beginning to end: nothing is learned.")
        elif 0 in rates:
            report.note(f"the learning rate is 0 in {rates.count(0)} of {len(rates)} steps: nothing is learned there.")
    with report.trying("built and stepped"):
        report.check_side_effects(lambda: _run(*make(), 0, 1))
    with report.trying("saved and loaded"):
        _schedule_resumes(report, make)


def _sgd() -> Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)


def _scheduled(component: Component) -> tuple[Optimizer, Schedule]:
    optimizer = _sgd()
    return optimizer, Schedule.of(component.build(optimizer, EPOCHS, STEPS_PER_EPOCH))


def _run(optimizer: Optimizer, schedule: Schedule, first: int, last: int) -> list[float]:
    """Return the learning rate of each step of some epochs."""
    rates: list[float] = []
    for epoch in range(first, last):
        for _ in range(STEPS_PER_EPOCH):
            wrong = wrong_rate(optimizer)
            if wrong is not None:
                raise ContractError(f"in step {len(rates) + 1}, {wrong}")
            weight = optimizer.param_groups[0]["params"][0]
            weight.grad = torch.ones_like(weight)
            optimizer.step()
            rates.append(float(optimizer.param_groups[0]["lr"]))
            schedule.step_batch()
        schedule.step_epoch(VAL_LOSSES[epoch])
    return rates


def _schedule_resumes(report: Report, make: Callable[[], tuple[Optimizer, Schedule]]) -> None:
    """Save halfway, load, and compare the rates that follow."""
    half = EPOCHS // 2
    (optimizer, schedule), (other, resumed) = make(), make()
    _run(optimizer, schedule, 0, half)
    state = _saved([optimizer.state_dict(), schedule.state_dict()])
    other.load_state_dict(state[0])
    resumed.load_state_dict(state[1])
    expected, found = _run(optimizer, schedule, half, EPOCHS), _run(other, resumed, half, EPOCHS)
    if expected != found:
        text = f"it does not resume from a saved state: rates {found} instead of {expected}."
        report.fault(f"{text} Keep its state in plain attributes.")
