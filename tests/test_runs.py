"""Studies on disk: what is skipped, reused, resumed, refused; several at once; trials side by side; what fails."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segkit import UserError, files
from segkit.api import conclude
from segkit.data.cache import DataCache
from segkit.recipe import toml
from segkit.report import figures
from segkit.study import hardware, runs
from segkit.study.executor import Local
from segkit.training import checkpoint
from segkit.training.run import run_trial
from segkit.training.trial import ENDS, Event
from tests import small
from tests.small import BASE

KEPT = ("cases.csv", "best.safetensors")
ONE: dict[str, Any] = BASE | {"train": BASE["train"] | {"epochs": 2}}
TWO: dict[str, Any] = ONE | {
    "study": {"variants": [{"label": "a"}, {"label": "b", "optimizer": {"Adam": {"lr": 0.02}}}]}
}
PHANTOM = {"phantom": {"patients": 4, "slices": 8, "height": 32, "width": 32}}


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figures, "FIGURES", {})
    monkeypatch.chdir(tmp_path)


def write(name: str, tree: dict[str, Any]) -> Path:
    Path(name).write_text(toml.dumps(tree), encoding="utf-8")
    return Path(name)


def study(path: Path, *sets: str, **options: Any) -> runs.StudyRun:
    (found,) = runs.plan_studies([path], [], sets, Path("runs"), **options)
    return found


def ends(events: Iterator[Event]) -> dict[str, str]:
    """Exhaust a study's events; return how each trial ended."""
    return {event.trial: event.kind for event in events if event.kind in ENDS}


def run(path: Path, *sets: str, **options: Any) -> dict[str, str]:
    return ends(study(path, *sets).execute(jobs=1, **options))


def kept(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.name in KEPT}


def test_what_is_finished_is_skipped_and_keeps_its_report() -> None:
    path = write("two.toml", TWO)
    first = study(path)
    assert ends(first.execute(jobs=1)) == {"a/seed-1": "finished", "b/seed-1": "finished"}
    outcome = conclude(first)
    assert outcome.counts == {"finished": 2}
    report, before = Path("runs/two/report.html").stat().st_mtime_ns, kept(Path("runs"))
    again = study(path)
    assert ends(again.execute(jobs=1)) == {"a/seed-1": "skipped", "b/seed-1": "skipped"}
    assert conclude(again).table == outcome.table
    assert Path("runs/two/report.html").stat().st_mtime_ns == report
    assert kept(Path("runs")) == before
    assert run(path, "study.seeds=[1,2]") == {
        f"{v}/seed-{s}": "skipped" if s == 1 else "finished" for v in "ab" for s in (1, 2)
    }


def test_a_baseline_is_trained_once_for_all_studies() -> None:
    assert set(run(write("two.toml", TWO)).values()) == {"finished"}
    other = TWO | {
        "title": "Another question",
        "study": {"variants": [{"label": "base"}, {"label": "c", "model": {"unet": {"dropout": 0.2}}}]},
    }
    assert run(write("other.toml", other)) == {"base/seed-1": "reused", "c/seed-1": "finished"}
    status = json.loads(Path("runs/other/base/seed-1/trial.json").read_text())
    assert (status["variant"], status["reused_from"]) == ("base", "runs/two/a/seed-1")
    for name in KEPT:
        assert Path("runs/other/base/seed-1", name).read_bytes() == Path("runs/two/a/seed-1", name).read_bytes()


def test_identical_variants_are_trained_once() -> None:
    twins = ONE | {"study": {"variants": [{"label": "x"}, {"label": "y"}]}}
    assert run(write("twins.toml", twins)) == {"x/seed-1": "finished", "y/seed-1": "reused"}
    found = kept(Path("runs/twins"))
    assert found["x/seed-1/cases.csv"] == found["y/seed-1/cases.csv"]


def test_a_changed_recipe_is_refused_with_the_keys_until_fresh() -> None:
    path = write("one.toml", ONE | {"title": "one"})
    run(path)
    before, recipe = kept(Path("runs")), Path("runs/one/recipe.toml").read_text()
    with pytest.raises(
        UserError, match=r"(?s)one/seed-1: holds another trial: optimizer\.Adam\.lr was 0\.01, is now 0\.03\..*--fresh"
    ):
        run(path, "optimizer.Adam.lr=0.03")
    assert kept(Path("runs")) == before
    assert Path("runs/one/recipe.toml").read_text() == recipe
    assert run(path, "optimizer.Adam.lr=0.03", fresh=True) == {"one/seed-1": "finished"}
    assert kept(Path("runs")) != before
    status = Path("runs/one/one/seed-1/trial.json")
    told = json.loads(status.read_text())
    status.write_text(json.dumps(told | {"plugins": {"training": ["of another source"], "evaluation": []}}))
    with pytest.raises(UserError, match="holds another trial: the source of a plugin it uses has changed"):
        run(path, "optimizer.Adam.lr=0.03")


def test_trials_of_other_data_are_neither_reused_nor_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    one = write("one.toml", TWO)
    assert run(one) == {"a/seed-1": "finished", "b/seed-1": "finished"}
    monkeypatch.setattr(small, "BACKGROUND", 310)  # the same recipe, the images corrected since
    assert set(run(write("two.toml", TWO)).values()) == {"finished"}
    shutil.rmtree("runs/one/b")
    before = sorted(Path("runs/one").rglob("*"))
    with pytest.raises(UserError, match=r"^runs/one/a/seed-1: the data have changed since it was trained .*--fresh"):
        run(one)
    assert sorted(Path("runs/one").rglob("*")) == before
    assert run(one, fresh=True) == {"a/seed-1": "reused", "b/seed-1": "reused"}


def test_what_holds_for_many_trials_is_told_once() -> None:
    one = write("one.toml", TWO)
    run(one)
    told = r"^runs/one/a/seed-1 and 1 more: holds another trial: optimizer\.Adam\.b[^\n]*$"
    with pytest.raises(UserError, match=told):
        run(one, "optimizer.Adam.betas=[0.5,0.9]")


def test_more_epochs_go_on_where_the_trial_ended() -> None:
    path = write("one.toml", ONE | {"title": "one"})
    run(path)
    assert run(path, "train.epochs=4") == {"one/seed-1": "finished"}
    (whole,) = runs.plan_studies([path], [], ["train.epochs=4"], Path("elsewhere"))
    ends(whole.execute(jobs=1))
    assert kept(Path("runs")) == kept(Path("elsewhere"))


def test_fewer_epochs_than_were_trained_are_another_trial() -> None:
    path = write("one.toml", ONE | {"title": "one"})
    run(path)
    with pytest.raises(UserError, match=r"one/seed-1: holds another trial: train\.epochs was 2, is now 1\."):
        run(path, "train.epochs=1")
    assert run(path) == {"one/seed-1": "skipped"}


def test_a_study_goes_on_past_a_failed_trial_unless_told_otherwise() -> None:
    wild = {"label": "lost", "optimizer": {"SGD": {"lr": 1e30}}}
    path = write(
        "some.toml", ONE | {"study": {"variants": [{"label": "a"}, wild, {"label": "z", "train": {"seed": 3}}]}}
    )
    found = study(path)
    assert ends(found.execute(jobs=1)) == {"a/seed-1": "finished", "lost/seed-1": "failed", "z/seed-3": "finished"}
    outcome = conclude(found)
    assert outcome.failed
    assert "is not finite" in outcome.failures["lost/seed-1"]
    assert any(line.startswith("failed: lost/seed-1: ") for line in outcome.lines())
    assert "lost, seed 1: failed after 0 of 2 epochs: " in Path("runs/some/report.md").read_text()
    path.write_text(toml.dumps(ONE | {"study": {"variants": [wild, {"label": "new", "train": {"seed": 4}}]}}))
    hasty = study(path, name="hasty")
    assert ends(hasty.execute(jobs=1, fail_fast=True)) == {"lost/seed-1": "failed", "new/seed-4": "interrupted"}
    assert conclude(hasty).failed


def test_what_is_wrong_with_any_variants_data_is_said_before_one_is_trained() -> None:
    variants = [
        {"label": "a"},
        {"label": "lost", "drop": ["data"], "data": {"rvsc": {"root": "nowhere"}}},
        {"label": "lost too", "drop": ["data"], "data": {"rvsc": {"root": "nowhere"}}, "train": {"seed": 2}},
        {"label": "elsewhere", "train": {"device": "cuda:7", "seed": 3}},
    ]
    path = write("some.toml", ONE | {"train": BASE["train"] | {"threads": "auto"}, "study": {"variants": variants}})
    with pytest.raises(UserError, match=r"(?s)^\S*nowhere: no such folder\.\n[^\n]*cuda:7[^\n]*$"):
        run(path)
    assert not list(Path("runs").rglob("trial.json"))


def test_what_a_dead_process_left_half_written_is_removed() -> None:
    path, trial = write("one.toml", ONE | {"title": "one"}), Path("runs/one/one/seed-1")
    run(path)
    (trial / "cases.csv").unlink()
    left = [Path("runs/one/.summary.csv.99.tmp"), *half_written(trial), Path("runs/one/one/.copy-seed-1")]
    left[0].write_bytes(b"half")
    left[-1].mkdir()
    run(path)
    assert not [half for half in left if half.exists()]


def test_an_attempt_at_a_trial_removes_what_a_lost_one_left_half_written() -> None:
    """Ray submits a trial again whose machine was lost, without another look at its folder."""
    (trial,) = study(write("one.toml", ONE | {"title": "one"})).planned
    left = half_written(trial.path)
    assert [event.kind for event in run_trial(trial, stop=lambda: False)][-1] == "finished"
    assert not [half for half in left if half.exists()]


def half_written(trial: Path) -> list[Path]:
    """Leave what processes that were killed while writing leave in a trial's folder."""
    left = [trial / ".last.safetensors.99.tmp", trial / "overlays" / ".x.png.99.tmp"]
    for half in left:
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"half")
    return left


@pytest.mark.parametrize("sets", [[], ["train.workers=1"]])
def test_interrupting_saves_and_the_same_command_goes_on_to_the_same_bytes(sets: list[str]) -> None:
    path = write("two.toml", TWO)
    run(path)
    (found,) = runs.plan_studies([path], [], sets, Path("elsewhere/deep"))
    events = []
    for event in found.execute(jobs=1):
        events.append(event)
        if event.kind == "epoch":
            os.kill(os.getpid(), signal.SIGTERM)
    assert ends(iter(events)) == {"a/seed-1": "interrupted", "b/seed-1": "interrupted"}
    outcome = conclude(found)
    assert outcome.interrupted
    assert "interrupted: the state is saved; the same command resumes from there" in outcome.lines()
    (found,) = runs.plan_studies([path], [], [], Path("elsewhere/deep"))
    assert set(ends(found.execute(jobs=1)).values()) == {"finished"}
    assert kept(Path("elsewhere/deep")) == kept(Path("runs"))


def test_several_recipes_in_one_call() -> None:
    write("base.toml", ONE)
    write("wide.toml", {"extends": "base.toml", "model": {"unet": {"widths": [6, 8]}}})
    write("small.toml", {"train": {"epochs": 1}})
    given = [Path("base.toml"), Path("wide.toml"), Path("base.toml").absolute()]
    found = runs.plan_studies(given, [Path("small.toml")], [], Path("runs"))
    assert [s.folder for s in found] == [Path("runs/base"), Path("runs/wide")]
    assert all(s.recipe.train.epochs == 1 for s in found)
    Path("sub").mkdir()
    Path("sub/base.toml").write_text(toml.dumps(ONE))
    with pytest.raises(
        UserError, match=r"sub/base\.toml: its run folder runs/base is also that of base\.toml\. Use --name"
    ):
        runs.plan_studies([Path("base.toml"), Path("sub/base.toml")], [], [], Path("runs"))
    write("bad.toml", {"extends": "base.toml", "train": {"epoch": 1}})
    write("worse.toml", {"extends": "base.toml", "model": {"unnet": {}}})
    with pytest.raises(UserError, match=r"(?s)bad\.toml:\d+: train\.epoch.*worse\.toml:\d+: model\.unnet"):
        runs.plan_studies([Path("bad.toml"), Path("worse.toml")], [], [], Path("runs"))


def test_a_fresh_training_that_is_interrupted_goes_on_from_itself_and_not_from_the_old_one() -> None:
    path = write("one.toml", ONE | {"title": "one"})
    run(path)
    other = "optimizer.Adam.lr=0.03"
    found = study(path, other)
    for event in found.execute(jobs=1, fresh=True):
        if event.kind == "start":
            os.kill(os.getpid(), signal.SIGTERM)
    assert run(path, other, fresh=True) == {"one/seed-1": "finished"}
    (whole,) = runs.plan_studies([path], [], [other], Path("elsewhere"))
    ends(whole.execute(jobs=1))
    assert kept(Path("runs")) == kept(Path("elsewhere"))


def test_a_checkpoint_of_another_trial_is_not_gone_on_from() -> None:
    path = write("one.toml", ONE | {"title": "one"})
    run(path)
    Path("runs/one/one/seed-1/trial.json").unlink()
    found = study(path, "optimizer.Adam.lr=0.03")
    assert ends(found.execute(jobs=1)) == {"one/seed-1": "failed"}
    (why,) = conclude(found).failures.values()
    assert "last.safetensors: belongs to another trial: optimizer.Adam.lr was 0.01, is now 0.03" in why
    assert run(path, "optimizer.Adam.lr=0.03", fresh=True) == {"one/seed-1": "finished"}


def test_power_lost_between_recipe_and_status_is_no_other_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("one.toml", ONE | {"title": "one"})
    run(path)
    for lost in ("recipe.toml", "trial.json"):
        with monkeypatch.context() as patch:

            def write_text(target: Path, text: str, real: Any = files.write_text, lost: str = lost) -> None:
                if target.name == lost and "seed-1" in target.parts:
                    raise KeyboardInterrupt("power")
                real(target, text)

            patch.setattr(files, "write_text", write_text)
            with pytest.raises(KeyboardInterrupt, match=r"^power$"):
                run(path, "train.epochs=3")
    assert run(path, "train.epochs=3") == {"one/seed-1": "finished"}


def test_folds_are_trials_of_their_own() -> None:
    path = write("one.toml", ONE | {"title": "one"})
    folders = {str(trial.folder) for trial in study(path, "split.folds=3", "study.seeds=[1,2]").planned}
    assert folders == {f"one/fold-{fold}-seed-{seed}" for fold in (1, 2, 3) for seed in (1, 2)}
    assert [str(t.folder) for t in study(path, "split.folds=3", "split.fold=2").planned] == ["one/fold-2-seed-1"]
    assert len(run(path, "split.folds=3")) == 3
    used = [
        json.loads(p.read_text())["split"]["validation"] for p in sorted(Path("runs/one/one").glob("fold-*/trial.json"))
    ]
    everyone = [case for fold in used for case in fold]
    assert len(everyone) == len(set(everyone)) == 12


def phantoms(epochs: int) -> list[Any]:
    """Trials that any process can train."""
    variants = [{"label": label, "train": {"seed": seed}} for seed, label in enumerate("abc")]
    tree = BASE | {"data": PHANTOM, "train": BASE["train"] | {"epochs": epochs}, "study": {"variants": variants}}
    found = study(write("phantoms.toml", tree))
    _, settled, _ = hardware.resolve_study(found.recipe, found.planned, {}, 2, Local(), DataCache(), mix=False)
    return settled


def test_side_by_side_gives_the_same_bytes_and_survives_a_killed_process() -> None:
    jobs, killed, events = phantoms(8), False, []
    for event in Local().execute(jobs, at_a_time=2):
        events.append(event)
        if event.kind == "epoch" and not killed:
            killed = True
            multiprocessing.active_children()[0].kill()
    failures = [event for event in events if event.kind == "failed"]
    assert [event.text for event in failures] == [
        "the process died (signal 9). Likely out of memory: fewer --jobs, or a smaller train.batch_size. "
        "The same command resumes from its last save."
    ]
    assert sorted(ends(iter(events)).values()) == ["failed", "finished", "finished"]
    again = [job for job in jobs if str(job.folder) == failures[0].trial]
    assert set(ends(Local().execute(again)).values()) == {"finished"}
    alone = [dataclasses.replace(job, run=Path("alone").absolute()) for job in jobs]
    assert set(ends(Local().execute(alone)).values()) == {"finished"}
    assert kept(jobs[0].run) == kept(alone[0].run)
    assert checkpoint.load(jobs[0].run / jobs[0].folder / "last.safetensors").meta["epoch"] == 9


@pytest.mark.parametrize(
    ("asked", "trials", "device", "chosen"),
    [("auto", 5, "cpu", (4, 1)), ("auto", 3, "cpu", (3, 1)), ("auto", 1, "cpu", (1, 4)), (2, 5, "cpu", (2, 2)),
     ("auto", 5, "cuda", (1, 1)), (3, 5, "cuda", (3, 1)), (9, 5, "cpu", (9, 1))],
)  # fmt: skip
def test_how_many_side_by_side(
    asked: int | str, trials: int, device: str, chosen: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert Local().jobs(asked, trials, device) == chosen
