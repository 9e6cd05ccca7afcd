"""Models: every registered one keeps its slot's contract; the U-Net is the one of the first study."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segkit import initializers, models, upsamplers
from segkit.components.models import checked
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
@pytest.mark.slow
def test_one_graph_when_compiled() -> None:
    model = small(upsampler="bilinear").eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for size in ((16, 16), (19, 30)):
        image = torch.randn(1, 1, *size)
        assert torch.allclose(compiled(image), model(image), atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_one_graph_with_deep_supervision() -> None:
    model, image = small(widths=[2, 3, 4], deep_supervision=True, upsampler="nearest"), torch.randn(1, 1, 19, 30)
    torch._dynamo.reset()
    several = torch.compile(model, fullgraph=True, backend="eager")(image)
    assert all(map(torch.allclose, several, model(image)))


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


def test_deep_supervision_scores_every_level_but_the_lowest_and_only_in_training() -> None:
    parameters = {"widths": [4, 6, 8, 10], "norm": "instance"}
    torch.manual_seed(0)
    plain = models.build("unet", parameters, 1, 2).eval()
    model = models.build("unet", {**parameters, "deep_supervision": True}, 1, 2)
    assert {*model.state_dict()} - {*plain.state_dict()} == {
        f"auxiliary.{number}.{kind}" for number in (0, 1) for kind in ("weight", "bias")
    }
    image = torch.randn(1, 1, 32, 16)
    scores = model(image)
    assert [part.shape[2:] for part in scores] == [(32, 16), (16, 8), (8, 4)]
    torch.cat([part.flatten() for part in scores]).sum().backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None for weight in model.parameters())
    plain.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(model.eval()(image), plain(image))
    assert torch.equal(scores[0], plain(image))  # a norm of each image is the same in training


def test_auxiliary_scores_cover_an_image_of_any_size_exactly() -> None:
    """Scores of lower resolution are means over the image's area: as if each pixel were cut into equal parts."""
    image = torch.randn(1, 1, 9, 13, generator=torch.Generator().manual_seed(0))
    seen: list[Tensor] = []

    class Pyramid(nn.Module):
        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            seen.append(image)
            return image, nn.functional.avg_pool2d(image, 2), nn.functional.avg_pool2d(image, 4)

    finest, half, quarter = models.padded(Pyramid(), 4, least=16)(image)
    assert seen[0].shape == (1, 1, 16, 16)  # 3 and 4 rows more, 1 and 2 columns more
    assert torch.equal(finest, image)
    assert (half.shape, quarter.shape) == ((1, 1, 5, 7), (1, 1, 3, 4))
    for scores, factor, (rows, columns) in ((half, 2, (5, 7)), (quarter, 4, (3, 4))):
        coarse = nn.functional.avg_pool2d(seen[0], factor).double()
        fine = coarse.repeat_interleave(factor * rows, 2).repeat_interleave(factor * columns, 3)
        part = fine[:, :, 3 * rows : 12 * rows, columns : 14 * columns]
        torch.testing.assert_close(scores.double(), nn.functional.avg_pool2d(part, (9, 13)), atol=1e-6, rtol=0)


def test_auxiliary_scores_are_cropped_where_the_border_lies_between_pixels() -> None:
    model = small(deep_supervision=True, norm="none", widths=[4, 6, 8, 10])
    image = torch.randn(1, 1, 32, 32)
    padded = nn.functional.pad(image, (4, 4, 4, 4), mode="replicate")
    cropped = models.padded(model, 40)(image)
    for found, whole, border in zip(cropped, model(padded), (4, 2, 1), strict=True):
        assert torch.equal(found, whole[:, :, border:-border, border:-border])


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_residual_block_adds_its_input_before_the_last_activation(order: str) -> None:
    model = small(residual=True, convolutions=3, norm_order=order, activation="leaky_relu", norm="instance")
    levels: Any = model.down
    assert [len(level) for level in levels] == [2, 2, 2]
    block, alone = levels[1]  # of two convolutions, and of the third
    conv, act = nn.functional.conv2d, nn.functional.leaky_relu
    image = torch.randn(2, 4, 8, 8)
    first, second = (layer for layer in block.inner if isinstance(layer, nn.Conv2d))

    def norm(x: Tensor) -> Tensor:
        return nn.functional.instance_norm(x)

    if order == "before":
        inner = norm(second(act(norm(first(image)), 0.01)))
        expected = act(inner + norm(conv(image, block.skip[0].weight)), 0.01)
    else:
        expected = norm(act(second(norm(act(first(image), 0.01))) + conv(image, block.skip[0].weight), 0.01))
    torch.testing.assert_close(block(image), expected, atol=1e-5, rtol=0)
    assert len(alone.skip) == 0
    assert sum(isinstance(layer, nn.Conv2d) for layer in alone.modules()) == 1


def test_strided_convolutions_replace_the_pooling() -> None:
    model = small(downsampling="strided", convolutions=[1, 2, 3], norm="none")
    strides = [[layer.stride[0] for layer in level.modules() if isinstance(layer, nn.Conv2d)] for level in model.down]
    assert strides == [[1], [2, 1], [2, 1, 1]]
    assert [sum(isinstance(layer, nn.Conv2d) for layer in level.modules()) for level in model.up] == [2, 1]
    level = model.down[0](torch.randn(1, 1, 12, 16))
    assert model.down[1](level).shape == (1, 6, 6, 8)
    assert model(torch.randn(1, 1, 13, 18)).shape == (1, 2, 13, 18)


def test_numbers_of_convolutions_must_be_as_many_as_the_levels() -> None:
    with pytest.raises(UserError, match=r"^model\.unet: deep_supervision has no effect, since widths has 2 levels"):
        models.component("unet", {"widths": [4, 8], "deep_supervision": True})
    with pytest.raises(UserError, match=r"^model\.unet: convolutions has 2 numbers, but widths has 3 levels"):
        models.component("unet", {**SMALL, "convolutions": [2, 2]})


class Returns(nn.Module):
    """Returns what it is told to."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.weight, self.shapes = nn.Parameter(torch.ones(())), shapes

    def forward(self, image: Tensor) -> Any:
        return tuple(self.weight * torch.zeros(shape) for shape in self.shapes)


@pytest.mark.parametrize(
    "shapes, flaw",
    [
        ([(2, 3, 8, 8), (2, 3, 4, 4), (2, 3, 4, 2)], None),
        ([(2, 3, 8, 8)], None),
        ([], "an empty tuple"),
        ([(2, 3, 4, 4), (2, 3, 8, 8)], r"returns \(2, 3, 4, 4\); for 3 channels it must be \(2, 3, 8, 8\)"),
        ([(2, 3, 8, 8), (2, 3, 4, 4), (2, 3, 5, 4)], r"item 2 of its tuple, \(2, 3, 5, 4\), is larger"),
        ([(2, 3, 8, 8), (2, 1, 4, 4)], r"item 1 of its tuple is \(2, 1, 4, 4\); it must be \(2, 3, h, w\)"),
        ([(2, 3, 8, 8), (2, 3, 4)], "item 1 of its tuple must be scores"),
    ],
)
def test_a_tuple_of_scores_is_checked_in_training(shapes: list[tuple[int, ...]], flaw: str | None) -> None:
    model, image = Returns(*shapes), torch.zeros(2, 1, 8, 8)
    forward = checked(model, models.component("unet", SMALL), 3)
    if flaw is None:
        assert [part.shape for part in forward(image)] == shapes
        model.eval()
        flaw = "in evaluation it returns a tuple"
    with pytest.raises(UserError, match=rf"^model\.unet: .*{flaw}"):
        forward(image)


def test_each_of_several_scores_needs_a_gradient() -> None:
    class Half(Returns):
        def forward(self, image: Tensor) -> Any:
            first, *rest = super().forward(image)
            return first, *(part.detach() for part in rest)

    forward = checked(Half((2, 3, 8, 8), (2, 3, 4, 4)), models.component("unet", SMALL), 3)
    with pytest.raises(UserError, match="item 1 of its tuple has no gradient"):
        forward(torch.zeros(2, 1, 8, 8))


def test_no_levels_are_refused() -> None:
    with pytest.raises(UserError, match=r"model\.unet\.widths.*at least 1 value"):
        models.build("unet", {"widths": []}, 1, 2)
