"""Try a loss: a scalar mean with a right gradient, finite on any input, without side effects, on any device."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from segkit.errors import counted
from segkit.registry.component import Component
from segkit.testing.examples import masks, scores
from segkit.testing.report import Report
from segkit.training.terms import Term
from segkit.training.tracing import breaks_graph, place_where

TOLERANCE = 0.02  # relative; a smoothing constant of some pixels makes a mean depend a little on the size
EXTREME = 1e4
NO_MEAN = ("grows with", "is a sum", "sum over", "not a mean", "no mean")


@dataclass
class Tried:
    """A loss under trial; called through this it gets copies of its inputs."""

    report: Report
    term: Term
    exclusive: bool

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return its value."""
        return self.term.value(logits.clone(), target.clone())

    def example(
        self, cases: int = 2, channels: int = 2, size: tuple[int, int] = (64, 48), dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Return (logits, target)."""
        target = masks(cases, channels, size, exclusive=self.exclusive).to(dtype)
        return scores(target), target

    def check_finite(self, logits: Tensor, target: Tensor) -> None:
        """Raise ComponentError unless value and gradient are finite."""
        logits = logits.clone().requires_grad_()
        self.term.check_finite([logits], logits, target)

    def gradient_fault(self, text: str, logits: Tensor, target: Tensor) -> None:
        """Add a fault at the last operation that breaks the graph, if one does."""
        place = place_where(self.report.source, lambda: self(logits, target), breaks_graph, last=True)
        self.report.fault(text, place)


def examine_loss(report: Report, component: Component) -> None:
    """Try a loss; see the module."""
    loss = report.build(component)
    with report.trying("built", needed=True):
        term = Term(component, loss)
    tried = Tried(report, term, bool(report.entry.traits.get("exclusive_only")))
    untrained = tried.term.untrained()
    if untrained:
        report.note(untrained)
    with report.trying("called with logits and target (2, 2, 64, 48) in float32", needed=True):
        _first_call(tried)
    for examine in (_gradient_is_right, _truth_is_best, _takes_any_shape, _is_a_mean, _is_finite):
        examine(tried)
    for examine in (_keeps_no_state, _frees_memory):
        with report.trying("called several times"):
            examine(tried)
    report.check_device(lambda device: loss(*(tensor.to(device) for tensor in tried.example())))


def _first_call(tried: Tried) -> None:
    """As training does, where the logits are not leaves of the graph."""
    logits, target = tried.example()
    logits.requires_grad_()
    values = tried.term.first_call(1 * logits, target)
    tried.check_finite(logits, target)
    if not any(value.requires_grad for value in values):
        raise tried.term.no_gradient(logits, target)
    (gradient,) = torch.autograd.grad(torch.stack([*values]).sum(), logits, allow_unused=True)
    if gradient is None or not gradient.any():
        text = "its gradient is 0 everywhere, so nothing is learned. Use differentiable operations on the logits."
        tried.gradient_fault(text, logits, target)


def _gradient_is_right(tried: Tried) -> None:
    """Compare with differences of values; where it computes in float32 inside, with larger steps."""
    logits, target = tried.example(size=(5, 4), dtype=torch.float64)
    with tried.report.trying("differentiated in float64"):
        exact = torch.autograd.gradcheck(
            lambda x: tried(x, target).double(), logits.clone().requires_grad_(), raise_exception=False
        )
        if exact:
            return
        whole = logits.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(tried(whole, target), whole)
        step, worst = 1e-2, 0.0
        for seed in range(6):
            way = torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed), dtype=logits.dtype)
            rise = (tried(logits + step * way, target) - tried(logits - step * way, target)).double() / (2 * step)
            worst = max(worst, float((rise - (gradient * way).sum()).abs() / gradient.norm().clamp_min(1e-6)))
        if worst > 5 * TOLERANCE:
            cause = "Is a part of the value detached, or a backward written by hand?"
            tried.gradient_fault(f"its gradient is wrong: it differs from finite differences. {cause}", whole, target)


def _truth_is_best(tried: Tried) -> None:
    """The better the prediction, the smaller the loss."""
    report = tried.report
    with report.trying("called with better and worse predictions"):
        _, target = tried.example()
        values = [float(tried((2 * target - 1) * confidence, target)) for confidence in (-20, -5, -1, 0, 1, 5, 20)]
        shown = f"{values[-1]:.4g} for the truth itself, {values[3]:.4g} for a guess, {values[0]:.4g} for the opposite"
        if values[-1] > values[3] > values[0]:
            report.fault(f"its sign is wrong: it grows as the prediction gets better ({shown}). Use 1 - x or -x.")
        elif not values[-1] < values[3] < values[0]:
            report.fault(f"it is not smallest where the prediction is right ({shown}).")
        elif any(later > earlier + 1e-6 for earlier, later in itertools.pairwise(values)):
            report.note(f"it does not fall steadily as the prediction gets better ({shown}).")


def _takes_any_shape(tried: Tried) -> None:
    """One case, one channel, odd sizes, and channels-last memory, in which models return their scores."""
    for cases, channels in ((1, 2 if tried.exclusive else 1), (3, 3)):
        with tried.report.trying(f"called with logits and target ({cases}, {channels}, 33, 20)"):
            tried.check_finite(*tried.example(cases, channels, (33, 20)))
    with tried.report.trying("called with logits in channels-last memory, as models return them"):
        logits, target = tried.example()
        value = tried.term.value(logits.to(memory_format=torch.channels_last, copy=True), target.clone())
        if not torch.allclose(value, tried(logits, target), rtol=1e-4, atol=1e-5):
            tried.report.fault("its value for the same logits in channels-last memory differs.")


def _is_a_mean(tried: Tried) -> None:
    """Neither the size of the batch nor that of the image may count."""
    report = tried.report
    add = report.note if report.documents(*NO_MEAN) else report.fault
    with report.trying("called with a repeated batch and a tiled image"):
        logits, target = tried.example()
        value = float(tried(logits, target))
        for what, shape, times in (("cases of a batch", (2, 1, 1, 1), 2), ("pixels of an image", (1, 1, 2, 2), 4)):
            found = float(tried(logits.tile(shape), target.tile(shape)))
            if _near(found, value):
                continue
            given = f"{times} times as many give {found:.4g} instead of {value:.4g}"
            if _near(found, times * value):
                add(f"it is a sum over the {what}, not a mean: {given}. Use `.mean()`, or say so in its docstring.")
            else:
                (add if times == 2 else report.note)(f"it depends on the number of {what}: {given}.")


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(abs(other), 1e-3)


def _is_finite(tried: Tried) -> None:
    """Empty and full masks, and scores as large as they get; the first failure is reported."""
    before = tried.report.faults
    for what, logits, target in _hard_inputs(tried):
        with tried.report.trying(f"called with {what}"):
            tried.check_finite(logits, target)
        if tried.report.faults > before:
            return


def _hard_inputs(tried: Tried) -> Iterator[tuple[str, Tensor, Tensor]]:
    logits, disc = tried.example(size=(16, 12))
    empty, full = torch.zeros_like(disc), torch.ones_like(disc)
    if tried.exclusive:
        empty[:, 0], full[:, 0] = 1, 0
        full[:, 2:] = 0
    for name, target in (("empty masks", empty), ("full masks", full), ("ordinary masks", disc)):
        yield name, logits, target
        yield f"{name} and scores of 0", 0 * logits, target
        yield f"{name} and scores of 10,000 on the wrong side", (1 - 2 * target) * EXTREME, target
        yield f"{name} and scores of 10,000 on the right side", (2 * target - 1) * EXTREME, target


def _keeps_no_state(tried: Tried) -> None:
    """The same inputs give the same value, also after a call with others; nothing global changes."""
    report, before = tried.report, tried.report.faults
    first, again = report.check_side_effects(lambda: tried(*tried.example()))
    if report.faults > before:
        return
    tried(*tried.example(1, 3, (20, 33)))
    later = tried(*tried.example())
    if not torch.allclose(again, first, rtol=1e-5) or not torch.allclose(later, first, rtol=1e-5):
        shown = f"{float(first):.6g}, {float(again):.6g} and, after a call with others, {float(later):.6g}"
        report.fault(f"it remembers earlier calls: the same inputs gave {shown}. Use logits and target alone.")


def _frees_memory(tried: Tried) -> None:
    logits, target = tried.example(size=(8, 8))
    counts = []
    own = gc.get_freeze_count() == 0  # else unfreezing would undo somebody else's
    if own:
        gc.freeze()  # so that only what the calls leave is searched
    try:
        for _ in range(2):
            for _ in range(4):
                tried(logits.requires_grad_(), target)
            gc.collect()
            counts.append(sum(issubclass(type(item), Tensor) for item in gc.get_objects()))
    finally:
        if own:
            gc.unfreeze()
    if counts[1] >= counts[0] + 4:
        tried.report.fault(
            f"it keeps {counted((counts[1] - counts[0]) // 4, 'tensor')} per call, so memory use grows without limit. "
            "Keep numbers (`.item()`), or nothing."
        )
