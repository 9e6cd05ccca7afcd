"""What placing many short trials costs: `python -m tests.benchmarks.trials [--trials 200]`.

Trials of about a second are run one after another in one process, then as many as `--trials` two at a time: by this
machine's processes, and where Ray is installed on a Ray cluster of two CPUs. The ratio is the time of all, from the
command to the last verdict but without the report, to the time of one alone times their number, divided by two; at
best it is 1. Processes and clusters have to start, which many trials share.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from segkit.recipe import toml
from segkit.study import runs
from segkit.study.executor import Local
from segkit.study.places import Place
from tests.small import BASE

RECIPE: dict[str, Any] = BASE | {
    "data": {"phantom": {"patients": 4, "slices": 16, "height": 64, "width": 64}},
    "model": {"unet": {"widths": [8, 16, 32]}},
    "train": BASE["train"] | {"epochs": 16, "threads": 1},
}
ALONE = 10  # trials, after a first one that warms up


def run(folder: Path, name: str, trials: int, place: Place, jobs: int) -> list[float]:
    """Run a study of so many seeds; return the moments at which its trials ended, from the beginning on."""
    path = folder / f"{name}.toml"
    path.write_text(toml.dumps(RECIPE | {"study": {"seeds": list(range(1, trials + 1))}}), encoding="utf-8")
    (study,) = runs.plan_studies([path], [], [], folder / name)
    begun, ends = time.perf_counter(), []
    for event in study.execute(jobs=jobs, place=place):
        assert event.kind != "failed", event.text
        if event.kind == "finished":
            ends.append(time.perf_counter() - begun)
    assert len(ends) == trials
    return ends


def main() -> None:
    """Print the time of one trial, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory(prefix="segkit-trials-") as name:
        folder = Path(name)
        ends = run(folder, "alone", 1 + ALONE, Local(), 1)
        lasted = [after - before for before, after in itertools.pairwise(ends)]
        one = statistics.median(lasted)
        print(f"a trial alone: {one:.2f} s ({min(lasted):.2f} to {max(lasted):.2f})", flush=True)
        places: dict[str, Place] = {"two processes": Local()}
        if importlib.util.find_spec("ray") is not None:
            os.environ.pop("RAY_ADDRESS", None)
            places["Ray, two CPUs"] = ray_of(2)
        for label, place in places.items():
            found = run(folder, label.partition(",")[0], trials, place, 2)[-1]
            print(
                f"{label}: {trials} trials in {found:.1f} s, {found / (one * trials / 2):.2f} times half their sum",
                flush=True,
            )


def ray_of(cpus: int) -> Place:
    """Return a Ray cluster of this machine with so many CPUs."""
    import ray

    from segkit.study.on_ray import Cluster

    ray.init(num_cpus=cpus, log_to_driver=False, logging_level="error", include_dashboard=False)
    return Cluster("ray")


if __name__ == "__main__":
    main()
