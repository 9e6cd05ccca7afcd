"""Where trials are trained: on several GPUs of this machine, and on a Ray cluster."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from segkit import UserError
from segkit.recipe import toml
from segkit.study import workers
from segkit.study.executor import Local, place_of
from segkit.study.ray_task import Board, Packed, Sight, changed_files, work
from segkit.study.workers import VISIBLE, Pool
from segkit.training.trial import Event
from tests.small import BASE

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("gpus", "share", "device", "jobs"),
    [(4, 1.0, "cuda", 4), (4, 0.25, "cuda", 16), (2, 0.3, "cuda", 6), (4, 1.0, "cuda:1", 1), (0, 1.0, "mps", 1)],
)
def test_as_many_trials_at_a_time_as_gpus_and_their_shares_allow(
    monkeypatch: pytest.MonkeyPatch, gpus: int, share: float, device: str, jobs: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert Local(share).jobs("auto", 100, device) == (jobs, 1)
    assert Local(share).jobs("auto", 3, device) == (min(jobs, 3), 1)
    assert Local(share).jobs(5, 100, device) == (5, 1)


class Fake:
    """Stands for a process that trains."""

    def __init__(self, gpu: str | None, *shared: Any) -> None:
        self.gpu, self.trial = gpu, None

    def start(self, trial: Any) -> None:
        self.trial = trial


def trial_on(device: str) -> Any:
    return SimpleNamespace(recipe=SimpleNamespace(train=SimpleNamespace(device=device)))


@pytest.mark.parametrize(("visible", "names"), [(None, ["0", "1", "2"]), ("4,7", ["4", "7"])])
def test_trials_are_spread_over_the_gpus_that_are_visible(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(workers, "_Worker", Fake)
    if visible is None:
        monkeypatch.delenv(VISIBLE, raising=False)
    else:
        monkeypatch.setenv(VISIBLE, visible)
    pool = Pool(Local(0.5)._gpus())
    for _ in range(2 * len(names)):
        pool.start(trial_on("cuda"))
    assert Counter(worker.gpu for worker in pool.workers) == dict.fromkeys(names, 2)


@pytest.mark.parametrize("device", ["cuda:1", "cpu"])
def test_a_trial_that_names_its_device_is_left_to_find_it(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(workers, "_Worker", Fake)
    pool = Pool(["0", "1"])
    pool.start(trial_on(device))
    assert [worker.gpu for worker in pool.workers] == [None]


@pytest.mark.parametrize("before", [None, "3,5"])
def test_a_process_sees_the_gpu_it_is_given(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    if before is None:
        monkeypatch.delenv(VISIBLE, raising=False)
    else:
        monkeypatch.setenv(VISIBLE, before)
    with workers._visible("5"):
        seen = subprocess.run(
            [sys.executable, "-c", f"import os; print(os.environ['{VISIBLE}'])"], stdout=-1, text=True
        )
    assert seen.stdout == "5\n"
    assert os.environ.get(VISIBLE) == before
    with workers._visible(None):
        assert os.environ.get(VISIBLE) == before


NO_RAY = "--on ray: Ray is not installed. Get it with `pip install segkit[ray]`."


def test_without_ray_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=f"^{re.escape(NO_RAY)}$"):
        place_of("ray")
    run = f"sys.argv = ['segkit', 'run', 'recipes/quickstart.toml', '--out', '{tmp_path}', '--on', 'ray']"
    code = f"import sys; sys.modules['ray'] = None; {run}; from segkit.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"error: {NO_RAY}")
    assert not list(tmp_path.iterdir())


def test_memory_is_reserved_on_a_cluster_alone() -> None:
    with pytest.raises(UserError, match=r"^--memory-per-trial: nothing is reserved on this machine\. Use it with --on"):
        place_of(None, memory=1)


def test_a_board_hands_out_what_it_was_told_once_and_says_when_to_stop() -> None:
    board, event = Board(), Event("a/seed-1", "epoch")
    assert not board.tell("one", [event], {})
    assert not board.tell("one", [], {})
    board.halt()
    assert board.tell("two", [], {"x": b"1"})
    assert board.take() == [("one", [event], {}), ("two", [], {"x": b"1"})]
    assert board.take() == []


def test_files_travel_when_they_have_changed_and_the_status_last(tmp_path: Path) -> None:
    (tmp_path / "overlays").mkdir()
    for name in ("trial.json", "x.csv", "overlays/z.png", ".x.tmp"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    seen = Sight()
    assert list(changed_files(tmp_path, seen)) == ["overlays/z.png", "x.csv", "trial.json"]
    assert changed_files(tmp_path, seen) == {}
    (tmp_path / "x.csv").write_text("more of it", encoding="utf-8")
    assert changed_files(tmp_path, seen) == {"x.csv": b"more of it"}


def test_a_machine_that_does_not_see_the_folder_asks_for_the_files_and_one_with_another_version_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # as a task does
    packed = Packed(b"", version("segkit"), [], tmp_path, tmp_path / "probe", None)
    assert work(packed, None, "one") is False
    other = Packed(b"", "0.0.1", [], tmp_path, tmp_path / "probe", None)
    with pytest.raises(UserError, match=r"^segkit 0\.0\.1 began this study, and \S+ has .* Install the same version"):
        work(other, None, "one")


with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.mark.slow
@with_ray
def test_a_signal_saves_and_ends_the_trials_on_a_cluster(tmp_path: Path) -> None:
    data, epochs = {"phantom": {"patients": 4, "slices": 16, "height": 32, "width": 32}}, 60
    recipe = BASE | {"data": data, "train": BASE["train"] | {"epochs": epochs}, "study": {"seeds": [1, 2]}}
    (tmp_path / "study.toml").write_text(toml.dumps(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "segkit", "run", "study.toml"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, "--on", "ray"], cwd=tmp_path, env=environment, **pipes)
    assert process.stdout is not None
    before = next(line for line in process.stdout if f"epoch 3/{epochs}" in line)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=200)
    assert process.returncode == 130, before + told
    assert "interrupted: the state is saved; the same command resumes from there" in told
    assert "Traceback" not in told
    states = [status.with_name("last.safetensors") for status in tmp_path.glob("runs/*/*/*/trial.json")]
    assert any(state.is_file() for state in states)
    assert not list((tmp_path / "runs/.leases").iterdir())
    done = subprocess.run([*command, "--jobs", "1"], cwd=tmp_path, env=environment, check=False, **pipes)
    assert done.returncode == 0, done.stdout
    assert "resumes in epoch" in done.stdout


@pytest.mark.slow
@with_ray
@pytest.mark.parametrize("options", [[], ["--apart"]], ids=["shared", "apart"])
def test_a_ray_cluster_that_loses_a_machine_ends_with_the_same_bytes(options: list[str]) -> None:
    command = [sys.executable, "-m", "tests.ray_cluster", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(
        r"^4 trials finished in (\d+) s; \S+ went back to its last save; 0 bytes differ$", done.stdout, re.M
    )
    assert found, done.stdout
    assert int(found[1]) <= 90
