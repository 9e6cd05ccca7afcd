"""A recipe's step while it trains: what it returns is checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segkit.components.steps import steps
from segkit.components.supervised import Supervised
from segkit.device import put
from segkit.errors import first_few
from segkit.registry.component import Component
from segkit.registry.faults import ComponentError, fault, key, raise_fault, wrong_type
from segkit.training.global_state import GeneratorWatch, restore, settings
from segkit.training.objective import Objective
from segkit.training.owned import Owned
from segkit.training.terms import WATCHED, not_a_scalar
from segkit.types import Batch, Forward, Scores

Seen = tuple[Scores, Tensor]
"""What the objective was called with: scores and target."""
NAME = re.compile(r"\w+(\.\w+)*")


class _Losses:
    """The objective as a step gets it; it remembers the first scores and target, for what explains a failure."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.seen: Seen | None = None

    def __call__(self, scores: Scores, target: Tensor, members: Tensor | None = None) -> dict[str, Tensor]:
        if members is not None and not members.all():
            rows = put(members.cpu().numpy().nonzero()[0], target.device)  # a choice by bools would wait for a GPU
            target = target[rows]
            scores = scores[rows] if isinstance(scores, Tensor) else tuple(level[rows] for level in scores)
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
        owned: its attributes, which are saved and restored.
        warnings: what its first call showed that does not prevent training.
    """

    def __init__(self, component: Component | None = None) -> None:
        self.component = component or steps.component("supervised")
        self.module: nn.Module = self.component()
        self.owned = Owned(self.component, self.module)
        self._supervised = isinstance(self.module, Supervised)  # which needs no checks
        self.warnings: list[str] = []
        self._names: list[str] = []  # of the losses that it returns
        self._updated = getattr(self.module, "updated", None)
        self._model: nn.Module | None = None

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Let it make what depends on the model, and move all that it owns to the device.

        Raises:
            ComponentError: it failed, changed what the model consists of, or has attributes that would not be saved.
        """
        watch, before, self._model = GeneratorWatch(), _outline(model), model
        try:
            prepare = getattr(self.module, "prepare", None)
            if prepare is not None:
                prepare(model)
            self.module.to(device)
        except BaseException as error:
            raise_fault(self.component, error)
        self.warnings += watch.warnings(self.component)
        after = _outline(model)
        if changed := sorted(name for name in before | after if before.get(name) != after.get(name)):
            text = f"it changes what the model has or trains ({first_few(changed, 3)}): own a copy; see `train.freeze`."
            raise fault(self.component, text)
        self.owned.begin(model)

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
        if self._model is not None and not self._model.training:
            raise fault(self.component, "it leaves the model in eval mode: call its `train()` again.")
        self._check_losses(found, batch.image.device)
        if watch is not None:
            self.warnings += watch.warnings(self.component)
            self.owned.check()
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


def _outline(model: nn.Module) -> dict[str, bool]:
    """Return the names of a model's weights and buffers, and whether each is trained."""
    return dict.fromkeys(model.state_dict(), False) | {name: p.requires_grad for name, p in model.named_parameters()}
