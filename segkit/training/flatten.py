"""Nested training state as flat tensors and one JSON skeleton, and back to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MAX_DEPTH = 32


def flatten(state: Any) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors by path, and a JSON tree in which `{"t": path}` stands for each.

    Raises:
        TypeError: a value is none of: None, bool, int, float, str, tensor, list, tuple, dict with str or int keys.
    """
    tensors: dict[str, Tensor] = {}

    def walk(value: Any, path: str) -> Any:
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, int):
            return value if abs(value) < 2**53 else {"i": str(value)}
        if isinstance(value, float):
            return {"f": value.hex()}
        if isinstance(value, Tensor):
            tensors[path] = value
            return {"t": path}
        if isinstance(value, (list, tuple)):
            kind = "l" if isinstance(value, list) else "u"
            return {kind: [walk(item, f"{path}.{number}") for number, item in enumerate(value)]}
        if isinstance(value, dict):
            if any(type(key) not in (str, int) for key in value):
                raise TypeError(f"{path}: keys should be text or whole numbers")
            return {"d": [[key, walk(item, f"{path}.{key}")] for key, item in value.items()]}
        raise TypeError(f"{path}: a {type(value).__name__} cannot be saved without pickle")

    return tensors, walk(state, "state")


def unflatten(skeleton: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the state that `flatten` was given.

    Raises:
        ValueError: the skeleton is damaged.
    """
    readers: dict[str, Callable[[Any, int], Any]] = {
        "i": lambda value, depth: int(value, 10),  # refuses numbers
        "f": lambda value, depth: float.fromhex(value),
        "t": lambda value, depth: tensors[value],
        "l": lambda value, depth: [read(item, depth) for item in value],
        "u": lambda value, depth: tuple(read(item, depth) for item in value),
        "d": lambda value, depth: {key: read(item, depth) for key, item in value},
    }

    def read(node: Any, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(node, list) or (isinstance(node, dict) and len(node) != 1):
            raise ValueError("the training state is damaged")
        if not isinstance(node, dict):
            return node
        ((kind, value),) = node.items()
        return readers[kind](value, depth + 1)

    try:
        return read(skeleton)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"the training state is damaged: {error}") from None


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimizer's state into the memory layout of its parameters.

    Saved tensors are plain blocks; a fused kernel walks parameter and moment in step, memory cell by memory cell, and
    would mix up those of a channels-last weight.
    """
    optimizer.load_state_dict(state)
    for parameter, held in optimizer.state.items():
        for name, value in held.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                held[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
