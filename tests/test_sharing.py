"""One study, several processes: each trial is trained once; what one of them leaves, another goes on with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from segkit import UserError, leases
from segkit.api import conclude
from segkit.leases import Leases
from segkit.recipe import toml
from segkit.report import figures
from segkit.study import places, runs
from segkit.study.sharing import LEASES, is_live, is_worked_on
from segkit.training import run as training
from segkit.training.trial import ENDS, Event
from tests.small import BASE
from tests.stress import result

ROOT = Path(__file__).parents[1]
ONE: dict[str, Any] = BASE | {"train": BASE["train"] | {"epochs": 2, "save_every": {"steps": 1}}}
TWO: dict[str, Any] = ONE | {"study": {"seeds": [1, 2]}}
SHARED = Path("runs") / LEASES
OWNER = rf"process {os.getpid()} on \S+"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figures, "FIGURES", {})
    monkeypatch.setattr(places, "POLL", 0.02)
    monkeypatch.setattr(leases, "BEAT", 0.1)
    monkeypatch.chdir(tmp_path)


def study(recipe: dict[str, Any], name: str = "study") -> runs.StudyRun:
    path = Path(f"{name}.toml")
    path.write_text(toml.dumps(recipe), encoding="utf-8")
    (found,) = runs.plan_studies([path], [], [], Path("runs"))
    return found


def in_training(found: runs.StudyRun) -> Any:
    """Begin a study, as another process does; return its events from the end of its first epoch on."""
    events = found.execute(jobs=1)
    next(event for event in events if event.kind == "epoch")
    return events


def until_waiting(events: Iterator[Event]) -> str:
    """Go on until the process waits for another one; return what it says."""
    return next(event.text for event in events if event.text.startswith("waiting for"))


def ends(events: Iterator[Event]) -> dict[str, str]:
    """Go on to the end; return how each trial ended, and why."""
    return {event.trial.partition("/")[2]: f"{event.kind}: {event.text}" for event in events if event.kind in ENDS}


def test_each_trial_is_trained_by_one_process_and_the_report_is_written_once() -> None:
    one, two = study(TWO), study(TWO)
    first, second = in_training(one), two.execute(jobs=1)
    assert re.fullmatch(rf"waiting for 1 trial: baseline/seed-1 \({OWNER}\)", until_waiting(second))
    found = ends(first)
    assert found["seed-1"].startswith("finished: ")
    assert found["seed-2"] == "skipped: finished by another process"
    assert re.fullmatch(rf"skipped: finished by {OWNER}", ends(second)["seed-1"])
    assert not list(SHARED.iterdir())
    table = conclude(one).table
    written = Path("runs/study/report.html").stat().st_mtime_ns
    assert conclude(two).table == table
    assert Path("runs/study/report.html").stat().st_mtime_ns == written


def test_a_process_that_was_suspended_stops_and_the_other_goes_on_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = study(ONE, "whole")
    ends(whole.execute(jobs=1))
    wanted = result(Path("runs/whole/baseline/seed-1"))
    Path("runs").rename("before")
    with monkeypatch.context() as silent:
        silent.setattr(Leases, "_keep_alive", lambda self: None)
        first = in_training(study(ONE, "whole"))
    taker = study(ONE, "whole").execute(jobs=1)
    resumed = next(event.text for event in taker if "resumes in" in event.text)
    assert resumed == "[baseline/seed-1] resumes in epoch 1, after step 2"
    lost = next(event.text for event in first if event.kind == "lost")
    assert re.fullmatch(rf"{OWNER} has taken over, since this one gave no sign .* Nothing more is written here\.", lost)
    assert ends(taker)["seed-1"].startswith("finished: ")
    assert ends(first)["seed-1"] == "skipped: finished by another process"
    assert result(Path("runs/whole/baseline/seed-1")) == wanted
    assert not list(SHARED.iterdir())


def test_what_a_process_leaves_unfinished_another_one_that_waits_goes_on_with() -> None:
    first, second = in_training(study(ONE)), study(ONE).execute(jobs=1)
    until_waiting(second)
    first.close()
    assert [event.text for event in second if "resumes in" in event.text] == [
        "[baseline/seed-1] resumes in epoch 1, after step 2"
    ]
    assert not list(SHARED.iterdir())


def test_who_does_not_wait_says_who_works_on_what_and_writes_no_report() -> None:
    first, leaver = in_training(study(TWO)), study(TWO)
    found = ends(leaver.execute(jobs=1, wait=False))
    assert re.fullmatch(rf"elsewhere: {OWNER} works on it", found["seed-1"])
    assert found["seed-2"].startswith("finished: ")
    outcome = conclude(leaver)
    assert outcome.counts == {"elsewhere": 1, "finished": 1}
    assert not outcome.interrupted
    last = outcome.lines()[-1]
    assert last == "the report is written by who finishes last, or by `segkit report runs/study`"
    assert not Path("runs/study/report.html").exists()
    first.close()


def test_a_trial_that_fails_elsewhere_is_not_tried_again_until_the_next_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(record: Any) -> Any:
        raise UserError("it did not work.")

    first, second = in_training(study(ONE)), study(ONE).execute(jobs=1)
    until_waiting(second)
    with monkeypatch.context() as patched:
        patched.setattr(training, "_finish", fail)
        assert ends(first)["seed-1"] == "failed: it did not work."
    assert re.fullmatch(rf"failed: it did not work\. \({OWNER}\)", ends(second)["seed-1"])
    assert ends(study(ONE).execute(jobs=1))["seed-1"].startswith("finished: ")


def test_another_study_with_the_same_trial_waits_for_it_and_reuses_it() -> None:
    first, second = in_training(study(ONE)), study(TWO, "other").execute(jobs=1)
    assert "baseline/seed-1" in until_waiting(second)
    assert ends(first)["seed-1"].startswith("finished: ")
    assert ends(second)["seed-1"] == "reused: the same trial was trained as runs/study/baseline/seed-1"
    assert not list(SHARED.iterdir())


def test_a_folder_in_which_another_trial_is_trained_is_not_cleared() -> None:
    first = in_training(study(ONE))
    changed = study(ONE | {"optimizer": {"Adam": {"lr": 0.02}}})
    found = ends(changed.execute(jobs=1, fresh=True, wait=False))
    assert re.fullmatch(rf"elsewhere: {OWNER} works on it", found["seed-1"])
    assert ends(first)["seed-1"].startswith("finished: ")
    again = study(ONE | {"optimizer": {"Adam": {"lr": 0.02}}})
    assert ends(again.execute(jobs=1, fresh=True))["seed-1"].startswith("finished: ")


def test_a_run_is_live_while_a_process_works_on_it() -> None:
    first, folder = in_training(study(ONE)), Path("runs/study/baseline/seed-1")
    assert is_live(Path("runs/study"))
    assert is_worked_on(folder)
    assert not is_worked_on(Path("runs/study/baseline/seed-2"))
    first.close()
    assert not is_live(Path("runs/study"))


def test_a_lease_that_a_dead_process_left_on_a_finished_trial_is_removed() -> None:
    finished = study(ONE)
    ends(finished.execute(jobs=1))
    command = "import sys; from pathlib import Path; from segkit.leases import Leases\n"
    command += "Leases(Path(sys.argv[1])).acquire(sys.argv[2]); import os; os._exit(0)"
    subprocess.run([sys.executable, "-c", command, str(SHARED), finished.planned[0].identity], check=True)
    assert len(list(SHARED.iterdir())) == 1
    assert ends(study(ONE).execute(jobs=1)) == {"seed-1": "skipped: already finished"}
    assert not list(SHARED.iterdir())


@pytest.mark.slow
def test_two_processes_that_are_killed_and_suspended_finish_each_trial_once() -> None:
    command = [sys.executable, "-m", "tests.stress_sharing", "--rounds", "10", "--seed", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^10 rounds, \d+ blows, 0 bytes differ$", done.stdout, re.M), done.stdout
