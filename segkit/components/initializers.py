"""Initializers: initial values for the weights of a module.

An initializer takes a module and fills, in place, the weights of every convolution and linear layer in it; norm layers
keep 1 and 0. It draws from torch's global generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from segkit.errors import ContractError
from segkit.registry.registry import Registry

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def _in_place(module: nn.Module) -> Iterator[None]:
    """Check that a module is only filled: the same weights, still to be trained, with finite values."""
    import torch
    from torch.nn.parameter import is_lazy

    before = {name: (p.shape, p.dtype, p.requires_grad) for name, p in module.named_parameters() if not is_lazy(p)}
    yield
    after = dict(module.named_parameters())
    for name in before:
        if name not in after:
            raise ContractError(f"it removes {name} from the module. Fill in place.")
        p = after[name]
        if before[name] != (p.shape, p.dtype, p.requires_grad):
            now = f"{p.dtype} {tuple(p.shape)}" if p.requires_grad else "a weight that is not trained"
            raise ContractError(f"it changes {name} to {now}. Fill in place, under `torch.no_grad()`.")
        if not bool(torch.isfinite(p).all()):
            raise ContractError(f"it fills {name} with values that are not finite.")


initializers = Registry("initializer", "initializers", home=__name__, handed=("module",), called=True, around=_in_place)


def _fill(module: nn.Module, fill: str, **values: Any) -> None:
    """Fill the weights of convolutions and linear layers by a function of `torch.nn.init`; set their biases to 0."""
    from torch import nn

    for layer in module.modules():
        if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
            getattr(nn.init, fill)(layer.weight, **values)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@initializers.register("xavier_normal")
def xavier_normal(module: nn.Module) -> None:
    """Normal weights of variance 2 / (fan in + fan out), zero biases.

    Source: Glorot & Bengio 2010, eq. 12 (there with a uniform distribution).
    """
    _fill(module, "xavier_normal_")


@initializers.register("xavier_uniform")
def xavier_uniform(module: nn.Module) -> None:
    """Uniform weights of variance 2 / (fan in + fan out), zero biases.

    Source: Glorot & Bengio 2010, eq. 16.
    """
    _fill(module, "xavier_uniform_")


@initializers.register("kaiming_normal")
def kaiming_normal(module: nn.Module) -> None:
    """Normal weights of variance 2 / fan in, made for ReLU, zero biases.

    Source: He, Zhang, Ren, Sun 2015, eq. 10.
    """
    _fill(module, "kaiming_normal_", nonlinearity="relu")


@initializers.register("kaiming_uniform")
def kaiming_uniform(module: nn.Module) -> None:
    """Uniform weights of variance 2 / fan in, made for ReLU, zero biases.

    Source: He, Zhang, Ren, Sun 2015, eq. 10 (there with a normal distribution).
    """
    _fill(module, "kaiming_uniform_", nonlinearity="relu")


@initializers.register("orthogonal")
def orthogonal(module: nn.Module) -> None:
    """Orthogonal rows (or columns, where there are fewer), zero biases.

    Source: Saxe, McClelland, Ganguli 2014, section 3.
    """
    _fill(module, "orthogonal_")


@initializers.register("default")
def default(module: nn.Module) -> None:
    """Torch's own initialization of each layer: uniform weights and biases within 1 / sqrt(fan in)."""
