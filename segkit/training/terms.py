"""The summands of the objective; a fault in one is reported with its name, file and line."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segkit.registry.component import Component
from segkit.registry.faults import ComponentError, fault, key, raise_fault, wrong_type
from segkit.registry.source import ComponentCode
from segkit.training.global_state import GeneratorWatch, changed_setting, restore, settings
from segkit.training.tracing import (
    Happened,
    all_finite,
    breaks_graph,
    changes,
    place_of_infinite_gradient,
    place_where,
    turns_infinite,
)

Parameters = Sequence[tuple[str, Tensor]]
ROUNDING = 1e-6
WATCHED = ("torch.set_grad_enabled", "torch.set_default_dtype", "torch.set_num_threads")  # at every call


class Term:
    """One summand: the component of a recipe, and what it built.

    Its inputs are the logits and target of a loss, or the named parameters of a regularizer.

    Args:
        component: a loss or a regularizer.
        compute: what it built: a function of its inputs.
        untrusted: whether its results are checked, as those of plugins are.

    Attributes:
        parts: the names of the summands of a loss that is a sum (see `segkit.losses`), none otherwise.
        names: one for each part, e.g. "loss.sum.dice", or that of the component alone.
        proximal: whether it is a regularizer that steps after the optimizer rather than a penalty.
        warnings: what the first call found that does not prevent training.
    """

    def __init__(self, component: Component, compute: Callable[..., Any], untrusted: bool = True) -> None:
        self.component, self.compute, self.untrusted = component, compute, untrusted
        self.weight = component.weight
        plain = inspect.isfunction(compute)
        self.parts = () if plain else tuple(getattr(compute, "parts", ()))
        self.names = [f"{key(component.entry)}.{part}" for part in self.parts] or [key(component.entry)]
        self.proximal = not plain and bool(getattr(compute, "proximal", False))
        self.warnings: list[str] = []

    @classmethod
    def of(cls, component: Component) -> Term:
        """Build a component; raise ComponentError if it cannot be built."""
        try:
            return cls(component, component.build(), component.entry.foreign)
        except BaseException as error:
            raise_fault(component, error)

    def __call__(self, *inputs: Any) -> Sequence[Tensor]:
        """Return the values, one for each name.

        Raises:
            ComponentError: it raised, returned something other than scalar tensors, or changed a setting of torch's.
        """
        before = settings(WATCHED) if self.untrusted else {}
        try:
            found = tuple(self.compute.terms(*inputs)) if self.parts else (self.compute(*inputs),)  # type: ignore[attr-defined]
        except BaseException as error:
            raise_fault(self.component, error)
        if self.untrusted:
            for name in restore(before):
                raise fault(self.component, *changed_setting(name, self._source, lambda: self.compute(*inputs)))
            for value in found:
                if not (isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()):
                    raise fault(self.component, not_a_scalar(value))
            if len(found) != len(self.names):
                raise fault(self.component, f"it names {len(self.parts)} parts, but returns {len(found)} terms.")
        return found

    def value(self, *inputs: Any) -> Tensor:
        """Return the sum of the values; raises as the call does."""
        return functools.reduce(torch.add, self(*inputs))

    def first_call(self, *inputs: Any) -> Sequence[Tensor]:
        """Return the values, having checked that the inputs are unchanged and the results on their device.

        A penalty must be 0 or more, and have a gradient. What does not prevent training is added to `warnings`.

        Raises:
            ComponentError: it breaks one of these rules, or as the call does.
        """
        if not self.untrusted:
            return self(*inputs)
        tensors, generators = _named(inputs), GeneratorWatch()
        before = [tensor.detach().clone() for _, tensor in tensors]
        flags = [(tensor.grad is None, tensor.requires_grad) for _, tensor in tensors if tensor.is_leaf]
        found = self(*inputs)
        self.warnings.extend(generators.warnings(self.component))
        untrained = self.untrained()
        if untrained:
            self.warnings.append(str(fault(self.component, untrained)))
        for (name, now), then in zip(tensors, before, strict=True):
            if now.shape != then.shape or not torch.allclose(now, then, rtol=0, atol=0, equal_nan=True):
                raise self.input_changed(name, *inputs)
        if flags != [(tensor.grad is None, tensor.requires_grad) for _, tensor in tensors if tensor.is_leaf]:
            raise fault(self.component, "it changes `grad` or `requires_grad` of its inputs.")
        if not isinstance(inputs[0], Tensor):
            self._check_penalty(found[0], *inputs)
        if any(value.device != tensors[0][1].device for value in found if tensors):
            raise fault(self.component, f"its value is on {found[0].device}, its inputs are on {tensors[0][1].device}.")
        return found

    def untrained(self) -> str | None:
        """Return the warning about a term with parameters of its own; None without one."""
        own = [name for name, _ in self.compute.named_parameters()] if isinstance(self.compute, nn.Module) else []
        text = f"its own parameters are not trained, only the model's: {', '.join(own)} stay as they are."
        return text if own else None

    def _check_penalty(self, value: Tensor, *inputs: Any) -> None:
        """Raise if a penalty is negative or has no gradient; one that applies to no weight may be a constant 0."""
        if float(value.detach()) < -ROUNDING:
            shown = f"{float(value.detach()):.4g}"
            raise fault(self.component, f"its value is {shown}: a penalty must be 0 or more, whatever the weights.")
        if value.detach() and not value.requires_grad and not self.proximal:
            text = "its value has no gradient, so it has no effect: do not detach, and keep tensors."
            raise fault(self.component, text, self._line(lambda *tensors: breaks_graph, *inputs, last=True))

    def check_finite(self, differentiated: Sequence[Tensor], *inputs: Any) -> None:
        """Raise ComponentError if its value, or a gradient of it, is not finite although its inputs are."""
        values = [float(value.detach()) for value in self(*inputs)]
        wrong = self.infinite_value(values, *inputs) or self.infinite_gradient(differentiated, *inputs)
        if wrong is not None:
            raise wrong

    def input_changed(self, name: str, *inputs: Any) -> ComponentError:
        """Return the error of a term that changed an input, the logits, the target or a weight."""
        text = f"it changes the weights when called (first {name}). A step belongs in `step`, with `proximal = True`."
        if isinstance(inputs[0], Tensor):
            text = f"it writes to its {name}, which others use too. Use operations without a trailing underscore."
        return fault(self.component, text, self._line(changes, *inputs))

    def infinite_value(self, values: Sequence[float], *inputs: Any) -> ComponentError | None:
        """Return the error of a term with a value that is not finite; None if all are, or its inputs are not."""
        bad = [value for value in values if not math.isfinite(value)]
        if not bad or not all_finite(tensor for _, tensor in _named(inputs)):
            return None
        given = "all weights are finite"
        if isinstance(inputs[0], Tensor):
            low, high = inputs[0].detach().aminmax()
            given = f"the logits are finite ({float(low):.4g} to {float(high):.4g})"
        text = (
            f"its value is {bad[0]} although {given}. Keep quotients, logarithms, powers and roots finite, also with "
            "empty masks and large logits."
        )
        return fault(self.component, text, self._line(lambda *tensors: turns_infinite, *inputs))

    def infinite_gradient(self, differentiated: Sequence[Tensor], *inputs: Any) -> ComponentError | None:
        """Return the error of a term whose value is finite and whose gradient is not; None if it is."""
        value = self.value(*inputs)
        if not value.requires_grad or not all_finite([value]):
            return None
        if all_finite(torch.autograd.grad(value, differentiated, allow_unused=True)):
            return None
        text = "its gradient is not finite, though its value is: a root, logarithm, quotient or power at 0?"
        return fault(self.component, text, place_of_infinite_gradient(self._source, lambda: self.value(*inputs)))

    def no_gradient(self, *inputs: Any) -> ComponentError:
        """Return the error of a loss without a gradient."""
        text = (
            "its value has no gradient, so nothing is learned: the graph is cut (by detach, item, numpy, no_grad, "
            "rounding or a comparison). Compute with differentiable operations on the logits."
        )
        return fault(self.component, text, self._line(lambda *tensors: breaks_graph, *inputs, last=True))

    @property
    def _source(self) -> ComponentCode:
        return ComponentCode(self.component.entry.factory)

    def _line(self, happened: Callable[..., Happened], *inputs: Any, last: bool = False) -> str | None:
        """Return the line of its code at which something happens to its inputs, found by calling it again."""
        if isinstance(inputs[0], Tensor):
            graph = happened is not changes  # a leaf of a graph cannot be written to
            inputs = tuple(t.detach().clone().requires_grad_(graph and n == 0) for n, t in enumerate(inputs))
        tensors = [tensor for _, tensor in _named(inputs)]
        return place_where(self._source, lambda: self(*inputs), happened(*tensors), last=last)

    def step(self, parameters: Parameters, size: float) -> None:
        """Apply a proximal regularizer; raise ComponentError if it fails."""
        try:
            self.compute.step(parameters, size)  # type: ignore[attr-defined]
        except BaseException as error:
            raise_fault(self.component, error)


def not_a_scalar(value: Any) -> str:
    """Return what is wrong with a loss that is no floating-point scalar."""
    if not isinstance(value, Tensor):
        return f"{wrong_type(value, Tensor, 'tensor')} End with `.mean()` or `.sum()` of tensors."
    if value.ndim:
        return f"it returns shape {tuple(value.shape)}, not a scalar: end with `.mean()` or `.sum()`."
    return f"it must return a floating-point tensor, got {value.dtype}."


def _named(inputs: Sequence[Any]) -> Parameters:
    """Return the tensors among the inputs of a loss (logits and target) or a regularizer (named parameters)."""
    if isinstance(inputs[0], Tensor):
        return list(zip(("logits", "target"), inputs, strict=True))
    return list(inputs[0])
