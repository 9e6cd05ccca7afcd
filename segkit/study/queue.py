"""The trials of a study that are not finished, given out one by one to who trains them, each under its lease."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segkit.errors import counted, first_few
from segkit.leases import LeaseLostError, Leases, Owner
from segkit.study import folders
from segkit.study.folders import Existing
from segkit.study.sharing import trial_key
from segkit.training.status import Status
from segkit.training.trial import ENDS, Event, Limit, Trial


@dataclass(frozen=True)
class Options:
    """How a study is run.

    Attributes:
        mix: allow trials with different hardware settings.
        fresh: train trials again whose folders differ, or that failed.
        wait: wait for the trials that other processes work on.
    """

    mix: bool = False
    fresh: bool = False
    wait: bool = True


@dataclass
class _Item:
    """A trial that is to be done.

    Attributes:
        before: its trial.json when the study was planned.
        fingerprint: of its data.
        owner: who worked on it when it was last asked for.
        keys: of the leases that are held for it.
    """

    trial: Trial
    before: Status | None
    fingerprint: str | None
    owner: Owner | None = None
    keys: Sequence[str] = ()


class Queue:
    """What is left to do of a study.

    Attributes:
        ends: the last event of each trial that has ended, by its name.

    Args:
        existing: the state of each trial's folder.
        reusable: the folders of finished trials of other studies, by training identity.
        fingerprints: of the data, see `folders.fingerprint_data`.
        leases: held for a trial while it is worked on.
        options: how the study is run.
    """

    def __init__(
        self,
        existing: Sequence[Existing],
        reusable: Mapping[str, Path],
        fingerprints: Mapping[str, str],
        leases: Leases,
        options: Options,
    ) -> None:
        self.planned = [found.trial for found in existing]
        self.ends: dict[str, Event] = {}
        self._reusable, self._fingerprints, self._leases, self._options = reusable, fingerprints, leases, options
        self._open: list[_Item] = []
        self._given: dict[str, _Item] = {}
        self._said = ""
        left = leases.keys()
        for found in existing:
            trial = found.trial
            if found.state == "finished" and _key(trial) not in left:
                self.ends[trial.name] = Event(trial.name, "skipped", "already finished")
            else:
                self._open.append(_Item(trial, Status.find(trial.path), found.fingerprint))

    def __len__(self) -> int:
        """Return how many different trainings are left."""
        return len({item.trial.identity for item in self._open})

    def __iter__(self) -> Iterator[Trial | Event | None]:
        """Yield what comes next: see `places.Source`. Every event of a trial is to be told to `heed`."""
        while self._open or self._given:
            taken = False
            for item in list(self._open):
                if self._take(item):
                    taken = True
                    yield from self._begin(item)
            if taken:
                continue
            if self._open and not self._given:
                text = first_few(f"{item.trial.name} ({item.owner})" for item in self._open)
                if not self._options.wait:
                    for item in self._open:
                        yield Event(item.trial.name, "elsewhere", f"{item.owner} works on it")
                    return
                if text != self._said:
                    yield Event("", "log", f"waiting for {counted(len(self._open), 'trial')}: {text}")
                self._said = text
            yield None

    def heed(self, event: Event) -> None:
        """Take note of a trial's event: when it has ended, others may have it."""
        if event.kind in ENDS:
            self.ends[event.trial] = event
        if event.kind in (*ENDS, "lost") and event.trial in self._given:
            item = self._given.pop(event.trial)
            for key in item.keys:
                self._leases.release(key)
            if event.kind == "lost":
                item.owner = Owner()
                self._open.append(item)

    def _take(self, item: _Item) -> bool:
        """Take the leases on a trial, and on another one that its folder may hold; return whether they are held."""
        trial, status = item.trial, Status.find(item.trial.path)
        identities = {trial.identity, (status and status.identity) or trial.identity}
        item.keys = []
        for key in sorted(_key(trial, identity) for identity in identities):
            found = self._leases.acquire(key)
            if isinstance(found, Owner):
                item.owner = found
                for taken in item.keys:
                    self._leases.release(taken)
                return False
            item.keys = [*item.keys, key]
        self._open.remove(item)
        self._given[trial.name] = item
        return True

    def _begin(self, item: _Item) -> Iterator[Trial | Event]:
        """Yield how a trial has ended, or the trial to be trained or evaluated."""
        trial, options = item.trial, self._options
        found = folders.with_data_checked(folders.inspect_folder(trial, mix=options.mix), self._fingerprints)
        status = Status.find(trial.path)
        tried = status is not None and status.status == "failed" and status != item.before
        twin = next((self.ends[other.name] for other in self._twins(trial) if other.name in self.ends), None)
        before = item.before is not None and item.before.status == "finished" and item.owner is None
        if found.state == "finished":
            yield Event(trial.name, "skipped", "already finished" if before else f"finished by {item.owner or Owner()}")
        elif found.state == "other" and not options.fresh:
            yield Event(trial.name, "failed", found.reason)
        elif tried:
            yield Event(trial.name, "failed", f"{status.error if status else ''} ({item.owner or Owner()})")
        elif twin is not None and twin.kind in ("failed", "interrupted"):
            yield Event(trial.name, twin.kind, f"as the identical trial {twin.trial}")
        else:
            yield from self._train(item, found)

    def _train(self, item: _Item, found: Existing) -> Iterator[Trial | Event]:
        trial, ready = item.trial, found.state
        folders.remove_copy(trial)
        source = self._source(item, found)
        if source is not None:
            try:
                evaluated = folders.copy_trial(trial, source, self._leases.held(_key(trial)).check)
            except LeaseLostError as error:
                yield Event(trial.name, "lost", str(error))
                return
            text = f"the same trial was trained as {source}"
            if evaluated:
                yield Event(trial.name, "reused", text)
                return
            yield Event(trial.name, "log", f"[{trial.name}] {text}; evaluated again by its own recipe")
            ready = "open"
        elif found.reason and ready != "other":
            yield Event(trial.name, "log", f"[{trial.name}] {found.reason}")
        cleared = ("failed", "lost", "other") if self._options.fresh else ("lost",)
        yield dataclasses.replace(found.trial, fresh=ready in cleared, lease=self._leases.held(_key(trial)))

    def _source(self, item: _Item, found: Existing) -> Path | None:
        """Return the folder of a finished trial of the same identity, if there is one to copy."""
        trial = item.trial
        for twin in self._twins(trial):
            if folders.is_finished(twin, item.fingerprint):
                return twin.path
        if found.state not in ("new", "lost", "other") or trial.limit.overfit:
            return None
        if item.owner is not None and trial.identity not in self._reusable:  # another study may have trained it since
            return folders.find_reusable(trial.run, {trial.identity: item.fingerprint}).get(trial.identity)
        return self._reusable.get(trial.identity)

    def _twins(self, trial: Trial) -> Iterator[Trial]:
        """Yield the other trials of the study with the same identity."""
        return (other for other in self.planned if other.identity == trial.identity and other.name != trial.name)


def _key(trial: Trial, identity: str | None = None) -> str:
    """Return the key of the lease on a trial, or on another one in its folder."""
    return trial_key(trial.run, identity or trial.identity, limited=trial.limit != Limit())
