"""Initializers: first values for the weights of a module.

An initializer is handed a module and fills, in place, the weights of every convolution and linear layer in it;
norm layers keep 1 and 0. It draws from torch's global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from segkit.errors import ContractError
from segkit.registry.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def _in_place(module: nn.Module) -> Iterator[None]:
    """See to it that a module is only filled: the same weights, still to be trained, with finite values."""
    import torch
    from torch.nn.parameter import is_lazy

    before = {name: (p.shape, p.dtype, p.requires_grad) for name, p in module.named_parameters() if not is_lazy(p)}
    yield
    missing = [name for name in before if name not in dict(module.named_parameters())]
    if missing:
        raise ContractError(f"it takes {missing[0]} away from the module. Fill in place.")
    for name, p in module.named_parameters():
        if name in before and before[name] != (p.shape, p.dtype, p.requires_grad):
            now = f"{p.dtype} {tuple(p.shape)}" if p.requires_grad else "a weight that is not trained"
            raise ContractError(f"it changes {name} to {now}. Fill in place, under `torch.no_grad()`.")
        if name in before and not bool(torch.isfinite(p).all()):
            raise ContractError(f"it fills {name} with values that are not finite.")


initializers = Registry("initializer", "initializers", home=__name__, handed=("module",), called=True, around=_in_place)


def _fill(module: nn.Module, fill: Callable[[Tensor], object]) -> None:
    """Fill the weights of convolutions and linear layers; set their biases to 0."""
    from torch import nn

    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            fill(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@initializers.register("xavier_normal")
def xavier_normal(module: nn.Module) -> None:
    """Normal weights of variance 2 / (fan in + fan out), zero biases.

    Source: Glorot & Bengio 2010, eq. 12 (there with a uniform distribution).
    """
    from torch.nn import init

    _fill(module, init.xavier_normal_)


@initializers.register("xavier_uniform")
def xavier_uniform(module: nn.Module) -> None:
    """Uniform weights of variance 2 / (fan in + fan out), zero biases.

    Source: Glorot & Bengio 2010, eq. 16.
    """
    from torch.nn import init

    _fill(module, init.xavier_uniform_)


@initializers.register("kaiming_normal")
def kaiming_normal(module: nn.Module) -> None:
    """Normal weights of variance 2 / fan in, made for ReLU, zero biases.

    Source: He, Zhang, Ren, Sun 2015, eq. 10.
    """
    from torch.nn import init

    _fill(module, lambda weight: init.kaiming_normal_(weight, nonlinearity="relu"))


@initializers.register("kaiming_uniform")
def kaiming_uniform(module: nn.Module) -> None:
    """Uniform weights of variance 2 / fan in, made for ReLU, zero biases.

    Source: He, Zhang, Ren, Sun 2015, eq. 10 (there with a normal distribution).
    """
    from torch.nn import init

    _fill(module, lambda weight: init.kaiming_uniform_(weight, nonlinearity="relu"))


@initializers.register("orthogonal")
def orthogonal(module: nn.Module) -> None:
    """Orthogonal rows (or columns, where there are fewer), zero biases.

    Source: Saxe, McClelland, Ganguli 2014, section 3.
    """
    from torch.nn import init

    _fill(module, init.orthogonal_)


@initializers.register("default")
def default(module: nn.Module) -> None:
    """What torch gives each layer when it is made: uniform weights and biases within 1 / sqrt(fan in)."""
