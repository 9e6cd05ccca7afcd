"""Try what builds a module: models, and upsamplers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from segkit.components.models import checked
from segkit.errors import ContractError
from segkit.registry.component import Component
from segkit.testing.examples import seeded
from segkit.testing.report import Report
from segkit.training.step_watch import missing_gradients
from segkit.training.tracing import all_finite, tensors_in

SIZES = ((64, 64), (65, 47), (40, 96))
FIXED_SIZE = ("multiple of", "divisible", "fixed size")


def examine_model(report: Report, component: Component) -> None:
    """Try a model: scores of the size of any image, in training also a tuple; every weight is trained and saved."""
    with seeded():
        model: nn.Module = report.build(component, 1, 3)
    forward = checked(model, component, 3)
    for size in SIZES:
        _returns_scores(report, model, forward, size)
    if report.faults:
        return
    with report.trying("run in evaluation"):
        _repeats_itself(report, model)
    with report.trying("trained"):
        model.train().zero_grad()
        if any(parameter.requires_grad for parameter in model.parameters()):
            _check_gradients(report, model, forward(_image(2, 1, SIZES[0])))
        else:
            report.fault("it has no parameter to train.")
    with report.trying("saved and loaded"):
        _round_trip(report, component, model)
    _affects_nothing_else(report, component, (1, 3), SIZES[0])


def _affects_nothing_else(
    report: Report, component: Component, channels: tuple[int, int], size: tuple[int, int]
) -> None:
    """Building and running it changes no global state, and works on every device."""
    with report.trying("built and run"):
        report.check_side_effects(lambda: component.build(*channels)(_image(2, channels[0], size)), may_draw=("torch",))
    report.check_device(lambda device: component.build(*channels).to(device)(_image(2, channels[0], size).to(device)))


def _image(cases: int, channels: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(cases, channels, *size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _returns_scores(report: Report, model: nn.Module, forward: Callable[[Tensor], Any], size: tuple[int, int]) -> None:
    """Try one size of image, in training and evaluation; the first failure is reported."""
    for training in (True, False):
        known = len(report.findings)
        what = f"called with an image (2, 1, {size[0]}, {size[1]}) in {'training' if training else 'evaluation'}"
        with report.trying(what):
            model.train(training)
            scores = forward(_image(2, 1, size).contiguous(memory_format=torch.channels_last))
            if not all_finite(tensors_in(scores)):
                report.fault(f"{what}: its scores are not finite.")
            elif size == SIZES[0] and not training and scores.min() >= 0 and scores.max() <= 1:
                report.note("its scores lie in 0 to 1: an activation at the end? segkit applies its own.")
        if len(report.findings) > known:
            if size != SIZES[0] and report.documents(*FIXED_SIZE):
                found = report.findings.pop()
                report.note(f"as its docstring says, it does not take every size: {found.text}", found.place)
            return


@torch.no_grad()
def _repeats_itself(report: Report, model: nn.Module) -> None:
    """In evaluation nothing is random, and no image depends on the rest of its batch."""
    image = _image(2, 1, SIZES[0])
    model.eval()
    first = model(image)
    if not torch.equal(model(image), first):
        report.fault("in evaluation, two calls with one image differ: it draws random numbers or keeps state.")
    elif not torch.allclose(model(image[1:]), first[1:], rtol=1e-3, atol=1e-4):
        report.fault("in evaluation, the scores of an image depend on the other images of the batch.")


def _check_gradients(report: Report, module: nn.Module, result: Any) -> None:
    """Differentiate a random sum of a result: every parameter that is trained must have a finite gradient."""
    generator = torch.Generator().manual_seed(1)
    sums = [(part * torch.randn(part.shape, generator=generator)).sum() for part in tensors_in(result)]
    torch.stack(sums).sum().backward()  # type: ignore[no-untyped-call]
    missing = missing_gradients((name, weight) for name, weight in module.named_parameters() if weight.requires_grad)
    if missing:
        report.fault(missing)
    if not all_finite(weight.grad for weight in module.parameters()):
        report.fault("its gradient is not finite.")


@torch.no_grad()
def _round_trip(report: Report, component: Component, model: nn.Module) -> None:
    """A second model with the state of the first gives the same scores."""
    parameters = [id(tensor) for _, tensor in model.named_parameters(remove_duplicate=False)]
    if len(set(parameters)) < len(parameters):
        report.note("two of its parameters share one tensor.")
    other = component.build(1, 3)
    other.load_state_dict({key: tensor.clone() for key, tensor in model.state_dict().items()})
    image = _image(1, 1, SIZES[0])
    if not torch.equal(model.eval()(image), other.eval()(image)):
        text = "built again and loaded, its scores differ: its state dict does not hold all that it learned."
        report.fault(f"{text} Use parameters and buffers.")


def examine_upsampler(report: Report, component: Component) -> None:
    """Try an upsampler: twice the height and width of any input, with gradients; building it tries one input."""
    for in_channels, out_channels in ((8, 4), (3, 5)):
        with seeded():
            module: nn.Module = report.build(component, in_channels, out_channels)
        for size in ((4, 6), (5, 7), (1, 1)):
            image = _image(2, in_channels, size).requires_grad_()
            with report.trying(f"called with {tuple(image.shape)}", needed=True):
                module.zero_grad()
                found = module(image)
                expected = (2, out_channels, 2 * size[0], 2 * size[1])
                if tuple(found.shape) != expected:
                    raise ContractError(f"it returns {tuple(found.shape)}, not {expected}")
                _check_gradients(report, module, found)
                if image.grad is None or not image.grad.any() or not all_finite([image.grad]):
                    report.fault("no finite gradient reaches its input.")
    _affects_nothing_else(report, component, (3, 5), (4, 6))
