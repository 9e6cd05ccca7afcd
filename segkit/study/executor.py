"""This machine as the place of trials: one after another in this process, or several in processes of their own."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from segkit import device as devices
from segkit.data.cache import DataCache
from segkit.data.filling import usable_cores
from segkit.errors import UserError
from segkit.study import places
from segkit.study.on_ray import Cluster
from segkit.study.places import END, Place, Source, stopping
from segkit.study.workers import VISIBLE, Pool
from segkit.training.trial import Event, Trial


@dataclass(frozen=True)
class Local:
    """This machine.

    Attributes:
        gpus_per_trial: the share of a GPU that a trial takes, up to 1.
    """

    gpus_per_trial: float = 1.0

    def resolve(self, device: str, precision: str) -> tuple[str, str]:
        """Return the type of device and the precision that a recipe's names mean here; see `places.Place`."""
        found = devices.choose(device, precision)
        return found.device.type if device == "auto" else device, found.precision

    def memory(self, device: str) -> int | None:
        """Return the bytes of a CUDA device, used or not; see `places.Place`."""
        return devices.memory(device)

    def share(self, at_a_time: int, device: str) -> float:
        """Return the share of a GPU's memory that each trial may take, up to 1; see `places.Place`."""
        gpus = max(1, torch.cuda.device_count()) if device == "cuda" else 1  # with a number it is that one
        return min(self.gpus_per_trial, 1 / math.ceil(at_a_time / gpus))

    def jobs(self, asked: int | str, trials: int, device: str, threads: int | None = None) -> tuple[int, int]:
        """Return (trials at a time, CPU threads each); see `places.Place`.

        On a CPU "auto" is one trial per core, with one thread each: small convolutions do not fill the cores, and more
        threads than cores halve the speed. On GPUs it is as many as their number and `gpus_per_trial` allow, and one on
        a GPU with a number. The choice is independent of load and free memory.
        """
        cores, most = usable_cores(), 1
        if device == "cpu":
            most = max(1, cores // (threads or 1))
        elif device == "cuda":
            most = max(1, torch.cuda.device_count() * self._trials_per_gpu)
        jobs = max(1, min(most, trials) if asked == "auto" else int(asked))
        return jobs, threads or (max(1, cores // jobs) if device == "cpu" else 1)

    @property
    def _trials_per_gpu(self) -> int:
        return max(1, int(1 / self.gpus_per_trial + 1e-6))

    def execute(
        self,
        source: Source,
        *,
        at_a_time: int = 1,
        fail_fast: bool = False,
        cache: DataCache | None = None,
        folders: Sequence[str] = (),
    ) -> Iterator[Event]:
        """Train every trial, one at a time in this process; yield their events as they happen; see `places.Place`."""
        if at_a_time == 1:
            yield from _one_by_one(source, fail_fast, cache or DataCache())
        else:
            yield from self._side_by_side(source, at_a_time, fail_fast, folders, cache or DataCache())

    def _side_by_side(
        self, source: Source, count: int, fail_fast: bool, folders: Sequence[str], cache: DataCache
    ) -> Iterator[Event]:
        coming, more = iter(source), True
        with stopping() as stop:
            pool = Pool(self._gpus(), stop, folders, cache)
            try:
                while pool.busy or (more and not stop.value):
                    while more and not stop.value and len(pool.busy) < count:
                        found = next(coming, END)
                        more = found is not END
                        if isinstance(found, Trial):
                            pool.start(found)
                        elif isinstance(found, Event):
                            yield found
                        else:
                            break
                    for event in pool.events() if pool.busy or more else ():
                        yield event
                        if event.kind == "failed" and fail_fast:
                            stop.value = True
            finally:
                stop.value = True
                pool.close()

    def _gpus(self) -> list[str]:
        """Return the names of the GPUs that this process sees."""
        visible = os.environ.get(VISIBLE)
        return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


def place_of(on: str | None, *, gpus_per_trial: float = 1.0, memory: int | None = None) -> Place:
    """Return where trials are trained: this machine, or the Ray cluster of an address.

    Args:
        on: None; "ray" for the cluster of RAY_ADDRESS, or else one of this machine; or "ray://HOST:PORT".
        gpus_per_trial: the share of a GPU that a trial takes, up to 1.
        memory: bytes that a trial reserves on a cluster.

    Raises:
        UserError: Ray is not installed, or does not answer; memory is given without a cluster.
    """
    if on is None and memory is not None:
        raise UserError("--memory-per-trial: nothing is reserved on this machine. Use it with --on, or leave it out.")
    return Local(gpus_per_trial) if on is None else Cluster(on, gpus_per_trial, memory)


def _one_by_one(source: Source, fail_fast: bool, cache: DataCache) -> Iterator[Event]:
    from segkit.training.run import run_trial

    with stopping() as stop:
        for found in source:
            if found is None:
                time.sleep(places.POLL)
            elif isinstance(found, Event):
                yield found
            else:
                for event in run_trial(found, stop=lambda: stop.value, cache=cache):
                    yield event
                    if event.kind == "failed" and fail_fast:
                        stop.value = True
            if stop.value:
                return
