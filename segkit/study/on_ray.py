"""A Ray cluster as the place of trials: Ray finds each a machine; what a trial is, resumes and leaves is segkit's."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pickle
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segkit import files, plugins
from segkit.data.cache import DataCache
from segkit.device import memory
from segkit.errors import UserError
from segkit.leases import LeaseLostError
from segkit.registry.faults import described
from segkit.study import places
from segkit.study.places import END, Source, stopping
from segkit.study.ray_task import Board, Packed, changed_files, resolve, work
from segkit.training.run import failed
from segkit.training.trial import ENDS, Event, Trial

CRASHES = 3  # of one trial in a row, after which it fails
HEAD = {"node:__internal_head__": 0.001}  # the machine that a cluster does not lose


@dataclasses.dataclass
class _Task:
    """A trial under way; `crashes` counts the attempts that were lost since its state was `saved`."""

    trial: Trial
    attempt: str = ""
    crashes: int = 0
    saved: int | None = None
    ended: bool = False


class Cluster:
    """A Ray cluster.

    Args:
        address: "ray": that in RAY_ADDRESS, or else a new one of this machine alone; or "ray://HOST:PORT".
        gpus_per_trial: of a trial that trains on a GPU; several share one if it is a fraction.
        memory: bytes that a trial reserves, or None.

    Raises:
        UserError: Ray is not installed, or does not answer.
    """

    def __init__(self, address: str, gpus_per_trial: float = 1.0, memory: int | None = None) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError as error:
            if error.name != "ray":
                raise
            raise UserError(f"--on {address}: Ray is not installed. Get it with `pip install segkit[ray]`.") from None
        try:
            if not self._ray.is_initialized():
                where = None if address == "ray" else address
                self._ray.init(where, log_to_driver=False, logging_level="error")
                # else a lost machine leaves a hundred lines on standard output
                vars(importlib.import_module("ray._private.worker"))["print_to_stdstream"] = _nothing
        except Exception as error:
            raise UserError(f"--on {address}: no answer from Ray: {str(error).splitlines()[0]}") from None
        self._gpus_per_trial, self._memory = gpus_per_trial, memory
        self._resolved: dict[tuple[str, str], tuple[str, str]] = {}
        self._apart = False  # a machine was met that does not see the run folder

    def resolve(self, device: str, precision: str) -> tuple[str, str]:
        """Return the type of device and the precision that a recipe's names mean on the cluster; see `places.Place`."""
        if (device, precision) not in self._resolved:
            task = self._ray.remote(resolve).options(num_cpus=0, num_gpus=self._gpus_of(device))
            self._resolved[device, precision] = self._ray.get(task.remote(device, precision))
        return self._resolved[device, precision]

    def memory(self, device: str) -> int | None:
        """Return the bytes of a CUDA device, used or not; see `places.Place`."""
        if not device.startswith("cuda"):
            return None
        task = self._ray.remote(memory).options(num_cpus=0, num_gpus=self._gpus_of(device))
        found: int | None = self._ray.get(task.remote(device))
        return found

    def share(self, at_a_time: int, device: str) -> float:
        """Return the share of a GPU's memory that each trial may take, up to 1; see `places.Place`."""
        return min(self._gpus_per_trial, 1)

    def jobs(self, asked: int | str, trials: int, device: str, threads: int | None = None) -> tuple[int, int]:
        """Return (trials at a time, CPU threads each): as many as the cluster has room for, of one thread."""
        return (trials if asked == "auto" else int(asked)), threads or 1

    def _gpus_of(self, device: str) -> float:
        there = self._ray.cluster_resources().get("GPU", 0) > 0
        if device.startswith("cuda") and not there:
            raise UserError(f"train.device: '{device}' is not available: no machine of the cluster has a GPU.")
        return self._gpus_per_trial if there and device.startswith(("cuda", "auto")) else 0.0

    def _needs(self, trial: Trial) -> dict[str, float]:
        train = trial.recipe.train
        cpus = int(train.threads) + (0 if train.workers == "auto" else train.workers)
        memory = {"memory": self._memory} if self._memory else {}
        return {"num_cpus": cpus, "num_gpus": self._gpus_of(train.device), **memory}

    def _room(self, trial: Trial) -> int:
        """Return how many such trials the cluster can train now, and one more, so that no machine has to wait."""
        has, names = self._ray.cluster_resources(), {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        return 1 + min(int(has.get(names[name], 0) / number) for name, number in self._needs(trial).items() if number)

    def execute(
        self, source: Source, *, at_a_time: int, fail_fast: bool, cache: DataCache, folders: Sequence[str]
    ) -> Iterator[Event]:
        """Train every trial on the cluster; yield their events as they happen; see `places.Place`."""
        board = self._ray.remote(Board).options(num_cpus=0, resources=HEAD).remote()
        running: dict[Any, _Task] = {}
        coming, more, room = iter(source), True, 1
        with stopping() as stop:
            try:
                while running or (more and not stop.value):
                    while more and not stop.value and len(running) < min(at_a_time, room):
                        found = next(coming, END)
                        more = found is not END
                        if isinstance(found, Trial):
                            room = self._room(found)
                            running |= self._submitted(_Task(found), board, cache)
                        elif isinstance(found, Event):
                            yield found
                        else:
                            break
                    for event in self._happened(board, cache, running):
                        yield event
                        stop.value = stop.value or (event.kind == "failed" and fail_fast)
                    if stop.value:
                        board.halt.remote()
            except self._ray.exceptions.RayError as error:
                why = str(error).splitlines()[0]
                raise UserError(f"the Ray cluster is lost: {why} The same command resumes on another one.") from None
            finally:
                with contextlib.suppress(Exception):  # the cluster may be gone
                    self._ray.kill(board)
                    for reference in running:
                        self._ray.cancel(reference, force=True)

    def _submitted(self, task: _Task, board: Any, cache: DataCache) -> dict[Any, _Task]:
        """Submit a trial; return its task by the reference to what it will return."""
        trial = task.trial
        task.attempt = secrets.token_hex(8)
        used = plugins.used_by(trial.recipe.components())
        sources = [{"module": plugin.module, "sources": plugin.sources} for plugin in used]
        if self._apart and trial.fresh:
            shutil.rmtree(trial.path, ignore_errors=True)
        sent = changed_files(trial.path, {}) if self._apart else None
        packed = Packed(
            pickle.dumps((trial, cache)), version("segkit"), sources, Path.cwd(), self._seen_by(trial), sent
        )
        options = self._needs(trial) | {"max_retries": 0}
        return {self._ray.remote(work).options(**options).remote(packed, board, task.attempt): task}

    def _seen_by(self, trial: Trial) -> Path:
        """Return a file that a machine sees if it sees the run folder: the trial's lease."""
        return trial.lease.path if trial.lease else trial.run

    def _happened(self, board: Any, cache: DataCache, running: dict[Any, _Task]) -> Iterator[Event]:
        """Wait a while; yield what has happened; submit trials again whose machine was lost."""
        if not running:
            time.sleep(places.POLL)
        done = self._ray.wait(list(running), timeout=places.POLL)[0] if running else []
        attempts = {task.attempt: task for task in running.values()}
        for attempt, events, sent in self._ray.get(board.take.remote()):
            if attempt in attempts:  # else it was given up
                yield from _told(attempts[attempt], events, sent)
        for reference in done:
            task, reason = running.pop(reference), ""
            try:
                self._apart |= not self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                reason = str(error.cause) if isinstance(error.cause, UserError) else described(error.cause)
            except self._ray.exceptions.RayError as error:
                before, task.saved = task.saved, _saved(task.trial)
                task.crashes = task.crashes + 1 if task.saved == before else 1
                if task.crashes > CRASHES:
                    reason = (
                        f"its machine or process was lost {task.crashes} times in a row: {str(error).splitlines()[0]}"
                    )
                else:
                    text = "its machine or process was lost; it goes on elsewhere from its last save"
                    yield Event(task.trial.name, "log", f"[{task.trial.name}] {text}")
            if reason:
                files.make_folder(task.trial.path)
                yield failed(task.trial, reason)
            elif not task.ended:
                running |= self._submitted(task, board, cache)


def _saved(trial: Trial) -> int | None:
    """Return when the state of a trial was saved last; None if it was not."""
    with contextlib.suppress(OSError):
        return (trial.path / "last.safetensors").stat().st_mtime_ns
    return None


def _told(task: _Task, events: Sequence[Event], sent: dict[str, bytes]) -> Iterator[Event]:
    """Write the files that a task has sent, then yield its events."""
    trial = task.trial
    if task.ended:  # it was lost, which it does not know
        return
    try:
        with files.checked_writes(trial.lease.check) if trial.lease and sent else contextlib.nullcontext():
            for name, data in sent.items():
                files.write_bytes(files.make_folder((trial.path / name).parent) / Path(name).name, data)
    except LeaseLostError as error:
        events = [Event(trial.name, "lost", str(error))]
    for event in events:
        task.ended = task.ended or event.kind in (*ENDS, "lost")
        if event.kind != "start":  # what was to be removed is
            task.trial = dataclasses.replace(task.trial, fresh=False)
        yield event


def _nothing(*given: Any, **named: Any) -> None:
    pass
