"""What a step owns: the attributes of its module, checked, saved, and restored to the bit."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import random
import re
import types
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segkit.errors import first_few
from segkit.registry.component import Component
from segkit.registry.faults import fault, raise_fault
from segkit.training.flatten import flatten, load_optimizer

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
CONSTANTS = (
    *(torch.device, torch.dtype, PurePath, re.Pattern, enum.Enum, type),
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType, types.ModuleType),
)
HOLDS_STATES = "holds what has a state: make each an attribute of its own, or use `nn.ModuleList`"
PLAIN_MODULE = frozenset(vars(nn.Module()))


class Owned:
    """The attributes of a step's module, and of modules in it.

    Modules and buffers are saved, with the gradients that there are, and optimizers, schedules and plain values; of
    modules in it, which may be anybody's, only the plain values that have changed since training began. Functions and
    other constants are not: they stay as they were made.

    Args:
        component: the step, to be named in errors.
        module: what it built.
    """

    def __init__(self, component: Component, module: nn.Module) -> None:
        self.component, self.module = component, module
        self._layout: dict[str, Any] | None = None  # as it was when training began
        self._movable = set[int]()  # the weights that an optimizer of its own may move
        self._constants: dict[str, Any] = {}  # plain values in its modules when training began

    def begin(self, model: nn.Module) -> None:
        """Remember what there is to restore into, once all of it is made.

        Raises:
            ComponentError: it has attributes that could not be restored.
        """
        self._movable = {id(weight) for owner in (model, self.module) for weight in owner.parameters()}
        self._constants = {name: copy.deepcopy(value) for name, value in self._within().items() if _is_plain(value)}
        self._layout = self._found()
        self.state()

    def check(self) -> None:
        """Raise ComponentError if an attribute could not be restored."""
        inner, known = self._within(), {id(module) for module in self.module.modules()}
        flaws = {name: _flaw(name, value) for name, value in self._attributes().items()}
        flaws |= {name: _flaw_within(value, known) for name, value in inner.items()}
        for name, wrong in flaws.items():
            if wrong is not None:
                raise fault(self.component, f"its attribute '{name}', which is neither moved nor saved, {wrong}.")
        for name, value in (self._attributes() | inner).items():
            if isinstance(value, torch.optim.Optimizer) and self._layout is not None:
                self._check_optimizer(name, value)
        before, now = self._layout, self._found()
        if before is None:
            return
        if made := [name for name in now if name not in before]:
            text = f"it makes {first_few(made, 3)} during training: make it in `prepare`, so that it can be restored."
            raise fault(self.component, text)
        for name, shape in now.items():
            if shape and before[name] and shape != before[name]:
                text = f"its '{name}' had shape {before[name]} and has {shape} now: give it its full size in `prepare`."
                raise fault(self.component, text)

    def _check_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        for weight in (weight for group in optimizer.param_groups for weight in group["params"]):
            if id(weight) not in self._movable:
                raise fault(
                    self.component,
                    f"its optimizer '{name}' moves a weight of shape {tuple(weight.shape)} that is neither the model's "
                    "nor in a module of its own, so it is not saved: make its layer an attribute.",
                )

    def _attributes(self) -> dict[str, Any]:
        """Return its attributes other than modules, parameters and buffers."""
        return {name: value for name, value in vars(self.module).items() if name not in PLAIN_MODULE}

    def _within(self) -> dict[str, Any]:
        """Return the same of the modules in it, by dotted names."""
        return {
            f"{place}.{name}": value
            for place, module in self.module.named_modules()
            for name, value in vars(module).items()
            if place and name not in PLAIN_MODULE
        }

    def _found(self) -> dict[str, Any]:
        """Return the names of all that is restored in place; the shape of tensors that have one by now, else None."""
        tensors = self.module.state_dict(keep_vars=True).items()
        known = {name: _shape(value) for name, value in tensors}
        holders = self._attributes() | self._within()
        return known | {name: None for name, value in holders.items() if _has_state(value)}

    def state(self) -> dict[str, Any]:
        """Return all of it as nested plain values and tensors; {} if there is nothing.

        Raises:
            ComponentError: the state of an attribute cannot be saved, or could not be restored.
        """
        self.check()
        own, inner, found = self._attributes(), self._within(), dict[str, Any]()
        gradients = {name: p.grad for name, p in self.module.named_parameters() if p.grad is not None}
        try:
            found["module"] = self.module.state_dict()
            holders = (own | inner).items()
            found["states"] = {name: value.state_dict() for name, value in holders if _has_state(value)}
            flatten(found)
        except BaseException as error:
            raise_fault(self.component, error)
        found["values"] = {name: value for name, value in own.items() if _is_plain(value)}
        found["values"] |= {
            name: value
            for name, value in inner.items()
            if _is_plain(value) and not (name in self._constants and value == self._constants[name])
        }
        found |= {"gradients": gradients} if gradients else {}
        return found if any(found.values()) else {}

    def load(self, state: dict[str, Any]) -> None:
        """Restore what `state` gave.

        Raises:
            ComponentError: it does not fit.
        """
        try:
            self.module.load_state_dict(state.get("module", {}))
            for name, saved in state.get("states", {}).items():
                owner, attribute = self._owner(name)
                holder = getattr(owner, attribute)
                if isinstance(holder, torch.optim.Optimizer):
                    load_optimizer(holder, saved)
                else:
                    holder.load_state_dict(saved)
            for name, value in state.get("values", {}).items():
                setattr(*self._owner(name), value)
            for name, gradient in state.get("gradients", {}).items():
                weight = self.module.get_parameter(name)
                weight.grad = torch.empty_like(weight, requires_grad=False).copy_(gradient)
        except BaseException as error:
            raise_fault(self.component, error)

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """Return the module that has an attribute of a dotted name, and its name there."""
        place, _, attribute = name.rpartition(".")
        return self.module.get_submodule(place), attribute


def _flaw(name: str, value: Any) -> str | None:
    """Return why an attribute that is no module and no buffer could not be restored; None if it can be."""
    if isinstance(value, Tensor):
        return f"is a tensor: keep it with `self.register_buffer('{name}', ...)`"
    if isinstance(value, GENERATORS):
        return "is a random generator: draw from torch's global one, which is saved"
    if any(isinstance(item, nn.Module) or _has_state(item) for item in _items(value)):
        return HOLDS_STATES
    if _has_state(value) or _is_plain(value) or _is_constant(value):
        return None
    if any(isinstance(item, Tensor) for item in _items(value)):
        return "holds tensors: keep each with `self.register_buffer`"
    kind = type(value).__name__
    return f"is a {kind}: keep numbers, text, or lists and dicts of them, or give it `state_dict` and `load_state_dict`"


def _flaw_within(value: Any, known: set[int]) -> str | None:
    """Return the same of an attribute of a module in it, whose modules are `known`; of what cannot be told, None."""
    if isinstance(value, GENERATORS):
        return "is a random generator: draw from torch's global one, which is saved"
    hidden = any(isinstance(item, nn.Module) and id(item) not in known for item in _items(value))
    return HOLDS_STATES if hidden or any(map(_has_state, _items(value))) else None


def _shape(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, Tensor) or torch.nn.parameter.is_lazy(value):
        return None
    return tuple(value.shape)


def _has_state(value: Any) -> bool:
    """Return whether a value is an optimizer, a schedule, or the like."""
    return not isinstance(value, nn.Module) and hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def _items(value: Any) -> Iterator[Any]:
    """Yield what a collection holds, and what collections in it hold."""
    held = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ()
    for item in held:
        yield item
        yield from _items(item)


def _is_plain(value: Any) -> bool:
    try:
        return not flatten(value)[0]
    except TypeError:
        return False


def _is_constant(value: Any) -> bool:
    """Return whether a value does not change during training: a function, a path, or a collection of such."""
    if isinstance(value, (dict, list, tuple)):
        return all(_is_plain(item) or _is_constant(item) for item in _items(value))
    if isinstance(value, functools.partial):
        return _is_constant([value.func, *value.args, *value.keywords.values()])
    frozen = dataclasses.is_dataclass(value) and value.__dataclass_params__.frozen  # type: ignore[union-attr]
    return frozen or isinstance(value, CONSTANTS)
