"""What a plugin's optimizer and scheduler do to the weights: looked at around each step, named where it is wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

from segkit.components.optimizers import wrong_rate
from segkit.errors import UserError
from segkit.registry.component import Component
from segkit.registry.faults import fault, plugin_parts
from segkit.training.objective import Objective
from segkit.training.tracing import Generators

KEPT = 64  # steps whose gradients are remembered: on CUDA a loss is read some steps later
MANY = 16  # steps after which an optimizer that only gathers gradients should have moved


class StepWatch:
    """Looks at every step that a plugin makes or rates; segkit's own and torch's cost nothing.

    Args:
        objective: whose parameters are moved.
        optimizer: what moves them.
        parts: the recipe's components by slot.

    Attributes:
        doubts: what was found at the first step that does not keep it from training.
        idle: whether every rate was 0 so far, where a plugin's scheduler sets them.
    """

    def __init__(self, objective: Objective, optimizer: torch.optim.Optimizer, parts: Mapping[str, Component]) -> None:
        self.objective, self.stepping = objective, optimizer
        self.optimizer, self.scheduler, self.model = (
            next(plugin_parts(part), None) if (part := parts.get(slot)) is not None else None
            for slot in ("optimizer", "scheduler", "model")
        )
        self.proximal = next((term.component for term in objective.steps if term.foreign), None)
        self.idle = self.scheduler is not None
        self._gradients: deque[tuple[int, Tensor]] = deque(maxlen=KEPT)
        self._first: list[Tensor] | None = None
        self.doubts: list[str] = []
        self._generators: Generators | None = None
        self._pushed = 0  # steps that should have moved a weight, until one has

    def before(self, step: int) -> None:
        """Look at the rates and gradients that a step is about to use.

        Args:
            step: how many were made before it.

        Raises:
            ComponentError: a learning rate is negative or not finite.
        """
        blamed = self.scheduler or self.optimizer
        wrong = wrong_rate(self.stepping) if blamed is not None else None
        if blamed is not None and wrong is not None:
            raise fault(blamed, wrong)
        self.idle = self.idle and not any(float(group["lr"]) for group in self.stepping.param_groups)
        if self.model is not None and step == 0:
            self._reached(self.model)
        if self.optimizer is None and self.proximal is None:
            return
        weights = [weight for _, weight in self.objective.parameters]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if gradients:
            self._gradients.append((step, torch.stack(torch._foreach_norm(gradients))))
        if self._pushed == 0 and self._first is None and self.optimizer is not None:
            self._first, self._generators = [weight.detach().clone() for weight in weights], Generators()

    def _reached(self, model: Component) -> None:
        missed = [name for name, weight in self.objective.parameters if weight.grad is None]
        if missed:
            shown = ", ".join(missed[:3]) + (" and others" if len(missed) > 3 else "")
            text = f"no gradient reaches {shown} on the first batch: a layer that is not used, or a detached one?"
            self.doubts.append(str(fault(model, text)))

    def after(self) -> None:
        """Look whether a step has moved a weight, until one has."""
        if self._generators is not None and self.optimizer is not None:
            self.doubts += self._generators.doubts(self.optimizer)
            self._generators = None
        if self._first is None or self.optimizer is None:
            return
        weights = [weight for _, weight in self.objective.parameters]
        if any(
            now.shape != then.shape or not now.requires_grad for now, then in zip(weights, self._first, strict=True)
        ):
            raise fault(self.optimizer, "its step changes the shape of weights, or so that they are not trained.")
        if not all(map(torch.equal, weights, self._first)):
            self._first, self._pushed = None, -1
            return
        rates = [float(group["lr"]) for group in self.stepping.param_groups]
        pulled = bool(self._gradients) and bool(torch.isfinite(self._gradients[-1][1]).all())
        self._pushed += pulled and any(rates) and bool(self._gradients[-1][1].any())

    def settle(self) -> None:
        """Look at a finished epoch.

        Raises:
            ComponentError: the optimizer has moved nothing.
        """
        if self.optimizer is None or self._first is None or self._pushed == 0:
            return
        if self._pushed >= MANY or not self.stepping.state:
            text = f"its step has changed no weight in {self._pushed} steps with a gradient and a rate above 0."
            raise fault(self.optimizer, text)

    def ruined(self, step: int) -> UserError | None:
        """Return the error of an optimizer that made weights infinite or NaN of finite gradients; None if it did not.

        Args:
            step: the steps done when it was noticed, after a loss that was finite.
        """
        known, blamed = dict(self._gradients).get(step - 1), self.optimizer or self.proximal
        if blamed is None or known is None or not bool(torch.isfinite(known).all()):
            return None
        if all(bool(torch.isfinite(weight).all()) for _, weight in self.objective.parameters):
            return None
        return fault(
            blamed,
            f"its step made weights that are not finite of finite gradients (step {step}, learning rate "
            f"{float(self.stepping.param_groups[0]['lr']):g}): a quotient, a root, or a rate far too high?",
        )
