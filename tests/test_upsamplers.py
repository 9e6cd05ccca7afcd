"""Upsamplers: every registered one doubles the size; the interpolating ones equal torch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from segkit import upsamplers
from segkit.components.autograd import Bilinear

NAMES = upsamplers.names()
SIZES = [(1, 1), (1, 5), (2, 2), (7, 4)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_height_and_width_double_and_channels_become_those_asked_for(name: str, size: tuple[int, int]) -> None:
    image = torch.randn(2, 6, *size, requires_grad=True)
    out = upsamplers.build(name, {}, 6, 4)(image)
    assert out.shape == (2, 4, 2 * size[0], 2 * size[1])
    out.square().sum().backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_channels_last_stays(name: str) -> None:
    module = upsamplers.build(name, {}, 6, 4).to(memory_format=torch.channels_last)
    image = torch.randn(2, 6, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    out = module(image)
    assert out.is_contiguous(memory_format=torch.channels_last)
    out.backward(torch.randn_like(out))
    assert image.grad is not None
    assert image.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("name", NAMES)
def test_one_graph_when_compiled(name: str) -> None:
    module = upsamplers.build(name, {}, 6, 4)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    image = torch.randn(1, 6, 4, 4)
    assert torch.allclose(compiled(image), module(image))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("name, mode", [("bilinear", "bilinear"), ("nearest", "nearest")])
def test_interpolating_first_and_convolving_then_is_the_same_function(name: str, mode: str) -> None:
    module = upsamplers.build(name, {}, 6, 4).double()
    image = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    corners = {"align_corners": False} if mode == "bilinear" else {}
    expected = module[0](functional.interpolate(image, scale_factor=2, mode=mode, **corners))
    assert torch.allclose(module(image), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_bilinear_equals_torch_forward_and_backward(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    out, expected = Bilinear()(image), functional.interpolate(image, scale_factor=2, mode="bilinear")
    assert torch.equal(out, expected)
    gradient = torch.randn_like(out)
    ours, theirs = (torch.autograd.grad(y, image, gradient)[0] for y in (out, expected))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_bilinear_gradients_are_right_twice() -> None:
    image = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Bilinear(), image)
    assert torch.autograd.gradgradcheck(Bilinear(), image)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bilinear_gradients_repeat_to_the_bit_on_cuda(dtype: torch.dtype) -> None:
    image = (
        torch.randn(8, 64, 96, 96, device="cuda", dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    )
    out = Bilinear()(image)
    gradient = torch.randn_like(out)
    first, *others = (torch.autograd.grad(out, image, gradient, retain_graph=True)[0] for _ in range(5))
    assert all(torch.equal(first, other) for other in others)
