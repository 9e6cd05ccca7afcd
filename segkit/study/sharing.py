"""How processes and machines share the trials of run folders: by leases in the folder that holds the runs."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from segkit.leases import holder
from segkit.training.status import Status

LEASES = ".leases"


def study_key(run: Path) -> str:
    """Return the key of the lease under which a study is planned, and its report is written."""
    return f"study-{sha256(run.name.encode()).hexdigest()[:32]}"


def trial_key(run: Path, identity: str, *, limited: bool) -> str:
    """Return the key of the lease on a trial: one for all trials of an identity, in whatever run they are.

    A trial that is cut short, as others of its identity are not, is none of these.
    """
    return sha256(f"{run.name} {identity}".encode()).hexdigest() if limited else identity


def is_worked_on(trial: Path) -> bool:
    """Return whether a process works on the trial in a folder, as far as one look can tell."""
    status, run = Status.find(trial), trial.parents[1]
    if status is None or status.identity is None or status.status != "running":
        return False
    return holder(run.parent / LEASES, trial_key(run, status.identity, limited=status.limited)) is not None


def is_live(run: Path) -> bool:
    """Return whether a process works on a trial of a run."""
    return any(is_worked_on(path.parent) for path in run.glob("*/*/trial.json"))
