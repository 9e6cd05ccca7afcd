"""The live view of a study: whatever the terminal's width, every trial under way is told from the others."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from segkit.cli.progress import LiveProgress, distinct_names, epoch_line
from segkit.training.trial import Event

LONG = "BCE_summed_+_mix_as_published_lambda=1e-3_of_the_first_study"
EPOCH = {
    "epoch": 12, "epochs": 300, "epochs_now": 12, "train_loss": 0.51234, "val_loss": 0.61234, "val_dice": 0.81234,
    "images_per_second": 63.25,
}  # fmt: skip
GROUPS = {
    "seeds": [f"{LONG}/seed-{seed}" for seed in (1, 2, 3)],
    "folds": [f"{LONG}/fold-{fold}-seed-10" for fold in (1, 2)],
    "middle": [f"{LONG}/seed-1", f"{LONG.replace('1e-3', '1e-2')}/seed-1"],
    "ends": [f"{LONG}_{end}/seed-1" for end in "ab"],
    "short": ["none/seed-1", "l1/seed-1", "l1/seed-2"],
    "wide": [f"{'壁' * 40}{end}{'腔' * 40}/seed-1" for end in "左右"],
    "nested": [f"{'a' * 60}/seed-1", f"{'a' * 61}/seed-1"],
    "many": [f"{LONG.replace('1e-3', f'{i}e-{j}')}/seed-{s}" for i in (1, 3) for j in (2, 3) for s in (1, 2)],
}


class Study:
    """As much of a study as the view looks at."""

    def __init__(self, trials: int) -> None:
        self.planned = range(trials)

    def headline(self) -> str:
        return "Does it help?"


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("width", [24, 33, 50, 200])
def test_names_fit_and_differ_and_keep_the_seed(group: str, width: int) -> None:
    trials = GROUPS[group]
    shown = distinct_names(trials, width)
    assert len(set(shown.values())) == len(trials)
    for trial, name in shown.items():
        assert cell_len(name) <= width
        assert name.endswith(trial[trial.rindex("/") :])
        assert name == trial or len(trial) > width or cell_len(trial) > width


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("columns", [60, 80, 120])
def test_every_trial_has_its_own_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], group: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    trials = GROUPS[group]
    study: Any = Study(len(trials))
    live = LiveProgress(study)
    for trial in trials:
        live.show(Event(trial, "start"))
        live.show(Event(trial, "epoch", values=EPOCH))
    capsys.readouterr()
    live.console.print(live.progress.get_renderable())
    head, *lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert f"0/{len(trials)} trials" in head
    assert len(lines) == len(set(lines)) == len(trials)
    assert len({line.split("/")[0] + line.split("/")[1].split()[0] for line in lines}) == len(trials)
    for trial, line in zip(trials, lines, strict=True):
        assert cell_len(line) <= columns
        assert trial[trial.rindex("/") :] in line
        assert "12/300" in line
        assert columns < 80 or "val_dice 0.8123" in line
        assert columns < 120 or "train_loss 0.5123" in line


def test_one_trial_is_one_trial(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    study: Any = Study(1)
    live = LiveProgress(study)
    live.show(Event("none/seed-1", "start"))
    live.show(Event("none/seed-1", "step", values={"fraction": 0.5}))
    live.show(Event("none/seed-1", "finished"))
    capsys.readouterr()
    live.console.print(live.progress.get_renderable())
    assert "1/1 trial" in capsys.readouterr().out
    assert live.bars == {}


def test_a_plain_line_has_all_numbers_of_an_epoch() -> None:
    wanted = "epoch 12/300 train_loss 0.5123 val_loss 0.6123 val_dice 0.8123 63.2 images/s"
    assert epoch_line(EPOCH) == wanted
    assert epoch_line(EPOCH | {"val_dice": float("nan")}) == wanted.replace("val_dice 0.8123 ", "")
