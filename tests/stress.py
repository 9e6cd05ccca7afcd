"""Kill a training again and again, start it again, and compare the bytes: `python -m tests.stress --kills 50`.

With `--recipe everything` it trains with all that has a state or chooses an epoch, at once; with `--device cuda` on a
GPU, which only the forked processes use.

A study of one trial runs in a forked process as `segkit run` runs it: lock, resume, checkpoints, report. It is killed
at random moments (SIGKILL, SIGTERM, SIGINT) and, in every third start, by itself in the middle of writing, flushing or
renaming a file. After each death every file in the run folder has to be whole; at the end weights, metrics.csv (but for
times) and cases.csv have to equal, byte for byte, those of a training that was never touched.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import segkit.files
from segkit import plugins
from segkit.api import conclude
from segkit.recipe import toml
from segkit.study import runs
from segkit.training import checkpoint
from segkit.training.trial import Event
from tests.fresh_plugins import EXAMPLES
from tests.small import BASE

TIMES = ("seconds", "images_per_second")
TRIAL = Path("study/baseline/seed-1")
RECIPE: dict[str, Any] = BASE | {
    "model": {"unet": {"widths": [4, 8], "dropout": 0.2}},
    "regularizer": {"l1": {"weight": 1e-4, "proximal": True}},
    "scheduler": {"ReduceLROnPlateau": {"patience": 0}},
    "train": BASE["train"] | {"epochs": 6, "batch_size": 2, "accumulate": 2, "save_every": {"steps": 1}},
}
EVERYTHING: dict[str, Any] = RECIPE | {
    "data": {"phantom": {"patients": 8, "slices": 24, "height": 32, "width": 32, "unlabelled": 2}},
    "channels": "exclusive",
    "model": {"unet": {"widths": [4, 8, 8], "dropout": 0.2, "deep_supervision": True}},
    "step": {"mean_teacher": {"ramp_up": 4}},
    "optimizer": {"SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}},
    "train": RECIPE["train"]
    | {
        "ema": 0.8,
        "patience": 2,
        "warmup": 5,
        "clip_norm": 1.0,
        "freeze": ["down.0.*"],
        "auxiliary_weights": [4, 1],
        "oversample_foreground": 0.4,
        "init_match": "names",
    },
}
EVERYTHING["optimizer"]["SGD"]["groups"] = [{"match": ["norms", "biases"], "weight_decay": 0.0}]
RECIPES = {"small": RECIPE, "everything": EVERYTHING}


def on_device(recipe: dict[str, Any], device: str) -> dict[str, Any]:
    """Return a recipe that trains on a device."""
    there = {"deterministic": True, "resident": True} if device != "cpu" else {}
    return recipe | {"train": recipe["train"] | {"device": device} | there}


@dataclass
class Tally:
    """What happened.

    Attributes:
        deaths: by what: a signal's name, or the operation in which the process killed itself.
        trials: trainings brought to their end.
        differing: bytes that differed from the untouched training's, in all of them.
    """

    deaths: dict[str, int] = field(default_factory=dict)
    trials: int = 0
    differing: int = 0

    @property
    def kills(self) -> int:
        """How many deaths there were."""
        return sum(self.deaths.values())


def start(
    folder: Path, arm: Callable[[], None] = lambda: None, heed: Callable[[Event], None] = lambda event: None
) -> int:
    """Fork a process that does what `segkit run` does; return its id. `arm` runs in it first, `heed` at each event."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        torch.set_num_threads(1)
        arm()
        (study,) = runs.plan_studies([folder / "study.toml"], [], [], folder)
        for event in study.execute(jobs=1):
            heed(event)
        outcome = conclude(study)
        status = 130 if outcome.interrupted else 1 if outcome.failed else 0
    finally:
        os._exit(status)


def prepare(folder: Path, recipe: dict[str, Any]) -> Path:
    """Write the recipe into a new folder."""
    folder.mkdir(parents=True)
    (folder / "study.toml").write_text("title = 'baseline'\n" + toml.dumps(recipe), encoding="utf-8")
    return folder


def source(folder: Path) -> Path:
    """Train for an epoch from nothing; return the checkpoint."""
    brief = RECIPE | {"train": RECIPE["train"] | {"epochs": 1}}
    _, status = os.waitpid(start(prepare(folder, brief)), 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the training to begin with did not finish"
    return folder / TRIAL / "best.safetensors"


def dies_writing(number: int, how: str, tell: Path) -> Callable[[], None]:
    """Return what arms a process to kill itself in its `number`-th operation of a kind on files."""

    def die() -> None:
        tell.write_text(how)
        os.kill(os.getpid(), signal.SIGKILL)

    def arm() -> None:
        left = number
        real: dict[str, Any] = {"flush": os.fsync, "rename": os.replace, "write": open}

        def counted(*given: Any, **named: Any) -> Any:
            nonlocal left
            writing = how != "write" or (len(given) > 1 and given[1] == "wb")
            left -= writing
            if writing and not left:
                if how == "write":
                    return _Half(real["write"](*given, **named), die)
                die()
            return real[how](*given, **named)

        if how == "write":
            vars(segkit.files)["open"] = counted
        else:
            setattr(os, "fsync" if how == "flush" else "replace", counted)

    return arm


class _Half:
    """A file whose process dies when half is written."""

    def __init__(self, file: Any, die: Callable[[], None]) -> None:
        self.file, self.die = file, die

    def __enter__(self) -> _Half:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, data: bytes) -> None:
        """Write half of it, and die."""
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        self.die()


def check_whole(run: Path) -> None:
    """Raise unless every file that a reader would open is whole."""
    for path in sorted(run.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.suffix == ".safetensors":
            checkpoint.load(path, with_state=True)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".toml":
            tomllib.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".csv":
            text = path.read_text(encoding="utf-8")
            rows = list(csv.reader(io.StringIO(text, newline="")))
            assert text.endswith("\n"), path
            assert len({len(row) for row in rows}) == 1, path
        elif path.suffix == ".html":
            assert path.read_text(encoding="utf-8").endswith("</html>\n"), path


def result(trial: Path) -> dict[str, bytes]:
    """Return what a finished training left, but for times."""
    found = {"cases.csv": (trial / "cases.csv").read_bytes()}
    rows = csv.DictReader(io.StringIO((trial / "metrics.csv").read_text(encoding="utf-8"), newline=""))
    found["metrics.csv"] = repr([[row[key] for key in row if key not in TIMES] for row in rows]).encode()
    for name in ("best", "last"):
        weights = checkpoint.load(trial / f"{name}.safetensors").weights
        found[name] = b"".join(weights[key].numpy().tobytes() for key in sorted(weights))
    return found


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> int:
    """Return how many bytes differ."""
    count = 0
    for name, data in one.items():
        count += abs(len(data) - len(other[name])) + sum(a != b for a, b in zip(data, other[name], strict=False))
    return count


def torment(
    folder: Path, kills: int, seed: int, recipe: dict[str, Any], tell: Callable[[str], None] = lambda line: None
) -> Tally:
    """Kill trainings until there were `kills` deaths, bring each to its end, and compare.

    Args:
        folder: an empty folder to work in.
        kills: the number of deaths.
        seed: of the moments.
        recipe: what is trained.
        tell: called with a line of progress.
    """
    chance, tally = random.Random(seed), Tally()
    if "init_match" in recipe["train"]:
        recipe = recipe | {"train": recipe["train"] | {"init_from": str(source(folder / "source"))}}
    whole = prepare(folder / "whole", recipe)
    begun = time.monotonic()
    _, status = os.waitpid(start(whole), 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the training that is never touched did not finish"
    lasts, wanted = time.monotonic() - begun, result(whole / TRIAL)
    while tally.kills < kills:
        run = prepare(folder / f"trial-{tally.trials}", recipe)
        finished = False
        while not finished:
            finished = _one_life(run, chance, lasts, tally, alone=tally.kills >= kills)
            check_whole(run)
        tally.trials += 1
        tally.differing += differing(wanted, result(run / TRIAL))
        tell(f"{tally.kills} kills, {tally.trials} trainings, {tally.differing} bytes differ")
    return tally


def _one_life(run: Path, chance: random.Random, lasts: float, tally: Tally, *, alone: bool) -> bool:
    """Start the training, let it die or finish; return whether it finished."""
    note = run / "cause"
    note.unlink(missing_ok=True)
    arm: Callable[[], None] = lambda: None  # noqa: E731
    by_itself = not alone and chance.random() < 1 / 3
    if by_itself:
        arm = dies_writing(chance.randint(1, 30), chance.choice(["write", "flush", "rename"]), note)
    child = start(run, arm)
    sent = None
    if not alone and not by_itself:
        time.sleep(chance.uniform(0.0, 0.8 * lasts))
        sent = chance.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], [4, 1, 1])[0]
        os.kill(child, sent)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return True
    cause = f"in the middle of a {note.read_text()}" if note.exists() else sent.name if sent else f"exit status {code}"
    assert sent is not None or note.exists(), f"the training failed by itself: {cause}"
    tally.deaths[cause] = tally.deaths.get(cause, 0) + 1
    return False


def main() -> None:
    """Print what was survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recipe", choices=RECIPES, default="small")
    parser.add_argument("--device", default="cpu", help="cuda: deterministic, samples on the device")
    options = parser.parse_args()
    torch.set_num_threads(1)
    plugins.load_file(EXAMPLES / "mean_teacher.py")
    with tempfile.TemporaryDirectory(prefix="segkit-stress-") as name:
        chosen = on_device(RECIPES[options.recipe], options.device)
        tally = torment(Path(name), options.kills, options.seed, chosen, lambda line: print(line, flush=True))
    for cause, count in sorted(tally.deaths.items()):
        print(f"  {count:4} {cause}")
    print(f"{tally.kills} kills survived in {tally.trials} trainings, {tally.differing} bytes differ")
    sys.exit(tally.differing > 0)


if __name__ == "__main__":
    main()
