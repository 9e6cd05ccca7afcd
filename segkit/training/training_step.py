"""A recipe's step while it trains: its losses, checked, and what it owns, saved and restored."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segkit.components.steps import steps
from segkit.components.supervised import Supervised
from segkit.errors import first_few
from segkit.registry.component import Component
from segkit.registry.faults import ComponentError, fault, key, raise_fault, wrong_type
from segkit.training.flatten import flatten, load_optimizer
from segkit.training.global_state import GeneratorWatch, restore, settings
from segkit.training.objective import Objective
from segkit.training.terms import WATCHED, not_a_scalar
from segkit.types import Batch, Forward, Scores

Seen = tuple[Scores, Tensor]
"""What the objective was called with: scores and target."""
NAME = re.compile(r"\w+(\.\w+)*")
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class _Losses:
    """The objective as a step gets it; it remembers the first scores and target, for what explains a failure."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.seen: Seen | None = None

    def __call__(self, scores: Scores, target: Tensor, members: Tensor | None = None) -> dict[str, Tensor]:
        if members is not None and not members.all():
            target = target[members]
            scores = scores[members] if isinstance(scores, Tensor) else tuple(level[members] for level in scores)
        if self.seen is None and target.shape[0]:
            self.seen = scores, target
        return self.objective(scores, target)

    def probabilities(self, scores: Scores) -> Tensor:
        return self.objective.levels.logits(scores[0] if isinstance(scores, tuple) else scores).sigmoid()


class TrainingStep:
    """The step of a recipe.

    Args:
        component: a step; by default `supervised`.

    Attributes:
        warnings: what its first call showed that does not prevent training.
    """

    def __init__(self, component: Component | None = None) -> None:
        self.component = component or steps.component("supervised")
        self.module: nn.Module = self.component()
        self._supervised = isinstance(self.module, Supervised)  # which needs no checks
        self.warnings: list[str] = []
        self._names: list[str] = []  # of the losses that it returns
        self._updated = getattr(self.module, "updated", None)

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Let it make what depends on the model, and move all that it owns to the device.

        Raises:
            ComponentError: it failed, or has attributes that would not be saved.
        """
        watch = GeneratorWatch()
        try:
            prepare = getattr(self.module, "prepare", None)
            if prepare is not None:
                prepare(model)
            self.module.to(device)
        except BaseException as error:
            raise_fault(self.component, error)
        self.warnings += watch.warnings(self.component)
        self._check_attributes()

    def __call__(self, model: Forward, batch: Batch, objective: Objective) -> tuple[list[Tensor], Seen | None]:
        """Return the objective's summands on a batch, penalties included, and what its losses were computed from.

        Raises:
            ComponentError: it failed, or did not return scalar losses under the names of the first call.
        """
        losses = _Losses(objective)
        found = self.module.forward(model, batch, losses) if self._supervised else self._checked(model, batch, losses)
        own, penalties = [*found.values()], objective.penalty_values()
        learned = own + penalties if self._supervised else own
        if not learned[0].requires_grad and not any(value.requires_grad for value in learned):
            raise self._no_gradient(objective, losses.seen)
        return own + penalties, losses.seen

    def _checked(self, model: Forward, batch: Batch, losses: _Losses) -> dict[str, Tensor]:
        """Return the losses of a step, those of the recipe first and in its order."""
        before, watch = settings(WATCHED), None if self._names else GeneratorWatch()
        try:
            found = self.module(model, batch, losses)
        except BaseException as error:
            raise_fault(self.component, error)
        for name in restore(before):
            raise fault(self.component, f"it changes a global setting ({name}): leave it, or restore it.")
        self._check_losses(found, batch.image.device)
        if watch is not None:
            self.warnings += watch.warnings(self.component)
            self._check_attributes()
            self._adopt(found, losses.objective)
        elif found.keys() != set(self._names):
            raise fault(
                self.component,
                f"it returns {first_few(sorted(found))}, but returned {first_few(sorted(self._names))} on its first "
                "batch: return the same names at every step, with a value of 0 where there is nothing to add.",
            )
        return {name: found[name] for name in self._names}

    def _adopt(self, found: Mapping[str, Tensor], objective: Objective) -> None:
        """Remember the names of the losses, and tell the objective, where those of the step have its name too."""
        known = [name for name in objective.loss_names if name in found]
        added = sorted(found.keys() - set(known))
        self._names = [*known, *added]
        objective.adopt([*known, *(f"{key(self.component.entry)}.{name}" for name in added)])

    def _check_losses(self, found: Any, device: torch.device) -> None:
        wrong = wrong_type(found, dict, "dict of losses by name")
        if wrong is not None or not found:
            raise fault(self.component, wrong or "it returns no loss: return at least one, by name.")
        for name, value in found.items():
            if not (isinstance(name, str) and NAME.fullmatch(name)):
                raise fault(self.component, f"it names a loss {name!r}: use letters, digits, '_' and '.'.")
            if not (isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()):
                raise fault(self.component, f"the loss '{name}': {not_a_scalar(value)}")
            if value.device != device:
                raise fault(self.component, f"the loss '{name}' is on {value.device}, the batch is on {device}.")

    def _no_gradient(self, objective: Objective, seen: Seen | None) -> ComponentError:
        wrong = objective.no_gradient(*seen) if seen is not None else None
        return wrong or fault(
            self.component,
            "its losses have no gradient, so nothing is learned: are the model's scores detached, or computed under "
            "no_grad?",
        )

    def updated(self, model: nn.Module) -> None:
        """Tell it that the recipe's optimizer has stepped.

        Raises:
            ComponentError: it failed.
        """
        if self._updated is not None:
            try:
                self._updated(model)
            except BaseException as error:
                raise_fault(self.component, error)

    def _attributes(self) -> dict[str, Any]:
        """Return its attributes other than modules, parameters and buffers."""
        return {name: value for name, value in vars(self.module).items() if name not in PLAIN_MODULE}

    def _check_attributes(self) -> None:
        """Raise ComponentError if an attribute holds what would be neither moved nor saved."""
        for name, value in self._attributes().items():
            wrong = None
            if isinstance(value, Tensor):
                wrong = f"is a tensor: keep it with `self.register_buffer('{name}', ...)`"
            elif isinstance(value, GENERATORS):
                wrong = "is a random generator: draw from torch's global one, which is saved"
            elif any(isinstance(item, nn.Module) or _has_state(item) for item in _items(value)):
                wrong = "holds what has a state: make each an attribute of its own, or use `nn.ModuleList`"
            if wrong is not None:
                raise fault(self.component, f"its attribute '{name}', which is neither moved nor saved, {wrong}.")

    def state(self) -> dict[str, Any]:
        """Return what it owns, as nested plain values and tensors; {} if it owns nothing.

        Raises:
            ComponentError: the state of one of its attributes cannot be saved.
        """
        own, found = self._attributes(), dict[str, Any]()
        try:
            found["module"] = self.module.state_dict()
            found["states"] = {name: value.state_dict() for name, value in own.items() if _has_state(value)}
            flatten(found)
        except BaseException as error:
            raise_fault(self.component, error)
        found["values"] = {name: value for name, value in own.items() if _is_plain(value)}
        return found if any(found.values()) else {}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` gave.

        Raises:
            ComponentError: it does not fit.
        """
        try:
            self.module.load_state_dict(state.get("module", {}))
            for name, saved in state.get("states", {}).items():
                holder = getattr(self.module, name)
                if isinstance(holder, torch.optim.Optimizer):
                    load_optimizer(holder, saved)
                else:
                    holder.load_state_dict(saved)
            for name, value in state.get("values", {}).items():
                setattr(self.module, name, value)
        except BaseException as error:
            raise_fault(self.component, error)


PLAIN_MODULE = frozenset(vars(nn.Module()))


def _has_state(value: Any) -> bool:
    """Return whether a value is an optimizer, a schedule, or the like."""
    return not isinstance(value, nn.Module) and hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (list, tuple, set)):
        yield from value


def _is_plain(value: Any) -> bool:
    try:
        return not flatten(value)[0]
    except TypeError:
        return False
