"""Try what gives a module: models, and upsamplers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segkit.registry.component import Component
from segkit.testing.device import follows_the_device
from segkit.testing.report import Report
from segkit.testing.surroundings import leaves_alone

SIZES = ((64, 64), (65, 47), (40, 96))
CHOOSY = ("multiple of", "divisible", "fixed size")


def examine_model(report: Report, component: Component) -> None:
    """Try a model: scores of the image's size, whatever that is; saved, loaded, trained as a whole."""
    model = _module(report, component, 1, 3)
    if model is None:
        return
    before = report.faults
    for size in SIZES:
        _gives_scores(report, model, size)
    if report.faults > before:
        return
    with report.trying("built and run"):
        leaves_alone(report, lambda: component.build(1, 3)(_image(2, 1, SIZES[0])), may_draw=("torch",))
    for look in (_repeats_itself, _trains_all):
        with report.trying("run"):
            look(report, model)
    with report.trying("saved and loaded"):
        _round_trip(report, component, model)
    if report.source.cuda_line():
        report.fault("it names a CUDA device. segkit moves the module.", report.source.cuda_line())
    elif torch.cuda.is_available():
        with report.trying("run on CUDA"):
            model.cuda()(torch.randn(1, 1, *SIZES[0], device="cuda"))


def _module(report: Report, component: Component, in_channels: int, out_channels: int) -> nn.Module | None:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    module = report.build(component, in_channels, out_channels)
    torch.set_rng_state(state)
    found: nn.Module | None = module
    return found


def _image(cases: int, channels: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(cases, channels, *size, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _gives_scores(report: Report, model: nn.Module, size: tuple[int, int]) -> None:
    """Try one size of image, in training and evaluation."""
    height, width = size
    for training in (True, False):
        mode = "training" if training else "evaluation"
        what = f"given an image (2, 1, {height}, {width}) in {mode}"
        known = len(report.findings)
        with report.trying(what):
            scores = model.train(training)(_image(2, 1, size).contiguous(memory_format=torch.channels_last))
            if not isinstance(scores, Tensor):
                report.fault(f"{what} it gives a {type(scores).__name__}, no tensor of scores.")
            elif scores.shape != (2, 3, height, width):
                report.fault(
                    f"{what} it gives {tuple(scores.shape)}; for 3 channels that should be (2, 3, {height}, {width})."
                )
            elif not torch.isfinite(scores).all():
                report.fault(f"{what} its scores are not finite.")
            elif scores.min() >= 0 and scores.max() <= 1 and size == SIZES[0] and not training:
                report.note("its scores lie in 0 to 1: an activation at the end? segkit applies its own.")
        if len(report.findings) > known and size != SIZES[0] and report.says(*CHOOSY):
            found = report.findings.pop()
            report.note(f"as its docstring says, not for every size: {found.text}", found.place)
        if len(report.findings) > known:
            return


@torch.no_grad()
def _repeats_itself(report: Report, model: nn.Module) -> None:
    """In evaluation nothing is random, and no case knows of its neighbours."""
    image = _image(2, 1, SIZES[0])
    model.eval()
    first = model(image)
    if not torch.equal(model(image), first):
        report.fault("in evaluation it gives two answers for one image: something random, or it remembers.")
    elif not torch.allclose(model(image[1:]), first[1:], rtol=1e-3, atol=1e-4):
        report.fault("in evaluation an image's scores depend on the other images of the batch.")


def _trains_all(report: Report, model: nn.Module) -> None:
    model.train()
    model.zero_grad()
    image = _image(2, 1, SIZES[0])
    scores = model(image)
    weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1))
    (scores * weights).sum().backward()
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    missed = [name for name, parameter in trained if parameter.grad is None]
    if not trained:
        report.fault("it has no parameter to train.")
    if missed:
        shown = ", ".join(missed[:5]) + (f" and {len(missed) - 5} more" if len(missed) > 5 else "")
        report.fault(f"no gradient reaches {shown}: a layer that is made but not used, or a detached one?")
    if not all(torch.isfinite(parameter.grad).all() for _, parameter in trained if parameter.grad is not None):
        report.fault("its gradient is not finite.")


@torch.no_grad()
def _round_trip(report: Report, component: Component, model: nn.Module) -> None:
    """A second one, with the state of the first, is the first."""
    memory = {id(tensor): name for name, tensor in model.named_parameters(remove_duplicate=False)}
    if len(memory) < len(list(model.named_parameters(remove_duplicate=False))):
        report.note("two of its parameters are one tensor.")
    other = component.build(1, 3)
    other.load_state_dict({key: tensor.clone() for key, tensor in model.state_dict().items()})
    image = _image(1, 1, SIZES[0])
    if not torch.equal(model.eval()(image), other.eval()(image)):
        report.fault(
            "built anew and loaded it gives other scores: what it learned is not all in its state dict. Use parameters "
            "and buffers."
        )


def examine_upsampler(report: Report, component: Component) -> None:
    """Try an upsampler: exactly twice the height and width, whatever they are."""
    before = report.faults
    for in_channels, out_channels in ((8, 4), (3, 5)):
        module = _module(report, component, in_channels, out_channels)
        if module is None:
            return
        for size in ((4, 6), (5, 7), (1, 1)):
            with report.trying(f"given (2, {in_channels}, {size[0]}, {size[1]})"):
                _doubles(report, module, in_channels, out_channels, size)
            if report.faults > before:
                return
    with report.trying("built and run"):
        leaves_alone(report, lambda: component.build(3, 5)(_image(2, 3, (4, 6))), may_draw=("torch",))
    with report.trying("run on another device"):
        follows_the_device(
            report, lambda device: component.build(3, 5).to(device)(torch.ones(1, 3, 4, 4, device=device))
        )


def _doubles(report: Report, module: nn.Module, in_channels: int, out_channels: int, size: tuple[int, int]) -> None:
    module.zero_grad()
    image = _image(2, in_channels, size).requires_grad_()
    found = module(image)
    expected = (2, out_channels, 2 * size[0], 2 * size[1])
    if tuple(found.shape) != expected:
        report.fault(f"given (2, {in_channels}, {size[0]}, {size[1]}) it gives {tuple(found.shape)}, not {expected}.")
        return
    (found * torch.randn(expected, generator=torch.Generator().manual_seed(1))).sum().backward()
    missed = [name for name, weight in module.named_parameters() if weight.requires_grad and weight.grad is None]
    if image.grad is None or not image.grad.any() or not torch.isfinite(image.grad).all():
        report.fault("no finite gradient reaches its input.")
    elif missed:
        report.fault(f"no gradient reaches {', '.join(missed)}.")
