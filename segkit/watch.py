"""Find the line at which something happens to tensors, by looking after every operation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from segkit.source import Source

Happened = Callable[[str, list[Tensor], Any], bool]
CONSTANT = (
    "_like",
    "new_",
    "full",
    "zeros",
    "ones",
    "arange",
    "eye",
    "shape",
    "size",
    "device",
    "dtype",
    "requires_grad",
)


class _Watch(TorchFunctionMode):
    """Notes the author's line of each operation after which `happened(name, tensors in, result)`."""

    def __init__(self, source: Source, happened: Happened) -> None:
        super().__init__()
        self.source, self.happened = source, happened
        self.places: list[str | None] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = str(getattr(function, "__qualname__", "") or getattr(function, "__name__", ""))
        tensors = list(tensors_in((args, tuple((kwargs or {}).values()))))
        if self.happened(name + str(getattr(function, "__self__", "")), tensors, result):
            self.places.append(self.source.running())
        return result


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def places_where(source: Source, run: Callable[[], Any], happened: Happened) -> list[str | None]:
    """Run once more and return the author's lines at which it happened, in order."""
    watch = _Watch(source, happened)
    with contextlib.suppress(Exception), watch:
        run()
    return watch.places


def place_where(source: Source, run: Callable[[], Any], happened: Happened, *, last: bool = False) -> str | None:
    """Run once more and return the author's first (or last) line at which it happened."""
    places = [place for place in places_where(source, run, happened) if place]
    return places[-1 if last else 0] if places else None


def changes(*inputs: Tensor) -> Happened:
    """Return what tells that one of the inputs was written to."""
    versions = [tensor._version for tensor in inputs]
    return lambda name, tensors, result: [tensor._version for tensor in inputs] != versions


def breaks_graph(name: str, tensors: list[Tensor], result: Any) -> bool:
    """Tell whether an operation drops the gradient."""
    if not any(tensor.requires_grad for tensor in tensors) or any(word in name for word in CONSTANT):
        return False
    if isinstance(result, Tensor):
        return not result.requires_grad
    return isinstance(result, (float, np.ndarray))


def turns_infinite(name: str, tensors: list[Tensor], result: Any) -> bool:
    """Tell whether an operation makes a NaN or infinity of finite values."""
    if not isinstance(result, Tensor) or not result.is_floating_point() or torch.isfinite(result).all():
        return False
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())


def draws() -> Happened:
    """Return what tells that an operation drew from torch's global generator."""
    before = torch.get_rng_state()
    return lambda name, tensors, result: not torch.equal(torch.get_rng_state(), before)
