"""Try regularizers and initializers, which work on a model's weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from segkit.registry.component import Component
from segkit.testing.examples import network, seeded
from segkit.testing.report import Report
from segkit.training.terms import Term
from segkit.training.tracing import all_finite


def examine_regularizer(report: Report, component: Component) -> None:
    """Try a regularizer: a differentiable scalar, 0 or more, or a step after the optimizer's."""
    penalty = report.build(component)
    with report.trying("built", needed=True):
        term = Term(component, penalty)
    for dtype in (torch.float32, torch.float64):
        with report.trying(f"called with the named parameters of a network in {dtype}", needed=True):
            _returns_a_penalty(report, term, network().to(dtype))
    with report.trying("stepped" if term.proximal else "differentiated"):
        (_steps if term.proximal else _has_a_gradient)(report, term)
    named = list(network().named_parameters())
    with report.trying("called with the named parameters of a network"):
        report.check_side_effects(lambda: (component.build()(named), term.proximal and penalty.step(named, 1e-3)))
    report.check_device(lambda device: penalty(list(network().to(device).named_parameters())))


def _returns_a_penalty(report: Report, term: Term, module: nn.Module) -> None:
    parameters, dtype = list(module.named_parameters()), next(module.parameters()).dtype
    (value,) = term.first_call(parameters)
    wrong = term.infinite_value([float(value.detach())], parameters)
    if wrong is not None:
        raise wrong
    if value == 0 and not value.requires_grad and not term.proximal:
        report.note("it is 0 for a network of convolutions, a norm and a linear layer: it applies to none of them.")
    elif value.dtype != dtype:
        report.fault(f"for {dtype} weights it returns {value.dtype}. Make tensors with `dtype=` of the weights.")
    elif not torch.allclose(term.value(parameters), value):
        report.fault("two calls with the same weights differ.")


def _has_a_gradient(report: Report, term: Term) -> None:
    module = network().double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter[parameter == 0] = 0.1  # an absolute value has no derivative at 0
    names, parameters = zip(*module.named_parameters(), strict=True)
    if not term.value(list(module.named_parameters())).requires_grad:
        return  # it applies to none of the weights
    if not torch.autograd.gradcheck(
        lambda *values: term.value(list(zip(names, values, strict=True))), parameters, raise_exception=False
    ):
        report.fault("its gradient is wrong: it differs from finite differences of its values.")
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    with report.trying("called where all weights are 0"):
        term.check_finite(parameters, list(module.named_parameters()))


def _steps(report: Report, term: Term) -> None:
    """Try a proximal one: `step(named_parameters, step_size)` changes weights in place."""
    if term.value(list(network().named_parameters())).requires_grad:
        report.fault("it is proximal, so its value is only logged: detach it.")
    module = network()
    term.step(list(module.named_parameters()), 0.0)
    if not _same(module, network()):
        report.fault("its step changes weights although the step size is 0.")
    value = term.value(list(module.named_parameters()))
    term.step(list(module.named_parameters()), 0.05)
    if _same(module, network()):
        if value:  # at 0 there is nothing to do
            report.fault("its step changes no weight. Write in place, under `torch.no_grad()`.")
    elif not all_finite(module.parameters()):
        report.fault("its step makes weights that are not finite.")
    elif term.value(list(module.named_parameters())) > value:
        report.fault("its step makes the penalty larger.")


def examine_initializer(report: Report, component: Component) -> None:
    """Try an initializer: fills a module's weights in place, from torch's generator, and nothing else."""
    fill = report.build(component)
    with report.trying("called with a network"):
        first = _filled(report, fill)
        report.check_side_effects(lambda: component.build()(network()), may_draw=("torch",))
        if not report.faults and not _same(first, _filled(report, fill)):
            report.fault("it is not reproducible: two calls from one torch seed differ. Draw from torch's generator.")
        _changes_weights(report, first)
    with report.trying("called with a module without weights"):
        fill(nn.Sequential(nn.ReLU()))
    with report.trying("called with a single layer"):
        fill(nn.Conv2d(2, 3, 3, bias=False))


def _filled(report: Report, fill: Callable[[nn.Module], Any]) -> nn.Module:
    """Return the network, filled from torch's seed 0."""
    module = network()
    with seeded(), report.entry.slot.around(module):
        fill(module)
    return module


def _same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.parameters(), other.parameters()))


def _changes_weights(report: Report, module: nn.Module) -> None:
    untouched = network()
    if module.training != untouched.training:
        report.fault("it switches the module between training and evaluation.")
    if _same(module, untouched):
        report.note("it changes no weight.")
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and ((layer.weight != 1).any() or (layer.bias != 0).any()):
            report.note("it changes norm layers, which the built-in initializers leave at 1 and 0.")
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and layer.weight.min() == layer.weight.max():
            kind = type(layer).__name__
            report.fault(f"it fills all weights of a {kind} with one value: its channels would learn the same.")
            return
