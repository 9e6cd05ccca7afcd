"""Files that appear whole or not at all, and the lock of a run folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from segkit import UserError, files


def test_a_file_appears_whole_in_a_folder_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "table.csv"
    with pytest.raises(UserError, match=r"table\.csv: cannot be written: its folder does not exist\."):
        files.write_text(path, "lost")
    files.make_folder(path.parent)
    files.write_text(path, files.to_csv(["case", "dice"], [["p1/1", 0.5], ['with "quotes", comma', 1]]))
    assert path.read_text() == 'case,dice\np1/1,0.5\n"with ""quotes"", comma",1\n'
    files.write_text(path, "grüße\n")
    assert files.read_text(path) == "grüße\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["table.csv"]


def test_written_flushed_renamed_and_the_folder_flushed_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    flush, rename = os.fsync, os.replace

    def fsync(handle: int) -> None:
        done.append("flush " + os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        flush(handle)

    def replace(one: Path, other: Path) -> None:
        assert one.read_bytes() == b"new"
        done.append(f"rename {one.name} {other.name}")
        rename(one, other)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the names of open files are read from /proc")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_bytes(tmp_path / "x", b"new")
    half = f".x.{os.getpid()}.tmp"
    assert done == [f"flush {half}", f"rename {half} x", f"flush {tmp_path.name}"]


def test_a_file_system_that_flushes_no_folders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(errno.EINVAL, "invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_bytes(tmp_path / "x", b"new")
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "the disk is full: free some space; the same command resumes from the last save"),
        (errno.EDQUOT, "the disk quota is used up: free some space"),
        (errno.EROFS, "the file system is read-only: choose another place"),
        (errno.EACCES, "permission denied: choose another place"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_prevents_writing_is_said_with_what_to_do(
    code: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(one: Path, other: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError, match=rf"{tmp_path.name}/x: cannot be written: {advice}"):
        files.write_bytes(tmp_path / "x", b"new")
    assert list(tmp_path.iterdir()) == []


def test_reading_what_is_no_text_too_long_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(UserError, match="x: no such file or folder"):
        files.read_text(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="x: not a text file in UTF-8"):
        files.read_text(path)
    path.write_bytes(b"12345")
    assert files.read_text(path, limit=5) == "12345"
    with pytest.raises(UserError, match="x: 5 bytes; files of this kind are read up to 4"):
        files.read_text(path, limit=4)


def test_sweeping_removes_half_written_files_alone(tmp_path: Path) -> None:
    for name in (".last.safetensors.12.tmp", "last.safetensors", ".notes", "notes.tmp"):
        (tmp_path / name).write_text("x")
    files.remove_temporary_files(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".notes", "last.safetensors", "notes.tmp"]
