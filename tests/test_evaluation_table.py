"""The table `[evaluation]` in trials: it evaluates again and trains nothing, unless it chooses the epoch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import segkit
from segkit import UserError, plugins
from segkit.plugins import isolated, scaffold
from segkit.recipe import toml
from segkit.recipe.identity import (
    differences,
    evaluation_identity,
    not_resumable,
    plugin_hashes,
    training_identity,
)  # fmt: skip
from segkit.report import figures
from segkit.study import runs
from segkit.training.checkpoint import read_meta
from segkit.training.results import cases_text
from segkit.training.status import Status
from tests.fresh_plugins import fresh
from tests.small import BASE, discs, recipe, train

__all__ = ["fresh"]

FOLDER = Path("runs/one/one/seed-1")
ONE: dict[str, Any] = BASE | {"title": "one", "train": BASE["train"] | {"epochs": 1}}
FLIPS = "evaluation.tta=flips"
WINDOW = "evaluation.window={size=[16,16]}"
LARGEST = "evaluation.postprocess=[{largest_part={channels=['cavity']}}]"
DURING = "evaluation.during_training=true"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_changed_evaluation_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FIGURES", {})
    monkeypatch.chdir(tmp_path)
    Path("one.toml").write_text(toml.dumps(ONE), encoding="utf-8")

    def run(*sets: str) -> list[Any]:
        (study,) = runs.plan_studies([Path("one.toml")], [], sets, Path("runs"))
        return list(study.execute(jobs=1))

    best, cases = FOLDER / "best.safetensors", FOLDER / "cases.csv"
    assert sum(event.kind == "epoch" for event in run()) == 1
    weights, last = load_file(best), (FOLDER / "last.safetensors").read_bytes()
    kept = best.read_bytes(), cases.read_bytes()
    events = run(FLIPS, WINDOW, LARGEST)
    assert {event.kind for event in events} >= {"finished"}
    assert not any(event.kind == "epoch" for event in events)
    assert any("another evaluation than before: evaluated again, not trained" in event.text for event in events)
    assert any("mean over 4 flips, windows of 16 x 16, largest_part" in event.text for event in events)
    assert Status.read(FOLDER).evaluated_with == "mean over 4 flips, windows of 16 x 16, largest_part"
    assert cases.read_bytes() != kept[1]
    assert (FOLDER / "last.safetensors").read_bytes() == last
    assert all((tensor == weights[name]).all() for name, tensor in load_file(best).items())
    assert [event.kind for event in run(FLIPS, WINDOW, LARGEST)] == ["skipped"]

    assert cases_text(segkit.evaluate(best)) == cases.read_text()
    predictor = segkit.load(best)
    found = {row["case"]: row for row in rows_of(cases) if row["channel"] == "cavity"}
    by_name = {case.name: case.image for case in discs().cases}
    for name, row in found.items():
        image = by_name[name]
        assert image is not None
        assert predictor.segment(image)[1].sum() == int(row["predicted_pixels"])
    plain = segkit.evaluate(
        best, sets=["evaluation.tta=none", "evaluation.postprocess=[]", "drop=['evaluation.window']"]
    )
    assert cases_text(plain).encode() == kept[1]
    run()
    assert (best.read_bytes(), cases.read_bytes()) == kept
    assert "evaluated_with" not in Status.read(FOLDER).known()


def test_it_belongs_to_the_evaluation_and_where_it_chooses_the_epoch_to_the_training() -> None:
    plain, only, after, during = (recipe(*sets) for sets in ((), (DURING,), (FLIPS, LARGEST), (FLIPS, LARGEST, DURING)))
    assert training_identity(plain) == training_identity(only) == training_identity(after) != training_identity(during)
    assert evaluation_identity(plain) == evaluation_identity(only) != evaluation_identity(after)
    assert evaluation_identity(after) == evaluation_identity(during)
    others = {evaluation_identity(recipe(text)) for text in (FLIPS, WINDOW, LARGEST, "evaluation.tta=d4")}
    assert len(others) == 4
    assert not not_resumable(differences(plain.dump(), after.dump()))
    found = not_resumable(differences(plain.dump(), during.dump()))
    assert found["evaluation during training.tta"] == "was not set, is now flips"
    before = {key: value for key, value in plain.dump().items() if key != "evaluation"}  # of a version without it
    assert training_identity(segkit.Recipe.from_dict(before)) == training_identity(plain)
    assert not not_resumable(differences(before, after.dump()))


def test_a_changed_plugin_evaluates_again_and_is_kept_in_the_checkpoint(fresh: Path) -> None:
    (source, _), chosen = scaffold.new("postprocess", "my_open", Path("plugins")), "evaluation.postprocess=['my_open']"
    kept: list[str] = []
    for width in (3, 5):
        source.write_text(source.read_text().replace("np.ones((1,)", f"np.ones((1,)  # {width}\n       "))
        with isolated():
            plugin = plugins.load_file(source)
            made, during = recipe(chosen), recipe(chosen, DURING)
            assert plugin_hashes(made) == {"training": [], "evaluation": [plugin.sha256]}
            assert plugin_hashes(during)["training"] == [plugin.sha256]
            events = train(Path("run"), "train.epochs=1", chosen)
        assert sum(event.kind == "epoch" for event in events) == (width == 3)
        (stored,) = read_meta(Path("run/only/seed-1/best.safetensors"))["plugins"]
        assert stored["sha256"] == plugin.sha256
        kept.append(plugin.sha256)
    assert kept[0] != kept[1]


def test_variants_that_differ_in_it_alone_are_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FIGURES", {})
    monkeypatch.chdir(tmp_path)
    variants = [{"label": "plain"}, {"label": "d4", "evaluation": {"tta": "d4"}}]
    Path("two.toml").write_text(toml.dumps(ONE | {"study": {"variants": variants}}), encoding="utf-8")
    (study,) = runs.plan_studies([Path("two.toml")], [], [], Path("runs"))
    events = list(study.execute(jobs=1))
    assert [event.trial for event in events if event.kind == "epoch"] == ["plain/seed-1"]
    folders = [Path(f"runs/two/{label}/seed-1") for label in ("plain", "d4")]
    assert len({(folder / "cases.csv").read_bytes() for folder in folders}) == 2
    assert len({(folder / "last.safetensors").read_bytes() for folder in folders}) == 1


@pytest.mark.parametrize("during", [False, True])
def test_validation_in_the_loop_uses_it_only_if_asked(tmp_path: Path, during: bool) -> None:
    train(tmp_path, "train.epochs=1", "evaluation.tta=d4", WINDOW, LARGEST, *([DURING] if during else []))
    (epoch,) = rows_of(tmp_path / "only/seed-1/metrics.csv")
    final = [float(row["value"]) for row in rows_of(tmp_path / "only/seed-1/cases.csv") if row["metric"] == "dice"]
    assert (float(epoch["val_dice"]) == np.mean(final)) == during
    assert float(epoch["val_loss"]) > 0


@pytest.mark.parametrize(
    "setting, message",
    [
        ("evaluation.tta=flip", "evaluation.tta: must be"),
        ("evaluation.window={}", "evaluation.window.size: this key is required"),
        ("evaluation.window={size=[16,0]}", "evaluation.window.size.1: must be 1 or more"),
        ("evaluation.window={size=[16,16],overlap=1.0}", "evaluation.window.overlap: must be below 1"),
        ("evaluation.window={size=[16,16],sigma=1e300}", "evaluation.window.sigma: must be 100 or less"),
        ("evaluation.window={size=[16,16],sgma=0.1}", "evaluation.window.sgma: no such key. Did you mean 'sigma'"),
        ("evaluation.postproces=[]", "evaluation.postproces: no such key. Did you mean 'postprocess'"),
        (
            "evaluation.postprocess=[{remove_small={size=3}}]",
            "evaluation.postprocess.0.remove_small.unit: this parameter is required",
        ),
        ("evaluation.postprocess=[{largest_prt={}}]", "evaluation.postprocess.0.largest_prt: no such postprocess"),
    ],
)
def test_mistakes_are_found_when_the_recipe_is_read(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe(setting)


def test_what_the_data_do_not_have_is_said_before_training(tmp_path: Path) -> None:
    for text, message in (
        ("[{largest_part={channels=['cavty']}}]", "no structure is called 'cavty'. Did you mean 'cavity'?"),
        ("[{remove_small={size=3,unit='ml'}}]", "the cases are images"),
    ):
        events = train(tmp_path / message[:8], f"evaluation.postprocess={text}")
        assert [event.kind for event in events if event.kind in ("epoch", "failed")] == ["failed"]
        assert message in events[-1].text
