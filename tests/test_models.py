"""Models: every registered one keeps its slot's contract; the U-Net is the one of the first study."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import nn

from segkit import initializers, models, upsamplers
from segkit.components.unet import UNet
from segkit.errors import UserError

NAMES = models.names()
SMALL = {"widths": [4, 6, 8]}


def small(**parameters: Any) -> UNet:
    torch.manual_seed(0)
    model = models.build("unet", {**SMALL, **parameters}, 1, 2)
    assert isinstance(model, UNet)
    return model


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 33), (8, 8), (19, 30)])
def test_scores_have_the_size_of_the_image(name: str, size: tuple[int, int]) -> None:
    model = models.build(name, SMALL if name == "unet" else {}, 1, 3)
    for mode in (True, False):
        scores = model.train(mode)(torch.randn(1, 1, *size))
        assert scores.shape == (1, 3, *size)
        assert torch.isfinite(scores).all()


def test_the_default_has_the_first_study_s_weights() -> None:
    """Counted from field: 64, 128, 256, 512; two 3 x 3 convolutions a level, batch norm, transposed convolutions."""
    widths, expected = (64, 128, 256, 512), 0
    for inner, outer in zip((1, *widths), widths, strict=False):
        expected += 9 * inner * outer + 9 * outer * outer + 6 * outer
    for outer, inner in pairwise(widths):
        expected += 4 * inner * outer + outer + 9 * 2 * outer * outer + 9 * outer * outer + 6 * outer
    expected += 2 * 64 + 2
    model = models.build("unet", {}, 1, 2)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == expected
    assert round(count / 1e6, 1) == 7.7


def test_a_convolution_is_followed_by_relu_then_norm_or_the_reverse() -> None:
    after = [type(layer).__name__ for layer in small().down[0].children()]
    before = [type(layer).__name__ for layer in small(norm_order="before").down[0].children()]
    assert after == 2 * ["Conv2d", "ReLU", "BatchNorm2d"]
    assert before == 2 * ["Conv2d", "BatchNorm2d", "ReLU"]


def test_dropout_is_in_the_path_down_only_and_drops_channels() -> None:
    model = small(dropout=0.5)
    assert len([layer for layer in model.down.modules() if isinstance(layer, nn.Dropout2d)]) == 6
    assert not [layer for layer in model.up.modules() if isinstance(layer, nn.Dropout2d)]
    assert not [layer for layer in small().modules() if isinstance(layer, nn.Dropout2d)]
    image = torch.randn(1, 1, 16, 16)
    assert not torch.equal(model(image), model(image))
    model.eval()
    assert torch.equal(model(image), model(image))


@pytest.mark.parametrize("norm, order", list(product(["batch", "instance", "group", "none"], ["after", "before"])))
def test_each_norm_trains_on_a_single_pixel(norm: str, order: str) -> None:
    model = small(norm=norm, norm_order=order)
    scores = model(torch.randn(1, 1, 1, 1))
    scores.square().sum().backward()
    assert torch.isfinite(scores).all()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


def test_instance_norm_is_torch_s() -> None:
    layer = list(small(norm="instance").down[0].children())[2]
    image = torch.randn(2, 4, 6, 5)
    assert torch.allclose(layer(image), nn.InstanceNorm2d(4)(image), atol=1e-6)


def test_padding_repeats_the_border_on_both_sides_and_is_cropped_away() -> None:
    model = small().eval()
    image = torch.randn(1, 1, 13, 16)
    padded = torch.cat([image[:, :, :1], image, image[:, :, -1:], image[:, :, -1:]], dim=2)
    assert torch.equal(model(image), model(padded)[:, :, 1:14])


def test_skips_carry_detail_past_the_lowest_level() -> None:
    """With the path up cut off the scores still follow a single pixel."""
    model = small(norm="none").eval()
    for weight in model.grow.parameters():
        nn.init.zeros_(weight)
    image = torch.zeros(1, 1, 16, 16)
    dot = image.clone()
    dot[..., 8, 8] = 5
    assert not torch.equal(model(image), model(dot))


@pytest.mark.parametrize("name", upsamplers.names())
def test_each_upsampler_fits(name: str) -> None:
    assert small(upsampler=name)(torch.randn(1, 1, 9, 12)).shape == (1, 2, 9, 12)


@pytest.mark.parametrize("name", initializers.names())
def test_each_initializer_gives_the_same_weights_for_a_seed(name: str) -> None:
    first, second = small(initializer=name).state_dict(), small(initializer=name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_initializer_fills_every_convolution() -> None:
    for layer in small(initializer="xavier_normal").modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.bias is not None
            assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


@pytest.mark.parametrize("widths", [[3], [2, 5], [3, 4, 5, 6, 7]])
def test_any_depth(widths: list[int]) -> None:
    assert small(widths=widths)(torch.randn(2, 1, 33, 21)).shape == (2, 2, 33, 21)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_makes_another_model_the_same(name: str) -> None:
    parameters = SMALL if name == "unet" else {}
    one, other = (models.build(name, parameters, 1, 2).eval() for _ in range(2))
    image = torch.randn(1, 1, 16, 16)
    assert not torch.equal(one(image), other(image))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(image), other(image))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_one_graph_when_compiled() -> None:
    model = small(upsampler="bilinear").eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for size in ((16, 16), (19, 30)):
        image = torch.randn(1, 1, *size)
        assert torch.allclose(compiled(image), model(image), atol=1e-6)


def test_it_learns_a_mask() -> None:
    model = small()
    mask = torch.zeros(1, 2, 16, 16)
    mask[:, 0, 3:9, 4:12] = 1
    mask[:, 1, 10:14, 2:7] = 1
    image = mask[:, :1] - mask[:, 1:] + 0.1 * torch.randn(1, 1, 16, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(image), mask).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert torch.equal(model(image) > 0, mask > 0)


def test_no_levels_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.unet\.widths.*at least 1 value"):
        models.build("unet", {"widths": []}, 1, 2)
