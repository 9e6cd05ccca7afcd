"""When a trial is trained again, when it is only evaluated again, and on what hardware: one setting a study."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import segkit
from segkit import UserError
from segkit.api import conclude
from segkit.locks import Folder
from segkit.recipe import identity, toml
from segkit.recipe.model import Recipe
from segkit.report import figures
from segkit.study import runs
from segkit.training.trial import Event
from tests import small
from tests.small import BASE

ONE: dict[str, Any] = BASE | {"title": "one", "train": BASE["train"] | {"epochs": 2, "threads": 1}}
FREE: dict[str, Any] = ONE | {"train": BASE["train"] | {"epochs": 2, "threads": "auto"}}
TWO = {"study": {"variants": [{"label": "a"}, {"label": "b", "optimizer": {"Adam": {"lr": 0.02}}}]}}
PHANTOM: dict[str, Any] = {"data": {"phantom": {"patients": 4, "slices": 8, "height": 32, "width": 32}}}
FOLDER = Path("runs/one/one/seed-1")
WEIGHTS = ("best.safetensors", "last.safetensors")


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figures, "FIGURES", {})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)  # two cores everywhere
    monkeypatch.chdir(tmp_path)


def study(tree: dict[str, Any], *sets: str, name: str = "one") -> runs.StudyRun:
    Path(f"{name}.toml").write_text(toml.dumps(tree), encoding="utf-8")
    (found,) = runs.plan_studies([Path(f"{name}.toml")], [], sets, Path("runs"))
    return found


def ends(events: Iterator[Event]) -> dict[str, str]:
    final = ("finished", "failed", "interrupted", "skipped", "reused")
    return {event.trial: event.kind for event in events if event.kind in final}


def run(tree: dict[str, Any], *sets: str, name: str = "one", **options: Any) -> dict[str, str]:
    return ends(study(tree, *sets, name=name).execute(**{"jobs": 1} | options))


def status(folder: Path = FOLDER) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "trial.json").read_text())
    return found


def threads_of(folder: Path) -> set[int]:
    return {status(path.parent)["threads"] for path in folder.glob("*/*/trial.json")}


def epochs_trained(events: Iterator[Event]) -> int:
    return sum(event.kind == "epoch" for event in events)


# identities


def test_other_metrics_are_evaluated_and_not_trained() -> None:
    run(ONE)
    before = {name: (FOLDER / name).read_bytes() for name in WEIGHTS}
    for metrics in ("{ dice = {}, hd95 = {} }", "{ iou = {} }"):
        for lost in (None, "last.safetensors"):
            if lost:
                (FOLDER / lost).unlink()
                before.pop(lost)
            changed = metrics if not lost else metrics.replace("iou", "recall").replace("dice", "precision")
            events = list(study(ONE, f"metrics={changed}").execute(jobs=1))
            assert epochs_trained(iter(events)) == 0
            assert ends(iter(events)) == {"one/seed-1": "finished"}
            assert any("evaluated again" in event.text for event in events)
            written = {line.split(",")[3] for line in (FOLDER / "cases.csv").read_text().splitlines()[1:]}
            assert written == set(study(ONE, f"metrics={changed}").recipe.dump()["metrics"])
            assert all((FOLDER / name).read_bytes() == data for name, data in before.items())
            assert run(ONE, f"metrics={changed}") == {"one/seed-1": "skipped"}
        if metrics.startswith("{ dice"):
            shutil.rmtree("runs")
            run(ONE)
            before = {name: (FOLDER / name).read_bytes() for name in WEIGHTS}


def test_the_epoch_is_chosen_by_dice_whatever_is_reported() -> None:
    run(ONE)
    run(ONE, "metrics=recall", name="other")
    assert status()["best_epoch"] == status(Path("runs/other/one/seed-1"))["best_epoch"]
    rows = (Path("runs/other/one/seed-1/metrics.csv")).read_text().splitlines()
    assert {"val_dice", "val_recall"} <= set(rows[0].split(","))


def test_metrics_may_change_while_a_training_is_interrupted() -> None:
    found = study(ONE, "train.epochs=4")
    for event in found.execute(jobs=1):
        if event.kind == "epoch" and event.values["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
    assert run(ONE, "train.epochs=4", "metrics=iou") == {"one/seed-1": "finished"}
    head, *rows = [line.split(",") for line in (FOLDER / "metrics.csv").read_text().splitlines()]
    assert [bool(row[head.index("val_recall")]) for row in rows] == [True, True, False, False]
    assert segkit.files.read_text(FOLDER / "cases.csv").count(",iou,") == 8


def test_a_trial_of_another_study_is_evaluated_with_this_ones_metrics() -> None:
    run(ONE)
    events = list(study(ONE, "metrics=hd95", name="other").execute(jobs=1))
    assert epochs_trained(iter(events)) == 0
    assert ends(iter(events)) == {"one/seed-1": "finished"}
    other = Path("runs/other/one/seed-1")
    assert {line.split(",")[3] for line in (other / "cases.csv").read_text().splitlines()[1:]} == {"hd95"}
    assert (other / "best.safetensors").read_bytes() == (FOLDER / "best.safetensors").read_bytes()


def test_a_key_that_a_later_version_adds_makes_no_other_trial() -> None:
    run(ONE)
    tree = (FOLDER / "recipe.toml").read_text()
    for key in ("deterministic = false\n", 'budget = "epochs"\n', "accumulate = 1\n"):
        assert key in tree
        tree = tree.replace(key, "")
    (FOLDER / "recipe.toml").write_text(tree)  # as a version wrote it that did not know them
    told = status() | {"identity": "of fewer keys"}
    told["versions"]["segkit"] = "0.0.9"
    (FOLDER / "trial.json").write_text(json.dumps(told))
    assert run(ONE) == {"one/seed-1": "skipped"}
    assert run(ONE, name="other") == {"one/seed-1": "reused"}
    assert run(ONE, "train.epochs=3") == {"one/seed-1": "finished"}
    assert status()["epochs_done"] == 3


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("train.device=cuda:0", "train.device=cuda:1", True),
        ("train.device=cpu", "train.device=cuda:1", False),
        ("train.threads=1", "train.threads=2", False),
        ("train.precision=bf16", "train.precision=float32", False),
        ("train.compile=true", "train.compile=false", False),
        ("train.workers=0", "train.workers=2", True),
        ("title=x", "title=y", True),
        ("metrics=dice", "metrics=iou", True),
        ("train.epochs=2", "train.epochs=3", False),
        ("loss.dice_mix.lambda=0.1", "loss.dice_mix.lambda=0.2", False),
        ("model.unet.residual=false", "model.unet.residual=true", False),
    ],
)
def test_what_belongs_to_a_training(one: str, other: str, same: bool) -> None:
    first, second = (identity.training_identity(small.recipe(text)) for text in (one, other))
    assert (first == second) is same


def test_parameters_that_were_added_to_the_unet_do_not_count_at_their_defaults() -> None:
    defaults = {name: segkit.models["unet"].fields[name].default for name in identity.ADDED_TO_UNET}
    assert defaults == identity.ADDED_TO_UNET


def test_a_larger_number_makes_every_trial_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    run(ONE)
    monkeypatch.setattr(identity, "TRAINING_NUMBER", identity.TRAINING_NUMBER + 1)
    made: Recipe = small.recipe()
    now = identity.training_identity(made)
    monkeypatch.undo()
    assert now != identity.training_identity(made)


# what was lost


def test_lost_files_of_a_finished_trial_are_made_again() -> None:
    run(ONE)
    kept = {name: (FOLDER / name).read_bytes() for name in ("cases.csv", "best.safetensors")}
    for lost, said, epochs in (
        ("cases.csv", "cases.csv of this finished trial is gone: written again", 0),
        ("metrics.csv", "metrics.csv of this finished trial is gone: written again", 0),
        ("best.safetensors", "best.safetensors of this finished trial is gone: it is trained again", 2),
        ("cases.csv last.safetensors", "cases.csv and last.safetensors of this finished trial are gone: it is trai", 2),
    ):
        for name in lost.split():
            (FOLDER / name).unlink()
        assert run(ONE, name=f"without-{lost[:4]}") == {"one/seed-1": "finished"}, "a trial with a hole was copied"
        shutil.rmtree(f"runs/without-{lost[:4]}")
        events = list(study(ONE).execute(jobs=1))
        assert any(said in event.text for event in events)
        assert epochs_trained(iter(events)) == epochs
        assert {name: (FOLDER / name).read_bytes() for name in kept} == kept
    for name in ("metrics.csv", "cases.csv"):  # both of which the saved state knows
        (FOLDER / name).unlink()
    assert epochs_trained(study(ONE).execute(jobs=1)) == 0
    assert {name: (FOLDER / name).read_bytes() for name in kept} == kept
    for damaged in ("cases.csv", "best.safetensors"):
        for length in (0, 200):
            (FOLDER / damaged).write_bytes((FOLDER / damaged).read_bytes()[:length])
            assert run(ONE) == {"one/seed-1": "finished"}
            assert {name: (FOLDER / name).read_bytes() for name in kept} == kept


def test_a_run_folder_that_goes_away_is_not_made_again() -> None:
    found = study(ONE, "train.epochs=50")
    events = []
    for event in found.execute(jobs=1):
        events.append(event)
        if event.kind == "epoch" and event.values["epoch"] == 1:
            shutil.move("runs/one", "moved")
    assert ends(iter(events)) == {"one/seed-1": "failed"}
    assert "runs/one/one/seed-1: was removed or moved while a training was writing into it" in events[-1].text
    assert not Path("runs/one").exists()
    assert events[-1].text.count("removed or moved") == 1
    outcome = conclude(found)
    assert outcome.failed
    assert not any("report.html" in line for line in outcome.lines())
    assert not Path("runs/one").exists()


def test_a_folder_in_the_place_of_another_is_not_written_into() -> None:
    found = study(ONE, "train.epochs=50")
    for event in found.execute(jobs=1):
        if event.kind == "epoch" and event.values["epoch"] == 1:
            shutil.move(FOLDER, "moved")
            FOLDER.mkdir()
            (FOLDER / "mine.txt").write_text("x")
    assert not (FOLDER / "best.safetensors").exists()
    folder = Folder(Path("own"))
    shutil.rmtree("own")
    Path("own").mkdir()
    with pytest.raises(UserError, match=r"^own: was removed or moved"):
        _ = folder / "x"


# hardware


def test_a_study_settles_its_hardware_once() -> None:
    run(FREE | PHANTOM | TWO, jobs="auto")
    assert threads_of(Path("runs/one")) == {1}  # two trials on two cores
    shutil.rmtree("runs/one/b")
    run(FREE | PHANTOM | TWO, jobs=1)  # on its own it would have taken both cores
    assert threads_of(Path("runs/one")) == {1}
    assert run(FREE | PHANTOM | TWO, jobs=1) == {"a/seed-1": "skipped", "b/seed-1": "skipped"}
    run(FREE, jobs="auto", name="alone")
    assert threads_of(Path("runs/alone")) == {2}
    settled = Path("runs/alone/one/seed-1/recipe.toml").read_text()
    assert all(line in settled for line in ('device = "cpu"', 'precision = "float32"', "threads = 2"))


def test_a_trial_is_reused_only_with_the_same_hardware() -> None:
    run(FREE, "train.threads=2")
    assert run(FREE, "train.threads=1", name="other") == {"one/seed-1": "finished"}
    assert run(FREE, "train.threads=2", name="third") == {"one/seed-1": "reused"}


def test_a_study_that_would_mix_hardware_is_refused_unless_asked_for() -> None:
    run(ONE)
    with pytest.raises(
        UserError,
        match=r"^train\.threads: is 2 now, but its trials so far had 1\. .*--fresh.*--mix-hardware: the report",
    ):
        run(ONE, "study.seeds=[1,2]", "train.threads=2")
    assert run(ONE, "study.seeds=[1,2]", "train.threads=2", mix_hardware=True) == {
        "one/seed-1": "skipped",
        "one/seed-2": "finished",
    }
    assert threads_of(Path("runs/one")) == {1, 2}
    with pytest.raises(UserError, match=r"one/seed-1: train\.threads was 1, is now 2\. A study compares"):
        run(ONE, "study.seeds=[1,2]", "train.threads=2")
    assert run(ONE, "train.threads=2", fresh=True) == {"one/seed-1": "finished"}
    before = Path("runs/one/recipe.toml").read_text()
    assert run(ONE, "train.threads=1", mix_hardware=True) == {"one/seed-1": "skipped"}
    assert Path("runs/one/recipe.toml").read_text() == before, "nothing was trained with the other number of threads"
    assert run(ONE, "train.threads=2") == {"one/seed-1": "skipped"}
    grid = ONE | {"study": {"grid": {"train.threads": [1, 2]}}}
    with pytest.raises(UserError, match=r"train\.threads: the variants of this study differ in it: 1 \(threads=1\)"):
        run(grid, name="grid")
    assert run(grid, name="grid", mix_hardware=True) == {"threads=1/seed-1": "finished", "threads=2/seed-1": "reused"}


def test_an_interrupted_trial_keeps_its_hardware() -> None:
    found = study(ONE, "train.epochs=4")
    for event in found.execute(jobs=1):
        if event.kind == "epoch" and event.values["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)
    assert run(ONE, "train.epochs=4", "train.threads=2", mix_hardware=True) == {"one/seed-1": "finished"}
    assert status()["threads"] == 1
    assert run(ONE, "train.epochs=4", name="whole") == {"one/seed-1": "reused"}


def test_nothing_of_the_process_is_changed_for_good() -> None:
    def state() -> tuple[Any, ...]:
        deterministic = torch.are_deterministic_algorithms_enabled()
        return torch.get_num_threads(), deterministic, torch.backends.cudnn.benchmark, torch.get_rng_state().sum()

    torch.set_num_threads(1)
    before = state()
    run(ONE, "train.deterministic=true", "train.threads=2")
    assert state() == before
    predictor = segkit.load(FOLDER / "best.safetensors")
    assert predictor.meta["threads"] == 2
    segkit.evaluate(FOLDER / "best.safetensors")
    assert state() == before


# how processes end


OWN = pytest.param("type('Own', (BaseException,), {})('gone')", marks=pytest.mark.slow)


@pytest.mark.parametrize("what", ["SystemExit(0)", OWN])
def test_a_component_that_ends_the_process_fails_its_trial(what: str) -> None:
    Path("plugins").mkdir()
    Path("leaves.py").write_text(
        "from segkit import losses\nfrom segkit.types import Tensor\n\n\n"
        "@losses.register('leaves')\ndef leaves(logits: Tensor, target: Tensor) -> Tensor:\n"
        f"    'Leaves.'\n    raise {what}\n"
    )
    script = (
        "import tests.small, sys\nfrom segkit.cli import main\n"
        "sys.argv = ['segkit', 'run', 'one.toml', '--plugins', 'leaves.py', '--jobs', '1']\nmain()\n"
    )
    Path("one.toml").write_text(toml.dumps(ONE | {"loss": {"leaves": {}}}))
    environment = {**os.environ, "PYTHONPATH": str(Path(segkit.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    assert "leaves.py" in done.stdout
    assert status()["status"] == "failed"


CRASHES = {"SIGSEGV": "signal 11", "SIGKILL": "signal 9"}


@pytest.mark.slow
@pytest.mark.parametrize("name", CRASHES)
def test_a_process_that_dies_is_told_and_its_trial_failed(name: str) -> None:
    found = study(ONE | PHANTOM | TWO, "train.epochs=400")
    done, failed = False, []
    for event in found.execute(jobs=2):
        if event.kind == "epoch" and not done:
            done = True
            os.kill(multiprocessing.active_children()[0].pid or 0, getattr(signal, name))
        if event.kind == "failed":
            failed.append(event)
            os.kill(os.getpid(), signal.SIGTERM)
    (event,) = failed
    assert CRASHES[name] in event.text
    assert status(Path("runs/one") / event.trial)["status"] == "failed"


@pytest.mark.parametrize(("saved", "then"), [(True, "resumes from its last save"), (False, "nothing was saved")])
def test_a_trial_whose_process_ended_without_a_word_is_told(saved: bool, then: str) -> None:
    run(ONE)
    (FOLDER / "trial.json").write_text(json.dumps(status() | {"status": "running"}))
    if not saved:
        (FOLDER / "last.safetensors").unlink()
    texts = [event.text for event in study(ONE, "train.epochs=3").execute(jobs=1) if event.kind == "log"]
    assert any("its process ended without reporting why" in text and then in text for text in texts)


def test_a_trial_that_was_stopped_at_once_is_told_as_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*handed: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segkit.training.run.train", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run(ONE)
    assert status()["status"] == "interrupted"


def test_an_interruption_while_a_recipe_is_written_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = small.recipe()

    def interrupted(*handed: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segkit.registry.component.Component.dump", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        found.dump()


@pytest.mark.parametrize("delay", [0.0, *(pytest.param(delay, marks=pytest.mark.slow) for delay in (0.3, 1.0))])
def test_sigterm_to_the_group_while_trials_start_is_an_interruption(delay: float) -> None:
    Path("one.toml").write_text(toml.dumps(BASE | PHANTOM | TWO | {"train": BASE["train"] | {"epochs": 2000}}))
    environment = {**os.environ, "PYTHONPATH": str(Path(segkit.__file__).parents[1])}
    command = [sys.executable, "-c", "from segkit.cli import main; main()", "run", "one.toml", "--jobs", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()  # the headline: processes are started from here on
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "failed" not in out
    assert "Traceback" not in err
    for path in Path("runs/one").rglob("trial.json"):
        assert status(path.parent)["status"] in ("interrupted", "running")
