"""Try a loss: a scalar mean with a right gradient, finite on any input, without side effects, on any device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segkit.registry.component import Component
from segkit.registry.faults import misfit
from segkit.testing.examples import masks, scores
from segkit.testing.loss_effects import examine_effects
from segkit.testing.report import Report
from segkit.training.tracing import breaks_graph, place_of_infinite_gradient, place_where, turns_infinite

TOLERANCE = 0.02  # what an epsilon of some pixels may make of a mean
EXTREME = 1e4
OTHERWISE = ("grows with", "is a sum", "sum over", "not a mean", "no mean")


@dataclass
class Tried:
    """A loss under trial; it sees copies, so that one which writes to its inputs is told so once."""

    report: Report
    loss: Callable[[Tensor, Tensor], Any]
    exclusive: bool

    def __call__(self, logits: Tensor, target: Tensor) -> Any:
        """Return its value."""
        return self.loss(logits.clone(), target.clone())

    def example(
        self, cases: int = 2, channels: int = 2, size: tuple[int, int] = (64, 48), dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Return (logits, target)."""
        target = masks(cases, channels, size, exclusive=self.exclusive).to(dtype)
        return scores(target), target


def examine_loss(report: Report, component: Component) -> None:
    """Try a loss; see the module."""
    loss = report.build(component)
    if loss is None:
        return
    tried = Tried(report, loss, bool(report.entry.traits.get("exclusive_only")))
    if isinstance(loss, torch.nn.Module) and (own := [name for name, _ in loss.named_parameters()]):
        report.note(f"its own parameters are not trained, only the model's: {', '.join(own)} stay as they are.")
    if not _gives_a_scalar(tried):
        return
    if _has_a_gradient(tried):
        _gradient_is_right(tried)
        _truth_is_best(tried)
    for look in (_takes_any_shape, _is_a_mean, _is_finite, _parts_add_up):
        look(tried)
    examine_effects(report, loss, tried.example)


def _gives_a_scalar(tried: Tried) -> bool:
    """Try it once; without a scalar nothing more can be said."""
    report, before = tried.report, tried.report.faults
    with report.trying("called with logits and target (2, 2, 64, 48) in float32"):
        value = tried(*tried.example())
        if not isinstance(value, Tensor):
            report.fault(f"{misfit(value, Tensor, 'tensor')} End with `.mean()` of tensors.")
        elif value.shape != ():
            report.fault(f"it gives shape {tuple(value.shape)}, no scalar: end with `.mean()`.")
        elif not torch.isfinite(value):
            place = place_where(report.source, lambda: tried(*tried.example()), turns_infinite)
            report.fault(f"it gives {value.item()} on ordinary masks and scores.", place)
    return report.faults == before


def _has_a_gradient(tried: Tried) -> bool:
    report, before = tried.report, tried.report.faults
    logits, target = tried.example()
    logits.requires_grad_()
    with report.trying("differentiated"):
        value = tried(logits, target)
        if not value.requires_grad:
            place = place_where(report.source, lambda: tried(logits, target), breaks_graph, last=True)
            report.fault(
                "its value has no gradient, so that nothing is learned: the graph is cut (by detach, item, numpy, "
                "no_grad, rounding or a comparison). Compute with differentiable operations on the logits.",
                place,
            )
            return False
        value.backward()
        if logits.grad is None or not logits.grad.any():
            place = place_where(report.source, lambda: tried(logits, target), breaks_graph, last=True)
            report.fault("its gradient with respect to the logits is 0 everywhere, so that nothing is learned.", place)
    return report.faults == before


def _gradient_is_right(tried: Tried) -> None:
    """Compare with differences of values; what computes in float32 inside is measured with longer steps."""
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
            tried.report.fault(
                "its gradient is wrong: it differs from differences of its values. Is a part of the value detached, "
                "or a backward written by hand?",
                place_where(tried.report.source, lambda: tried(whole, target), breaks_graph, last=True),
            )


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
    """One case, one channel, odd sizes, and channels-last memory, which models hand on."""
    report = tried.report
    for cases, channels in ((1, 2 if tried.exclusive else 1), (3, 3)):
        with report.trying(f"called with logits and target ({cases}, {channels}, 33, 20)"):
            value = tried(*tried.example(cases, channels, (33, 20)))
            if value.shape != () or not torch.isfinite(value):
                report.fault(f"it gives {value.tolist()} for shape ({cases}, {channels}, 33, 20).")
    with report.trying("called with logits in channels-last memory, as models give them"):
        logits, target = tried.example()
        value = tried.loss(logits.to(memory_format=torch.channels_last, copy=True), target.clone())
        if not torch.allclose(value, tried(logits, target), rtol=1e-4, atol=1e-5):
            report.fault("it gives another value for the same logits in channels-last memory.")


def _is_a_mean(tried: Tried) -> None:
    """Neither the size of the batch nor that of the image may count."""
    report = tried.report
    with report.trying("called with a repeated batch and a tiled image"):
        logits, target = tried.example()
        value = float(tried(logits, target))
        batch = float(tried(logits.repeat(2, 1, 1, 1), target.repeat(2, 1, 1, 1)))
        image = float(tried(logits.tile(1, 1, 2, 2), target.tile(1, 1, 2, 2)))
        say = report.note if report.says(*OTHERWISE) else report.fault
        for what, found, times in (("the cases of a batch", batch, 2), ("the pixels of an image", image, 4)):
            if _near(found, value):
                continue
            if _near(found, times * value):
                say(
                    f"it is a sum over {what}, not a mean: {times} times as many give {found:.4g} instead of "
                    f"{value:.4g}. Use `.mean()`, or say so in its docstring."
                )
            elif what.startswith("the cases"):
                say(f"it depends on the size of the batch: the same cases twice give {found:.4g}, not {value:.4g}.")
            else:
                report.note(f"it depends on the size of the image: tiled 2 x 2 it is {found:.4g}, not {value:.4g}.")


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(abs(other), 1e-3)


def _is_finite(tried: Tried) -> None:
    """Empty and full masks, and scores as large as they get."""
    for what, logits, target in _hard_inputs(tried):
        if not _is_finite_on(tried, what, logits, target):
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


def _is_finite_on(tried: Tried, what: str, logits: Tensor, target: Tensor) -> bool:
    report, before = tried.report, tried.report.faults
    with report.trying(f"called with {what}"):
        logits = logits.clone().requires_grad_()
        value = tried(logits, target)
        if not torch.isfinite(value).all():
            place = place_where(report.source, lambda: tried(logits, target), turns_infinite)
            report.fault(
                f"it gives {float(value)} for {what}, which ends a training. Keep quotients and logs finite.", place
            )
        elif value.requires_grad:
            (gradient,) = torch.autograd.grad(value, logits, allow_unused=True)
            if gradient is not None and not torch.isfinite(gradient).all():
                report.fault(
                    f"its gradient is not finite for {what} (sqrt, log or a power at 0?), which ends a training.",
                    place_of_infinite_gradient(report.source, lambda: tried(logits, target)),
                )
    return report.faults == before


def _parts_add_up(tried: Tried) -> None:
    """A loss with `parts` gives as many `terms`, whose sum it is."""
    parts = getattr(tried.loss, "parts", ())
    if not parts:
        return
    report = tried.report
    with report.trying("asked for its terms"):
        logits, target = tried.example()
        terms = tried.loss.terms(logits, target)  # type: ignore[attr-defined]
        if len(terms) != len(parts):
            report.fault(f"it names {len(parts)} parts, but gives {len(terms)} terms.")
        elif not torch.allclose(sum(terms), tried(logits, target), rtol=1e-4, atol=1e-6):
            report.fault("the sum of its terms is not its value.")
