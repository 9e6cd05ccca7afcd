"""Leases: who holds one, who counts as gone, who takes over, and how an owner that lost its own notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from segkit import files, leases
from segkit.leases import MISSED, Lease, LeaseLostError, Leases, Owner, holder

HOLD = """
import sys, time
from pathlib import Path
from segkit.leases import Leases
own = Leases(Path(sys.argv[1]), beat=float(sys.argv[2]))
lease = own.acquire("a")
print(lease.path.name, flush=True)
for line in sys.stdin:
    try:
        lease.check()
        print("held", flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
"""


class Holder:
    """Another process that holds lease "a"."""

    def __init__(self, folder: Path, beat: float = 5.0) -> None:
        command = [sys.executable, "-c", HOLD, str(folder), str(beat)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.file = self.process.stdout.readline().strip()

    def ask(self) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print("?", file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Holder]:
    found = Holder(tmp_path, beat=0.1)
    yield found
    found.process.kill()
    found.process.communicate()


def taken(found: Lease | Owner) -> Lease:
    assert isinstance(found, Lease), found
    return found


def test_a_lease_is_held_by_one_and_free_when_it_is_released(tmp_path: Path) -> None:
    with Leases(tmp_path / "leases") as one, Leases(tmp_path / "leases") as two:
        lease = taken(one.acquire("a"))
        lease.check()
        assert str(two.acquire("a")) == str(one.acquire("a")) == f"process {os.getpid()} on {lease.owner.host}"
        assert holder(tmp_path / "leases", "a") == lease.owner
        assert isinstance(two.acquire("b"), Lease)
        one.release("a")
        assert holder(tmp_path / "leases", "a") is None
        assert taken(two.acquire("a")).owner.token != lease.owner.token
        one.release("a")  # which it does not hold any more
        two.held("a").check()
        with pytest.raises(LeaseLostError, match=rf"^process {os.getpid()} on .* has taken over, since this one"):
            lease.check()
    assert not list((tmp_path / "leases").iterdir())


def test_an_owner_that_is_killed_is_noticed_at_once_on_the_same_machine(tmp_path: Path, other: Holder) -> None:
    own = Leases(tmp_path)
    assert str(own.acquire("a")).startswith(f"process {other.process.pid} on ")
    other.process.kill()
    other.process.wait()
    assert taken(own.acquire("a")).path.name == "a.2"
    assert [path.name for path in tmp_path.iterdir()] == ["a.2"]


def test_an_owner_that_was_suspended_loses_its_lease_and_notices(tmp_path: Path, other: Holder) -> None:
    own = Leases(tmp_path)
    other.process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    while isinstance(found := own.acquire("a"), Owner):
        time.sleep(0.02)
    assert MISSED * 0.1 < time.monotonic() - begun < 20 * MISSED * 0.1
    other.process.send_signal(signal.SIGCONT)
    assert other.ask() == (
        f"LeaseLostError: {found.owner} has taken over, since this one gave no sign of life for a while: it was "
        "suspended, or cut off from the folder. Nothing more is written here."
    )
    found.check()


def test_an_owner_that_lives_is_left_alone(tmp_path: Path, other: Holder) -> None:
    own = Leases(tmp_path)
    end = time.monotonic() + 3 * MISSED * 0.1
    while time.monotonic() < end:
        assert isinstance(own.acquire("a"), Owner)
        time.sleep(0.02)
    assert other.ask() == "held"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def elsewhere(folder: Path, key: str = "a", beat: float = 5.0) -> Path:
    """Write the lease of a process on another machine."""
    owner = Owner("far", 12, "another machine", "1", beat, "token")
    path = folder / f"{key}.1"
    path.write_text(f"{0:0{leases.DIGITS}}{json.dumps(vars(owner))}", encoding="utf-8")
    return path


def watch(own: Leases, clock: list[float], seconds: float, step: float = 1.0) -> Lease | Owner:
    found = own.acquire("a")
    for _ in range(int(seconds / step)):
        if isinstance(found, Owner):
            clock[0] += step
            found = own.acquire("a")
    return found


def test_the_age_of_a_lease_is_judged_by_the_observers_clock(tmp_path: Path, clock: list[float]) -> None:
    path, own = elsewhere(tmp_path), Leases(tmp_path)
    os.utime(path, (1, 1))  # its own time says nothing
    assert str(watch(own, clock, 5.0 * MISSED)) == "process 12 on far"
    with path.open("r+", encoding="utf-8") as file:
        file.write(f"{1:0{leases.DIGITS}}")
    assert isinstance(watch(own, clock, 5.0 * MISSED), Owner)
    assert isinstance(watch(own, clock, 2.0), Lease)


def test_an_observer_that_slept_itself_begins_to_watch_anew(tmp_path: Path, clock: list[float]) -> None:
    elsewhere(tmp_path)
    own = Leases(tmp_path)
    assert isinstance(watch(own, clock, 20.0), Owner)
    clock[0] += 1000.0
    assert isinstance(watch(own, clock, 5.0 * MISSED), Owner)
    assert isinstance(watch(own, clock, 2.0), Lease)


def test_a_slow_owner_is_given_more_time(tmp_path: Path, clock: list[float]) -> None:
    elsewhere(tmp_path, beat=50.0)
    assert isinstance(watch(Leases(tmp_path), clock, 50.0 * MISSED), Owner)


@pytest.mark.parametrize("text", ["", "0", "{}", "0" * leases.DIGITS + "[1]", "0" * leases.DIGITS + '{"host": 1'])
def test_a_lease_that_cannot_be_read_belongs_to_somebody_until_it_ages(
    tmp_path: Path, clock: list[float], text: str
) -> None:
    (tmp_path / "a.1").write_text(text, encoding="utf-8")
    own = Leases(tmp_path)
    assert str(watch(own, clock, 29.0)) == "another process"
    assert isinstance(watch(own, clock, 2.0), Lease)


def test_files_of_others_are_no_leases(tmp_path: Path) -> None:
    for name in ("a.txt", "ab.1", "a", "b.1"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    assert taken(Leases(tmp_path).acquire("a")).path.name == "a.1"


def test_of_many_that_take_over_at_once_one_succeeds(tmp_path: Path) -> None:
    dead = replace(Owner("here", 1, leases._machine(), "no such time"), token="dead")
    for _ in range(40):
        (tmp_path / "a.1").write_text(f"{0:0{leases.DIGITS}}{json.dumps(vars(dead))}", encoding="utf-8")
        everybody = [Leases(tmp_path) for _ in range(8)]
        together = threading.Barrier(len(everybody))
        winners: list[Leases] = []

        def take(own: Leases, start: threading.Barrier = together, won: list[Leases] = winners) -> None:
            start.wait()
            for _ in range(3):
                if isinstance(own.acquire("a"), Lease):
                    won.append(own)

        threads = [threading.Thread(target=take, args=(own,)) for own in everybody]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = winners
        winner.held("a").check()
        winner.release("a")
        assert not list(tmp_path.iterdir())


def test_nothing_is_written_under_a_lease_that_was_lost(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    (folder / "overlays").mkdir(parents=True)
    own = Leases(tmp_path / "leases")
    lease = taken(own.acquire("a"))
    with files.checked_writes(lease.check):
        files.write_text(folder / "x", "first")
        files.write_text(folder / "overlays" / "x", "first")
        lease.path.unlink()
        for path in (folder / "x", folder / "overlays" / "x"):
            with pytest.raises(LeaseLostError, match="another process had taken over"):
                files.write_text(path, "second")
            assert path.read_text() == "first"
    files.write_text(folder / "x", "third")
    assert sorted(path.name for path in folder.iterdir()) == ["overlays", "x"]


def test_leases_beat_on_when_one_is_taken_in_the_middle_of_a_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating, write = threading.Event(), os.pwrite

    def slow(file: int, data: bytes, offset: int) -> int:
        beating.set()
        time.sleep(0.1)
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    with Leases(tmp_path, beat=0.01) as own:
        kept = [taken(own.acquire("a")), taken(own.acquire("b"))]
        assert beating.wait(5)
        kept.append(taken(own.acquire("c")))
        assert own._pulse is not None
        own._pulse.join(0.5)
        assert own._pulse.is_alive()
        for lease in kept:
            assert int(lease.path.read_text(encoding="utf-8")[: leases.DIGITS]) > 0
