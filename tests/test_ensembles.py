"""Several checkpoints that predict together: what is averaged, and which of them may predict a case."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

import segkit
from segkit import UserError
from segkit.cli import main
from segkit.components.datasets.case import Dataset
from segkit.device import choose
from segkit.evaluation.ensemble import Ensemble
from segkit.evaluation.predictor import Predictor
from segkit.evaluation.rows import Row
from segkit.evaluation.sets import is_shaped_by_validation, nameless
from segkit.study.checkpoints import find_checkpoints
from segkit.training import checkpoint
from segkit.training.setup import build_model
from segkit.types import Array
from tests import small
from tests.small import recipe, train
from tests.test_trial import FOLDER

BEST, LAST = "best.safetensors", "last.safetensors"


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a variant: two folds of five patients, trained for an epoch; a sixth patient is for the test."""
    run = tmp_path_factory.mktemp("runs") / "study"
    for fold in (1, 2):
        split = "split.test=0.17", "split.folds=2", f"split.fold={fold}"
        train(run / "once", "train.epochs=1", "metrics={brier={}, dice={}}", *split)
        shutil.move(run / "once" / FOLDER, run / f"only/fold-{fold}-seed-1")
    return run / "only"


def files(variant: Path, name: str = BEST) -> list[Path]:
    return [variant / f"fold-{fold}-seed-1" / name for fold in (1, 2)]


def member(seed: int, channels: str, *sets: str, mean: float = 0.3, inputs: int = 1) -> Predictor:
    """A model with random weights, as a checkpoint would describe it."""
    made = recipe(f"channels={channels}", *sets)
    torch.manual_seed(seed)
    model = build_model(made, inputs, 2).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # else ReLUs are 0 in many pixels, where classes are then level
    meta = {
        "inputs": [f"input {number}" for number in range(inputs)],
        "normalization": {"mean": [mean] * inputs, "std": [0.1 * seed] * inputs},
        "threads": 1,
        "overlapping": False,
    }
    return Predictor(model, made, ("wall", "cavity"), meta, choose("cpu", "float32"), {})


def image(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 900, shape or (24, 20)).astype(np.uint16)


@pytest.mark.parametrize("channels", ["independent", "exclusive"])
def test_the_mean_of_the_members_probabilities_is_decided_once(channels: str) -> None:
    members = (
        member(1, channels),
        member(2, channels, "model.unet.widths=[4, 4, 8]", 'intensity="minmax"'),
        member(3, channels, "transforms.eval=[]", mean=0.5),
    )
    found = Ensemble(members, ("a", "b", "c"))
    for shown in (image(), image(1, 3, 16, 20)):
        own: Any = [each.predict(shown) for each in members]
        mean = np.mean(own, axis=0)
        assert not np.allclose(own[0], own[1], atol=1e-3)
        np.testing.assert_array_equal(found.predict(shown), mean)
        if channels == "independent":
            expected: Any = mean >= 0.5
        else:
            whole = np.concatenate([1 - mean.sum(axis=0, keepdims=True), mean])
            expected = whole.argmax(axis=0) == np.arange(1, 3).reshape(-1, *(1,) * (mean.ndim - 1))
        np.testing.assert_array_equal(found.segment(shown), expected)
        assert (found.segment(shown) != members[0].segment(shown)).any()


@pytest.mark.slow  # to import MONAI takes seconds
def test_the_mean_is_that_of_monai() -> None:
    ensemble: Any = pytest.importorskip("monai.transforms").MeanEnsemble()
    members = tuple(member(seed, "independent") for seed in (1, 2))
    expected = ensemble([torch.from_numpy(each.predict(image())) for each in members])
    found: Any = Ensemble(members, ("a", "b")).predict(image())
    np.testing.assert_allclose(found, np.asarray(expected), atol=1e-5)


def test_members_are_augmented_as_they_say_and_the_first_one_postprocesses() -> None:
    drop = 'evaluation.postprocess=[{remove_small={size=3, unit="mm2"}}]'
    first, second = member(1, "independent", drop), member(2, "independent", 'evaluation.tta="flips"')
    own: Any = [each.infer(image(), (1.0, 1.0)).probability for each in (first, second)]
    for spacing_mm, size in (((1.0, 1.0), 3), ((0.5, 1.0), 6)):
        found = Ensemble((first, second), ("a", "b")).infer(image(), spacing_mm)
        np.testing.assert_array_equal(found.probability, np.mean(own, axis=0))
        decided: Any = np.mean(own, axis=0) >= 0.5
        for mask, whole in zip(found.mask, decided, strict=True):
            parts, _ = ndimage.label(whole, np.ones((3, 3)))
            sizes = np.bincount(parts.ravel())[1:]
            np.testing.assert_array_equal(mask, np.isin(parts, np.flatnonzero(sizes >= size) + 1))
        assert (found.mask != decided).any()
    turned = Ensemble((second, first), ("b", "a")).segment(image())  # nothing is removed, so no spacing is needed
    np.testing.assert_array_equal(turned, np.mean(own, axis=0) >= 0.5)


def test_probabilities_need_no_spacing() -> None:
    sized = member(1, "independent", 'evaluation.postprocess=[{remove_small={size=3, unit="mm2"}}]')
    both = Ensemble((sized, member(2, "independent")), ("a", "b"))
    for predictor in (sized, both):
        found = predictor.infer(image(), (1.0, 1.0))
        np.testing.assert_array_equal(predictor.predict(image()), found.probability)
        assert found.probability.flags.owndata  # not a view of memory that is pinned for a GPU
        assert found.mask.flags.owndata
        with pytest.raises(UserError, match=r"remove_small: unit: the data state no spacing"):
            predictor.segment(image())


def test_slices_of_a_volume_are_averaged_as_cases_of_their_own() -> None:
    sliced = 'data={rvsc={root="x", volumes=false}}'
    members = tuple(member(seed, "independent", sliced) for seed in (1, 2))
    found = Ensemble(members, ("a", "b")).infer(image(1, 3, 16, 20))
    own: Any = [each.predict(image(1, 3, 16, 20)) for each in members]
    np.testing.assert_array_equal(found.probability, np.mean(own, axis=0))
    np.testing.assert_array_equal(found.mask, np.mean(own, axis=0) >= 0.5)


@pytest.mark.parametrize(
    ("channels", "inputs", "names", "message"),
    [
        ("exclusive", 1, "wall cavity", r"b: has classes that are exclusive, and a independent: .* cannot be averaged"),
        ("independent", 2, "wall cavity", r"b: takes the inputs input 0, input 1, and a input 0:"),
        ("independent", 1, "wall lumen", r"b: predicts wall, lumen, and a wall, cavity:"),
    ],
)
def test_models_of_different_kinds_are_not_averaged(channels: str, inputs: int, names: str, message: str) -> None:
    other = replace(member(2, channels, inputs=inputs), channels=tuple(names.split()))
    with pytest.raises(UserError, match=message):
        Ensemble((member(1, "independent"), other), ("a", "b"))


def test_a_test_set_is_predicted_by_all_and_scored_as_masks_of_the_mean(variant: Path) -> None:
    notes: list[str] = []
    rows = segkit.evaluate([variant], on_note=notes.append)
    assert notes == ["averaged: 2 of 2 checkpoints for each case"]
    assert {row.set for row in rows} == {"test"}
    together = segkit.load(files(variant))
    dice, brier = (segkit.metrics.build(name) for name in ("dice", "brier"))
    cases = {case.name: case for case in small.discs().cases}
    assert list(dict.fromkeys(row.case for row in rows)) == checkpoint.read_meta(files(variant)[0])["split"]["test"]
    for row in rows:
        shown, masks = cases[row.case].read()
        channel = together.channels.index(row.channel)
        found, truth = together.infer(shown), np.asarray(masks)[channel]
        values = {
            "dice": dice(found.mask[channel], truth, None),
            "brier": brier(found.probability[channel], truth, None),
        }
        assert row.value == pytest.approx(values[row.metric], abs=1e-6, nan_ok=True)


def patients(rows: list[Row]) -> set[str]:
    return {row.patient for row in rows}


def test_each_case_is_predicted_by_those_that_did_not_see_its_patient(variant: Path) -> None:
    """No case chooses the last epoch: those of a fold's validation are predicted by that fold's checkpoint."""
    notes: list[str] = []
    rows = segkit.evaluate(files(variant, LAST), on="all", on_note=notes.append)
    assert notes == ["averaged: 1 to 2 of 2 checkpoints for each case"]
    assert patients(rows) == {f"p{number}" for number in range(6)}
    validated = [segkit.evaluate(path, on="validation") for path in files(variant, LAST)]
    expected = {(row.case, row.channel, row.metric): row.value for part in validated for row in part}
    of_validation = [row for row in rows if row.set == "validation"]
    assert len(of_validation) == len(expected)
    for row in of_validation:
        assert row.value == pytest.approx(expected[row.case, row.channel, row.metric], abs=1e-6, nan_ok=True)
    assert patients([row for row in rows if row.set == "test"]).isdisjoint(patients(of_validation))
    assert segkit.evaluate(files(variant, LAST), on="validation") == of_validation


def test_a_list_of_one_is_that_checkpoint(variant: Path) -> None:
    first, _ = files(variant)
    assert segkit.evaluate([first, str(first)], on="validation") == segkit.evaluate(first, on="validation")


def test_where_no_checkpoint_is_left_the_patients_are_named(variant: Path) -> None:
    """Validation chooses the best epoch: of two folds, one was trained on a patient, and the other chosen by it."""
    tested = patients(segkit.evaluate([variant]))
    rest = ", ".join(sorted({f"p{number}" for number in range(6)} - tested))
    for on in ("validation", "all"):
        named = rf"none of the 2 checkpoints may predict 5 patients \({rest}\): .* Evaluate the test set \(--on test\)"
        with pytest.raises(UserError, match=named):
            segkit.evaluate([variant], on=on)
    with pytest.raises(UserError, match="--on train: several checkpoints are not evaluated on what they were"):
        segkit.evaluate([variant], on="train")


def test_patients_of_validation_are_known_in_other_data_too(variant: Path) -> None:
    @segkit.datasets.register("renamed")
    def renamed(*, people: str = "q") -> Dataset:
        """The same cases under other names, of the same patients or of others."""
        made = small.discs()
        names = (f"{people}{str(case.patient)[1:]}" for case in made.cases)
        cases = (replace(c, name=f"new/{c.name}", patient=name) for c, name in zip(made.cases, names, strict=True))
        return replace(made, cases=tuple(cases))

    rows = segkit.evaluate([variant], sets=['data.renamed={people="q"}'])
    assert {row.set for row in rows} == {"new"}
    assert patients(rows) == {f"q{number}" for number in range(6)}
    with pytest.raises(UserError, match="may predict 5 patients"):
        segkit.evaluate([variant], sets=['data.renamed={people="p"}'])
    one = segkit.evaluate(files(variant)[0], sets=['data.renamed={people="p"}'])
    known = checkpoint.read_meta(files(variant)[0])
    assert patients([row for row in one if row.set == "validation"]) == set(known["validation_patients"])


@pytest.mark.parametrize(
    ("kind", "train", "scheduler", "shaped"),
    [
        ("best", {}, None, True),  # of an older version, which had no `select`
        ("best", {"select": "last"}, {"OneCycleLR": {}}, False),
        ("last", {"select": "best"}, None, False),
        ("last", {"patience": 5}, None, True),
        ("best", {"select": "last"}, {"ReduceLROnPlateau": {}}, True),
    ],
)
def test_what_validation_decides_about_weights(kind: str, train: dict[str, Any], scheduler: Any, shaped: bool) -> None:
    meta = {"kind": kind, "recipe": {"train": train, "scheduler": scheduler}}
    assert is_shaped_by_validation(meta) == shaped
    older = meta | {"trained_patients": ["p1"], "validation_patients": [], "split": {"validation": ["p2/1"]}}
    assert nameless([], {"older": older, "newer": older | {"validation_patients": ["p2"]}}) == shaped


def test_folders_stand_for_the_checkpoints_of_a_variant(variant: Path, tmp_path: Path) -> None:
    first, second = files(variant)
    assert find_checkpoints([variant]) == find_checkpoints([variant.parent]) == [first, second]
    assert find_checkpoints([second, variant, first.parent]) == [second, first]  # each once
    run = tmp_path / "run"
    for folder in ("a/fold-10-seed-1", "a/fold-2-seed-1", "b/seed-1", "figures"):
        (run / folder).mkdir(parents=True)
    for path in (run / "a").iterdir():
        shutil.copy(first, path)
    assert [path.parent.name for path in find_checkpoints([run / "a"])] == ["fold-2-seed-1", "fold-10-seed-1"]
    shutil.copy(first, run / "b/seed-1")
    with pytest.raises(UserError, match=r"run: holds 2 variants, and only one can be av.* Choose one: .*a, .*b\."):
        find_checkpoints([run])
    (run / "a/fold-2-seed-1/trial.json").write_text('{"status": "interrupted"}')
    with pytest.raises(UserError, match=r"a: 1 of 2 trials is not finished \(fold-2-seed-1\)\. Finish them with"):
        find_checkpoints([run / "a"])
    with pytest.raises(UserError, match=r"figures: holds no best\.safetensors\. Give a checkpoint, or the folder of a"):
        find_checkpoints([run / "figures"])


def test_versions_of_a_plugin_that_cannot_both_run_are_said(
    variant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files_of_two = []
    for number, path in enumerate(files(variant)):
        plugin = {"module": "own", "origin": "own.py", "sha256": f"{number}" * 64, "sources": {"own": ""}}
        found = checkpoint.load(path)
        checkpoint.save(tmp_path / f"{number}.safetensors", found.weights, found.meta | {"plugins": [plugin]})
        files_of_two.append(str(tmp_path / f"{number}.safetensors"))
    monkeypatch.setattr("sys.argv", ["segkit", "eval", files_of_two[0], "--with-checkpoint", files_of_two[1], "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    out, err = capsys.readouterr()
    assert {row["set"] for row in json.loads(out)} == {"test"}
    assert err == (
        "warning: the checkpoints hold different versions of own.py: one of them runs for all.\n"
        "averaged: 2 of 2 checkpoints for each case\n"
    )


def test_the_command_line_takes_several_checkpoints(
    variant: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = map(str, files(variant))
    cv2.imwrite(str(tmp_path / "x.png"), image().astype(np.uint8))
    monkeypatch.chdir(tmp_path)
    outputs = []
    for command in (
        ["eval", str(variant)],
        ["eval", first, "--with-checkpoint", second],
        ["predict", first, "--with-checkpoint", second, "x.png", "--probabilities"],
    ):
        monkeypatch.setattr("sys.argv", ["segkit", *command])
        with pytest.raises(SystemExit, match="0"):
            main()
        outputs.append(capsys.readouterr().out)
    monkeypatch.setattr("sys.argv", [*sys.argv, "--set", 'evaluation.postprocess=[{remove_small={size=1,unit="mm2"}}]'])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "remove_small: unit: the data state no spacing" in capsys.readouterr().err  # of a PNG
    assert outputs[0] == outputs[1]
    assert outputs[0].endswith("set: test (2 cases)\naveraged: 2 of 2 checkpoints for each case\n")
    written: Any = cv2.imread(str(next(Path("predictions").glob("x-wall-probability.*"))), cv2.IMREAD_UNCHANGED)
    shown = image().astype(np.uint8)
    np.testing.assert_array_equal(written, segkit.load([first, second]).predict(shown)[0])
    assert (written != segkit.load(first).predict(shown)[0]).any()
