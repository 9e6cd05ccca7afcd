"""Optimizers: those of `torch.optim` that step without a closure, under their own names.

torch's signatures are narrowed to what a recipe can write: segkit chooses how a step is computed (`fused`, `foreach`,
...), `maximize` would train backwards, and a learning rate is a number.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le, Lt

from segkit.components.families import classes, narrowed, summary
from segkit.registry.faults import wrong_type
from segkit.registry.registry import Registry
from segkit.types import Fraction, NonNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

HIDDEN = ("params", "foreach", "fused", "capturable", "differentiable", "maximize")
FRACTIONS = ("alpha", "dampening", "momentum", "rho")
POSITIVE = ("d", "lr", "t0")
UNUSABLE = {
    "Muon": "steps matrices only; a convolution's weight has four dimensions",
    "SparseAdam": "steps sparse gradients only",
}
FLOAT32_EPSILON = 2.0**-23  # the meaning of Adafactor's `None` for float32 weights


def _register_torch(registry: Registry) -> None:
    """Register each optimizer of torch whose `step` needs no closure."""
    import torch

    for name, cls in classes(torch.optim, torch.optim.Optimizer):
        closure = inspect.signature(cls.step).parameters.get("closure")
        if name in UNUSABLE or closure is None or closure.default is closure.empty:
            continue
        signature = narrowed(cls, _in_recipe, handed=("parameters",), hidden=HIDDEN)
        if signature is not None:
            registry.add(name, _factory(cls), signature, doc=summary(cls), origin="torch.optim")


def _in_recipe(name: str, hint: Any, default: Any) -> tuple[Any, Any]:
    """Return type and default of a parameter, by the default: torch's type is wider (tensors, None)."""
    if isinstance(default, bool):
        return bool, default
    if isinstance(default, tuple):
        values = [FLOAT32_EPSILON if value is None else float(value) for value in default]
        inner = Annotated[float, Ge(0), Lt(1)] if name == "betas" else _bounded(name, min(values))
        return tuple[(inner,) * len(values)], tuple(values)  # type: ignore[misc]
    if isinstance(default, int | float):
        return _bounded(name, default), float(default)
    return None, default


def _bounded(name: str, default: float) -> Any:
    if name in POSITIVE:
        return Positive
    if name in FRACTIONS:
        return Fraction
    return NonNegative if default >= 0 else Annotated[float, Le(0)]


def _factory(cls: type[Optimizer]) -> Callable[..., Optimizer]:
    """Return a function that builds the optimizer, fused if torch can."""

    def build(parameters: Iterable[Tensor] | Iterable[dict[str, Any]], /, **values: Any) -> Optimizer:
        weights: list[Any] = list(parameters)
        if "fused" in inspect.signature(cls).parameters and _fuses(cls, weights):
            values["fused"] = True
        return cls(weights, **values)

    return build


def _fuses(cls: Callable[..., Optimizer], weights: list[Any]) -> bool:
    """Try a fused step on the weights' devices: only that shows whether torch has one."""
    import torch

    for device, dtype in {(tensor.device, tensor.dtype) for tensor in _tensors(weights)}:
        scratch = torch.zeros(1, device=device, dtype=dtype)
        scratch.grad = torch.zeros_like(scratch)
        try:
            cls([scratch], fused=True).step()
        except RuntimeError:
            return False
    return True


def _tensors(parameters: Iterable[Tensor] | Iterable[dict[str, Any]]) -> Iterator[Tensor]:
    """Yield the tensors that an optimizer is handed, alone or in groups."""
    for item in parameters:
        yield from item["params"] if isinstance(item, dict) else [item]


def parameter_ids(optimizer: Optimizer) -> set[int]:
    """Return the `id` of each tensor that an optimizer updates."""
    return {id(weight) for group in optimizer.param_groups for weight in group["params"]}


def _check_made(made: Any, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]) -> str | None:
    import torch

    wrong = wrong_type(made, torch.optim.Optimizer, "torch.optim.Optimizer")
    if wrong is not None:
        return wrong
    if not all("lr" in group for group in made.param_groups):
        return "its parameter groups have no 'lr', which schedulers and the log read."
    if any(group.get("maximize") for group in made.param_groups):
        return "it is set to maximize, so that it would train backwards."
    given = {id(weight) for weight in _tensors(parameters) if weight.requires_grad}  # empty for an exhausted generator
    if given and given.isdisjoint(parameter_ids(made)):
        return "it holds none of the parameters that it is handed, so nothing is trained: pass these on, not copies."
    return wrong_rate(made)


def wrong_rate(optimizer: Optimizer) -> str | None:
    """Return what is wrong with an optimizer's learning rates: one is negative, not finite, or not a number."""
    for rate in (group["lr"] for group in optimizer.param_groups):
        if not hasattr(rate, "__float__") or not 0 <= float(rate) < math.inf:
            return f"it sets the learning rate to {rate}: it must be a finite number of 0 or more."
    return None


optimizers = Registry(
    "optimizer",
    "optimizers",
    home=__name__,
    handed=("parameters",),
    grouped=True,
    family=_register_torch,
    check=_check_made,
)
