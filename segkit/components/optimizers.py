"""Optimizers: those of `torch.optim` that step without a closure, under their own names.

torch's signatures are narrowed to what a recipe can write: how a step is computed (`fused`, `foreach`, ...) is
segkit's business, `maximize` would train backwards, and a learning rate is a number.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le, Lt

from segkit.registry.faults import misfit
from segkit.registry.registry import Registry
from segkit.types import Fraction, NonNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

NOT_SETTABLE = {"params", "foreach", "fused", "capturable", "differentiable", "maximize"}
FRACTIONS = {"alpha", "dampening", "momentum", "rho"}
POSITIVE = {"d", "lr", "t0"}
UNUSABLE = {
    "Muon": "steps matrices only; a convolution's weight has four dimensions",
    "SparseAdam": "steps sparse gradients only",
}
FLOAT32_EPSILON = 2.0**-23  # what Adafactor's `None` stands for with float32 weights


def _register_torch(registry: Registry) -> None:
    """Register each optimizer of torch whose `step` needs no closure."""
    import torch

    for name, cls in sorted(vars(torch.optim).items()):
        if not inspect.isclass(cls) or not issubclass(cls, torch.optim.Optimizer) or cls is torch.optim.Optimizer:
            continue
        closure = inspect.signature(cls.step).parameters.get("closure")
        if name in UNUSABLE or closure is None or closure.default is closure.empty:
            continue
        signature = narrowed(inspect.signature(cls))
        if signature is not None:
            doc = (cls.__doc__ or name).strip().split("\n\n", 1)[0]
            registry.add(name, _factory(cls), signature, doc=doc, origin="torch.optim")


def narrowed(signature: inspect.Signature) -> inspect.Signature | None:
    """Return torch's signature as a recipe may write it; None if what it requires cannot be written."""
    own = [inspect.Parameter("parameters", inspect.Parameter.POSITIONAL_ONLY)]
    for name, parameter in signature.parameters.items():
        if name in NOT_SETTABLE:
            continue
        default = parameter.default
        if isinstance(default, tuple):
            default = tuple(FLOAT32_EPSILON if value is None else value for value in default)
        annotation = _annotation(name, default)
        if annotation is not None:
            if not isinstance(default, bool):
                default = tuple(map(float, default)) if isinstance(default, tuple) else float(default)
            own.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=annotation, default=default))
        elif default is parameter.empty:
            return None
    return inspect.Signature(own)


def _annotation(name: str, default: Any) -> Any:
    """Return the bounded type of a parameter, from its name and torch's default."""
    if isinstance(default, bool):
        return bool
    if isinstance(default, tuple) and all(isinstance(value, (int, float)) for value in default):
        inner = Annotated[float, Ge(0), Lt(1)] if name == "betas" else _annotation(name, min(default))
        return tuple[(inner,) * len(default)]  # type: ignore[misc]
    if not isinstance(default, (int, float)):
        return None
    if name in POSITIVE:
        return Positive
    if name in FRACTIONS:
        return Fraction
    return NonNegative if default >= 0 else Annotated[float, Le(0)]


def _factory(cls: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
    """Return what builds the optimizer, fused where torch can."""
    has_fused = "fused" in inspect.signature(cls).parameters

    def build(parameters: Iterable[Tensor] | Iterable[dict[str, Any]], /, **values: Any) -> Optimizer:
        weights: list[Any] = list(parameters)
        if has_fused and _fuses(cls, weights):
            values["fused"] = True
        return cls(weights, **values)

    return build


def _fuses(cls: Callable[..., Optimizer], weights: list[Any]) -> bool:
    """Try a fused step on the weights' devices: torch tells only then whether it has one."""
    import torch

    tensors = (tensor for item in weights for tensor in (item["params"] if isinstance(item, dict) else [item]))
    for device, dtype in {(tensor.device, tensor.dtype) for tensor in tensors}:
        scratch = torch.zeros(1, device=device, dtype=dtype)
        scratch.grad = torch.zeros_like(scratch)
        try:
            cls([scratch], fused=True).step()
        except RuntimeError:
            return False
    return True


def held(optimizer: Optimizer) -> set[int]:
    """Return the identities of the tensors that an optimizer moves."""
    return {id(weight) for group in optimizer.param_groups for weight in group["params"]}


def _check_made(made: Any, parameters: Iterable[Tensor]) -> str | None:
    import torch

    wrong = misfit(made, torch.optim.Optimizer, "torch.optim.Optimizer")
    if wrong is not None:
        return wrong
    if not all("lr" in group for group in made.param_groups):
        return "its parameter groups have no 'lr', which schedulers and the log read."
    if any(group.get("maximize") for group in made.param_groups):
        return "it is set to maximize, so that it would train backwards."
    given = {id(weight) for weight in parameters if weight.requires_grad}  # none of a generator that is used up
    if given and given.isdisjoint(held(made)):
        return (
            "it holds none of the parameters that it is handed, so that nothing is trained: give it these, no copies."
        )
    return wrong_rate(made)


def wrong_rate(optimizer: Optimizer) -> str | None:
    """Return what is wrong with an optimizer's learning rates: one is negative, not finite, or no number."""
    for rate in (group["lr"] for group in optimizer.param_groups):
        if not hasattr(rate, "__float__") or not 0 <= float(rate) < math.inf:
            return f"it makes the learning rate {rate}: it must be a finite number of 0 or more."
    return None


optimizers = Registry(
    "optimizer",
    "optimizers",
    home=__name__,
    handed=("parameters",),
    called=False,
    family=_register_torch,
    check=_check_made,
)
