"""Two `segkit run` of one study on one folder, killed and suspended at random: `python -m tests.stress_sharing`.

Both start at the same moment, as forked processes. Until a number of blows has fallen, either is killed (SIGKILL,
SIGTERM) and started again, or suspended (SIGSTOP), often for longer than it takes to count as gone. In the end every
trial has to be finished once, with the bytes of a study that one process ran in peace; there is one report, and no
lease is left. Leases beat faster than usual, or the rounds would take hours.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from segkit import leases, plugins
from segkit.recipe import toml
from segkit.report import figures, render
from segkit.study import places
from segkit.training.trial import Event
from tests import stress
from tests.small import BASE
from tests.stress import check_whole, differing, result

BEAT = 0.1
RECIPE: dict[str, Any] = BASE | {
    "model": {"unet": {"widths": [4, 8], "dropout": 0.2}},
    "train": BASE["train"] | {"epochs": 3, "batch_size": 2, "save_every": {"steps": 1}},
    "study": {
        "seeds": [1, 2, 3],
        "variants": [{"label": f"lr {rate}", "optimizer": {"Adam": {"lr": rate}}} for rate in (0.01, 0.02, 0.03)]
        + [{"label": "the same", "optimizer": {"Adam": {"lr": 0.01}}}],
    },
}
TRIALS = 12


@dataclass
class Tally:
    """What happened in all rounds."""

    blows: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    lost: int = 0
    differing: int = 0


def start(folder: Path) -> int:
    """Fork a process that does what `segkit run` does, and notes how trials end; return its id."""

    def arm() -> None:
        leases.BEAT, places.POLL = BEAT, BEAT / 2
        vars(figures)["FIGURES"] = {}
        vars(render)["write_report"] = written

    def written(run: Path, write: Callable[[Path], list[str]] = render.write_report) -> list[str]:
        lines = write(run)
        note(folder, "report")
        return lines

    def heed(event: Event) -> None:
        if event.kind in ("finished", "reused", "failed", "lost"):
            note(folder, f"{event.kind} {event.trial}")

    return stress.start(folder, arm, heed)


def note(folder: Path, line: str) -> None:
    """Add a line to what the processes tell."""
    with (folder / "told").open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {line}\n")


def prepare(folder: Path) -> Path:
    """Write the recipe into a new folder."""
    folder.mkdir(parents=True)
    (folder / "study.toml").write_text(toml.dumps(RECIPE), encoding="utf-8")
    return folder


def strike(folder: Path, running: list[int], chance: random.Random, tally: Tally) -> None:
    """Kill one of the processes and start it again, or suspend it for a while."""
    victim = chance.choice(running)
    blow = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGSTOP])
    os.kill(victim, blow)
    tally.blows[blow.name] += 1
    if blow == signal.SIGSTOP:
        time.sleep(chance.choice([chance.uniform(0, 1), chance.uniform(4, 10)]))  # or the other runs out of trials
        os.kill(victim, signal.SIGCONT)
    else:
        os.waitpid(victim, 0)
        running[running.index(victim)] = start(folder)


def torment(folder: Path, blows: int, chance: random.Random, tally: Tally) -> None:
    """Run the study by two processes under so many blows, and raise unless it ends as it should, but for its bytes."""
    running = [start(folder), start(folder)]
    for _ in range(blows):
        time.sleep(chance.uniform(0, 1.5))
        alive = [child for child in running if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None]
        if len(alive) < len(running):
            break
        strike(folder, running, chance, tally)
        check_whole(folder / "study")
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in running]
    told = [line.split(maxsplit=1)[1] for line in (folder / "told").read_text(encoding="utf-8").splitlines()]
    counts = Counter(line for line in told if line.startswith(("finished", "reused")))
    assert codes == [0, 0], (codes, told)
    assert not [line for line in told if line.startswith("failed")], told
    assert len(list((folder / "study").glob("*/*/trial.json"))) == TRIALS
    assert max(counts.values()) == 1, counts
    assert len(counts) >= TRIALS - tally.blows["SIGKILL"], counts  # one that is killed may not tell the last
    assert not list((folder / ".leases").iterdir())
    assert told.count("report") >= 1
    tally.lost += sum(line.startswith("lost") for line in told)


def results(folder: Path) -> dict[str, dict[str, bytes]]:
    """Return what each trial left, but for times."""
    return {str(path.parent.relative_to(folder)): result(path.parent) for path in folder.glob("study/*/*/trial.json")}


def main() -> None:
    """Print what was survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--blows", type=int, default=5, help="in each round")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plugins.load()
    chance, tally = random.Random(options.seed), Tally()
    with tempfile.TemporaryDirectory(prefix="segkit-sharing-") as name:
        whole = prepare(Path(name) / "whole")
        assert os.waitstatus_to_exitcode(os.waitpid(start(whole), 0)[1]) == 0
        wanted = results(whole)
        while tally.rounds < options.rounds:
            folder = prepare(Path(name) / f"round-{tally.rounds}")
            torment(folder, options.blows, chance, tally)
            found = results(folder)
            assert found.keys() == wanted.keys()
            tally.differing += sum(differing(wanted[trial], found[trial]) for trial in wanted)
            tally.rounds += 1
            told = f"{dict(tally.blows)}, {tally.lost} leases lost, {tally.differing} bytes differ"
            print(f"round {tally.rounds}: {told}", flush=True)
    print(f"{tally.rounds} rounds, {tally.blows.total()} blows, {tally.differing} bytes differ")
    sys.exit(tally.differing > 0)


if __name__ == "__main__":
    main()
