"""Trouble while training: each kind ends in one message that says what and what to do, and loses nothing."""

from __future__ import annotations

import gc
import json
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segkit
from segkit.components.datasets.case import Case, Dataset
from segkit.device import Device
from segkit.plugins import isolated
from segkit.study.executor import Local
from segkit.training import warnings
from tests.small import discs, kinds, train

FOLDER = Path("only/seed-1")


def status(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / FOLDER / "trial.json").read_text())
    return found


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    with isolated():
        yield


@pytest.fixture
def empty_discs() -> None:
    """A dataset whose masks are empty wherever the split validates."""

    def without_foreground() -> Dataset:
        cases = [Case(c.name, c.patient, c.image, np.zeros_like(c.masks), c.spacing_mm) for c in discs().cases]
        return Dataset("empty", ("wall", "cavity"), tuple(cases))

    segkit.datasets.register("empty_discs")(without_foreground)


@pytest.fixture
def breaking_transform() -> None:
    """A transform that raises."""
    import albumentations as a

    class Breaks(a.ImageOnlyTransform):  # type: ignore[misc]
        def apply(self, img: Any, **params: Any) -> Any:
            raise RuntimeError("the scanner is on fire")

    def breaks() -> Any:
        return Breaks(p=1)

    segkit.transforms.register("breaks")(breaks)


def test_out_of_memory_says_which_batch_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, image: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    from segkit.components.unet import UNet

    monkeypatch.setattr(UNet, "forward", full)
    events = train(tmp_path, "train.batch_size=6", "train.accumulate=2")
    assert kinds(events)[-1] == "failed"
    assert "train.batch_size = 6. Try --set train.batch_size=3 --set train.accumulate=4" in events[-1].text
    assert status(tmp_path)["status"] == "failed"
    events = train(tmp_path / "one", "train.batch_size=1")
    assert "with one image a batch: use smaller crops, a smaller model or bf16." in events[-1].text
    events = train(tmp_path / "share", "train.batch_size=6", gpu_share=0.25)
    assert events[-1].text == (
        "a trial ran out of its 25% of the GPU's memory with train.batch_size = 6. Let fewer trials share it "
        "(--gpus-per-trial, --jobs). Or try --set train.batch_size=3 --set train.accumulate=2: the same number of "
        "images a step. That is another trial: one that has begun has to be trained again, with --fresh."
    )
    events = train(tmp_path / "shared one", "train.batch_size=1", gpu_share=0.25)
    assert events[-1].text.endswith("bf16, or let fewer trials share it (--gpus-per-trial, --jobs).")
    events = train(tmp_path / "resident", "train.batch_size=1", "train.resident=true")
    assert events[-1].text.endswith("or bf16. Samples live there too, unless --set train.resident=false.")


def test_samples_that_do_not_fit_on_the_device_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("segkit.training.feed.Resident", full)
    events = train(tmp_path, "train.resident=true")
    assert (events[-1].kind, events[-1].text) == (
        "failed",
        "train.resident: the device has no memory for the samples (0 MiB). With --set train.resident=false the CPU "
        "transforms them.",
    )


def test_an_engine_that_cudnn_does_not_find_may_be_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, image: Any) -> Any:
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    from segkit.components.unet import UNet

    monkeypatch.setattr(UNet, "forward", full)
    events = train(tmp_path)
    assert " cuDNN says so where memory is short, too: try a smaller train.batch_size." in events[-1].text


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_what_did_not_fit_does_not_stay(error: RuntimeError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does an innocent component get the blame for it."""
    held = []

    def full(self: Any, image: Any) -> Any:
        activations = image.clone()
        held.append(weakref.ref(activations))
        raise type(error)(*error.args)

    from segkit.components.unet import UNet

    monkeypatch.setattr(UNet, "forward", full)
    gc.collect()
    gc.disable()  # torch's allocator does not call it either
    try:
        events = train(tmp_path, "train.batch_size=6")
        assert [found() for found in held] == [None]
    finally:
        gc.enable()
    assert events[-1].text.startswith("the device ran out of memory with train.batch_size = 6. Try")


def test_a_trial_may_take_its_share_of_a_gpu_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[float, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: limits.append(given))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    for name, share in (("cuda:1", 0.25), ("cuda:0", 1.0), ("cpu", 0.25)):
        Device(torch.device(name), "float32", "").limit_memory(share)
    assert limits == [(pytest.approx(0.2375), torch.device("cuda:1")), (1.0, torch.device("cuda:0"))]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    wanted = {(1.0, 1): 1, (1.0, 2): 1, (1.0, 3): 0.5, (1.0, 8): 0.25, (0.5, 2): 0.5, (0.5, 4): 0.5}
    assert {(gpus, trials): Local(gpus).share(trials, "cuda") for gpus, trials in wanted} == wanted
    assert Local().share(4, "cuda:1") == 0.25


def test_the_first_step_says_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    lines = [event.text for event in train(tmp_path / "compiled", "train.compile=true") if event.kind == "log"]
    (line,) = [line for line in lines if "first step" in line]
    assert re.fullmatch(r"\[only/seed-1\] first step: [0-9.]+ s, with compiling", line)
    assert not any("first step" in event.text for event in train(tmp_path / "eager"))


def test_a_sample_that_raises_is_named_with_its_transform(tmp_path: Path, breaking_transform: None) -> None:
    events = train(tmp_path, "transforms.train=['breaks']")
    assert kinds(events)[-1] == "failed"
    assert "the scanner is on fire" in events[-1].text
    assert "Breaks" in events[-1].text or "breaks" in events[-1].text
    assert any(f"p{number}/" in events[-1].text for number in range(6))


def test_a_validation_set_without_foreground_is_warned_of(tmp_path: Path, empty_discs: None) -> None:
    events = train(tmp_path, "data=empty_discs", "train.epochs=1")
    assert kinds(events)[-1] == "finished"
    assert any("no validation case has any foreground" in event.text for event in events if event.kind == "warning")
    assert any("no validation case has any foreground" in text for text in status(tmp_path)["warnings"])


def test_a_gradient_that_explodes_in_the_last_step_is_no_finished_trial(tmp_path: Path) -> None:
    sets = ["optimizer.SGD={ lr = 1e38 }", "train.epochs=1", "train.batch_size=8", "model.unet.norm=none"]
    events = train(tmp_path, *sets)
    assert kinds(events)[-1] == "failed"
    assert "after epoch 1, though every training loss was finite" in events[-1].text
    assert not (tmp_path / FOLDER / "last.safetensors").exists()


def test_clipping_keeps_the_same_gradient_from_exploding(tmp_path: Path) -> None:
    sets = ["optimizer.SGD={ lr = 30.0 }", "model.unet.norm=none", "loss.bce={}", "train.epochs=1"]
    assert kinds(train(tmp_path / "clipped", *sets, "train.clip_norm=1e-4"))[-1] == "finished"


def test_a_plugin_component_that_raises_leaves_its_traceback(tmp_path: Path) -> None:
    def broken(logits: Any, target: Any) -> Any:
        raise ZeroDivisionError("by design")

    segkit.losses.register("broken_for_test")(broken)
    events = train(tmp_path, "loss={ broken_for_test = {} }")
    assert kinds(events)[-1] == "failed"
    assert re.search(
        r"^loss\.broken_for_test \(tests/test_trouble\.py:[0-9]+\): ZeroDivisionError: by design\. "
        r"To try it by itself: `segkit\.testing\.check\(segkit\.losses\[\"broken_for_test\"\]\)` "
        r"The traceback is in .*error\.txt\.$",
        events[-1].text,
    )
    assert "by design" in (tmp_path / FOLDER / "error.txt").read_text()


def test_a_builder_that_refuses_its_parameters_is_named(tmp_path: Path) -> None:
    sets = "scheduler={ SequentialLR = { schedulers = ['StepLR_', 'StepLR_'], milestones = [1, 2] } }"
    events = train(tmp_path, sets.replace("'StepLR_'", "'ConstantLR'"))
    assert events[-1].text == "scheduler.SequentialLR: 2 schedulers need 1 milestone, got 2."


def test_the_trial_goes_on_where_a_failure_left_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    real = warnings.no_foreground

    def once(rows: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MemoryError("no more")
        return real(rows)

    monkeypatch.setattr(warnings, "no_foreground", once)
    assert kinds(train(tmp_path))[-1] == "failed"
    events = train(tmp_path)
    assert any("resumes in epoch 2" in event.text for event in events)
    assert kinds(events)[-1] == "finished"
