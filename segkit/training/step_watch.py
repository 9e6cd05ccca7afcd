"""Checks on the first batch and the steps of a training that plugins take part in; errors name the plugin."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segkit.components.optimizers import parameter_ids, wrong_rate
from segkit.errors import first_few
from segkit.registry.component import Component
from segkit.registry.faults import ComponentError, fault, plugin_parts
from segkit.training.global_state import GeneratorWatch
from segkit.training.objective import Objective
from segkit.training.tracing import all_finite, tensors_in

MANY = 16  # steps by which an optimizer that accumulates gradients itself should have moved


class StepWatch:
    """Checks the first batch and every step that a plugin computes or schedules; segkit's and torch's cost nothing.

    Attributes:
        optimizer, scheduler, model, step: what comes from a plugin of each slot: the component, or one nested in it.
        warnings: what the first step showed that does not prevent training.
        only_zero_rates: whether a plugin's scheduler has set every learning rate to 0 so far.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        parts: Mapping[str, Component],
        training_step: nn.Module | None = None,
    ) -> None:
        self.objective, self.torch_optimizer, self.parts = objective, optimizer, parts
        self.training_step = training_step or nn.Module()
        self.optimizer, self.scheduler, self.model, self.step = (
            next(plugin_parts(part), None) if (part := parts.get(slot)) is not None else None
            for slot in ("optimizer", "scheduler", "model", "step")
        )
        self.proximal = next((term.component for term in objective.steps if term.untrusted), None)
        self.only_zero_rates = self.scheduler is not None
        self._gradients: tuple[int, Tensor] | None = None  # the last step that had some, and their norms
        self._initial: list[Tensor] | None = None
        self.warnings: list[str] = []
        self._generators: GeneratorWatch | None = None
        self._due = 0  # steps that should have moved a weight; -1 once one has

    @property
    def at_once(self) -> bool:
        """Whether a plugin moves or penalizes weights, so that a loss is to be read before they move on."""
        plugin = self.optimizer or self.proximal
        return plugin is not None or any(term.untrusted for term in self.objective.penalties)

    def left_out(self) -> ComponentError | None:
        """Return what is wrong with a plugin's optimizer that does not hold all weights; None if it does."""
        held = parameter_ids(self.torch_optimizer)
        names = [name for name, weight in self.objective.parameters if id(weight) not in held]
        if not names or self.optimizer is None:
            return None
        count = f"{len(names)} of {len(self.objective.parameters)} parameters"
        return fault(self.optimizer, f"it leaves out {count}, which are not trained: {first_few(names, 3)}.")

    def model_fault(self, text: str) -> ComponentError | None:
        """Return the error of a plugin's model; None if no plugin takes part in the model."""
        return fault(self.model, text, within=self.parts["model"]) if self.model is not None else None

    def step_fault(self, terms: Mapping[str, float], *, scored: bool) -> ComponentError | None:
        """Return the error of a plugin's step with a loss of its own that is not finite; None if it is not at fault.

        Args:
            terms: the losses by name.
            scored: whether scores are known, and finite; else all weights have to be.
        """
        own = {name: value for name, value in terms.items() if name.startswith("step.")}
        bad = [name for name, value in own.items() if not math.isfinite(value)]
        if self.step is None or not bad:
            return None
        if not scored and not all_finite(weight for _, weight in self.objective.parameters):
            return None
        finite = "scores" if scored else "all weights"
        return fault(self.step, f"its loss {bad[0]} is {own[bad[0]]} although {finite} are finite.")

    def check_first_batch(
        self, module: nn.Module, values: Sequence[Tensor], scored: tuple[Any, Tensor] | None, *, finite: bool
    ) -> None:
        """Check the gradients of a first batch, which are `finite` or not, where plugins take part in them.

        Args:
            module: the model.
            values: the summands.
            scored: the scores and target that the losses were computed from.
            finite: whether all gradients are.

        Raises:
            ComponentError: the gradient of a loss, a penalty, the model or the step is not finite although values and
                scores are, or the model has weights that it has not registered.
        """
        scores = list(tensors_in(scored[0:1])) if scored is not None else []
        known = (*module.parameters(), *self.training_step.parameters())
        hidden = _unregistered_weight(scores, known) if self.model is not None else None
        wrong: ComponentError | None = None
        if hidden is not None:
            wrong = self.model_fault(
                f"it computes with a weight of shape {tuple(hidden.shape)} that is not among its parameters, so it is "
                "neither trained nor saved: keep layers as attributes, or in `nn.ModuleList`."
            )
        elif not finite and all_finite((*scores, *values)):  # else `LossWatch` reports it
            wrong = self.objective.infinite_gradient(*scored, penalties=True) if scored is not None else None
            through_model = self.objective.gradients(scores[0].sum()) if wrong is None and scores else []
            if self.model is not None and not all_finite(through_model):
                wrong = self.model_fault("the gradient of its weights is not finite, though its scores are.")
            if wrong is None and self.step is not None:
                wrong = fault(self.step, "the gradient of its losses is not finite, though their values are.")
        if wrong is not None:
            raise wrong

    def before_step(self, step: int) -> None:
        """Check the learning rates and note the gradients that step number `step`, from 0, is about to use.

        Raises:
            ComponentError: a learning rate is negative or not finite.
        """
        plugin = self.scheduler or self.optimizer
        wrong = wrong_rate(self.torch_optimizer) if plugin is not None else None
        if plugin is not None and wrong is not None:
            raise fault(plugin, wrong)
        self.only_zero_rates = self.only_zero_rates and not any(self._rates())
        if self.model is not None and step == 0:
            missing = missing_gradients(self.objective.parameters)
            self.warnings += [str(fault(self.model, f"on the first batch, {missing}"))] if missing else []
        if self.optimizer is None and self.proximal is None:
            return
        weights = [weight for _, weight in self.objective.parameters]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        if gradients:
            self._gradients = step, torch.stack(torch._foreach_norm(gradients))
        if self._due == 0 and self._initial is None and self.optimizer is not None:
            self._initial, self._generators = [weight.detach().clone() for weight in weights], GeneratorWatch()

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.torch_optimizer.param_groups]

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
        pairs = zip(weights, self._initial, strict=True)
        if any(now.shape != then.shape or not now.requires_grad for now, then in pairs):
            text = "its step changes the shape of weights, or sets their `requires_grad` to False."
            raise fault(self.optimizer, text)
        if not all(map(torch.equal, weights, self._initial)):
            self._initial, self._due = None, -1
            return
        norms = self._gradients[1] if self._gradients else torch.zeros(1)
        self._due += any(self._rates()) and all_finite([norms]) and bool(norms.any())

    def end_epoch(self) -> None:
        """Raise ComponentError unless the optimizer has moved a weight by now."""
        if self.optimizer is None or self._initial is None or self._due == 0:
            return
        if self._due >= MANY or not self.torch_optimizer.state:
            text = f"its step has changed no weight in {self._due} steps with a gradient and a learning rate above 0."
            raise fault(self.optimizer, text)

    def infinite_weights(self, step: int) -> ComponentError | None:
        """Return the error of a plugin whose last step, number `step`, made non-finite weights of finite gradients."""
        plugin = self.optimizer or self.proximal
        if plugin is None or self._gradients is None:
            return None
        last, norms = self._gradients
        if last != step - 1 or not all_finite([norms]):
            return None
        if all_finite(weight for _, weight in self.objective.parameters):
            return None
        return fault(
            plugin,
            f"its step made weights that are not finite from finite gradients (step {step}, learning rate "
            f"{self._rates()[0]:g}): a quotient, a root, or a rate far too high?",
        )


def missing_gradients(parameters: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the fault of a model whose backward pass has left parameters without a gradient; None without one."""
    missing = [name for name, weight in parameters if weight.grad is None]
    return f"no gradient reaches {first_few(missing, 3)}: is a layer unused or detached?" if missing else None


def _unregistered_weight(scores: Iterable[Tensor], weights: Iterable[nn.Parameter]) -> Tensor | None:
    """Return a weight that the scores are computed with and that is not among those given."""
    known, seen = {id(weight) for weight in weights}, set[Any]()
    waiting: list[Any] = [level.grad_fn for level in scores]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        weight = getattr(node, "variable", None)
        if isinstance(weight, nn.Parameter) and id(weight) not in known:
            return weight
        waiting += [before for before, _ in node.next_functions]
    return None
