"""Nothing in a step waits for a GPU: on tensors without content whatever asks for one fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import segkit
from segkit import plugins
from segkit.components.models import checked
from segkit.data.cache import DataCache
from segkit.data.resident.batches import Resident
from segkit.data.samples import to_device_float
from segkit.training.loop import train
from segkit.training.objective import Objective
from segkit.training.setup import set_up
from segkit.training.training_step import TrainingStep
from segkit.training.trial import Limit
from segkit.types import Batch
from tests.small import recipe
from tests.test_resident import SETTINGS, discs, pair

META = torch.device("meta")
WAITS = {"boundary"}  # for distances, which the host computes, as its docstring says
PLUGINS = Path(__file__).parents[1] / "plugins"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with plugins.isolated():
        yield


def test_a_question_of_the_host_fails() -> None:
    with pytest.raises(RuntimeError, match="item"):
        torch.ones((), device=META).item()


@pytest.mark.parametrize("name", sorted({entry.name for entry in segkit.losses if not entry.foreign} - WAITS))
def test_a_loss_does_not_wait(name: str) -> None:
    logits = torch.randn(3, 2, 16, 12, device=META, requires_grad=True)
    term = segkit.losses.build(name)
    found = term(logits, torch.zeros(3, 2, 16, 12, device=META))
    for value in found.values() if isinstance(found, dict) else [found]:
        value.backward(retain_graph=True)
    assert logits.grad is not None


@pytest.mark.parametrize(("deep", "exclusive"), [(False, False), (True, True)])
@pytest.mark.parametrize("step", ["supervised", "mean_teacher"])
def test_a_step_does_not_wait(step: str, deep: bool, exclusive: bool) -> None:
    plugins.load_file(PLUGINS / "mean_teacher.py")
    channels = 2 + exclusive
    values = {"widths": (4, 8, 8), "deep_supervision": deep, "dropout": 0.1, "upsampler": "bilinear"}
    model: nn.Module = segkit.models.build("unet", values, 1, channels).to(META)
    terms = [segkit.losses.component("dice_mix"), segkit.losses.component("bce")]
    objective = Objective(terms, [segkit.regularizers.component("l1l2")], model, exclusive=exclusive)
    training_step = TrainingStep(segkit.steps.component(step))
    training_step.prepare(model, META)
    forward, optimizer = checked(model, segkit.models.component("unet"), channels), torch.optim.Adam(model.parameters())
    labelled = torch.tensor([True, False, True])
    for _ in range(2):  # the first one checks more
        image, masks = torch.zeros(3, 24, 20, dtype=torch.uint8, device=META), torch.zeros(3, 24, 20, device=META)
        pair = to_device_float(image, masks.to(torch.uint8), (1.0,), (2.0,), 2, exclusive)
        losses, _ = training_step(forward, Batch(*pair, labelled), objective)
        objective.total(losses).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        training_step.updated(model)


@pytest.mark.parametrize(("name", "values"), SETTINGS)
def test_samples_on_a_device_do_not_wait(name: str, values: dict[str, Any]) -> None:
    if name == "GaussNoise":  # there are no random numbers without content
        pytest.skip("noise")
    for exclusive in (False, True):
        samples, _ = pair(discs()[:2], [(name, values)], exclusive)
        there = Resident(samples, META, exclusive=exclusive)
        assert there.batch(1, [(0, 1)])[0].device == META


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
@pytest.mark.parametrize(
    "sets",
    [
        ("train.resident=true",),
        ("train.resident=false",),
        ("train.resident=true", "train.clip_norm=1", "train.ema=0.9", "loss={ dice = {}, bce = {} }"),
        ("train.resident=true", "channels=exclusive", "optimizer.SGD={ lr = 0.1, momentum = 0.9 }"),
    ],
)
def test_steps_on_a_gpu_do_not_wait(sets: tuple[str, ...]) -> None:
    made = recipe("train.device=cuda", "train.precision=bf16", "train.steps_per_epoch=9", *sets)
    parts = set_up(made, Limit(), DataCache())
    options: dict[str, Any] = {"epochs": 1, "clip_norm": made.train.clip_norm, "forward": parts.forward}
    steps = train(parts.state, parts.feed, parts.device, **options)
    try:
        for _ in range(3):  # the first one is looked at
            next(steps)
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(4):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        parts.feed.batches.close()
        parts.validation.close()
