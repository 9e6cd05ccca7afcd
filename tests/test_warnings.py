"""What a recipe may say but its author seldom means, once the data and the losses are there: warned of, loudly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segkit
from segkit import UserError
from segkit.checks.recipe import check_trials
from segkit.components.datasets.case import Case, Dataset
from segkit.plugins import isolated
from segkit.recipe import toml
from segkit.recipe.merge import compose
from segkit.recipe.model import Recipe, validate
from segkit.study.plan import plan_trials
from segkit.training.warnings import blind_loss, large_batch, undefined_volumes
from segkit.types import Tensor
from tests import small
from tests.small import BASE, discs, train

LARGE = "train.batch_size is 500, but there are 8 training samples: an epoch is a single step on all of them"


def foreground(logits: Tensor, target: Tensor) -> Tensor:
    """Dice of the structures alone, the background left out."""
    chance, truth = logits[:, 1:].sigmoid(), target[:, 1:]
    return 1 - (2 * (chance * truth).sum() + 1) / (chance.sum() + truth.sum() + 1)


def nameless() -> Dataset:
    """The discs, of nobody."""
    found = discs()
    cases = [Case(c.name, None, np.asarray(c.image), np.asarray(c.masks), c.spacing_mm) for c in found.cases]
    return Dataset("nameless", found.channels, tuple(cases))


def stacks() -> Dataset:
    """The discs, a volume of two slices for each patient."""
    found = discs()
    cases = []
    for one, two in zip(found.cases[::2], found.cases[1::2], strict=True):
        (image, masks), (image_two, masks_two) = one.read(), two.read()
        assert masks is not None
        assert masks_two is not None
        volume, truth = np.stack([image, image_two])[None], np.stack([masks, masks_two], axis=1)
        cases.append(Case(str(one.patient), one.patient, volume, truth, (8.0, 1.0, 1.0)))
    return Dataset("stacks", found.channels, tuple(cases))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with isolated():
        segkit.losses.register("foreground", exclusive_only=True)(foreground)
        segkit.datasets.register("nameless")(nameless)
        segkit.datasets.register("stacks")(stacks)
        yield


def warnings_of(run: Path, *sets: str) -> list[str]:
    return [event.text for event in train(run, *sets) if event.kind == "warning"]


def test_a_batch_of_more_than_all_cases_is_warned_of_in_run_and_check(tmp_path: Path) -> None:
    assert any(text.startswith(LARGE) for text in warnings_of(tmp_path, "train.batch_size=500", "train.epochs=1"))
    status = json.loads((tmp_path / "only/seed-1/trial.json").read_text())
    assert any(text.startswith(LARGE) for text in status["warnings"]), "the report reads it there"
    path = tmp_path / "large.toml"
    path.write_text(toml.dumps(BASE))
    document = compose(path, sets=["train.batch_size=500"])
    ((_, findings, _),) = check_trials(plan_trials(validate(document), document))
    assert any(finding.kind == "warning" and finding.text.startswith(LARGE) for finding in findings)
    assert large_batch(small.recipe("train.batch_size=8"), 8) is None


def test_a_check_counts_the_cases_of_whole_sets(tmp_path: Path) -> None:
    path = tmp_path / "sets.toml"
    path.write_text(toml.dumps(BASE))
    document = compose(path, sets=["split.validation=0.4", "split.test=0.4", "train.batch_size=1"])
    ((_, _, log),) = check_trials(plan_trials(validate(document), document))
    counts = "4 cases of 2 patients for training, 4 of 2 patients for validation, 4 of 2 patients for the test"
    assert any(counts in line for line in log), log


@pytest.mark.parametrize(("size", "warned"), [(8, False), (9, True)])
def test_a_check_counts_the_slices_of_volumes(tmp_path: Path, size: int, warned: bool) -> None:
    path = tmp_path / "stacks.toml"
    path.write_text(toml.dumps({**BASE, "data": {"stacks": {}}}))
    document = compose(path, sets=[f"train.batch_size={size}"])
    ((_, findings, _),) = check_trials(plan_trials(validate(document), document))
    assert [finding.kind for finding in findings if "fault" in finding.kind] == []
    assert any("but there are 8 training samples" in finding.text for finding in findings) is warned


def test_images_of_nobody_are_warned_of_in_run(tmp_path: Path) -> None:
    texts = warnings_of(tmp_path, "data=nameless", "train.epochs=1")
    assert any("12 of 12 cases have no patient" in text for text in texts)


def test_a_loss_that_ignores_the_background_of_exclusive_classes_is_warned_of(tmp_path: Path) -> None:
    texts = warnings_of(tmp_path, "channels=exclusive", "loss=foreground", "train.epochs=1")
    assert any("loss.foreground: the background, channel 0 of exclusive classes, is ignored" in text for text in texts)


def test_a_loss_that_is_blind_to_what_is_too_much_is_warned_of() -> None:
    text = blind_loss(small.recipe("loss={ tversky = { alpha = 0.0, beta = 1.0 } }"))
    other = blind_loss(small.recipe("loss={ tversky = { alpha = 1.0, beta = 0.0 } }"))
    assert "loss.tversky: everything marked costs no more than the truth" in f"{text} {other}"


@pytest.mark.parametrize("channels", ["independent", "exclusive"])
def test_no_loss_of_segkit_is_warned_of_as_it_is(channels: str) -> None:
    found: dict[str, Any] = {}
    for entry in [entry for entry in segkit.losses if entry.origin == "segkit" and entry.name != "foreground"]:
        if channels == "exclusive" or not entry.traits["exclusive_only"]:
            recipe = Recipe.from_dict({"channels": channels, "loss": {entry.name: {}}})
            found[entry.name] = blind_loss(recipe)
    assert len(found) > 8
    assert set(found.values()) == {None}


def flat_or_not(*, volumes: bool = False) -> Dataset:
    """The discs, of a dataset that could give volumes."""
    return discs()


def test_volumes_in_ml_of_2d_cases_are_warned_of_once(tmp_path: Path) -> None:
    asked = ("metrics.volume_ml={}", "metrics.volume_difference_ml={}", "train.epochs=2")
    (text,) = [text for text in warnings_of(tmp_path, *asked) if "volume" in text]
    assert text == (
        "metrics.volume_ml and metrics.volume_difference_ml: undefined for 2-D cases (4 of 4 evaluated cases). Use a "
        "dataset of volumes, or drop what is undefined."
    )
    segkit.datasets.register("flat_or_not")(flat_or_not)
    cases = small.data_of(discs().cases).cases
    found = undefined_volumes(small.recipe("data=flat_or_not", "metrics.volume_ml={}"), cases)
    assert found is not None
    assert "Set data.flat_or_not.volumes = true, or drop" in found


def test_volumes_in_ml_without_spacing_are_warned_of() -> None:
    image, masks = np.zeros((1, 2, 8, 8), np.uint8), np.ones((2, 2, 8, 8), bool)
    cases = small.data_of([Case("a", "p", image, masks, (8.0, 1.0, 1.0)), Case("b", "q", image, masks)]).cases
    asked = small.recipe("metrics.volume_ml={}")
    assert undefined_volumes(asked, cases[:1]) is None
    assert undefined_volumes(small.recipe(), cases) is None
    assert undefined_volumes(asked, cases) == (
        "metrics.volume_ml: undefined for cases without spacing (1 of 2 evaluated cases). State their spacing, or "
        "drop what is undefined."
    )


def test_half_precision_on_a_cpu_is_refused() -> None:
    from segkit.device import choose

    with pytest.raises(UserError, match='"fp16" needs a GPU, and the device is cpu'):
        choose("cpu", "fp16")
