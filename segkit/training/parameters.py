"""The parameters of a model by patterns of their names: those that are frozen, and an optimizer's groups."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from segkit.errors import UserError, suggest
from segkit.registry.component import Component
from segkit.registry.faults import fault

Parameters = list[nn.Parameter] | list[dict[str, Any]]


def _of_norms(model: nn.Module) -> set[str]:
    """Return the names of the parameters of norm layers, which are known by the names of their classes."""
    return {
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(recurse=False)
    }


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2].endswith("bias")


WORDS: dict[str, Callable[[nn.Module], set[str]]] = {
    "norms": _of_norms,
    "biases": lambda model: {name for name, _ in model.named_parameters() if _is_bias(name)},
}
"""What stands for several parameters wherever a pattern of names may."""


def matching(model: nn.Module, patterns: Sequence[str], key: str) -> set[str]:
    """Return the names of a model's parameters that patterns match: shell patterns (`*`, `?`), or one of `WORDS`.

    Raises:
        UserError: a pattern matches none, or all words together; the message begins with the `key`.
    """
    names, found = [name for name, _ in model.named_parameters()], set[str]()
    for pattern in patterns:
        chosen = WORDS[pattern](model) if pattern in WORDS else {name for name in names if fnmatchcase(name, pattern)}
        if not chosen and pattern not in WORDS:
            known = [*WORDS, *dict.fromkeys(f"{name.partition('.')[0]}.*" for name in names if "." in name), *names]
            raise UserError(f"{key}: '{pattern}' matches no parameter of the model. {suggest(pattern, known)}")
        found |= chosen
    if not found:  # one word of several may: not every model has norms with parameters
        raise UserError(f"{key}: the model has no {' and no '.join(patterns)} with parameters to match.")
    return found


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Keep the parameters that `train.freeze` matches as they are; return their names.

    A norm layer whose parameters are all frozen stays in eval mode: it normalizes by the statistics that it has, and
    these stay as they are. Dropout in a frozen part is not changed.

    Raises:
        UserError: a pattern matches nothing, or nothing would be left to train.
    """
    chosen = matching(model, patterns, "train.freeze")
    for name, weight in model.named_parameters():
        weight.requires_grad_(weight.requires_grad and name not in chosen)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UserError("train.freeze: every parameter of the model is frozen: nothing would be learned.")
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and getattr(module, "running_mean", None) is not None and not any(p.requires_grad for p in own):
            module.eval()
            module.train = types.MethodType(_stay, module)  # type: ignore[method-assign]
    return sorted(chosen)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """Replace `nn.Module.train` of a module that stays in eval mode."""
    return module


def for_optimizer(model: nn.Module, optimizer: Component, *, frozen: bool = False) -> Parameters:
    """Return what an optimizer is handed: a list of the parameters, or of their groups; the first that matches has one.

    The first group is that of the parameters that none matches, so that its rate is the one that is logged.

    Args:
        model: whose parameters it updates.
        optimizer: of the recipe, with its groups.
        frozen: whether some are frozen, which are then left out.

    Raises:
        UserError: a group matches no parameter, or only those of earlier groups.
    """
    left = {name: weight for name, weight in model.named_parameters() if weight.requires_grad or not frozen}
    if not optimizer.groups:
        return list(left.values())
    made: list[dict[str, Any]] = []
    for number, group in enumerate(optimizer.groups):
        key = f"optimizer.{optimizer.name}.groups.{number}"
        chosen = matching(model, group["match"], f"{key}.match")
        own = {name: left.pop(name) for name in list(left) if name in chosen}
        if not own and not frozen:
            raise UserError(f"{key}: all that it matches belongs to an earlier group: put the narrower one first.")
        if own:
            made.append({"params": list(own.values())} | {k: v for k, v in group.items() if k != "match"})
    return [{"params": list(left.values())}, *made] if left else made


def check_groups(optimizer: Component, made: torch.optim.Optimizer) -> None:
    """Raise ComponentError if a group sets a parameter that the optimizer does not keep for each group."""
    for group in optimizer.groups:
        shared = [name for name in group if name != "match" and name not in made.defaults]
        if shared:
            raise fault(optimizer, f"'{shared[0]}' is one number for all weights, and cannot be set for a group.")
