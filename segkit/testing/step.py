"""Try a step: a few steps of a training, resumed to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segkit.components.losses import losses
from segkit.components.schedulers import Schedule
from segkit.device import choose
from segkit.registry.component import Component
from segkit.testing.examples import masks, seeded
from segkit.testing.report import Report
from segkit.training.flatten import flatten, load_optimizer, unflatten
from segkit.training.loop import State, train
from segkit.training.objective import Objective
from segkit.training.training_step import TrainingStep
from segkit.types import Batch

STEPS, HALF = 6, 3
SIZE = (32, 32)
TUPLE = "with a model that also returns scores of lower resolution"


class _Network(nn.Module):
    """A small network, which may return scores of two resolutions in training."""

    def __init__(self, outputs: int, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Conv2d(4, outputs, 1)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        scores: Tensor = self.head(self.body(image))
        if self.levels == 1 or not self.training:
            return scores
        return scores, nn.functional.avg_pool2d(scores, 2)


@dataclass
class _Batches:
    """Batches of four; where a step can use them, some or all of their samples have no masks."""

    exclusive: bool
    unlabelled: bool
    steps_per_epoch: int = STEPS

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches, the same each time."""
        for number in range(start, STEPS):
            image = torch.randn(4, 1, *SIZE, generator=torch.Generator().manual_seed(number))
            target = masks(4, 2 + self.exclusive, SIZE, exclusive=self.exclusive)
            labelled = torch.ones(4, dtype=torch.bool)
            if self.unlabelled:
                labelled[: (2, 4, 0)[number % 3]] = False
                target[~labelled] = torch.tensor([1.0, 0, 0] if self.exclusive else [0.0, 0]).view(-1, 1, 1)
            yield Batch(image, target, labelled)


def examine_step(report: Report, component: Component) -> None:
    """Try a step: scalar losses of the same names, with independent and exclusive classes; saved and loaded."""
    report.build(component)
    for exclusive in (False, True):
        what = f"run for {STEPS} steps with {'exclusive classes' if exclusive else 'independent channels'}"
        with report.trying(what, needed=True):
            state = _trained(_state(component, exclusive), STEPS)
            for text in state.training_step.warnings:
                report.warn(text)
    known = len(report.findings)
    with report.trying(f"run {TUPLE}"):
        _trained(_state(component, False, levels=2), STEPS)
    if len(report.findings) > known:
        found = report.findings.pop()
        report.note(f"{found.text} Let `objective` and `objective.probabilities` take its scores.", found.place)
    with report.trying("saved and loaded"):
        _resumes(report, component)
    report.check_side_effects(lambda: _trained(_state(component, False), 1), may_draw=("torch",))


def _state(component: Component, exclusive: bool, levels: int = 1) -> State:
    """Return the state of a training that begins; its weights are always the same."""
    with seeded():
        model = _Network(2 + exclusive, levels)
        objective = Objective([losses.component("dice_mix")], (), model, exclusive=exclusive)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        step = TrainingStep(component)
        step.prepare(model, torch.device("cpu"))
    scaler = choose("cpu", "float32").scaler()
    parts = {"step": component}
    return State(model, optimizer, Schedule.constant(optimizer), scaler, objective, training_step=step, parts=parts)


def _trained(state: State, steps: int) -> State:
    """Return a state after so many steps in all."""
    traits = state.training_step.component.entry.traits
    batches = _Batches(state.objective.levels.exclusive, bool(traits["unlabelled"]))
    for report in train(state, batches, choose("cpu", "float32"), epochs=1):
        if report.step == steps:
            break
    return state


def _resumes(report: Report, component: Component) -> None:
    """Save halfway, load, and compare the weights in the end."""
    with seeded():
        whole = _trained(_state(component, False), STEPS)
    with seeded():
        half = _trained(_state(component, False), HALF)
        held = (
            half.model.state_dict(),
            half.optimizer.state_dict(),
            half.training_step.owned.state(),
            torch.get_rng_state(),
        )
        tensors, skeleton = flatten(held)
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        weights, moved, owned, generator = unflatten(json.loads(json.dumps(skeleton)), copies)
        resumed = _state(component, False)
        resumed.model.load_state_dict(weights)
        load_optimizer(resumed.optimizer, moved)
        resumed.training_step.owned.load(owned)
        torch.set_rng_state(generator)
        resumed.batch, resumed.step, resumed.first_batch = half.batch, half.step, half.first_batch
        _trained(resumed, STEPS)
    pairs = zip(_tensors(whole), _tensors(resumed), strict=True)
    if not all(torch.equal(one, other) for one, other in pairs):
        text = "it does not resume from a saved state: the steps after loading differ."
        report.fault(f"{text} Keep what changes in modules, buffers, optimizers, and plain numbers as attributes.")


def _tensors(state: State) -> list[Tensor]:
    """Return the weights and buffers of the model and of the step."""
    return [*state.model.state_dict().values(), *state.training_step.module.state_dict().values()]
