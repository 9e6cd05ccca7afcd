"""The command: trains what is missing, then prints the tables."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from segkit import UserError
from tests.benchmarks import accuracy
from tests.benchmarks.accuracy.contestants import CONTESTANTS, STRONG
from tests.benchmarks.accuracy.results import Key, Result, Results, measure
from tests.benchmarks.accuracy.table import report
from tests.benchmarks.accuracy.task import Contestant, Task, metrics


def missing(contestant: Contestant) -> list[str]:
    """Return the packages that a contestant needs and that are not installed."""
    return [name for name in contestant.needs if importlib.util.find_spec(name) is None]


def compare(
    task: Task,
    contestants: Mapping[str, Contestant],
    minutes: float,
    folds: Sequence[int],
    *,
    only: Collection[str] | None = None,
    command: str = "",
) -> str:
    """Train contestants on folds, as far as that is not done; return the report of what is known of all.

    One that fails does not end the comparison: its row says so.

    Args:
        only: those to train; all by default.
        command: that of the report.
    """
    results, states, found = Results(task.out), dict[str, str](), list[Result | None]()
    for fold, (name, contestant) in itertools.product(folds, contestants.items()):
        if missing(contestant):
            states[name] = "not installed"
            continue
        try:
            key = Key(name, contestant.identity(task), task.threads, minutes, fold)
            if only is None or name in only:
                found.append(measure(results, contestant, task, key, functools.partial(print, flush=True)))
            else:
                found.append(results.find(key))
        except Exception as error:
            if name not in states:
                print(f"{name}, fold {fold}: {error if isinstance(error, UserError) else repr(error)}", flush=True)
            states[name] = "failed"
    labels = {name: contestant.label for name, contestant in contestants.items()}
    return report(labels, states, [result for result in found if result], STRONG, metrics(), command)


def _parser() -> argparse.ArgumentParser:
    defaults = Task(Path())
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.accuracy", description=accuracy.__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"), help="the folder of the results")
    parser.add_argument("--minutes", type=float, default=20, help="of training, for each contestant and fold")
    parser.add_argument("--threads", type=int, default=defaults.threads)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(1, defaults.folds + 1)))
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, metavar="NAME", help="train these alone")
    parser.add_argument("--data", type=Path, default=defaults.root, help="the folder sunnybrook_endo")
    parser.add_argument("--recipe", type=Path, default=defaults.recipe, help="in place of strong.toml")
    parser.add_argument("--with", type=Path, nargs="*", default=list(defaults.overlays), dest="overlays")
    parser.add_argument("--list", action="store_true", help="show the contestants, and train nothing")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, or list what is compared."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    if options.list:
        for name, contestant in CONTESTANTS.items():
            print(f"{name}: {contestant.label}" + (" (not installed)" if missing(contestant) else ""))
        return
    task = Task(options.out, options.data, options.threads, options.recipe, tuple(options.overlays))
    command = shlex.join([*_parser().prog.split(), *given])
    try:
        print(compare(task, CONTESTANTS, options.minutes, options.folds, only=options.only, command=command))
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command continues")


if __name__ == "__main__":
    main()
