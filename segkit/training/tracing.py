"""Find the line of a component's code at which something happens, by checking after every operation or line."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from segkit.registry.source import ComponentCode

Happened = Callable[[str, list[Tensor], Any], bool]
CONSTANT = (  # parts of the names of operations whose results have no gradient by nature
    "_like", "new_", "full", "zeros", "ones", "arange", "eye", "shape", "size", "device", "dtype", "requires_grad",
)  # fmt: skip


class _Watch(TorchFunctionMode):
    """Records the line of the component's code at each operation for which `happened(name, tensors in, result)`."""

    def __init__(self, source: ComponentCode, happened: Happened) -> None:
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


def all_finite(tensors: Iterable[Tensor | None]) -> bool:
    """Return whether all tensors hold finite values only; None, as of a missing gradient, counts as finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor is not None)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)


def places_where(source: ComponentCode, run: Callable[[], Any], happened: Happened) -> list[str | None]:
    """Run again and return the lines of the component's code at which it happened, in order."""
    watch = _Watch(source, happened)
    with contextlib.suppress(Exception), watch:
        run()
    return watch.places


def place_where(source: ComponentCode, run: Callable[[], Any], happened: Happened, *, last: bool = False) -> str | None:
    """Run again and return the first (or last) line of the component's code at which it happened."""
    places = [place for place in places_where(source, run, happened) if place]
    return places[-1 if last else 0] if places else None


def place_of_infinite_gradient(source: ComponentCode, run: Callable[[], Tensor]) -> str | None:
    """Run again, differentiate, and return the line whose gradient is not finite although its incoming one is."""
    bad: list[int] = []
    numbers = itertools.count()

    def register(name: str, tensors: list[Tensor], result: Any) -> bool:
        if not isinstance(result, Tensor) or not result.requires_grad or result.is_leaf:
            return False
        number = next(numbers)

        def check(inputs: Any, outputs: Any) -> None:
            if all_finite(outputs) and not all_finite(inputs):
                bad.append(number)

        result.grad_fn.register_hook(check)  # type: ignore[union-attr]
        return True

    found = places_where(source, lambda: run().backward(), register)  # type: ignore[no-untyped-call]
    return found[bad[0]] if bad and bad[0] < len(found) else None


def changes(*inputs: Tensor) -> Happened:
    """Return the condition that one of the inputs was written to."""
    versions = [tensor._version for tensor in inputs]
    return lambda name, tensors, result: [tensor._version for tensor in inputs] != versions


def breaks_graph(name: str, tensors: list[Tensor], result: Any) -> bool:
    """Return whether an operation drops the gradient."""
    if not any(tensor.requires_grad for tensor in tensors) or any(word in name for word in CONSTANT):
        return False
    if isinstance(result, Tensor):
        return not result.requires_grad
    return isinstance(result, (float, np.ndarray))


def turns_infinite(name: str, tensors: list[Tensor], result: Any) -> bool:
    """Return whether an operation turns finite values into NaN or infinity."""
    if not isinstance(result, Tensor) or not result.is_floating_point() or all_finite([result]):
        return False
    return all_finite(tensor for tensor in tensors if tensor.is_floating_point())


def line_that_changes(source: ComponentCode, run: Callable[[], Any], state: Callable[[], Any]) -> str | None:
    """Run again and return the first line of the component's code after which `state()` differs from before."""
    before = state()
    last = found = None

    def after_line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal last, found
        if found is None and last is not None and state() != before:
            found = last
        last = source.running(frame if event == "line" else frame.f_back)
        return after_line

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        return after_line if source.owns(frame) else None

    tracer = sys.gettrace()
    sys.settrace(on_call)
    try:
        with contextlib.suppress(Exception):
            run()
    finally:
        sys.settrace(tracer)
    return found
