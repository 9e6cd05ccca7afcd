"""The summands of the objective; a fault in one is reported with its name, file and line."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segkit.errors import UserError
from segkit.registry.component import Component
from segkit.registry.faults import fault, raise_fault, wrong_type
from segkit.registry.source import ComponentCode
from segkit.training.tracing import (
    Generators,
    Happened,
    breaks_graph,
    changes,
    place_of_infinite_gradient,
    place_where,
    turns_infinite,
)

Parameters = Sequence[tuple[str, Tensor]]
ROUNDING = 1e-6


@dataclass(frozen=True)
class Term:
    """One summand: the component of a recipe, and what it built.

    Attributes:
        component: a loss or a regularizer.
        compute: a loss of logits and target, or a penalty of named parameters.
    """

    component: Component
    compute: Callable[..., Any]

    @classmethod
    def of(cls, component: Component) -> Term:
        """Build a component.

        Raises:
            ComponentError: it cannot be built; the message names it.
        """
        try:
            term = cls(component, component.build())
            _ = term.names
        except BaseException as error:
            raise_fault(component, error)
        return term

    @functools.cached_property
    def name(self) -> str:
        """The name as in the recipe, e.g. "loss.dice"."""
        return f"{self.component.entry.slot.name}.{self.component.name}"

    @functools.cached_property
    def weight(self) -> float:
        """The factor."""
        return self.component.weight

    @functools.cached_property
    def doubts(self) -> list[str]:
        """What was found at a close look that does not keep it from training."""
        return []

    @functools.cached_property
    def foreign(self) -> bool:
        """Whether it is a plugin's, whose values are looked at."""
        return self.component.entry.foreign

    @functools.cached_property
    def parts(self) -> tuple[str, ...]:
        """The names of the summands of a loss that is a sum (see `segkit.losses`), none otherwise."""
        return () if inspect.isfunction(self.compute) else tuple(getattr(self.compute, "parts", ()))

    @functools.cached_property
    def names(self) -> list[str]:
        """The name, or one a part."""
        return [f"{self.name}.{part}" for part in self.parts] or [self.name]

    @functools.cached_property
    def proximal(self) -> bool:
        """Whether it is a regularizer that steps after the optimizer rather than a penalty."""
        return not inspect.isfunction(self.compute) and bool(getattr(self.compute, "proximal", False))

    def __call__(self, *handed: Any) -> Sequence[Tensor]:
        """Return the values: of logits and target for a loss, of the named parameters for a regularizer.

        Raises:
            ComponentError: it raised, or gave no scalar tensor.
        """
        before = _settings() if self.foreign else {}
        try:
            found = tuple(self.compute.terms(*handed)) if self.parts else (self.compute(*handed),)  # type: ignore[attr-defined]
        except BaseException as error:
            raise_fault(self.component, error)
        if self.foreign:
            self._leaves_alone(before)
            for value in found:
                if not (isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point()):
                    raise fault(self.component, _not_a_scalar(value))
            if len(found) != len(self.names):
                raise fault(self.component, f"it names {len(self.parts)} parts, but gives {len(found)} terms.")
        return found

    def closely(self, *handed: Any) -> Sequence[Tensor]:
        """Call it, and see to it that it leaves alone what it is handed, and computes where that lies.

        A penalty has to be 0 or more, with a gradient. What is only doubtful goes to `doubts`.

        Raises:
            ComponentError: it does not.
        """
        if not self.foreign:
            return self(*handed)
        tensors, generators = _named(handed), Generators()
        before = [tensor.detach().clone() for _, tensor in tensors]
        marks = [(tensor.grad is None, tensor.requires_grad) for _, tensor in tensors if tensor.is_leaf]
        found = self(*handed)
        self.doubts.extend(generators.doubts(self.component))
        own = list(self.compute.named_parameters()) if isinstance(self.compute, nn.Module) else []
        if own:
            text = f"its own parameters are not trained, only the model's: {', '.join(name for name, _ in own)} stay."
            self.doubts.append(str(fault(self.component, text)))
        for (name, now), then in zip(tensors, before, strict=True):
            if not _same_bits(now.detach(), then):
                raise self.damage(name, *handed)
        if marks != [(tensor.grad is None, tensor.requires_grad) for _, tensor in tensors if tensor.is_leaf]:
            raise fault(self.component, "it changes the gradients of what it is handed, or whether there are any.")
        if not isinstance(handed[0], Tensor):
            self._penalizes(float(found[0].detach()), found[0].requires_grad, *handed)
        if any(value.device != tensors[0][1].device for value in found if tensors):
            raise fault(self.component, f"its value lies on {found[0].device}, its inputs on {tensors[0][1].device}.")
        return found

    def _leaves_alone(self, before: dict[str, Any]) -> None:
        """Raise if a setting of torch's is another than before, and put it back."""
        changed = [name for name, value in _settings().items() if value != before[name]]
        for name in changed:
            getattr(torch, name)(before[name])
        if changed:
            text = f"it changes a global setting (torch.{changed[0]}) for all that follows: leave it, or put it back."
            raise fault(self.component, text)

    def _penalizes(self, value: float, moves: bool, parameters: Parameters) -> None:
        """Raise where a penalty rewards, or has no gradient; of no weights at all it may be a plain 0."""
        if value < -ROUNDING:
            raise fault(self.component, f"it gives {value:.4g}: a penalty is 0 or more, of any weights.")
        if value and not moves:
            source = ComponentCode(self.component.entry.factory)
            place = place_where(source, lambda: self(parameters), breaks_graph, last=True)
            raise fault(self.component, "its value has no gradient, so that it does nothing: keep tensors.", place)

    def damage(self, name: str, *handed: Any) -> UserError:
        """Return the error of a loss or penalty that wrote to what it was handed."""
        if isinstance(handed[0], Tensor):
            advice = "which validation and other losses need. Use operations without a trailing underscore, or a clone."
            return fault(self.component, f"it writes to its {name}, {advice}", self._line(changes, *handed))
        advice = "A step belongs in `step`, with `proximal = True`."
        return fault(self.component, f"it changes the weights when called (first {name}). {advice}")

    def not_finite(self, values: Sequence[float], scores: Tensor, *handed: Any) -> UserError:
        """Return the error of a term that is not finite although the model's scores are."""
        low, high = scores.detach().aminmax()
        bad = next(value for value in values if not math.isfinite(value))
        text = (
            f"it gives {bad} by itself: the model's scores are finite ({float(low):.4g} to {float(high):.4g}). "
            "Keep quotients, logarithms, powers and roots finite, with empty masks and large scores too."
        )
        return fault(self.component, text, self._line(lambda *tensors: turns_infinite, *handed))

    def _sum(self, *handed: Any) -> Tensor:
        return functools.reduce(torch.add, self(*handed))

    def has_finite_gradient(self, inputs: Sequence[Tensor], *handed: Any) -> bool:
        """Return whether its gradient is finite wherever its value is."""
        value = self._sum(*handed)
        if not value.requires_grad or not bool(torch.isfinite(value)):
            return True
        gradients = torch.autograd.grad(value, inputs, allow_unused=True)
        return all(bool(torch.isfinite(gradient).all()) for gradient in gradients if gradient is not None)

    def without_gradient(self, *handed: Any) -> UserError:
        """Return the error of a term whose gradient is not finite although its value is."""
        text = "its gradient is not finite, though its value is: a root, logarithm, quotient or power at 0?"
        source = ComponentCode(self.component.entry.factory)
        return fault(self.component, text, place_of_infinite_gradient(source, lambda: self._sum(*handed)))

    def detached(self, *handed: Any) -> UserError:
        """Return the error of a loss without a gradient."""
        text = (
            "its value has no gradient, so that nothing is learned: the graph is cut (by detach, item, numpy, no_grad, "
            "rounding or a comparison). Compute with differentiable operations on the logits."
        )
        return fault(self.component, text, self._line(lambda *tensors: breaks_graph, *handed, last=True))

    def _line(self, happened: Callable[..., Happened], *handed: Any, last: bool = False) -> str | None:
        """Return the author's line at which something happens to a loss's tensors, found out by calling it again."""
        if not isinstance(handed[0], Tensor):
            return None
        cut = happened is changes
        copies = [
            tensor.detach().clone().requires_grad_(not cut and number == 0) for number, tensor in enumerate(handed)
        ]
        return place_where(
            ComponentCode(self.component.entry.factory), lambda: self(*copies), happened(*copies), last=last
        )

    def step(self, parameters: Parameters, size: float) -> None:
        """Apply a proximal regularizer.

        Raises:
            ComponentError: it raised.
        """
        try:
            self.compute.step(parameters, size)  # type: ignore[attr-defined]
        except BaseException as error:
            raise_fault(self.component, error)


def _settings() -> dict[str, Any]:
    """Return settings of torch's by what sets them."""
    return {
        "set_grad_enabled": torch.is_grad_enabled(),
        "set_default_dtype": torch.get_default_dtype(),
        "set_num_threads": torch.get_num_threads(),
    }


def _not_a_scalar(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"{wrong_type(value, Tensor, 'tensor')} End with `.mean()` or `.sum()` of tensors."
    if value.ndim:
        return f"it gives shape {tuple(value.shape)}, no scalar: end with `.mean()` or `.sum()`."
    return f"it gives {value.dtype}, no floating-point number."


def _named(handed: Sequence[Any]) -> list[tuple[str, Tensor]]:
    """Return the tensors that a loss (logits and target) or a regularizer (named parameters) is handed."""
    if isinstance(handed[0], Tensor):
        return list(zip(("logits", "target"), handed, strict=True))
    found: Iterable[tuple[str, Tensor]] = handed[0]
    return list(found)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal, a NaN being equal to itself."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
