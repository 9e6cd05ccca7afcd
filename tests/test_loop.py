"""The training loop: equal to plain PyTorch, accumulation, pauses, guards."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import segkit
from segkit.components.schedulers import Schedule
from segkit.device import Device, choose
from segkit.training.levels import log_odds
from segkit.training.loop import Report, State, train
from segkit.training.loss_watch import NonFiniteError
from segkit.training.objective import Objective
from segkit.training.warnings import dominant_term
from segkit.types import Batch
from tests.benchmarks.loop import measure

CPU = choose("cpu", "float32")


class Tensors:
    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.batches, self.steps_per_epoch = batches, len(batches)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for image, target in self.batches[start:]:
            yield Batch(image, target, torch.ones(len(image), dtype=torch.bool))


def batches(count: int = 4, size: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(size, 1, 16, 16, generator=generator),
            (torch.rand(size, 2, 16, 16, generator=generator) > 0.7).float(),
        )
        for _ in range(count)
    ]


def model(norm: str = "none") -> nn.Module:
    torch.manual_seed(1)
    found: nn.Module = segkit.models.build("unet", {"widths": [4, 8], "norm": norm}, 1, 2)
    return found


def state_of(
    net: nn.Module,
    *,
    loss: dict[str, Any] | None = None,
    regularizer: dict[str, Any] | None = None,
    optimizer: tuple[str, dict[str, Any]] = ("SGD", {"lr": 0.1}),
    schedule: tuple[str, dict[str, Any]] | None = None,
    epochs: int = 3,
    steps: int = 4,
) -> State:
    losses = [segkit.losses.component(name, values) for name, values in (loss or {"dice_mix": {}}).items()]
    penalties = [segkit.regularizers.component(name, values) for name, values in (regularizer or {}).items()]
    built = segkit.optimizers.build(*optimizer, net.parameters())
    plan = Schedule.constant(built)
    if schedule:
        plan = Schedule.of(segkit.schedulers.build(*schedule, built, epochs, steps))
    objective = Objective(losses, penalties, net, exclusive=False)
    return State(net, built, plan, CPU.scaler(), objective)


def run(state: State, data: list[tuple[Tensor, Tensor]], epochs: int = 3, **options: Any) -> list[Report]:
    """Train, and return the report of each epoch's last step."""
    reports = []
    for report in train(state, Tensors(data), CPU, epochs=epochs, **options):
        if report.complete:
            reports.append(report)
            state.schedule.step_epoch(0.0)
    return reports


def weights(net: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def test_the_time_of_a_report_is_that_of_training() -> None:
    """Not that of a caller who saves, say."""
    for report in train(state_of(model()), Tensors(batches(4)), CPU, epochs=1):
        time.sleep(0 if report.complete else 0.5)
    assert report.seconds < 1


@pytest.mark.parametrize(
    "name, values, plain",
    [
        ("Adam", {"lr": 2e-3}, lambda p: torch.optim.Adam(p, lr=2e-3)),
        ("SGD", {"lr": 2e-3, "momentum": 0.95}, lambda p: torch.optim.SGD(p, lr=2e-3, momentum=0.95)),
        ("RMSprop", {"lr": 2e-3}, lambda p: torch.optim.RMSprop(p, lr=2e-3)),
        ("Adam", {"lr": 2e-3, "weight_decay": 0.1}, lambda p: torch.optim.Adam(p, lr=2e-3, weight_decay=0.1)),
    ],
)
@pytest.mark.parametrize(
    "schedule, plain_schedule",
    [
        (("StepLR", {"step_size": 2, "gamma": 0.1}), lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.1)),
        (("ExponentialLR", {"gamma": 0.97}), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.97)),
    ],
)
def test_rates_and_weights_equal_plain_torch(
    name: str, values: dict[str, Any], plain: Any, schedule: Any, plain_schedule: Any
) -> None:
    data, ours, theirs = batches(), model(), model()
    reports = run(state_of(ours, optimizer=(name, values), schedule=schedule), data)
    optimizer = plain(theirs.parameters())
    scheduler, rates = plain_schedule(optimizer), []
    loss = segkit.losses.build("dice_mix", {})
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        for image, target in data:
            optimizer.zero_grad()
            loss(theirs(image), target).backward()
            optimizer.step()
        scheduler.step()
    assert [report.rate for report in reports] == rates
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-5, atol=1e-7)


def test_accumulation_equals_one_large_batch() -> None:
    data = batches(4, size=2)
    large = [(torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in (data[:2], data[2:])]
    ours, theirs = model(), model()
    first = run(state_of(ours, loss={"bce": {}}), data, accumulate=2)
    second = run(state_of(theirs, loss={"bce": {}}), large)
    torch.testing.assert_close(weights(ours), weights(theirs))
    assert [report.step for report in first] == [report.step for report in second] == [2, 4, 6]
    assert first[-1].losses["train_loss"] == pytest.approx(second[-1].losses["train_loss"])


def test_last_group_of_an_epoch_is_averaged_over_what_it_has() -> None:
    data = batches(3)
    ours, theirs = model(), model()
    run(state_of(ours, loss={"bce": {}}), data, epochs=1, accumulate=2)
    run(state_of(theirs, loss={"bce": {}}), data[:2], epochs=1, accumulate=2)
    run(state_of(theirs, loss={"bce": {}}), data[2:], epochs=1)
    torch.testing.assert_close(weights(ours), weights(theirs))


def test_clipping_bounds_the_step() -> None:
    net = model()
    before = weights(net)
    run(state_of(net, optimizer=("SGD", {"lr": 1.0})), batches(1), epochs=1, clip_norm=1e-3)
    assert float((weights(net) - before).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_report_holds_the_means_of_each_term() -> None:
    data, net = batches(), model()
    state = state_of(
        net,
        loss={"dice": {}, "bce": {"weight": 2.0}},
        regularizer={"l2": {"weight": 0.5}},
        optimizer=("SGD", {"lr": 1e-12}),
    )
    (report,) = run(state, data, epochs=1)
    losses = {name: segkit.losses.build(name) for name in ("dice", "bce")}
    with torch.no_grad():
        expected = {f"loss.{n}": sum(float(f(net(i), t)) for i, t in data) / 4 for n, f in losses.items()}
    expected["regularizer.l2"] = float(weights(net).norm())
    for name, value in expected.items():
        assert report.losses[name] == pytest.approx(value, rel=1e-4)
    total = expected["loss.dice"] + 2 * expected["loss.bce"] + 0.5 * expected["regularizer.l2"]
    assert report.losses["train_loss"] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_state_copied_after_any_step_goes_on(accumulate: int) -> None:
    data, whole, broken = batches(5), model("batch"), model("batch")
    straight = run(state_of(whole, optimizer=("Adam", {"lr": 1e-2})), data, accumulate=accumulate)
    state = state_of(broken, optimizer=("Adam", {"lr": 1e-2}))
    reports: list[Report] = []
    while state.epoch <= 3:
        for report in train(state, Tensors(data), CPU, epochs=3, accumulate=accumulate):
            if report.complete:
                reports.append(report)
                state.schedule.step_epoch(0.0)
            state = copy.deepcopy(state)  # as after a restart: nothing but the state is left
            state.objective.parameters = list(state.model.named_parameters())
            break
    assert torch.equal(weights(whole), weights(state.model))
    assert [(r.step, r.losses) for r in reports] == [(r.step, r.losses) for r in straight]


def test_proximal_steps_give_exact_zeros() -> None:
    net = model()
    run(state_of(net, regularizer={"l1": {"proximal": True, "weight": 0.5}}), batches())
    assert int((weights(net) == 0).sum()) > 100


def test_non_finite_loss_stops_with_term_and_batch() -> None:
    data = batches()
    data[2][0][0, 0, 0, 0] = float("nan")
    net = model()
    with pytest.raises(NonFiniteError, match=r"loss.dice_mix is not finite at epoch 1, step 3 .*images them") as e:
        run(state_of(net), data)
    assert e.value.image is data[2][0]
    assert bool(torch.isfinite(weights(net)).all())


def test_gradient_shares_tell_what_drowns_what() -> None:
    net, (image, target) = model(), batches(1)[0]
    state = state_of(net, loss={"combined": {"bce_reduction": "sum"}, "dice": {}})
    shares = state.objective.gradient_shares([*state.objective(net(image), target).values()])
    assert [row["term"] for row in shares] == ["loss.combined.bce", "loss.combined.mix", "loss.dice"]
    assert sum(row["gradient_share"] for row in shares) == pytest.approx(1)
    assert "loss.combined.bce has 99" in str(dominant_term(shares))
    state = state_of(net, loss={"bce": {}, "dice": {}})
    assert dominant_term(state.objective.gradient_shares([*state.objective(net(image), target).values()])) is None


def test_log_odds_make_sigmoid_the_softmax() -> None:
    scores = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True) * 20
    torch.testing.assert_close(torch.sigmoid(log_odds(scores)), torch.softmax(scores, dim=1))
    assert torch.autograd.gradcheck(log_odds, (torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True),))


def test_cross_entropy_of_exclusive_classes_is_torchs() -> None:
    scores, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    target = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    net = model()
    objective = Objective([segkit.losses.component("cross_entropy")], [], net, exclusive=True)
    expected = torch.nn.functional.cross_entropy(scores, labels)
    torch.testing.assert_close(objective.loss(scores, target), expected)


def test_losses_are_float32_under_autocast() -> None:
    seen: list[torch.dtype] = []

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1)

        def forward(self, image: Tensor) -> Tensor:
            scores: Tensor = self.conv(image)
            seen.append(scores.dtype)
            return scores

    net = Spy()
    state = state_of(net)
    compute = state.objective.losses[0].compute

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        seen.append(logits.dtype)
        found: Tensor = compute(logits, target)
        return found

    object.__setattr__(state.objective.losses[0], "compute", loss)
    device = Device(torch.device("cpu"), "bf16", "")
    for _ in train(state, Tensors(batches(1)), device, epochs=1):
        pass
    assert seen == [torch.bfloat16, torch.float32]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_loop_learns_on_cuda_in_every_precision() -> None:
    for precision in ("float32", "bf16", "fp16"):
        device = choose("cuda", precision)
        net = model("batch").to(device.device)
        state = state_of(net, optimizer=("Adam", {"lr": 1e-2}))
        state.scaler = device.scaler()
        data = [(image.to(device.device), target.to(device.device)) for image, target in batches()]
        losses = [report.losses["train_loss"] for report in train(state, Tensors(data), device, epochs=20)]
        assert losses[-1] < losses[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_non_finite_loss_is_seen_on_cuda_by_the_end_of_the_epoch() -> None:
    device = choose("cuda", "float32")
    data = [(image.cuda(), target.cuda()) for image, target in batches()]
    data[1][0][0, 0, 0, 0] = float("nan")
    net = model().cuda()
    with pytest.raises(NonFiniteError, match=r"epoch 1, step 2"):
        list(train(state_of(net), Tensors(data), device, epochs=1))


def test_the_benchmark_of_the_loop_runs() -> None:
    found = measure(1, "cpu")
    assert {name: len(values) for name, values in found.items()} == {"bare": 1, "ours": 1, "step": 1, "border": 1}
    assert found["ours"][0] > 0
