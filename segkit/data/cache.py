"""Data sets, read once a study: decoded, checked and scaled in parallel, into a folder that trials and workers map.

An entry of the cache is named by what it is made of: the recipe's `data` and `intensity` with the sources of their
plugins, and the metadata of each case with the path, size and times of its files (or the content of its arrays). An
entry of the same recipe whose files have changed is stale, and removed. It is written under another name and renamed
when it is whole; processes that need the same one wait for the first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segkit import plugins
from segkit.components.datasets.case import Case, Dataset
from segkit.data.cases import Data, StoredCase
from segkit.data.filling import fill
from segkit.data.store import FORMAT, Slices
from segkit.errors import UserError
from segkit.files import explain_os_errors, make_folder, write_text
from segkit.locks import waiting_for
from segkit.registry.component import Component
from segkit.registry.faults import raise_fault

CASES = "cases.json"
CACHE = ".cache"  # in the folder of the runs
Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """Show no progress."""


def existing_cache(runs: Path) -> Path | None:
    """Return the cache in a folder of runs, where `segkit run` keeps it; None if there is none to write to."""
    return runs / CACHE if os.access(runs / CACHE, os.W_OK) else None


class DataCache:
    """Reads the data of recipes, and keeps what it has read for the next trial.

    It can be sent to another process, which then opens what this one has read.

    Args:
        folder: of the cache; None keeps the last data set in memory instead.
        progress: called with the number of cases read, and of all.
    """

    def __init__(self, folder: Path | None = None, progress: Progress = silent) -> None:
        self.folder, self.progress = folder, progress
        self._opened: dict[str, Data] = {}
        self._entries: dict[str, Path] = {}
        self._fingerprints: dict[str, str] = {}  # of what was read first

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("folder", "_entries", "_fingerprints")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]
        vars(self).update(state)

    def read(self, data: Component, intensity: Component) -> Data:
        """Return the data set that a recipe names.

        Raises:
            ComponentError, UserError: it cannot be read, the cache cannot be written, or the data are not those that
                were read before.
        """
        key = _request(data, intensity)
        if key not in self._opened or _is_gone(self._opened[key]):
            if self.folder is None:
                self._opened.clear()  # two at a time may not fit into memory
            entry = self._entries.get(key)
            try:
                made = (_open(entry) if entry else None) or self._read(key, data(), intensity)
                self._opened[key] = dataclasses.replace(made, progress=self.progress)
            except BaseException as error:  # of what reads a case
                raise_fault(data, error)
        found = self._opened[key]
        if self._fingerprints.setdefault(key, found.fingerprint) != found.fingerprint:
            raise UserError(
                f"data.{data.name}: the data have changed since this command began (their fingerprint differs), and "
                "the trials of a study are trained on the same data. Restore them, or train all again with --fresh."
            )
        return found

    def _read(self, key: str, dataset: Dataset, intensity: Component) -> Data:
        if self.folder is None:
            return fill(dataset, intensity, None, self.progress)
        prefix = hashlib.sha256(key.encode()).hexdigest()[:16]
        entry = make_folder(self.folder) / f"{prefix}-{_stamp(dataset)[:16]}"
        with waiting_for(self.folder / f"{prefix}.lock"):
            found = _open(entry) or self._fill(entry, dataset, intensity)
            for other in self.folder.glob(f"*{prefix}-*"):  # stale, or left by a process that died
                if other != entry:
                    shutil.rmtree(other, ignore_errors=True)
        self._entries[key] = entry
        return found

    def _fill(self, entry: Path, dataset: Dataset, intensity: Component) -> Data:
        temporary = entry.with_name(f".{entry.name}.{os.getpid()}")
        try:
            shutil.rmtree(entry, ignore_errors=True)
            found = fill(dataset, intensity, make_folder(temporary), self.progress)
            passing = ("slices", "prepared", "progress")
            known = {name: value for name, value in vars(found).items() if name not in passing}
            known["cases"] = [dataclasses.asdict(case) for case in found.cases]
            write_text(temporary / CASES, json.dumps(known))
            with explain_os_errors(entry):
                temporary.replace(entry)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        opened = _open(entry)
        if opened is None:
            raise UserError(f"{entry}: was changed while it was written. Start again, or choose another --cache DIR.")
        return opened


def _is_gone(data: Data) -> bool:
    """Return whether the folder of data was removed, e.g. to free space; workers could not open it."""
    return data.slices.folder is not None and not (data.slices.folder / CASES).is_file()


def _open(entry: Path) -> Data | None:
    """Return the data of an entry of the cache, None if it is missing or damaged."""
    try:
        known = json.loads((entry / CASES).read_bytes())
        cases = tuple(StoredCase(**{name: _plain(value) for name, value in case.items()}) for case in known["cases"])
        known |= {name: tuple(known[name]) for name in ("channels", "inputs", "notes")}
        return Data(**known | {"cases": cases, "slices": Slices.open(entry)})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _request(data: Component, intensity: Component) -> str:
    """Return what a recipe asks for, as text."""
    hashes = sorted(plugin.sha256 for plugin in plugins.used_by([data, intensity]))
    return json.dumps([FORMAT, version("segkit"), data.dump(), intensity.dump(), hashes], sort_keys=True)


def _stamp(dataset: Dataset) -> str:
    """Return a hash (hex) of metadata, and of the state of files, or else of the content of arrays."""
    found = hashlib.sha256(json.dumps([dataset.name, dataset.channels, dataset.inputs, dataset.notes]).encode())
    for case in dataset.cases:
        known = [case.name, case.patient, case.spacing_mm, dict(case.tags), case.has_masks]
        found.update(json.dumps(known + list(_states(case)), default=float).encode())  # numpy's, of a spacing
        if case.load is None:
            for array in case.read():
                found.update(b"none" if array is None else _bytes(array))
    return found.hexdigest()


def _states(case: Case) -> Iterator[list[Any]]:
    for path in case.files:
        with contextlib.suppress(OSError):  # reading it says what is wrong
            state = os.stat(path)
            yield [os.path.realpath(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _bytes(array: Any) -> bytes:
    import numpy as np

    return f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes()
