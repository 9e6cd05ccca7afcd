"""Batches: the same bytes for any number of workers, after a resume, in any order; workers that fail say so."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from segkit import UserError, plugins, transforms
from segkit.components.datasets.case import Case
from segkit.data.batches import Batches
from segkit.data.order import Order
from segkit.data.samples import Samples
from segkit.data.workers import WorkerError
from segkit.device import preserved_process_state
from tests.small import samples_of

CROP = ("RandomCrop", {"height": 24, "width": 32})
ROTATE = ("Rotate", {"limit": 180, "p": 0.5})


def make_samples(*named: tuple[str, dict[str, Any]], count: int = 11, channels: int = 2) -> Samples:
    rng = np.random.default_rng(0)
    sizes = [(48, 40), (40, 48)]
    cases = [
        Case(
            f"case{number}",
            None,
            rng.integers(0, 255, sizes[number % 2]).astype(np.uint8),
            rng.random((channels, *sizes[number % 2])) > 0.6,
            None,
        )
        for number in range(count)
    ]
    return samples_of(cases, [transforms.component(name, values) for name, values in named])


def bytes_of(batches: Iterator[tuple[Tensor, Tensor]]) -> list[tuple[bytes, bytes]]:
    return [(image.numpy().tobytes(), bits.numpy().tobytes()) for image, bits in batches]


@pytest.fixture(scope="module")
def reference() -> dict[int, list[tuple[bytes, bytes]]]:
    batches = Batches(make_samples(ROTATE, CROP), batch_size=4, seed=5, workers=0)
    return {epoch: bytes_of(batches.epoch(epoch)) for epoch in range(1, 6)}


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_the_same_bytes_for_any_number_of_workers(
    workers: int, reference: dict[int, list[tuple[bytes, bytes]]]
) -> None:
    with Batches(make_samples(ROTATE, CROP), batch_size=4, seed=5, workers=workers) as batches:
        assert batches.steps_per_epoch == 3
        for epoch in range(1, 5):  # across epoch borders
            assert bytes_of(batches.epoch(epoch)) == reference[epoch]
        assert bytes_of(batches.epoch(5, 1)) == reference[5][1:]  # a resume within an epoch
        next(batches.epoch(1))  # an epoch that is left
        assert bytes_of(batches.epoch(2)) == reference[2]  # another order of epochs
        assert bytes_of(batches.epoch(2)) == reference[2]


def test_seed_and_epoch_change_order_and_augmentation(reference: dict[int, list[tuple[bytes, bytes]]]) -> None:
    assert len({batch for batches in reference.values() for batch in batches}) == 15
    other = Batches(make_samples(ROTATE, CROP), batch_size=4, seed=6, workers=0)
    assert not set(bytes_of(other.epoch(1))) & set(reference[1])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("channels", [2, 12])
def test_shapes_and_types(workers: int, channels: int) -> None:
    with Batches(make_samples(CROP, channels=channels), batch_size=4, seed=0, workers=workers) as batches:
        found = list(batches.epoch(1))
    assert [image.shape for image, _ in found] == [(4, 24, 32), (4, 24, 32), (3, 24, 32)]
    assert all(image.dtype == torch.uint8 and image.shape == bits.shape for image, bits in found)
    assert {bits.dtype for _, bits in found} == {torch.uint8 if channels <= 8 else torch.int16}


def test_batches_that_were_handed_out_stay_as_they_are(reference: dict[int, list[tuple[bytes, bytes]]]) -> None:
    with Batches(make_samples(ROTATE, CROP), batch_size=4, seed=5, workers=1) as batches:
        kept = [batch for epoch in range(1, 6) for batch in batches.epoch(epoch)]
        assert bytes_of(iter(kept)) == [batch for epoch in range(1, 6) for batch in reference[epoch]]


def test_opencvs_threads_are_a_trials_to_set_and_to_put_back() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        with Batches(make_samples(CROP), batch_size=4, seed=0, workers=0) as batches:
            list(batches.epoch(1))
            assert cv2.getNumThreads() == 2
        with preserved_process_state(1):
            assert cv2.getNumThreads() == 1
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def members(order: Order, numbers: range) -> list[list[tuple[int, int]]]:
    return [order(number) for number in numbers]


def test_an_epoch_is_each_sample_once() -> None:
    order = Order(10, 10, 4, seed=1)
    for epoch in range(3):
        batches = members(order, range(epoch * 3, epoch * 3 + 3))
        assert [len(batch) for batch in batches] == [4, 4, 2]
        assert sorted(index for batch in batches for _, index in batch) == list(range(10))
        assert {passed for batch in batches for passed, _ in batch} == {epoch + 1}
    assert members(order, range(3)) != members(Order(10, 10, 4, seed=2), range(3))


def test_a_budget_in_steps_draws_pass_by_pass() -> None:
    order = Order(10, 26, 8, seed=1)
    assert order.steps_per_epoch == 4
    drawn = [member for batch in members(order, range(20)) for member in batch]
    assert len(drawn) == 5 * 26
    assert [passed for passed, _ in drawn] == [number // 10 + 1 for number in range(130)]
    for passed in range(1, 14):
        assert sorted(index for number, index in drawn if number == passed) == list(range(10))
    assert [len(batch) for batch in members(order, range(4))] == [8, 8, 8, 2]


def test_fewer_samples_train_for_as_many_steps() -> None:
    few = Batches(make_samples(CROP, count=3), batch_size=4, seed=0, workers=0, samples_per_epoch=11)
    assert [len(image) for image, _ in few.epoch(2)] == [4, 4, 3]


def test_images_of_other_sizes_pass_through_workers_one_by_one() -> None:
    samples = make_samples(ROTATE)
    plain = bytes_of(Batches(samples, batch_size=1, seed=0, workers=0).epoch(1))
    with Batches(samples, batch_size=1, seed=0, workers=2) as batches:
        assert bytes_of(batches.epoch(1)) == plain


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_transform_names_sample_and_transform_and_leaves_the_rest(workers: int) -> None:
    samples = make_samples(("RandomCrop", {"height": 44, "width": 24}), count=2)  # the second case has 40 rows
    with Batches(samples, batch_size=1, seed=0, workers=0) as plain, contextlib.ExitStack() as stack:
        batches = stack.enter_context(Batches(samples, batch_size=1, seed=0, workers=workers)) if workers else plain
        for epoch in (1, 2, 3):
            for step, [(_, index)] in enumerate(members(plain._order, range(epoch * 2 - 2, epoch * 2))):
                if index == 1:
                    with pytest.raises(UserError, match="case1: transform RandomCrop: Crop size"):
                        next(batches.epoch(epoch, step))
                else:
                    assert next(batches.epoch(epoch, step))[0].shape == (1, 44, 24)


@pytest.mark.parametrize("workers", [0, 1])
def test_sizes_that_differ_within_a_batch(workers: int) -> None:
    with (
        Batches(make_samples(ROTATE), batch_size=4, seed=0, workers=workers) as batches,
        pytest.raises(UserError, match="Images of a batch must have one size"),
    ):
        list(batches.epoch(1))


def epochs(batches: Batches, last: int) -> None:
    """Go on after the first batch."""
    for epoch in range(1, last + 1):
        list(batches.epoch(epoch, int(epoch == 1)))


def processes(batches: Batches) -> list[Any]:
    assert batches._workers is not None
    return batches._workers.processes


def gone(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_worker_that_dies_is_reported() -> None:
    with Batches(make_samples(CROP), batch_size=4, seed=0, workers=2) as batches:
        next(batches.epoch(1))
        os.kill(processes(batches)[1].pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"died, often because memory ran out; .* is of case\d+.*train.workers"):
            epochs(batches, 3)


def test_a_worker_that_hangs_is_reported_and_ended() -> None:
    with Batches(make_samples(CROP), batch_size=4, seed=0, workers=1, timeout=60.0) as batches:
        next(batches.epoch(1))
        assert batches._workers is not None
        batches._workers._timeout = 0.3
        batches._workers.processes[0].join(0.5)  # what it has made ahead is taken below
        pid = processes(batches)[0].pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(WorkerError, match=r"has not answered for 0.3 seconds, .* of case\d+.*workers = 0"):
            epochs(batches, 3)
    assert gone(pid)


def test_closing_ends_the_processes_and_may_be_repeated() -> None:
    batches = Batches(make_samples(CROP), batch_size=4, seed=0, workers=2)
    next(batches.epoch(1))
    pids = [process.pid for process in processes(batches)]
    until = time.monotonic() + 20  # one batch is there before the other process has begun
    while not all(os.getpgid(pid) == pid for pid in pids) and time.monotonic() < until:
        time.sleep(0.01)
    assert all(os.getpgid(pid) == pid for pid in pids)  # a signal to the group of the main process spares them
    batches.close()
    batches.close()
    assert all(gone(pid) for pid in pids)


def test_forgotten_batches_end_their_processes() -> None:
    batches = Batches(make_samples(CROP), batch_size=4, seed=0, workers=1)
    next(batches.epoch(1))
    pid = processes(batches)[0].pid
    del batches
    gc.collect()
    assert gone(pid)


def test_workers_find_the_transforms_of_plugins(tmp_path: Path) -> None:
    (tmp_path / "darken.py").write_text(
        "import albumentations\n"
        "from segkit import transforms\n\n"
        "@transforms.register('darken')\n"
        "class Darken(albumentations.ImageOnlyTransform):\n"
        "    def __init__(self, most: int = 50) -> None:\n"
        "        super().__init__(p=1)\n"
        "        self.most = most\n\n"
        "    def apply(self, img, **params):\n"
        "        return img // 2 + self.py_random.randint(0, self.most)\n"
    )
    before = transforms.snapshot()
    try:
        assert not [failure for failure in plugins.load([tmp_path]) if "darken" in failure.origin]
        samples = make_samples(("darken", {"most": 20}), CROP)
        plain = bytes_of(Batches(samples, batch_size=4, seed=0, workers=0).epoch(1))
        with Batches(samples, batch_size=4, seed=0, workers=1, plugins=[str(tmp_path)]) as batches:
            assert bytes_of(batches.epoch(1)) == plain
        with (
            Batches(samples, batch_size=4, seed=0, workers=1) as batches,
            pytest.raises(WorkerError, match=r"a worker process failed on a batch of case\d+(.|\n)*segkit_plugins"),
        ):
            next(batches.epoch(1))
    finally:
        transforms.restore(before)


def test_auto_is_none_on_a_cpu_and_some_beside_an_accelerator() -> None:
    from segkit.data.batches import _count

    assert Batches(make_samples(CROP), batch_size=4, seed=0).workers == 0
    assert 1 <= _count("auto", torch.device("cuda"), transforms=1) <= 4
    assert _count("auto", torch.device("cuda"), transforms=0) == 0
    assert _count(3, torch.device("cpu"), transforms=0) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_arrive_on_the_device(workers: int, reference: dict[int, list[tuple[bytes, bytes]]]) -> None:
    with Batches(make_samples(ROTATE, CROP), batch_size=4, seed=5, workers=workers, device="cuda") as batches:
        for epoch in range(1, 4):
            found = list(batches.epoch(epoch))
            assert all(image.is_cuda and bits.is_cuda for image, bits in found)
            assert bytes_of((image.cpu(), bits.cpu()) for image, bits in found) == reference[epoch]
