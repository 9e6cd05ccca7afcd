"""Trainings that begin with other weights: whole checkpoints, what fits of them, frozen parts, pretrained models."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import segkit
from segkit import UserError
from segkit.components.datasets.case import Dataset
from segkit.evaluation.sets import set_of_each
from segkit.recipe import merge, toml
from segkit.recipe.model import validate
from segkit.study import runs
from segkit.study.plan import plan_trials
from segkit.training import checkpoint
from segkit.training.run import run_trial
from segkit.types import Pretrained
from tests import small
from tests.fresh_plugins import fresh as fresh
from tests.small import BASE, discs, kinds, train

FOLDER = Path("only/seed-1")
SHORT = "train.epochs=1"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one epoch."""
    run = tmp_path_factory.mktemp("source")
    assert kinds(train(run, SHORT))[-1] == "finished"
    return run / FOLDER / "best.safetensors"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(path).weights


def init(path: Path, *more: str) -> list[str]:
    return [SHORT, f"train.init_from={path}", *more]


def texts(events: list[Any]) -> str:
    return "\n".join(event.text for event in events)


def test_a_training_begins_with_the_weights(source: Path, tmp_path: Path) -> None:
    events = train(tmp_path, *init(source, "optimizer.SGD.lr=1e-30"))
    assert kinds(events)[-1] == "finished"
    before, after = weights(source), weights(tmp_path / FOLDER / "last.safetensors")
    assert f"initial weights: {len(before)} of {len(before)} tensors from " in texts(events)
    assert all(torch.equal(before[name], after[name]) for name in before if "running" not in name and "num" not in name)
    report = json.loads((tmp_path / FOLDER / "trial.json").read_text())["initial_weights"]
    assert report["taken"] == len(before)
    assert checkpoint.read_meta(tmp_path / FOLDER / "best.safetensors")["initial_weights"] == report


def test_what_does_not_fit_is_one_error_or_stays_as_initialized(source: Path, tmp_path: Path) -> None:
    other = ("channels=exclusive", "model.unet.norm=group", "optimizer.SGD.lr=1e-30")
    text = texts(train(tmp_path / "exact", *init(source, *other)))
    assert "best.safetensors: does not fit the recipe's model: unexpected: " in text
    assert 'With train.init_match = "names", what fits is taken.' in text
    events = train(tmp_path / "names", *init(source, "train.init_match=names", *other))
    assert "head.weight (shape (3, 4, 1, 1), there (2, 4, 1, 1))" in texts(events)
    assert "not used: down.0.2.num_batches_tracked (not in the model)" in texts(events)
    fresh = train(tmp_path / "fresh", SHORT, *other)
    assert kinds(fresh)[-1] == kinds(events)[-1] == "finished"
    found, plain = (weights(tmp_path / run / FOLDER / "last.safetensors") for run in ("names", "fresh"))
    assert torch.equal(found["head.weight"], plain["head.weight"])
    assert torch.equal(found["down.1.0.weight"], weights(source)["down.1.0.weight"])
    with pytest.raises(UserError, match="init_match and init_sha256 are about init_from, which is not given"):
        small.recipe("train.init_match=names")


def test_the_file_is_needed_once_and_known_by_its_weights(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(source, "start.safetensors")
    shutil.copy(source, "same.safetensors")
    tree = BASE | {"train": BASE["train"] | {"epochs": 2, "init_from": "start.safetensors"}}
    Path("one.toml").write_text(toml.dumps(tree), encoding="utf-8")

    def run(*sets: str, name: str = "one.toml", fresh: bool = False) -> str:
        (study,) = runs.plan_studies([Path(name)], [], sets, Path("runs"))
        events = list(study.execute(jobs=1, fresh=fresh))
        return events[-1].kind if events[-1].kind != "failed" else events[-1].text

    assert run() == "finished"
    (own,) = Path("runs/one").glob("*/seed-1")
    before = (own / "best.safetensors").read_bytes()
    assert run("train.init_from=same.safetensors") == "skipped"
    shutil.copy(own / "best.safetensors", "start.safetensors")
    with pytest.raises(UserError, match=r"train.init_sha256 was [0-9a-f]{64}, is now [0-9a-f]{64}"):
        run()
    Path("start.safetensors").unlink()
    assert run() == "skipped"
    assert run("metrics=iou") == "finished"
    (own / "last.safetensors").unlink()
    assert run("metrics=recall") == "finished"
    assert (own / "best.safetensors").read_bytes() == before
    assert segkit.evaluate(own / "best.safetensors")
    shutil.copy(own / "recipe.toml", "filled.toml")
    assert run(name="filled.toml") == "reused"
    assert "start.safetensors: no such checkpoint" in run("train.seed=2")
    shutil.copy(source, "start.safetensors")
    assert run("train.seed=2", name="filled.toml", fresh=True) == "finished"
    shutil.copy(own / "best.safetensors", "start.safetensors")
    assert "holds other weights than when the recipe was filled" in run("train.seed=3", name="filled.toml")


def test_variants_may_begin_with_different_weights(source: Path, tmp_path: Path) -> None:
    last = source.with_name("last.safetensors")
    other = tmp_path / "other.safetensors"
    checkpoint.save(other, {"head.bias": torch.ones(2)}, checkpoint.read_meta(source) | {"kind": "best"})
    files = {"a": str(source), "b": str(last), "c": "other.safetensors"}
    variants = [{"label": label, "train": {"init_from": file}} for label, file in files.items()]
    tree = BASE | {"train": BASE["train"] | {"init_from": str(source)}, "study": {"variants": variants}}
    (tmp_path / "study.toml").write_text(toml.dumps(tree), encoding="utf-8")
    document = merge.compose(tmp_path / "study.toml")
    trials = plan_trials(validate(document), document)
    assert [trial.recipe.train.init_from for trial in trials] == [source, last, other]
    assert len({trial.recipe.train.init_sha256 for trial in trials} - {None}) == 2
    assert trials[0].identity == trials[1].identity != trials[2].identity  # one epoch: the last is the best
    filled = tmp_path / "filled.toml"
    filled.write_text(validate(document).to_toml(), encoding="utf-8")
    document = merge.compose(filled)
    assert [t.identity for t in plan_trials(validate(document), document)] == [trial.identity for trial in trials]


def test_a_variant_that_drops_the_file_drops_its_hash_too(source: Path, tmp_path: Path) -> None:
    variants = [{"label": "pretrained"}, {"label": "from scratch", "drop": ["train.init_from"]}]
    tree = BASE | {"train": BASE["train"] | {"init_from": str(source)}, "study": {"variants": variants}}
    (tmp_path / "study.toml").write_text(toml.dumps(tree), encoding="utf-8")
    document = merge.compose(tmp_path / "study.toml")
    trials = plan_trials(validate(document), document)
    filled = tmp_path / "filled.toml"
    filled.write_text(validate(document).to_toml(), encoding="utf-8")
    document = merge.compose(filled)
    assert [trial.identity for trial in plan_trials(validate(document), document)] == [t.identity for t in trials]
    assert trials[1].recipe.train.init_sha256 is None


def test_a_killed_training_resumes_without_the_file(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "start.safetensors"
    shutil.copy(source, file)
    sets = [f"train.init_from={file}", "train.epochs=2", "train.freeze=['down.0.*']"]
    train(tmp_path / "whole", *sets)
    train(tmp_path / "parts", *sets, stop_after=1)
    recipe = small.recipe(*sets)
    file.unlink()
    ended = list(run_trial(small.trial(tmp_path / "parts", recipe), stop=lambda: False))
    assert kinds(ended)[-1] == "finished"
    one, two = ((tmp_path / run / FOLDER / "best.safetensors").read_bytes() for run in ("whole", "parts"))
    assert one == two


def test_patients_that_shaped_the_initial_weights_count_as_trained_on(tmp_path: Path) -> None:
    def run(name: str, train_on: list[str], validation: str, *more: str) -> tuple[list[str], Any]:
        sets = [f"split={{ train = {train_on}, validation = ['{validation}'] }}", SHORT, *more]
        events = train(tmp_path / name, *sets)
        assert kinds(events)[-1] == "finished"
        doubts = [event.text for event in events if event.kind == "warning" and "init_from" in event.text]
        return doubts, checkpoint.read_meta(tmp_path / name / FOLDER / "best.safetensors")["trained_patients"]

    start = [f"train.init_from={tmp_path / name / FOLDER / 'best.safetensors'}" for name in ("first", "second")]
    assert run("first", ["p0"], "p1") == ([], ["p0"])
    assert run("second", ["p2"], "p3", start[0]) == ([], ["p2", "p0", "p1"])
    (doubt,), trained = run("third", ["p4"], "p0", start[1])  # p0 is of the first, two checkpoints back
    assert "1 of 1 patient to evaluate shaped these weights" in doubt
    assert trained == ["p4", "p2", "p0", "p1", "p3"]


def test_without_patients_cases_that_shaped_the_initial_weights_count(tmp_path: Path, fresh: Path) -> None:
    def nobodys() -> Dataset:
        found = discs(patients=2)
        return Dataset("nobodys", found.channels, tuple(dataclasses.replace(c, patient=None) for c in found.cases))

    segkit.datasets.register("nobodys")(nobodys)
    a, b, c, d = (case.name for case in nobodys().cases)
    for name, train_on, validation, *more in (
        ("first", [a], [b]),
        ("second", [c], [a], f"train.init_from={tmp_path / 'first' / FOLDER / 'best.safetensors'}"),
        ("third", [d], [b], f"train.init_from={tmp_path / 'second' / FOLDER / 'best.safetensors'}"),
    ):
        split = f"split={{ train = {train_on}, validation = {validation} }}"
        events = train(tmp_path / name, "data={ nobodys = {} }", split, SHORT, *more)
        assert kinds(events)[-1] == "finished"
        doubts = [event.text for event in events if event.kind == "warning" and "shaped these weights" in event.text]
        assert len(doubts) == (name != "first"), name
    meta = checkpoint.read_meta(tmp_path / "third" / FOLDER / "best.safetensors")
    assert set_of_each(small.data_of(nobodys().cases).cases, meta) == ["train"] * 4


def test_a_file_that_is_no_checkpoint_is_refused_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "start.safetensors").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"--set train.init_from=.*: train.init_from: .*damaged or not a checkpoint"):
        small.recipe(f"train.init_from={tmp_path / 'start.safetensors'}")


def test_frozen_parameters_and_their_norms_stay_as_they_are(tmp_path: Path) -> None:
    frozen = ["train.freeze=['down.*', 'biases']", "optimizer.AdamW={ lr = 0.01, weight_decay = 0.5 }"]
    events = train(tmp_path / "two", "train.epochs=2", *frozen)
    assert "frozen: 22 of 28 parameters" in texts(events)
    train(tmp_path / "one", SHORT, *frozen)
    one, two = (weights(tmp_path / run / FOLDER / "last.safetensors") for run in ("one", "two"))
    changed = {name for name in one if not torch.equal(one[name], two[name])}
    assert {name for name in changed if name.startswith("down.") or name.endswith(".bias")} == set()
    assert {"up.0.2.weight", "up.0.2.running_mean", "head.weight"} <= changed


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("dwn.*", r"train.freeze: 'dwn.\*' matches no parameter of the model. Did you mean 'down.\*'\?"),
        ("*", "train.freeze: every parameter of the model is frozen"),
    ],
)
def test_patterns_that_freeze_nothing_or_all_are_refused(pattern: str, message: str, tmp_path: Path) -> None:
    events = train(tmp_path, f"train.freeze=['{pattern}']")
    assert kinds(events)[-1] == "failed"
    with pytest.raises(UserError, match=message):
        raise UserError(events[-1].text)


DOWNLOADED: list[str | None] = []


@segkit.models.register("with_pretrained")
def with_pretrained(in_channels: int, out_channels: int, *, weights: Pretrained = "public") -> torch.nn.Module:
    """A convolution that counts what it downloads."""
    DOWNLOADED.append(weights)
    return torch.nn.Conv2d(in_channels, out_channels, 1)


def test_weights_are_downloaded_only_where_nothing_else_fills_the_model(tmp_path: Path) -> None:
    sets = ["model=with_pretrained", "train.epochs=2"]
    path = tmp_path / FOLDER / "best.safetensors"

    def asked() -> set[str | None]:
        found = set(DOWNLOADED)
        DOWNLOADED.clear()
        return found

    DOWNLOADED.clear()
    assert kinds(train(tmp_path, *sets, stop_after=1))[-1] == "interrupted"
    assert asked() == {"public"}
    assert kinds(train(tmp_path, *sets))[-1] == "finished"
    segkit.evaluate(path)
    assert asked() == {None}
    assert segkit.load(path).recipe.model.dump() == {"with_pretrained": {"weights": "public"}}
    asked()
    train(tmp_path / "exact", *sets, f"train.init_from={path}")
    assert asked() == {None}
    train(tmp_path / "names", *sets, f"train.init_from={path}", "train.init_match=names")
    assert asked() == {"public"}
