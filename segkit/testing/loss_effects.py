"""Try what a loss does beside its value: inputs, state, memory, devices, types, compilation."""

from __future__ import annotations

import functools
import gc
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from segkit.errors import counted
from segkit.registry.faults import described
from segkit.registry.source import shown
from segkit.testing.device import follows_the_device
from segkit.testing.report import Report
from segkit.testing.surroundings import leaves_alone
from segkit.training.tracing import changes, place_where

Loss = Callable[[Tensor, Tensor], Any]
Example = Callable[..., tuple[Tensor, Tensor]]


def examine_effects(report: Report, loss: Loss, example: Example) -> None:
    """Try a loss that gives a scalar."""
    for look in (_leaves_inputs, _keeps_no_state, _frees_memory, _follows_the_device, _takes_half, _compiles):
        with report.trying("tried for side effects"):
            look(report, loss, example)


def _leaves_inputs(report: Report, loss: Loss, example: Example) -> None:
    inputs, before = example(), example()
    changed = changes(*inputs)
    loss(*inputs)
    for name, now, then in zip(("logits", "target"), inputs, before, strict=True):
        if not torch.equal(now, then):
            copies = example()
            place = place_where(report.source, functools.partial(loss, *copies), changes(*copies))
            report.fault(f"it writes to its {name}. Use operations without a trailing underscore.", place)
            return
    if changed("", [], None):
        report.note("it writes to its inputs, if without effect here.")


def _keeps_no_state(report: Report, loss: Loss, example: Example) -> None:
    """The same inputs give the same value, also after a call with others; nothing global moves."""
    before = report.faults
    first, again = leaves_alone(report, lambda: loss(*example()))
    if report.faults > before:
        return
    loss(*example(1, 3, (20, 33)))
    later = loss(*example())
    if not torch.allclose(again, first, rtol=1e-5) or not torch.allclose(later, first, rtol=1e-5):
        report.fault(
            f"it remembers earlier calls: the same inputs gave {float(first):.6g}, {float(again):.6g} and, after a "
            f"call with others, {float(later):.6g}. Compute from logits and target alone.",
            report.source.state_line(),
        )


def _frees_memory(report: Report, loss: Loss, example: Example) -> None:
    logits, target = example(size=(8, 8))
    counts = []
    for _ in range(2):
        for _ in range(4):
            loss(logits.clone().requires_grad_(), target.clone())
        gc.collect()
        counts.append(sum(issubclass(type(item), Tensor) for item in gc.get_objects()))
    if counts[1] >= counts[0] + 4:
        kept = (counts[1] - counts[0]) // 4
        report.fault(
            f"it keeps {counted(kept, 'tensor')} a call, so that memory grows until it runs out. Keep numbers "
            "(`.item()`), or nothing.",
            report.source.state_line(),
        )


def _follows_the_device(report: Report, loss: Loss, example: Example) -> None:
    follows_the_device(report, lambda device: loss(*(tensor.to(device) for tensor in example())))


def _takes_half(report: Report, loss: Loss, example: Example) -> None:
    """The loop hands in float32; other callers may not."""
    for dtype in (torch.float16, torch.bfloat16):
        try:
            value = loss(*example(dtype=dtype))
        except Exception as error:
            report.note(
                f"it fails on {dtype}, which segkit never hands in ({described(error)}).", report.source.of_error(error)
            )
            return
        if not torch.isfinite(value):
            report.note(f"on {dtype}, which segkit never hands in, it gives {float(value)}.")
            return


def _compiles(report: Report, loss: Loss, example: Example) -> None:
    from torch import _dynamo

    if report.faults:
        return  # first things first
    _dynamo.reset()
    quiet = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        torch.compile(lambda x, y: loss(x, y), fullgraph=True, backend="eager")(*example())
    except Exception as error:
        stack = [frame for frame in getattr(error, "real_stack", None) or [] if report.source.owns(frame.filename)]
        place = shown(stack[-1].filename, stack[-1].lineno) if stack else None
        report.note(
            f"torch.compile cannot make one graph of it ({described(error)}). It runs, compiled in pieces.", place
        )
    finally:
        logging.disable(quiet)
        _dynamo.reset()
