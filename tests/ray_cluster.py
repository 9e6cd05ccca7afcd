"""Four trials on a Ray cluster that loses a machine: `python -m tests.ray_cluster`.

The cluster has a head without CPUs and two machines of one CPU, all of them this one. As soon as two trials are under
way, one machine is removed, ungracefully, and another one added. Every trial has to finish; only the one that was hit
goes back to its last save; weights, metrics and cases are, byte for byte, those of trials that ran one after another.
With `--apart` no machine sees the run folder, and files travel. The trials use a plugin that lies here alone.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster as Machines

from segkit import plugins
from segkit.api import conclude
from segkit.recipe import toml
from segkit.study import runs
from segkit.study.executor import Local
from segkit.study.on_ray import Cluster
from segkit.study.places import Place
from segkit.training.trial import Event, Trial
from tests.small import BASE
from tests.stress import result

PLUGIN = '''
"""A loss of its own."""
from segkit import losses
from segkit.types import Tensor

@losses.register("squared")
def squared(logits: Tensor, target: Tensor) -> Tensor:
    """Squared error of the probabilities, a mean; from 0 to 1."""
    return ((logits.sigmoid() - target) ** 2).mean()
'''
RECIPE: dict[str, Any] = BASE | {
    "data": {"phantom": {"patients": 4, "slices": 16, "height": 32, "width": 32}},
    "loss": {"squared": {}},
    "train": BASE["train"] | {"epochs": 40, "save_every": {"epochs": 2}},
    "study": {"seeds": [1, 2, 3, 4]},
}
STORE = {"object_store_memory": 100 << 20}


class Apart(Cluster):
    """A cluster whose machines do not see the run folder."""

    def _seen_by(self, trial: Trial) -> Path:
        return Path("nowhere")


def trained(out: Path, place: Place, hit: Any = lambda event: None) -> tuple[dict[str, dict[str, bytes]], list[Event]]:
    """Train the study; return what each trial left, but for times, and the events."""
    (study,) = runs.plan_studies([Path("study.toml")], [], [], out)
    events = []
    for event in study.execute(place=place):
        events.append(event)
        hit(event)
    outcome = conclude(study)
    assert outcome.counts == {"finished": 4}, (outcome.counts, outcome.failures)
    trials = sorted((out / "study").glob("*/*/trial.json"))
    left = [path for path in (out / "study").rglob(".*")] + list((out / ".leases").iterdir())
    assert not left, left
    return {path.parent.name: result(path.parent) for path in trials}, events


def main() -> None:
    """Run both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--apart", action="store_true")
    apart = parser.parse_args().apart
    with tempfile.TemporaryDirectory(prefix="segkit-ray-test-") as name:
        os.chdir(name)
        Path("study.toml").write_text(toml.dumps(RECIPE), encoding="utf-8")
        Path("plugin.py").write_text(PLUGIN, encoding="utf-8")
        plugins.load(["plugin.py"])
        begun = time.monotonic()
        machines = Machines(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False} | STORE)
        one, _ = machines.add_node(num_cpus=1, **STORE), machines.add_node(num_cpus=1, **STORE)
        os.environ["RAY_ADDRESS"] = machines.address
        under_way: set[str] = set()

        def hit(event: Event) -> None:
            if event.kind == "epoch" and event.values["epoch"] >= 4 and len(under_way) < 2:
                under_way.add(event.trial)
                if len(under_way) == 2:
                    machines.remove_node(one, allow_graceful=False)
                    machines.add_node(num_cpus=1, **STORE)

        found, events = trained(Path("ray"), (Apart if apart else Cluster)("ray"), hit)
        seconds = time.monotonic() - begun
        ray.shutdown()
        machines.shutdown()
        lost = [event.trial for event in events if event.kind == "log" and "was lost; it goes on" in event.text]
        back = [event.trial for event in events if event.kind == "log" and "resumes in epoch" in event.text]
        assert len(lost) == 1, lost
        assert back == lost, (back, lost)
        wanted, _ = trained(Path("local"), Local())
        assert found == wanted
    print(f"4 trials finished in {seconds:.0f} s; {lost[0]} went back to its last save; 0 bytes differ")


if __name__ == "__main__":
    main()
