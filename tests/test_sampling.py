"""Which samples are drawn how often: by tags, and with foreground, the same for any number of workers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import segkit
from segkit import UserError
from segkit.components.datasets.case import Case, Dataset
from segkit.data.batches import Batches
from segkit.data.order import Order, weights_by_tag
from segkit.data.samples import Samples
from tests import small
from tests.small import data_of, kinds, samples_of, train

SIZE = 24
CROP = [segkit.transforms.component("RandomCrop", {"height": 8, "width": 8})]


def cases() -> list[Case]:
    """Four empty images, and four with a small square at an edge, of two phases."""
    made = []
    for number in range(8):
        masks = np.zeros((1, SIZE, SIZE), np.bool_)
        masks[:, :4, 8:12] = number % 2
        image = np.random.default_rng(number).integers(0, 255, (SIZE, SIZE), np.uint8)
        tags = {"phase": "ES" if number < 2 else "ED", "scanner": "a" if number % 4 else "b"}
        made.append(Case(f"p{number}", f"p{number}", image, masks, tags=tags))
    return made


@pytest.fixture(scope="module")
def samples() -> Samples:
    return samples_of(cases(), CROP)


def members(order: Order, batches: int) -> list[list[tuple[int, int]]]:
    return [order(number) for number in range(batches)]


@pytest.mark.parametrize("share", [0.33, 0.5, 1.0])
def test_the_stated_share_of_every_batch_is_drawn_among_samples_with_foreground(share: float) -> None:
    order = Order(8, 8, 5, seed=1, foreground=[1, 3, 5, 7], share=share)
    drawn = members(order, 400)
    forced = [[index for draw, index in batch if draw < 0] for batch in drawn]
    assert all(abs(len(found) - share * len(batch)) < 1 for found, batch in zip(forced, drawn, strict=True))
    counts = Counter(index for found in forced for index in found)
    assert set(counts) == {1, 3, 5, 7}
    assert max(counts.values()) - min(counts.values()) <= 1
    others = Counter(index for batch in drawn for draw, index in batch if draw > 0)
    assert share == 1 or max(others.values()) - min(others[n] for n in range(8)) <= 1
    whole = [member for batch in drawn for member in batch]
    assert len(set(whole)) == len(whole)
    again = Order(8, 8, 5, seed=1, foreground=[1, 3, 5, 7], share=share)
    assert [again(number) for number in (399, 7, 0)] == [drawn[number] for number in (399, 7, 0)]


def test_crops_of_members_drawn_for_foreground_show_some(samples: Samples) -> None:
    def seen(share: float) -> float:
        with Batches(samples, batch_size=4, seed=1, workers=0, foreground_share=share) as batches:
            drawn = [bits for epoch in range(1, 31) for _, bits in batches.epoch(epoch)]
            return torch.cat(drawn).flatten(1).any(1).float().mean().item()

    plain = seen(0.0)
    assert plain < 0.2
    assert seen(0.5) > 0.5 * plain + 0.5 * 0.9
    assert seen(1.0) > 0.9


def test_batches_are_the_same_for_any_number_of_workers_and_from_any_batch_on(samples: Samples) -> None:
    options = {"batch_size": 3, "seed": 2, "weights": [1.0, 2.0] * 4, "foreground_share": 0.4}
    with Batches(samples, workers=0, **options) as one, Batches(samples, workers=2, **options) as two:  # type: ignore[arg-type]
        plain = [[part.clone() for part in batch] for epoch in (1, 2) for batch in one.epoch(epoch)]
        ahead = [[part.clone() for part in batch] for epoch in (1, 2) for batch in two.epoch(epoch)]
        resumed = list(one.epoch(2, start=1))
    for first, second in [*zip(plain, ahead, strict=True), *zip(plain[4:], resumed, strict=True)]:
        assert all(map(torch.equal, first, second))


def test_samples_are_drawn_as_often_as_their_weights_say() -> None:
    weights = [0.0, 1.0, 2.0, 0.5, 4.5]
    order = Order(5, 5, 2, seed=3, weights=weights)
    drawn = [member for batch in members(order, 3 * 400) for member in batch]
    assert len({draw for draw, _ in drawn}) == len(drawn) == 2000
    counts = Counter(index for _, index in drawn)
    assert counts[0] == 0
    for index, weight in enumerate(weights):
        assert counts[index] / 2000 == pytest.approx(weight / 8, abs=0.02)
    assert members(Order(5, 5, 2, seed=4, weights=weights), 30) != members(order, 30)


def test_weights_of_several_tags_are_multiplied_and_unknown_ones_are_refused() -> None:
    data = data_of(cases())
    numbers = [case.first for case in data.cases]
    found = weights_by_tag(data, numbers, {"phase=ES": 2.0, "scanner=b": 3.0})
    assert found == [6.0, 2.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0]
    with pytest.raises(UserError, match=r"no case has the tag 'phase=EX'. Did you mean 'phase=E[SD]'"):
        weights_by_tag(data, numbers, {"phase=EX": 2.0})


def test_recipes_name_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'sampling_weights.*a tag is written "name=value", as in "phase=ES", got "ES"'):
        small.recipe("train.sampling_weights={ ES = 2.0 }")
    with pytest.raises(UserError, match=r"oversample_foreground: must be 1 or less, got 1\.5"):
        small.recipe("train.oversample_foreground=1.5")
    with pytest.raises(UserError, match="no slice of the training cases has foreground"):
        Batches(samples_of(cases()[::2], CROP), batch_size=2, seed=1, workers=0, foreground_share=0.5)
    with pytest.raises(UserError, match="every sample has weight 0"):
        Batches(samples_of(cases(), CROP), batch_size=2, seed=1, workers=0, weights=[0.0] * 8)


@segkit.datasets.register("phased")
def phased() -> Dataset:
    """The cases above."""
    return Dataset("phased", ("square",), tuple(cases()))


def test_a_training_that_draws_by_tags_and_foreground_resumes_to_the_bit(tmp_path: Path) -> None:
    sets: tuple[str, ...] = ("data=phased", "transforms.eval=[]", "train.epochs=2", "train.oversample_foreground=0.5")
    sets += ("transforms.train=[{ RandomCrop = { height = 8, width = 8 } }]", 'train.sampling_weights={"phase=ED"=2.0}')
    assert kinds(train(tmp_path / "whole", *sets))[-1] == "finished"
    assert kinds(train(tmp_path / "broken", *sets, stop_after=1))[-1] == "interrupted"
    assert kinds(train(tmp_path / "broken", *sets))[-1] == "finished"
    one, two = ((tmp_path / run / "only/seed-1/best.safetensors").read_bytes() for run in ("whole", "broken"))
    assert one == two
