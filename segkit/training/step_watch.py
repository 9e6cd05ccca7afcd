"""The watch over the steps of a plugin's optimizer and scheduler, which are named where they go wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import torch
from torch import Tensor

from segkit.components.optimizers import parameter_ids, wrong_rate
from segkit.registry.component import Component
from segkit.registry.faults import ComponentError, fault, plugin_parts
from segkit.training.global_state import GeneratorWatch
from segkit.training.objective import Objective

KEPT = 64  # steps whose gradient norms are remembered: on CUDA a loss is read some steps later
MANY = 16  # steps by which an optimizer that accumulates gradients itself should have moved


class StepWatch:
    """Checks every step that a plugin makes or schedules; those of segkit and torch cost nothing.

    Args:
        objective: whose parameters are optimized.
        optimizer: what steps.
        parts: the recipe's components by slot.

    Attributes:
        warnings: what the first step showed that does not prevent training.
        only_zero_rates: whether a plugin's scheduler has set every learning rate to 0 so far.
    """

    def __init__(self, objective: Objective, optimizer: torch.optim.Optimizer, parts: Mapping[str, Component]) -> None:
        self.objective, self.torch_optimizer = objective, optimizer
        self.optimizer, self.scheduler, self.model = (
            next(plugin_parts(part), None) if (part := parts.get(slot)) is not None else None
            for slot in ("optimizer", "scheduler", "model")
        )
        self.proximal = next((term.component for term in objective.steps if term.untrusted), None)
        self.only_zero_rates = self.scheduler is not None
        self._gradients: deque[tuple[int, Tensor]] = deque(maxlen=KEPT)
        self._initial: list[Tensor] | None = None
        self.warnings: list[str] = []
        self._generators: GeneratorWatch | None = None
        self._due = 0  # steps that should have moved a weight; -1 once one has

    def left_out(self) -> ComponentError | None:
        """Return what is wrong with a plugin's optimizer that does not hold all weights; None if it does."""
        held = parameter_ids(self.torch_optimizer)
        names = [name for name, weight in self.objective.parameters if id(weight) not in held]
        if not names or self.optimizer is None:
            return None
        shown, whole = ", ".join(names[:3]) + (" and others" if len(names) > 3 else ""), len(self.objective.parameters)
        text = f"it leaves out {len(names)} of {whole} parameters, which are not trained: {shown}."
        return fault(self.optimizer, text)

    def before_step(self, step: int) -> None:
        """Check the learning rates and note the gradients that a step is about to use.

        Args:
            step: the number of steps before it.

        Raises:
            ComponentError: a learning rate is negative or not finite.
        """
        plugin = self.scheduler or self.optimizer
        wrong = wrong_rate(self.torch_optimizer) if plugin is not None else None
        if plugin is not None and wrong is not None:
            raise fault(plugin, wrong)
        self.only_zero_rates = self.only_zero_rates and not any(
            float(group["lr"]) for group in self.torch_optimizer.param_groups
        )
        if self.model is not None and step == 0:
            self._warn_of_missing_gradients(self.model)
        if self.optimizer is None and self.proximal is None:
            return
        weights = [weight for _, weight in self.objective.parameters]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if gradients:
            self._gradients.append((step, torch.stack(torch._foreach_norm(gradients))))
        if self._due == 0 and self._initial is None and self.optimizer is not None:
            self._initial, self._generators = [weight.detach().clone() for weight in weights], GeneratorWatch()

    def _warn_of_missing_gradients(self, model: Component) -> None:
        missing = [name for name, weight in self.objective.parameters if weight.grad is None]
        if missing:
            shown = ", ".join(missing[:3]) + (" and others" if len(missing) > 3 else "")
            text = f"no gradient reaches {shown} on the first batch: a layer that is not used, or a detached one?"
            self.warnings.append(str(fault(model, text)))

    def after_step(self) -> None:
        """Check whether a step has moved a weight, until one has.

        Raises:
            ComponentError: the optimizer changes the shape of weights, or stops their training.
        """
        if self._generators is not None and self.optimizer is not None:
            self.warnings += self._generators.warnings(self.optimizer)
            self._generators = None
        if self._initial is None or self.optimizer is None:
            return
        weights = [weight for _, weight in self.objective.parameters]
        if any(
            now.shape != then.shape or not now.requires_grad for now, then in zip(weights, self._initial, strict=True)
        ):
            raise fault(
                self.optimizer, "its step changes the shape of weights, or sets their `requires_grad` to False."
            )
        if not all(map(torch.equal, weights, self._initial)):
            self._initial, self._due = None, -1
            return
        rates = [float(group["lr"]) for group in self.torch_optimizer.param_groups]
        finite = bool(self._gradients) and bool(torch.isfinite(self._gradients[-1][1]).all())
        self._due += finite and any(rates) and bool(self._gradients[-1][1].any())

    def end_epoch(self) -> None:
        """Check that the optimizer has moved a weight by now.

        Raises:
            ComponentError: it has not.
        """
        if self.optimizer is None or self._initial is None or self._due == 0:
            return
        if self._due >= MANY or not self.torch_optimizer.state:
            text = f"its step has changed no weight in {self._due} steps with a gradient and a learning rate above 0."
            raise fault(self.optimizer, text)

    def infinite_weights(self, step: int) -> ComponentError | None:
        """Return the error of an optimizer whose last step made weights that are not finite from finite gradients.

        Args:
            step: the number of steps so far; the loss before the last one was finite.
        """
        norms, plugin = dict(self._gradients).get(step - 1), self.optimizer or self.proximal
        if plugin is None or norms is None or not bool(torch.isfinite(norms).all()):
            return None
        if all(bool(torch.isfinite(weight).all()) for _, weight in self.objective.parameters):
            return None
        return fault(
            plugin,
            f"its step made weights that are not finite from finite gradients (step {step}, learning rate "
            f"{float(self.torch_optimizer.param_groups[0]['lr']):g}): a quotient, a root, or a rate far too high?",
        )
