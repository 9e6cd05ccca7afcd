"""Leases: who works on what, among processes and machines that share a folder.

A lease is a small file `KEY.N` that its owner creates exclusively, and changes every few seconds. Who finds it
unchanged for several of these, by the observer's own clock, takes its owner for gone and creates `KEY.N+1`; of two
that try at once, one fails. The older file is then removed, which its owner notices before it writes anything.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from segkit.errors import UserError
from segkit.files import explain_os_errors, make_folder

BEAT = 5.0  # seconds between two signs of life of an owner
MISSED = 6  # beats without a sign, after which it is gone
DIGITS = 20  # of the number of beats, at the beginning of the file


class LeaseLostError(UserError):
    """What this process works on was taken over by another one."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lease.

    Attributes:
        host: the name of its machine.
        process: its number there; 0 if the file cannot be read.
        machine: the running system in which that number has a meaning; "" where it cannot be told.
        started: when the process began, in that system's ticks; another process may be given its number later.
        beat: seconds between two signs of life.
        token: another one for every lease.
    """

    host: str = ""
    process: int = 0
    machine: str = ""
    started: str = ""
    beat: float = BEAT
    token: str = ""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}" if self.process else "another process"

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended; never of one on another machine."""
        return bool(self.machine) and self.machine == _machine() and self.started != _started(self.process)


@dataclass(frozen=True)
class Lease:
    """A lease that is held. The processes that work for its owner are given it, to check it before they write."""

    path: Path
    owner: Owner

    def check(self) -> None:
        """Return if the lease is still held.

        Raises:
            LeaseLostError: another process has taken over.
        """
        found = _read(self.path)
        if found is None or found[0].token != self.owner.token:
            other = holder(self.path.parent, self.path.stem)
            who = f"{other} has taken over" if other else "another process had taken over"
            why = "since this one gave no sign of life for a while: it was suspended, or cut off from the folder"
            raise LeaseLostError(f"{who}, {why}. Nothing more is written here.")


class Leases:
    """The leases in a folder: this process keeps its own alive, and watches those of others.

    Args:
        folder: where all who share the work keep their leases.
        beat: seconds between two signs of life; `BEAT` by default.
    """

    def __init__(self, folder: Path, beat: float | None = None) -> None:
        self.folder, self.beat = folder, BEAT if beat is None else beat
        self._held: dict[str, tuple[Lease, int]] = {}  # with its open file
        self._seen: dict[Path, _Sight] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._pulse: threading.Thread | None = None

    def __enter__(self) -> Leases:
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for key in list(self._held):
            self.release(key)

    def acquire(self, key: str) -> Lease | Owner:
        """Take a lease that is free, or whose owner is gone; return it, or who holds it, which may be this process.

        Args:
            key: names what is worked on; without dots and slashes.

        Raises:
            UserError: the folder cannot be written.
        """
        if key in self._held:
            return self._held[key][0].owner
        before = _numbered(self.folder, key)
        for path in before.values():
            owner = self._alive(path)
            if owner is not None:
                return owner
        lease = self._create(key, max(before, default=0) + 1)
        after = _numbered(self.folder, key)
        if lease is None:
            return holder(self.folder, key) or Owner()
        if {*after.values()} != {*before.values(), lease.path} or any(map(self._alive, before.values())):
            self.release(key)  # what was seen before is out of date: others have come and gone
            return holder(self.folder, key) or Owner()
        for path in before.values():
            path.unlink(missing_ok=True)
        return lease

    def held(self, key: str) -> Lease:
        """Return a lease that this process has acquired."""
        return self._held[key][0]

    def keys(self) -> set[str]:
        """Return the keys of all leases in the folder, dead owners' too."""
        return {path.stem for path in self.folder.glob("*.*")}

    def release(self, key: str) -> None:
        """Give back a lease, if it is held; what another process has taken over stays with that one."""
        if key not in self._held:
            return
        with self._lock:
            lease, file = self._held.pop(key)
            os.close(file)
        with contextlib.suppress(LeaseLostError, OSError):
            lease.check()
            lease.path.unlink()

    def _create(self, key: str, number: int) -> Lease | None:
        """Create a lease; return None if another process was faster."""
        owner = Owner(
            socket.gethostname(), os.getpid(), _machine(), _started(os.getpid()), self.beat, secrets.token_hex(8)
        )
        path = make_folder(self.folder) / f"{key}.{number}"
        with explain_os_errors(path):
            try:
                file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return None
            os.write(file, f"{0:0{DIGITS}}{json.dumps(asdict(owner))}".encode())
            os.fsync(file)
        with self._lock:
            self._held[key] = Lease(path, owner), file
        if self._pulse is None:
            self._pulse = threading.Thread(target=self._keep_alive, name="leases", daemon=True)
            self._pulse.start()
        return self._held[key][0]

    def _keep_alive(self) -> None:
        """Count on in the files of all leases that are held; what was lost is found by `Lease.check`."""
        count = 0
        while not self._ended.wait(self.beat):
            count += 1
            with self._lock:
                for _, file in self._held.values():
                    with contextlib.suppress(OSError):
                        os.pwrite(file, f"{count:0{DIGITS}}".encode(), 0)
                        os.fsync(file)

    def _alive(self, path: Path) -> Owner | None:
        """Return the owner of a lease; None if it is gone: dead, or without a sign for as long as this one watches."""
        found = _read(path)
        if found is None or found[0].is_dead:
            return None
        owner, now = found[0], time.monotonic()
        seen = self._seen.get(path)
        if seen is None or seen.sign != found or now - seen.last > 2 * owner.beat:  # longer: this process slept itself
            seen = self._seen[path] = _Sight(found, now, now)
        seen.last = now
        return owner if now - seen.since <= MISSED * owner.beat else None


@dataclass
class _Sight:
    """What was read in a lease, and since when and until when it was."""

    sign: tuple[Owner, str]
    since: float
    last: float


def holder(folder: Path, key: str) -> Owner | None:
    """Return who holds a lease, as far as one look can tell: an owner on another machine may be gone."""
    numbered = _numbered(folder, key)
    found = [_read(path) for _, path in sorted(numbered.items(), reverse=True)]
    return next((sign[0] for sign in found if sign is not None and not sign[0].is_dead), None)


def _numbered(folder: Path, key: str) -> dict[int, Path]:
    """Return the files of a lease by their numbers."""
    found = folder.glob(f"{key}.*")
    return {int(path.suffix[1:]): path for path in found if path.suffix[1:].isdigit() and path.stem == key}


def _read(path: Path) -> tuple[Owner, str] | None:
    """Return the owner and the count of a lease; None if it does not exist (any more)."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    try:
        return Owner(**json.loads(text[DIGITS:])), text[:DIGITS]
    except (ValueError, TypeError):  # not written yet, or only in part
        return Owner(), text


@functools.cache
def _machine() -> str:
    """Return what names this running system and its space of process numbers; "" where that is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """Return when a process of this system began; "" if it has ended."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else fields[18]
