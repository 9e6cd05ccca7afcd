"""A file system that fails at any operation of a whole study: all stays readable, and the study can be finished."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import segkit.files
from segkit import UserError
from segkit.api import conclude
from segkit.recipe import toml
from segkit.report import figures
from segkit.study import runs
from segkit.training import checkpoint
from tests.small import BASE, train
from tests.stress import check_whole

FAULTS = {"write": errno.ENOSPC, "short write": errno.ENOSPC, "flush": errno.EIO, "rename": errno.EACCES}
RECIPE: dict[str, Any] = BASE | {
    "train": BASE["train"] | {"epochs": 2},
    "study": {"compare_with": "a", "variants": [{"label": "a"}, {"label": "b", "train": {"seed": 2}}]},
}


class Faulty:
    """Counts what is done to files, and fails once, in the operation that is asked for.

    Attributes:
        count: the operations so far.
        fails: the number, from 1, of the one that fails; 0 for none.
    """

    def __init__(self, kind: str, fails: int) -> None:
        self.kind, self.fails, self.count = kind, fails, 0

    def strikes(self) -> bool:
        self.count += 1
        return self.count == self.fails

    def error(self) -> OSError:
        code = FAULTS[self.kind]
        return OSError(code, os.strerror(code))

    @contextmanager
    def installed(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """Put the fault under `segkit.files` for a while."""
        with patch.context() as here:
            if self.kind.endswith("write"):
                here.setitem(vars(segkit.files), "open", self._open)
            else:
                name = "fsync" if self.kind == "flush" else "replace"
                real = getattr(os, name)

                def counted(*given: Any, **named: Any) -> Any:
                    if self.strikes():
                        raise self.error()
                    return real(*given, **named)

                here.setattr(os, name, counted)
            yield

    def _open(self, *given: Any, **named: Any) -> Any:
        file = open(*given, **named)  # noqa: SIM115
        if len(given) > 1 and given[1] == "wb" and self.strikes():
            return Full(file, self)
        return file


class Full:
    """A file on a disk without room."""

    def __init__(self, file: Any, fault: Faulty) -> None:
        self.file, self.fault = file, fault

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        if self.fault.kind == "short write":
            self.file.write(data[: len(data) // 2])
            self.file.flush()
        raise self.fault.error()


@pytest.fixture(autouse=True, scope="module")
def _one_figure() -> Iterator[None]:
    """Drawing seven figures for each fault would be most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "FIGURES", {"learning_rate": figures.FIGURES["learning_rate"]})
        yield


def study(folder: Path) -> runs.Outcome:
    """Run the study, report included; the fault may strike anywhere in it."""
    path = folder / "study.toml"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(toml.dumps(RECIPE), encoding="utf-8")
    (found,) = runs.plan_studies([path], [], [], folder)
    for _ in found.execute(jobs=1):
        pass
    return conclude(found)


def kept(folder: Path) -> dict[str, bytes]:
    """Return what a study left that does not tell the time."""
    names = ("cases.csv", "best.safetensors", "summary.csv")
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.name in names}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """Return the study's folder, and the number of its operations of each kind."""
    folder, counting = tmp_path_factory.mktemp("whole"), [Faulty(kind, 0) for kind in FAULTS if kind != "short write"]
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for fault in counting:
            stack.enter_context(fault.installed(patch))
        assert study(folder).counts == {"finished": 2}
    counts = {fault.kind: fault.count for fault in counting}
    assert min(counts.values()) > 20
    return folder, counts | {"short write": counts["write"]}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_loses_nothing(
    kind: str, whole: tuple[Path, dict[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Early, in the middle or late; another point for each kind of fault."""
    folder, counts = whole
    count = counts[kind]
    points = {"write": 2, "short write": count // 3, "flush": count // 3, "rename": count}
    strike(kind, [points[kind]], folder, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_at_any_operation_loses_nothing(
    kind: str, whole: tuple[Path, dict[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, counts = whole
    strike(kind, range(1, counts[kind] + 1), folder, tmp_path, monkeypatch)


def strike(kind: str, numbers: Iterable[int], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each of the operations fail in a study of its own, look at what is left, and finish the study."""
    for number in numbers:
        folder = tmp_path / str(number)
        fault = Faulty(kind, number)
        with fault.installed(monkeypatch):
            try:
                outcome = study(folder)
                struck = f"{outcome.failures}"
            except UserError as error:
                struck = str(error)
        assert fault.count >= number, "the fault did not strike"
        assert "cannot be written" in struck or "could not be written" in struck, struck
        check_whole(folder)
        assert study(folder).failures == {}
        assert kept(folder) == kept(whole), f"{kind} {number}"


def test_a_training_whose_only_save_failed_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table is whole and its best weights are there, but not the state that it ends with."""
    sets, last = ("train.save_every={ epochs = 20 }",), tmp_path / "only/seed-1/last.safetensors"
    saved = checkpoint.save

    def full(path: Path, *given: Any) -> None:
        if path.name == last.name:
            raise UserError(f"{path}: cannot be written: the disk is full.")
        saved(path, *given)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        assert train(tmp_path, *sets)[-1].kind == "failed"
    assert (last.parent / "best.safetensors").exists()
    events = train(tmp_path, *sets)
    assert events[-1].kind == "finished"
    assert sum(event.kind == "epoch" for event in events) == 3
    assert last.exists()


def test_a_full_disk_is_said_and_the_checkpoint_before_it_is_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.safetensors"
    segkit.files.write_bytes(path, b"the state before")
    with (
        Faulty("short write", 1).installed(monkeypatch),
        pytest.raises(UserError, match=r"last\.safetensors: cannot be written: the disk is full: free some space"),
    ):
        segkit.files.write_bytes(path, b"the state after")
    assert path.read_bytes() == b"the state before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.safetensors"]
