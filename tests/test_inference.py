"""Test-time augmentation and sliding windows: means of probabilities, those of a plain reference and of MONAI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import segkit
from segkit.components.datasets.case import Case, Dataset
from segkit.data.filling import fill
from segkit.device import Device
from segkit.evaluation.evaluator import Evaluator, Prediction
from segkit.evaluation.inference import images_at_once, predictor_of, probabilities_of, scores_of
from segkit.evaluation.masks import decide
from segkit.evaluation.slices import Normalization
from segkit.recipe.sections import Evaluation, Window

CPU = Device(torch.device("cpu"), "float32", "")
EXCLUSIVE = pytest.mark.parametrize("exclusive", [False, True])


class Net(nn.Module):
    """Two inputs to three scores that depend on the orientation and on the border of what is seen."""

    def __init__(self, inputs: int = 2, outputs: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(inputs, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, outputs, 3, padding=1)
            )
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(tuple(image.shape))
        return 4 * self.layers(image)  # type: ignore[no-any-return]


def image(*size: int) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(sum(size)))


@torch.no_grad()
def predicted(net: Net, seen: Tensor, *, exclusive: bool = False, batch_size: int = 4, **settings: Any) -> Tensor:
    return predictor_of(net, Evaluation(**settings), exclusive=exclusive, batch_size=batch_size)(seen)


@EXCLUSIVE
@pytest.mark.parametrize("tta, turns", [("flips", (0,)), ("d4", (0, 1, 2, 3))])
def test_symmetries_are_averaged_as_probabilities(tta: str, turns: tuple[int, ...], exclusive: bool) -> None:
    net, seen = Net(), image(2, 2, 11, 7)
    views = []
    for axes in [(), (3,), (2,), (2, 3)] if tta == "flips" else [(), (3,)]:
        for turn in turns:
            scores = net(torch.rot90(seen.flip(axes), turn, (2, 3)))
            chance = scores.softmax(1) if exclusive else scores.sigmoid()
            views.append(torch.rot90(chance, -turn, (2, 3)).flip(axes))
    found = predicted(net, seen, exclusive=exclusive, tta=tta)
    assert found.shape == (2, 3, 11, 7)
    assert torch.allclose(found, torch.stack(views).mean(0), atol=1e-6)


CASES = pytest.mark.parametrize(
    "size, window, overlap", [((37, 29), (16, 12), 0.5), ((10, 40), (16, 12), 0.25), ((9, 8), (9, 8), 0.5)]
)


@CASES
@EXCLUSIVE
def test_windows_are_weighted_by_a_gaussian(
    size: tuple[int, int], window: tuple[int, int], overlap: float, exclusive: bool
) -> None:
    net, seen, (rows, columns) = Net(), image(2, 2, *size), window
    chosen = Window(size=window, overlap=overlap, sigma=0.2)
    found = predicted(net, seen, exclusive=exclusive, window=chosen)
    top, left = (max(wanted - length, 0) // 2 for wanted, length in zip(window, size, strict=True))
    whole = np.zeros((2, 2, *map(max, size, window)), np.float32)
    whole[:, :, top : top + size[0], left : left + size[1]] = seen
    total, weights = np.zeros((2, 3, *whole.shape[2:])), np.zeros(whole.shape[2:])
    centre = np.mgrid[:rows, :columns] - np.array([(rows - 1) / 2, (columns - 1) / 2])[:, None, None]
    squares = (centre / (0.2 * np.array(window))[:, None, None]) ** 2
    weight = np.exp(-squares.sum(axis=0) / 2).clip(1e-3)
    last, steps = np.array(whole.shape[2:]) - window, [int(length * (1 - overlap)) for length in window]
    for row in sorted({min(start, last[0]) for start in range(0, last[0] + steps[0], steps[0])}):
        for column in sorted({min(start, last[1]) for start in range(0, last[1] + steps[1], steps[1])}):
            part = np.s_[..., row : row + rows, column : column + columns]
            chance = predicted(net, torch.from_numpy(whole[part]), exclusive=exclusive).double().numpy()
            total[part] += chance * weight
            weights[part] += weight
    expected = (total / weights)[..., top : top + size[0], left : left + size[1]]
    assert found.shape == expected.shape
    assert np.allclose(found, expected, atol=1e-6)
    assert found.max() <= 1


@pytest.mark.slow  # importing MONAI takes seconds
@CASES
@EXCLUSIVE
@pytest.mark.parametrize("tta", ["none", "flips"])
def test_windows_are_those_of_monai(
    size: tuple[int, int], window: tuple[int, int], overlap: float, tta: str, exclusive: bool
) -> None:
    inferers = pytest.importorskip("monai.inferers")
    net, seen = Net(), image(2, 2, *size)
    inferer = inferers.SlidingWindowInferer(window, sw_batch_size=3, overlap=overlap, mode="gaussian", sigma_scale=0.2)
    expected = inferer(seen, lambda part: predicted(net, part, exclusive=exclusive, tta=tta))
    chosen = Window(size=window, overlap=overlap, sigma=0.2)
    found = predicted(net, seen, exclusive=exclusive, window=chosen, tta=tta)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5


def test_the_network_sees_batches_of_whole_windows() -> None:
    net = Net()
    predicted(net, image(1, 2, 40, 40), window=Window(size=(16, 16)), batch_size=7)
    assert net.seen == [(7, 2, 16, 16)] * 2 + [(2, 2, 16, 16)]
    net.seen.clear()
    predicted(net, image(1, 2, 9, 40), window=Window(size=(16, 16), overlap=0.0), batch_size=7)
    assert net.seen == [(3, 2, 16, 16)], "an image that is too small is padded"


def test_images_together_have_no_more_pixels_than_a_batch_of_windows() -> None:
    window = Evaluation(window=Window(size=(16, 16)))
    assert [images_at_once((side, side), window, 8) for side in (8, 16, 32, 512)] == [8, 8, 2, 1]
    assert images_at_once((512, 512), Evaluation(tta="d4"), 8) == 8


@EXCLUSIVE
def test_scores_of_probabilities_have_these_and_are_finite(exclusive: bool) -> None:
    chance = torch.tensor([[[[0.0, 0.2]], [[1.0, 0.5]], [[0.0, 0.3]]]])
    scores = scores_of(chance, exclusive=exclusive)
    assert scores.isfinite().all()
    assert torch.allclose(probabilities_of(scores, exclusive=exclusive), chance, atol=1e-5)


def evaluator(shape: tuple[int, ...], *, exclusive: bool, **evaluation: Any) -> Evaluator:
    """Return an evaluator of two cases with two inputs; volumes if the shape has three axes."""
    random, cases = np.random.default_rng(0), []
    for number in range(2):
        masks = np.zeros((2, *shape), bool)
        cases.append(
            Case(f"c{number}", None, random.integers(0, 255, (2, *shape), np.uint8), masks, (1.0,) * len(shape))
        )
    tree = {
        "channels": "exclusive" if exclusive else "independent",
        "train": {"batch_size": 2},
        "evaluation": evaluation,
    }
    dataset = Dataset("made", ("a", "b"), tuple(cases), inputs=("t1", "t2"))
    data = fill(dataset, segkit.intensities.component("percentile"))
    dataset = Dataset("made", ("a", "b"), tuple(cases), inputs=("t1", "t2"))
    data = fill(dataset, segkit.intensities.component("percentile"))
    return Evaluator(data, (0, 1), segkit.Recipe.from_dict(tree), Normalization((128.0,) * 2, (64.0,) * 2), CPU)


@EXCLUSIVE
@pytest.mark.parametrize("shape", [(20, 14), (3, 20, 14)])
def test_the_evaluator_averages_and_postprocesses_images_and_volumes(shape: tuple[int, ...], exclusive: bool) -> None:
    net = Net(outputs=2 + exclusive)
    settings = {"tta": "d4", "window": {"size": [8, 12]}, "postprocess": ["largest_part"]}
    largest = [segkit.postprocessors.component("largest_part")]
    chosen = evaluator(shape, exclusive=exclusive, **settings)
    found = list(chosen.predict(net))
    assert {seen[2:] for seen in net.seen} == {(8, 12), (12, 8)}
    for prediction in found:
        pixels = chosen.data.slices
        planes = np.stack([pixels.image(number) for number in chosen.cases[prediction.case].slices])
        seen = (torch.from_numpy(planes).permute(0, 3, 1, 2).float() - 128) / 64
        expected = predicted(net, seen, exclusive=exclusive, tta="d4", window=Window(size=(8, 12))).numpy()
        expected = expected[0] if len(shape) == 2 else expected.swapaxes(0, 1)
        assert np.allclose(prediction.probability, expected[int(exclusive) :], atol=1e-6)
        assert (
            prediction.mask == decide(expected, ("a", "b"), exclusive=exclusive, postprocess=largest)
        ).mean() > 0.999
    assert not same(found, list(evaluator(shape, exclusive=exclusive).predict(net)))
    assert same(found, [chosen.of_mean(*part) for part in chosen.probabilities(net)])


def same(found: list[Prediction], other: list[Prediction]) -> bool:
    pairs = list(zip(found, other, strict=True))
    return all(np.array_equal(a.probability, b.probability) and np.array_equal(a.mask, b.mask) for a, b in pairs)


def test_the_loss_of_averaged_probabilities_is_theirs() -> None:
    chosen = evaluator((20, 14), exclusive=False, tta="flips")
    handed: list[Tensor] = []

    def loss(scores: Tensor, target: Tensor) -> Tensor:
        handed.append(scores)
        return scores.mean()

    found = list(chosen.predict(Net(outputs=2), loss))
    assert np.allclose(torch.cat(handed).sigmoid().numpy(), np.stack([part.probability for part in found]), atol=1e-5)
    plain = list(chosen.predict(Net(outputs=2), loss, settings=Evaluation()))
    assert not same(found, plain)
    assert found[0].loss != plain[0].loss
