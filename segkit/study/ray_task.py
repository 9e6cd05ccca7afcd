"""What runs on the machines of a Ray cluster: tasks that train trials, and the board on which they tell how it goes."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segkit import device, files, plugins
from segkit.data.cache import DataCache
from segkit.errors import UserError
from segkit.study.places import POLL
from segkit.training.trial import Event, Trial

Sight = dict[str, tuple[int, int]]  # of files, by name: time and size
Told = tuple[str, list[Event], dict[str, bytes]]


class Board:
    """The actor between tasks and the study: what they tell, until the study takes it; and whether they are to stop."""

    def __init__(self) -> None:
        self._told: list[Told] = []
        self._halted = False

    def tell(self, attempt: str, events: list[Event], sent: dict[str, bytes]) -> bool:
        """Take down the events of an attempt at a trial, and its files; return whether it is to stop."""
        if events or sent:
            self._told.append((attempt, events, sent))
        return self._halted

    def take(self) -> list[Told]:
        """Return what was told since it was last asked for, in its order."""
        told, self._told = self._told, []
        return told

    def halt(self) -> None:
        """Let every task save its trial and end."""
        self._halted = True


@dataclass(frozen=True)
class Packed:
    """What a task is given.

    Attributes:
        trial: the pickled trial and data cache, to be read when the plugins are there.
        version: of segkit.
        sources: the modules and sources of the plugins that the trial uses.
        here: the working directory, from which relative paths lead.
        probe: what a machine sees if it sees the run folder.
        sent: the files in the trial's folder, for a machine that does not see it; None if they were not sent.
    """

    trial: bytes
    version: str
    sources: Sequence[Mapping[str, Any]]
    here: Path
    probe: Path
    sent: Mapping[str, bytes] | None


def resolve(name: str, precision: str) -> tuple[str, str]:
    """Return the type of device and the precision that names in a recipe mean on this machine."""
    found = device.choose(name, precision)
    return found.device.type if name == "auto" else name, found.precision


def work(packed: Packed, board: Any, attempt: str) -> bool:
    """Train a trial; return False at once if this machine does not see its folder and its files were not sent.

    Raises:
        UserError: segkit is of another version here, or a plugin does not load.
    """
    from segkit.training.run import run_trial

    if packed.version != version("segkit"):
        host, text = socket.gethostname(), "Install the same version on all machines."
        raise UserError(f"segkit {packed.version} began this study, and {host} has {version('segkit')}. {text}")
    with contextlib.suppress(OSError):
        os.chdir(packed.here)
    apart = not packed.probe.exists()
    if apart and packed.sent is None:
        return False
    with tempfile.TemporaryDirectory(prefix="segkit-ray-") as name:
        known = {plugin.module for plugin in plugins.loaded()}  # the process has trained another trial before
        unknown = [plugin for plugin in packed.sources if plugin["module"] not in known]
        for failure in plugins.load_sources(unknown, Path(name) / "plugins"):
            raise UserError(str(failure))
        trial, cache = pickle.loads(packed.trial)  # from the study that Ray has authenticated
        if apart:
            trial, cache = _moved(trial, Path(name), packed.sent or {}), DataCache()
        with _telling(board, attempt, trial.path if apart else None) as (tell, stop):
            for event in run_trial(trial, stop=stop.is_set, cache=cache):
                tell.append(event)
    return True


def _moved(trial: Trial, folder: Path, sent: Mapping[str, bytes]) -> Trial:
    """Return a trial whose folder lies in another one, with the files that were sent."""
    moved = replace(trial, run=folder, lease=None, fresh=False)
    for name, data in sent.items():
        path = moved.path / name
        files.write_bytes(files.make_folder(path.parent) / path.name, data)
    return moved


@contextlib.contextmanager
def _telling(board: Any, attempt: str, folder: Path | None) -> Iterator[tuple[list[Event], threading.Event]]:
    """Within the block, tell the board what is appended to a list, and the files that change in a folder.

    Yields:
        the list, and what is set once the task is to stop: the study says so, or is gone.
    """
    import ray

    events, stop, done, seen = list[Event](), threading.Event(), threading.Event(), Sight()

    def tell() -> None:
        some = events[:]
        del events[: len(some)]
        sent = changed_files(folder, seen) if folder is not None else {}
        try:
            if ray.get(board.tell.remote(attempt, some, sent)):
                stop.set()
        except ray.exceptions.RayError:
            stop.set()

    def keep_telling() -> None:
        while not done.wait(POLL):
            tell()

    thread = threading.Thread(target=keep_telling, daemon=True)
    thread.start()
    try:
        yield events, stop
    finally:
        done.set()
        thread.join()
        tell()


def changed_files(folder: Path, seen: Sight) -> dict[str, bytes]:
    """Return the files in a trial's folder that changed since they were seen; last trial.json, which tells of them."""
    found = {}
    for path in sorted(folder.rglob("*"), key=lambda path: (path.name == "trial.json", path)):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                if seen.get(name) != (state.st_mtime_ns, state.st_size):
                    found[name], seen[name] = path.read_bytes(), (state.st_mtime_ns, state.st_size)
    return found
