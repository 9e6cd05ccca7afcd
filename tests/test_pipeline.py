"""Pipelines: keyed randomness, labels that stay labels, what runs once a case, and messages that name the transform."""

from __future__ import annotations

import pickle
import random
from typing import Any

import albumentations
import numpy as np
import pytest
from numpy.typing import NDArray

from segkit import UserError, transforms
from segkit.components.datasets.case import Case
from segkit.data.fitting import Kind, example
from segkit.data.pipeline import Pair, Pipeline, has_new_labels, labels_of
from segkit.data.samples import Samples
from segkit.data.store import unpack_masks
from segkit.data.transform_faults import TransformError
from tests.small import data_of, samples_of

# What each needs beside its defaults; an entry of the registry that is not here is tried with its defaults alone.
NEEDS: dict[str, dict[str, Any]] = {
    "CenterCrop": {"height": 24, "width": 32},
    "Crop": {"x_max": 32, "y_max": 24},
    "CropAndPad": {"px": [-4, 8, -2, 3]},
    "CropNonEmptyMaskIfExists": {"height": 24, "width": 32},
    "GridElasticDeform": {"num_grid_xy": [4, 4], "magnitude": 3},
    "LongestMaxSize": {"max_size": 32},
    "OneOf": {"transforms": ["HorizontalFlip", {"Rotate": {"limit": 30}}]},
    "PadIfNeeded": {"min_height": 96, "min_width": 96},
    "RandomCrop": {"height": 24, "width": 32},
    "RandomOrder": {"transforms": ["HorizontalFlip", {"Rotate": {"limit": 30}}], "n": 2},
    "RandomResizedCrop": {"size": [24, 32]},
    "RandomSizedCrop": {"min_max_height": [20, 30], "size": [24, 32]},
    "Resize": {"height": 24, "width": 32},
    "Sequential": {"transforms": ["HorizontalFlip", {"Rotate": {"limit": 30}}]},
    "SmallestMaxSize": {"max_size": 32},
    "SomeOf": {"transforms": ["HorizontalFlip", {"Rotate": {"limit": 30}}]},
}
STUDY: list[tuple[str, dict[str, Any]]] = [
    ("CLAHE", {"clip_limit": 2.0, "tile_grid_size": [6, 6], "p": 1}),
    ("Rotate", {"limit": 180, "p": 0.5}),
    ("RandomCrop", {"height": 40, "width": 48}),
]


def make(*named: tuple[str, dict[str, Any]]) -> Pipeline:
    return Pipeline([transforms.component(name, values) for name, values in named])


def sample(kind: Any = np.uint8, size: tuple[int, int] = (64, 80)) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(1)
    image = np.clip(np.add.outer(np.arange(size[0]), np.arange(size[1])) + rng.normal(0, 20, size), 0, 255)
    bits = np.zeros(size, kind)
    bits[10:40, 20:50] = 1
    bits[20:30, 30:40] = 3
    bits[30:50, 40:60] = 4 if kind == np.uint8 else 1 << 12
    return image.astype(np.uint8), bits


def same(a: tuple[NDArray[Any], ...], b: tuple[NDArray[Any], ...]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", transforms.names())
def test_every_transform_keeps_its_contract(name: str) -> None:
    component = transforms.component(name, NEEDS.get(name, {}))
    assert transforms.component(name, component.dump()[name]).dump() == component.dump()
    assert type(component()) is getattr(albumentations, name)
    values = {**NEEDS.get(name, {}), "p": 1}
    for kind in (np.uint8, np.uint16):
        image, bits = sample(kind)
        image = np.stack([image, image // 2, 255 - image], axis=-1) if transforms[name].traits["colour"] else image
        before = image.copy(), bits.copy()
        pipeline = make((name, values))
        first = [pipeline(image, bits, (7, epoch, 3)) for epoch in range(3)]
        assert same((image, bits), before)
        assert {x.dtype for x, _ in first} == {np.dtype(np.uint8)}
        assert {y.dtype for _, y in first} == {bits.dtype}
        assert all(
            x.shape == y.shape + image.shape[2:] and set(labels_of(y)) <= {0, *labels_of(bits)} for x, y in first
        )
        np.random.seed(3)
        random.seed(3)
        again = pickle.loads(pickle.dumps(make((name, values))))
        for epoch in (2, 0, 1):  # in another order, in another object, whatever the global state
            assert same(again(image, bits, (7, epoch, 3)), first[epoch])


def test_randomness_depends_on_each_part_of_the_key_and_on_nothing_else() -> None:
    image, bits = sample()
    pipeline = make(*STUDY)
    keys = [(seed, epoch, index) for seed in (0, 1, 2**63) for epoch in (1, 2) for index in (0, 1, 12)]
    found = {key: pipeline(image, bits, key)[0].tobytes() for key in keys}
    assert len(set(found.values())) == len(keys)
    for key in reversed(keys):
        assert pipeline(image, bits, key)[0].tobytes() == found[key]


def test_equals_albumentations_given_the_same_generators() -> None:
    image, bits = sample()
    ours = make(*STUDY)
    theirs = albumentations.Compose(
        [
            albumentations.CLAHE((2.0, 2.0), (6, 6), p=1),
            albumentations.Rotate(180, p=0.5),
            albumentations.RandomCrop(40, 48),
        ],
        p=1.0,
    )
    for index in range(8):
        ours.reseed((1, 1, index))
        generator, plain = pickle.loads(pickle.dumps((ours._generator, ours._random)))
        for transform in theirs.transforms:
            transform.set_random_state(generator, plain)
        done = theirs(image=image, mask=bits)
        assert same(ours(image, bits, (1, 1, index)), (done["image"], done["mask"]))


def test_a_fair_share_of_samples_is_rotated() -> None:
    image, bits = sample()
    rotate = make(("Rotate", {"limit": 180, "p": 0.5}))
    turned = sum(not np.array_equal(rotate(image, bits, (0, 1, index))[0], image) for index in range(400))
    assert 160 < turned < 240


def cases_of(pairs: list[Pair]) -> list[Case]:
    return [Case(f"case {n}", None, image, unpack_masks(bits, 3), None) for n, (image, bits) in enumerate(pairs)]


def settled(pairs: list[Pair], *named: tuple[str, dict[str, Any]]) -> Samples:
    """Return the samples that leading transforms make of images and their bit maps."""
    return samples_of(cases_of(pairs), [transforms.component(name, values) for name, values in named])


def test_leading_transforms_that_draw_no_random_number_run_once_a_case() -> None:
    pairs = [sample(), sample(size=(72, 60))]
    made = settled(pairs, *STUDY)
    assert made.pipeline.names == ("Rotate", "RandomCrop")
    for number, pair in enumerate(pairs):
        assert same((made.slices.image(number), made.slices.bits(number)), make(STUDY[0])(*pair))
    first = made.slices.image(0), made.slices.bits(0)
    assert same(make(*STUDY[1:])(*first, (1, 2, 3)), made.pipeline(*first, (1, 2, 3)))


@pytest.mark.parametrize(
    ("name", "values", "runs_once"),
    [
        ("CLAHE", {"clip_limit": 2.0, "p": 1}, True),
        ("CLAHE", {"clip_limit": 2.0, "p": 0.9}, False),
        ("CLAHE", {"clip_limit": [1.0, 2.0], "p": 1}, False),
        ("HorizontalFlip", {"p": 1}, True),
        ("Resize", {"height": 32, "width": 32, "p": 1}, True),
        ("PadIfNeeded", {"min_height": 96, "min_width": 96}, True),
        ("PadIfNeeded", {"min_height": 96, "min_width": 96, "position": "random"}, False),
        ("RandomCrop", {"height": 24, "width": 24}, False),
        ("RandomGamma", {"gamma_limit": [80, 80], "p": 1}, True),
        ("GaussNoise", {"p": 1}, False),
        ("ElasticTransform", {"p": 1}, False),
        ("Sequential", {"transforms": [{"CLAHE": {"p": 1}}], "p": 1}, False),
    ],
)
def test_what_draws_no_random_number_is_found_out(name: str, values: dict[str, Any], runs_once: bool) -> None:
    assert (len(settled([sample()], (name, values)).pipeline) == 0) is runs_once


def test_a_draw_on_a_later_case_counts() -> None:
    small, large = sample(size=(30, 30)), sample(size=(64, 64))
    pad = {"min_height": 40, "min_width": 40, "position": "random"}
    assert settled([large, small], ("PadIfNeeded", pad)).pipeline.names == ("PadIfNeeded",)
    fixed = ("HorizontalFlip", {"p": 1})
    assert settled([large, small], fixed, ("PadIfNeeded", pad)).pipeline.names == ("PadIfNeeded",)


class Brighten(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """What a plugin would bring."""

    def __init__(self, p: float = 1.0) -> None:
        super().__init__(p=p)

    def apply(self, img: NDArray[Any], **params: Any) -> NDArray[Any]:
        return np.asarray(np.minimum(img, 200) + np.uint8(self.py_random.randint(1, 50)))


class Blend(albumentations.DualTransform):  # type: ignore[misc]
    """What a careless plugin would bring: it resamples masks linearly."""

    _targets = albumentations.HorizontalFlip._targets

    def apply(self, img: NDArray[Any], **params: Any) -> NDArray[Any]:
        return img

    def apply_to_mask(self, mask: NDArray[Any], **params: Any) -> NDArray[Any]:
        return np.asarray((mask.astype(int) + np.roll(mask, 1, 0)) // 2, mask.dtype)


class Wrong(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    def __init__(self, how: str = "type") -> None:
        super().__init__(p=1)
        self.how = how

    def apply(self, img: NDArray[Any], **params: Any) -> NDArray[Any]:
        if self.how == "type":
            return img.astype(np.float32)
        if self.how == "size":
            return img[:-1]
        if self.how == "inputs":
            return np.stack([img, img], axis=-1) if img.ndim == 2 else img[..., :1]
        if self.how == "bytes":
            return img.astype(np.uint8)
        raise RuntimeError("out of\n luck")


@pytest.fixture
def registered() -> Any:
    before = transforms.snapshot()
    transforms.register("brighten")(Brighten)
    transforms.register("blend")(Blend)
    transforms.register("wrong")(Wrong)
    transforms.register("text")(lambda: "no transform")
    yield transforms
    transforms.restore(before)


def test_transforms_of_plugins_draw_from_the_key_and_never_run_once(registered: Any) -> None:
    image, bits = sample()
    pipeline = make(("brighten", {}), ("RandomCrop", {"height": 40, "width": 48}))
    assert pipeline.custom
    assert not make(*STUDY).custom
    assert make(("OneOf", {"transforms": ["brighten"]})).custom
    assert settled([(image, bits)], ("brighten", {}), ("RandomCrop", {"height": 40, "width": 48})).pipeline.names == (
        "brighten",
        "RandomCrop",
    )
    assert same(pipeline(image, bits, (1, 2, 3)), pipeline(image, bits, (1, 2, 3)))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("blend", {"p": 1.0}, r"P01: transform blend \(.*\): gave the masks labels that were not there: \[.*2.*\]"),
        ("wrong", {"how": "type"}, r"P01: transform wrong \(.*\): .*got float32 and uint8.*normalizes on the device"),
        ("wrong", {"how": "size"}, r"P01: transform wrong \(.*\): .*of one size, got \(63, 80\)"),
        ("wrong", {"how": "error"}, r"P01: transform wrong \(.*\): out of luck"),
        ("RandomCrop", {"height": 100, "width": 100}, "P01: transform RandomCrop: Crop size .*PadIfNeeded before it"),
    ],
)
def test_failures_name_sample_and_transform(registered: Any, name: str, values: dict[str, Any], message: str) -> None:
    image, bits = sample()
    with pytest.raises(TransformError, match=message):
        make(("HorizontalFlip", {}), (name, values))(image, bits, name="P01")


@pytest.mark.parametrize(
    ("kind", "how", "message"),
    [
        (Kind(3), "inputs", r"must leave the number of inputs as it is, got an image \(64, 64, 1\) for \(64, 64, 3\)"),
        (Kind(), "inputs", r"must leave the number of inputs as it is, got an image \(64, 64, 2\) for \(64, 64\)"),
        (Kind(2, "float32"), "bytes", "must leave image and masks float32 and uint8, got uint8 and uint8"),
        (Kind(2), "type", "must leave image and masks uint8 and uint8, got float32 and uint8"),
        (Kind(3), "size", r"must leave image and masks of one size, got \(63, 64, 3\) and \(64, 64\)"),
    ],
)
def test_inputs_and_types_must_stay(registered: Any, kind: Kind, how: str, message: str) -> None:
    with pytest.raises(TransformError, match=rf"P01: transform wrong \(.*test_pipeline.py:\d+\): {message}"):
        make(("wrong", {"how": how}))(example(kind), np.zeros((64, 64), np.uint8), name="P01")


@pytest.mark.parametrize(
    "kind", [Kind(2), Kind(3), Kind(6), Kind(1, "float32"), Kind(3, "float32", bounded=False)], ids=str
)
def test_several_inputs_and_floats_pass_through(kind: Kind) -> None:
    image, bits = example(kind), sample(size=(64, 64))[1]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("HorizontalFlip", {"p": 1}),
        ("Rotate", {"limit": 180, "p": 0.5}),
        ("RandomCrop", {"height": 40, "width": 48}),
    ]
    pair, count = make(*steps).settle((image, bits), "a", len(steps))
    rest = make(*steps).after(count)
    assert rest.names == ("Rotate", "RandomCrop")
    assert same(pair, (image[:, ::-1], bits[:, ::-1]))
    for draw in range(4):
        moved, masks = make(*steps)(image, bits, (draw, 0, 0))
        assert (moved.shape, moved.dtype, masks.shape) == ((40, 48, *image.shape[2:]), image.dtype, (40, 48))
        assert same(rest(*pair, (draw, 0, 0)), (moved, masks))


def test_an_image_keeps_its_axes() -> None:
    image, bits = sample()
    steps = make(("Blur", {"p": 1}), ("Rotate", {"limit": 90, "p": 1}), ("Resize", {"height": 32, "width": 40}))
    grey, one = steps(image, bits, (1, 1, 1)), steps(image[..., None], bits, (1, 1, 1))
    assert grey[0].shape == (32, 40)
    assert one[0].shape == (32, 40, 1)
    assert same((grey[0], grey[1]), (one[0][..., 0], one[1]))


def test_a_failure_at_load_names_the_case() -> None:
    crop = ("CenterCrop", {"height": 70, "width": 70})
    pairs = [sample(size=(80, 80)), sample()]
    with pytest.raises(TransformError, match="case 1: transform CenterCrop: Crop size"):
        settled(pairs, crop)
    data = data_of(cases_of(pairs))
    assert Samples.of(data, [0], [transforms.component(*crop)], exclusive=False).slices.image(0).shape == (70, 70)


def test_what_cannot_be_built_is_named(registered: Any) -> None:
    with pytest.raises(UserError, match=r"transform\.CropAndPad: Both px and percent"):
        make(("CropAndPad", {}))
    with pytest.raises(UserError, match=r"transform\.text \(.*\): it must return an Albumentations transform, got str"):
        make(("text", {}))


def test_no_transforms_leave_everything_as_it_is() -> None:
    image, bits = sample()
    assert same(Pipeline()(image, bits), (image, bits))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("labels", [(), (0,), (1,), (0, 1, 2), (0, 1, 3), (1, 2), (3,), (0, 4, 200)])
def test_other_labels_are_seen(kind: Any, labels: tuple[int, ...]) -> None:
    for value in range(256):
        bits = np.full((3, 4), value, kind)
        assert has_new_labels(bits, labels) == (value not in {0, *labels}), value


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (("CenterCrop", {"height": 24, "width": 24}), "CenterCrop moves pixels"),
        (("HorizontalFlip", {"p": 1}), "HorizontalFlip moves pixels"),
        (("OneOf", {"transforms": ["CLAHE"]}), "OneOf moves pixels"),
        (("CLAHE", {}), "CLAHE is random.*Set p = 1"),
        (("CLAHE", {"clip_limit": [1.0, 2.0], "p": 1}), "CLAHE is random"),
        (("GaussNoise", {"p": 1}), "GaussNoise is random"),
        (("Resize", {"height": 24, "width": 24, "interpolation": 0}), "Resize samples.*nearest.*Set interpolation = 1"),
        (("LongestMaxSize", {"max_size": 24, "interpolation": 6}), "LongestMaxSize samples.*nearest"),
        (("Downscale", {"scale_range": [0.5, 0.5], "p": 1}), "Downscale samples.*nearest.*Set interpolation_pair"),
    ],
)
def test_what_does_not_suit_evaluation_is_refused(named: tuple[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=f"transforms.eval: {message}"):
        make(named).check_eval()


def test_what_suits_evaluation_passes_and_works_after_the_check() -> None:
    pipeline = make(STUDY[0], ("Resize", {"height": 48, "width": 48}), ("Equalize", {"p": 1}))
    image, bits = sample()
    before = pipeline(image, bits)
    pipeline.check_eval()
    assert same(pipeline(image, bits), before)
    make(("NoOp", {"p": 1})).check_eval()


@pytest.mark.parametrize("kind", [Kind(2), Kind(3), Kind(1, "float32"), Kind(5, "float32", bounded=False)], ids=str)
def test_evaluation_is_checked_with_the_images_that_it_gets(kind: Kind) -> None:
    make(("LongestMaxSize", {"max_size": 48})).check_eval(kind)
    with pytest.raises(UserError, match=r"transforms\.eval: GaussianBlur is random"):
        make(("GaussianBlur", {"blur_limit": [3, 7], "p": 1})).check_eval(kind)
    if kind.inputs in (2, 5):
        with pytest.raises(UserError, match=r"transforms\.eval: transform CLAHE: .*1-channel or 3-channel"):
            make(STUDY[0]).check_eval(kind)
