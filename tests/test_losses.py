"""Every registered loss against its slot's contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from segkit import losses
from segkit.components.autograd import soft_counts
from segkit.errors import UserError

NAMES = losses.names()
SUMMED = {"boundary"}  # in pixels, hence not the same for an image tiled


def example(shape: tuple[int, ...] = (3, 2, 6, 5), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    target = (torch.rand(shape, generator=generator) > 0.6).double()
    target[:, :, 0, 0], target[:, :, -1, -1] = 1, 0
    return logits, target


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the name of every operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(function._schema.name.removeprefix("aten::"))
        return function(*args, **(kwargs or {}))


def test_dice_and_inverse_dice_share_one_sigmoid_and_three_sums() -> None:
    with Recorder() as recorder:
        losses.build("dice_mix", {})(*example())
    assert recorder.names.count("sigmoid") == 1
    assert recorder.names.count("sum") == 3


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_right(name: str) -> None:
    logits, target = example((2, 2, 4, 3), seed=3)
    loss = losses.build(name, {})
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_inputs_give_finite_values_and_gradients(name: str, channels: int, dtype: torch.dtype) -> None:
    loss = losses.build(name, {})
    shape = (1, channels, 4, 4)
    half = torch.zeros(shape, dtype=dtype)
    half[..., :2] = 1
    for target in (torch.zeros_like(half), torch.ones_like(half), half):
        for scores in (half * 0, half + 1e4, half - 1e4, (2 * target - 1) * 1e4, (1 - 2 * target) * 1e4):
            logits = scores.clone().requires_grad_()
            value = loss(logits, target)
            assert value.shape == ()
            assert value.dtype == dtype
            assert torch.isfinite(value)
            value.backward()
            assert logits.grad is not None
            assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_better_prediction_has_a_smaller_loss(name: str) -> None:
    _, target = example()
    loss = losses.build(name, {})
    values = [loss((2 * target - 1) * confidence, target).item() for confidence in (-5, -1, 0, 1, 5, 20)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("name", NAMES)
def test_batch_layout_and_image_size_do_not_change_the_scale(name: str) -> None:
    logits, target = example()
    loss = losses.build(name, {"epsilon": 1e-9} if "epsilon" in losses[name].fields else {})
    value = loss(logits, target)
    twice = loss(torch.cat([logits, logits]), torch.cat([target, target]))
    assert torch.allclose(twice, value, rtol=0, atol=1e-9)
    last = torch.channels_last
    assert torch.allclose(loss(logits.to(memory_format=last), target), value, rtol=0, atol=1e-9)
    if name not in SUMMED:
        tiled = loss(logits.tile(1, 1, 2, 3), target.tile(1, 1, 2, 3))
        assert torch.allclose(tiled, value, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_leaves_its_inputs_alone_and_reads_no_value_back(name: str) -> None:
    logits, target = example()
    before = logits.clone(), target.clone()
    with Recorder() as recorder:
        losses.build(name, {})(logits.requires_grad_(), target).backward()
    assert "_local_scalar_dense" not in recorder.names
    assert torch.equal(logits.detach(), before[0])
    assert torch.equal(target, before[1])


@pytest.mark.parametrize("name", NAMES)
def test_each_loss_trains_a_one_layer_network_to_its_mask(name: str) -> None:
    """Two exclusive classes, the background first, so that `cross_entropy` is tried as it is meant."""
    torch.manual_seed(0)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 3:7] = 1
    target = torch.cat([1 - mask, mask], dim=1)
    image = mask + 0.1 * torch.randn(1, 1, 8, 8)
    layer = torch.nn.Conv2d(1, 2, kernel_size=1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.3)
    loss = losses.build(name, {})
    for _ in range(60):
        optimizer.zero_grad()
        scores = layer(image)
        loss(scores - scores.flip(1), target).backward()
        optimizer.step()
    assert torch.equal(layer(image).argmax(1), mask[:, 0].long())


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("name", [name for name in NAMES if losses[name].origin == "segkit" and name != "boundary"])
def test_a_tensor_loss_compiles_into_one_graph(name: str) -> None:
    logits, target = example()
    loss = losses.build(name, {})
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, y: loss(x, y), fullgraph=True, backend="eager")
    assert torch.allclose(compiled(logits, target), loss(logits, target))


@pytest.mark.parametrize("axes", [(2, 3), (0, 2, 3)])
def test_soft_counts_have_the_gradient_of_their_formulas(axes: tuple[int, ...]) -> None:
    made = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=made, requires_grad=True)
    target = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=made, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, t: soft_counts(x, t, axes), (scores, target))
    p = scores.sigmoid()
    for found, expected in zip(
        soft_counts(scores, target, axes), (target * (1 - p), (1 - target) * p, target), strict=True
    ):
        assert torch.allclose(found, expected.sum(axes))


def test_soft_counts_keep_the_digits_of_a_certain_prediction() -> None:
    target = torch.zeros(1, 1, 192, 192)
    target[..., :96] = 1
    missed, surplus, _ = soft_counts((2 * target - 1) * 14, target, (2, 3))
    expected = 192 * 96 * torch.sigmoid(torch.tensor(-14.0, dtype=torch.float64)).item()
    assert missed.item() == pytest.approx(expected, rel=0.1)  # what float32 knows of 1 - p
    assert surplus.item() == pytest.approx(expected, rel=0.1)


def test_a_weight_between_the_two_dices_outside_0_to_1_is_refused() -> None:
    with pytest.raises(UserError, match=r"loss\.dice_mix\.lambda.*must be 1 or less"):
        losses.build("dice_mix", {"lambda": 1.5})
