"""Every built-in component keeps its contract; a wrong one of each slot is found out."""

from __future__ import annotations

import builtins
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import albumentations
import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import segkit
from segkit.components import REGISTRIES
from segkit.components.datasets.case import Case, Dataset
from segkit.evaluation.scoring import checked_value
from segkit.registry.faults import ComponentError
from segkit.registry.registry import Registry
from segkit.registry.source import ComponentCode
from segkit.testing import Finding, assert_contract, check
from segkit.training.global_state import GeneratorWatch, preserved
from segkit.training.tracing import line_that_changes
from segkit.types import Count, Fraction, Positive
from tests import small

# What needs more than its defaults to make sense.
PARAMETERS: dict[tuple[str, str], dict[str, Any]] = {
    ("data", "phantom"): {"patients": 2, "slices": 6, "height": 64, "width": 54},
    ("model", "unet"): {"widths": [4, 8, 16]},
    ("scheduler", "CosineAnnealingWarmRestarts"): {"T_0": 2},
    ("scheduler", "CyclicLR"): {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5},
    ("scheduler", "SequentialLR"): {"schedulers": ["LinearLR", "CosineAnnealingLR"], "milestones": [2]},
    ("postprocess", "remove_small"): {"size": 5.0, "unit": "pixels"},
    ("transform", "Crop"): {"x_max": 40, "y_max": 30},
    ("transform", "CropAndPad"): {"px": 5},
    ("transform", "LongestMaxSize"): {"max_size": 40},
    ("transform", "SmallestMaxSize"): {"max_size": 40},
}
VARIANTS: list[tuple[str, str, dict[str, Any]]] = [
    ("loss", "boundary", {}),
    ("loss", "bce", {"top_k": 0.1, "positive_weights": 3.0}),
    ("loss", "cross_entropy", {"top_k": 0.1}),
    ("loss", "combined", {"bce_reduction": "sum", "lambda": 0.3}),
    ("loss", "dice", {"reduction": "batch"}),
    ("postprocess", "fill_holes", {"per_slice": True, "channels": ["cavity"]}),
    ("postprocess", "remove_small", {"size": 0.1, "unit": "ml"}),
    ("regularizer", "l1", {"proximal": True, "apply_to": "weights"}),
    ("model", "unet", {"widths": [4, 8], "norm": "instance", "dropout": 0.2, "upsampler": "pixel_shuffle"}),
    ("model", "unet", {"widths": [3, 4, 6], "deep_supervision": True, "residual": True, "convolutions": [1, 2, 3]}),
]
BUILT_IN = [
    (registry.name, entry.name)
    for registry in REGISTRIES
    for entry in registry
    if not {"root", "file"} & set(entry.fields)  # readers need a folder or a file
]
BY_SLOT = {registry.name: registry for registry in REGISTRIES}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    kept = [(registry, registry.snapshot()) for registry in REGISTRIES]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for registry, entries in kept:
        registry.restore(entries)


def faults(slot: str, name: str, parameters: dict[str, Any] | None = None) -> list[str]:
    """Return the faults of a component; fail if it could not be tried."""
    findings = check(BY_SLOT[slot][name], parameters)
    assert not any(finding.text.startswith("not tried") for finding in findings), [str(f) for f in findings]
    return [str(finding) for finding in findings if finding.kind == "fault"]


@pytest.mark.parametrize(("slot", "name"), BUILT_IN)
def test_a_built_in_component_keeps_its_contract(slot: str, name: str) -> None:
    assert faults(slot, name, PARAMETERS.get((slot, name))) == []


@pytest.mark.parametrize(("slot", "name", "parameters"), VARIANTS)
def test_other_settings_keep_it_too(slot: str, name: str, parameters: dict[str, Any]) -> None:
    assert faults(slot, name, parameters) == []


def test_an_image_folder_keeps_its_contract(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder / "p1").mkdir(parents=True)
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 255, (24, 20), dtype=np.uint8)
        mask = np.zeros((24, 20), np.uint8)
        mask[5:15, 4 + number : 12] = 255
        cv2.imwrite(str(tmp_path / "images" / "p1" / f"{number}.png"), image)
        cv2.imwrite(str(tmp_path / "masks" / "p1" / f"{number}.png"), mask)
    assert_contract(segkit.datasets["image_folder"], root=str(tmp_path), spacing_mm=[1.0, 1.0])
    assert check(segkit.datasets["image_folder"], {"root": str(tmp_path)})[0].text.startswith(
        "cases without `spacing_mm`"
    )


def test_rvsc_keeps_its_contract(tmp_path: Path) -> None:
    make_patient(tmp_path / "patient01")
    assert check(segkit.datasets["rvsc"], {"root": str(tmp_path)}) == []


def make_patient(folder: Path) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

    (folder / "P01dicom").mkdir(parents=True)
    (folder / "P01contours-manual").mkdir()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, UID("1.2.3")
    header = FileDataset("", {}, preamble=b"\0" * 128, file_meta=meta)
    header.Rows, header.Columns, header.SamplesPerPixel = 24, 20, 1
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 0
    header.PhotometricInterpretation = "MONOCHROME2"
    header.PixelSpacing = [0.8, 0.7]
    header.PixelData = np.arange(480, dtype=np.uint16).tobytes()
    header.save_as(folder / "P01dicom" / "P01-0000.dcm", enforce_file_format=True)
    names = []
    for kind, low, high in (("i", 8, 12), ("o", 5, 15)):
        names.append(f"P01contours-manual/P01-0000-{kind}contour-manual.txt")
        corners = [(low, low), (high, low), (high, high), (low, high)]
        (folder / names[-1]).write_text("".join(f"{x}.0 {y}.0\n" for x, y in corners))
    (folder / "P01list.txt").write_text("\n".join(names))


# Wrong components: slot, component, words of a finding.


def negative(named_parameters: Any) -> Any:
    """Minus the sum of squares."""
    return -sum(parameter.square().sum() for _, parameter in named_parameters)


def detached(named_parameters: Any) -> Any:
    """A number without a gradient."""
    return torch.stack([parameter.detach().square().sum() for _, parameter in named_parameters]).sum()


def square_root(named_parameters: Any) -> Any:
    """A norm whose slope at 0 is infinite."""
    return torch.stack([parameter.square().sum() for _, parameter in named_parameters]).sum().sqrt()


class Uphill(torch.optim.SGD):
    """Climbs."""

    def __init__(self, parameters: Any, *, rate: Positive = 0.01) -> None:
        super().__init__(parameters, lr=rate)

    def step(self, closure: Any = None) -> Any:
        for weight in self.param_groups[0]["params"]:
            weight.grad.neg_()
        return super().step(closure)


class Forgetful(torch.optim.SGD):
    """Counts steps where no state dict sees it."""

    def __init__(self, parameters: Any, *, rate: Positive = 0.01) -> None:
        super().__init__(parameters, lr=rate)
        self.count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        self.param_groups[0]["lr"] = 0.01 / self.count
        return super().step(closure)


def below_zero(optimizer: Any, epochs: int, steps_per_epoch: int) -> Any:
    """Falls below 0."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 - epoch)


def no_scheduler(optimizer: Any, epochs: int, steps_per_epoch: int) -> Any:
    """Something else."""
    return 0.1


def thrice(in_channels: int, out_channels: int) -> nn.Module:
    """Three times the size."""
    return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=3)


def blind(module: nn.Module) -> None:
    """Fills no weight in place."""
    for parameter in module.parameters():
        parameter.data = torch.zeros(1)


def numpys(module: nn.Module) -> None:
    """Draws from numpy."""
    for parameter in module.parameters():
        parameter.data.copy_(torch.from_numpy(np.random.standard_normal(parameter.shape)))


def alike(module: nn.Module) -> None:
    """Fills with one value."""
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.1)


class Net(nn.Module):
    """Keeps something wrong, as `how` says."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        how: Literal["halved", "unused", "grows", "mixed", "pair always", "coarse first"],
    ) -> None:
        super().__init__()
        self.how, self.count = how, 0
        self.one = nn.Conv2d(in_channels, out_channels, 3, padding=1, stride=2 if how == "halved" else 1)
        self.other = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, image: Tensor) -> Any:
        scores: Tensor = self.one(image)
        if self.how == "pair always" or (self.how == "coarse first" and self.training):
            pair = (scores, nn.functional.avg_pool2d(self.other(image), 2))
            return pair if self.how == "pair always" else pair[::-1]
        if self.how not in ("unused", "halved"):
            scores = scores + self.other(image)
        if self.how == "grows":
            self.count += 1
            return scores * self.count
        return scores - scores.mean(0) if self.how == "mixed" else scores


class ImageFlip(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Flips the image alone."""

    def __init__(self, *, p: Fraction = 1.0) -> None:
        super().__init__(p=p)

    def apply(self, img: Any, **params: Any) -> Any:
        return np.ascontiguousarray(img[:, ::-1])


class Blend(albumentations.DualTransform):  # type: ignore[misc]
    """Blurs labels."""

    def __init__(self, *, p: Fraction = 1.0) -> None:
        super().__init__(p=p)

    def apply(self, img: Any, **params: Any) -> Any:
        return cv2.blur(img, (5, 5))


class Unseeded(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Draws from numpy's global generator."""

    def __init__(self, *, p: Fraction = 1.0) -> None:
        super().__init__(p=p)

    def apply(self, img: Any, **params: Any) -> Any:
        return np.minimum(img, 255 - int(np.random.randint(0, 60)))


def one_case(image: Any, **values: Any) -> Dataset:
    case = {"name": "a", "patient": "p", "masks": np.ones((1, 8, 8), bool), "spacing_mm": (1.0, 1.0), **values}
    return Dataset("one", ("blob",), (Case(image=image, **case),))


def many_channels(*, size: Count = 8) -> Dataset:
    """A colour image."""
    return one_case(np.zeros((size, size, 3), np.uint8))


def unseeded() -> Dataset:
    """Other pixels every time."""
    return one_case(np.random.default_rng().integers(0, 255, (8, 8), dtype=np.uint8))


def rereads() -> Dataset:
    """Opens a file twice."""
    for _ in range(2):
        data = Path("data.bin").read_bytes()
    return one_case(np.frombuffer(data, np.uint8).reshape(8, 8))


def unlisted() -> Dataset:
    """Does not say which file it reads."""

    def load() -> tuple[Any, Any]:
        image = np.frombuffer(Path("data.bin").read_bytes(), np.uint8).reshape(8, 8)
        return image, image[None] > 9

    return Dataset("unlisted", ("x",), (Case("a", "p", load=load),))


def raises(prediction: Any, truth: Any, spacing_mm: Any) -> float:
    """Overlap, without a thought for empty masks."""
    return int(((prediction >= 0.5) & truth).sum()) / int(truth.sum())


def not_a_number(prediction: Any, truth: Any, spacing_mm: Any) -> float:
    """Overlap where there is something."""
    return float(((prediction >= 0.5) & truth).sum() / truth.sum()) if truth.any() else float("nan")


def error_rate(prediction: Any, truth: Any, spacing_mm: Any) -> float:
    """Share of wrong pixels, 0 where the masks are empty."""
    return float(((prediction >= 0.5) != truth).mean())


def an_array(prediction: Any, truth: Any, spacing_mm: Any) -> Any:
    """One value a row."""
    return (prediction * truth).sum(0)


WRONG: list[tuple[str, Callable[..., Any], dict[str, Any], str]] = [
    ("regularizer", negative, {}, "a penalty must be 0 or more"),
    ("regularizer", detached, {}, "its value has no gradient"),
    ("regularizer", square_root, {}, "where all weights are 0: its gradient is not finite"),
    ("optimizer", Uphill, {}, "it does not go downhill"),
    ("optimizer", Forgetful, {}, "it does not resume from a saved state"),
    ("scheduler", below_zero, {}, "in step 9, it sets the learning rate to -0.1"),
    ("scheduler", no_scheduler, {}, "must return a torch LRScheduler"),
    ("upsampler", thrice, {}, "it gives (1, 4, 9, 12), not (1, 4, 6, 8)"),
    ("initializer", blind, {}, "Fill in place"),
    ("initializer", numpys, {}, "it draws from numpy's global random generator"),
    ("initializer", alike, {}, "it fills all weights of a Conv2d with one value"),
    ("model", Net, {"how": "halved"}, "it returns (2, 3, 32, 32); for 3 channels it must be (2, 3, 64, 64)"),
    ("model", Net, {"how": "unused"}, "no gradient reaches other.weight, other.bias"),
    ("model", Net, {"how": "grows"}, "two calls with one image differ"),
    ("model", Net, {"how": "mixed"}, "depend on the other images of the batch"),
    ("model", Net, {"how": "pair always"}, "in evaluation it returns a tuple of 2: return the finest scores alone"),
    ("model", Net, {"how": "coarse first"}, "it returns (2, 3, 32, 32); for 3 channels it must be (2, 3, 64, 64)"),
    ("transform", ImageFlip, {}, "image and masks no longer match"),
    ("transform", Blend, {}, "gave the masks labels that were not there"),
    ("transform", Unseeded, {}, "the same seed gives different results"),
    ("data", many_channels, {}, "its image has 8 inputs, its dataset 1"),
    ("data", unseeded, {}, "loaded twice, a differs"),
    ("data", rereads, {}, "1 file read more than once"),
    ("data", unlisted, {}, "data.bin, which is not in its `files`: name it there"),
    ("metric", raises, {}, "called with an empty prediction and an empty truth: ZeroDivisionError"),
    ("metric", not_a_number, {}, "it is NaN for a false positive"),
    ("metric", error_rate, {}, "register it with `lower_is_better=True`"),
    ("metric", an_array, {}, "must return a number, got ndarray"),
]


@pytest.mark.parametrize(
    ("slot", "factory", "parameters", "words"), WRONG, ids=[f"{w[0]}-{w[1].__name__}-{w[3][:20]}" for w in WRONG]
)
def test_a_wrong_component_is_found(
    slot: str, factory: Callable[..., Any], parameters: dict[str, Any], words: str, tmp_path: Path, monkeypatch: Any
) -> None:
    BY_SLOT[slot].register("bad")(factory)
    monkeypatch.chdir(tmp_path)
    Path("data.bin").write_bytes(bytes(range(64)))
    found = check(BY_SLOT[slot]["bad"], parameters)
    wrong = [finding for finding in found if finding.kind == "fault" and words in finding.text]
    assert wrong, [str(finding) for finding in found]
    assert wrong[0].place is not None
    assert wrong[0].place.startswith(str(Path(__file__)))


def largest_first(parameters: Any, *, rate: Positive = 0.01) -> Any:
    """SGD on tensors."""
    return torch.optim.SGD(sorted(parameters, key=lambda weight: -int(weight.numel())), lr=rate)


def test_an_optimizer_that_takes_no_parameter_groups_is_noted() -> None:
    BY_SLOT["optimizer"].register("bad")(largest_first)
    (found,) = check(BY_SLOT["optimizer"]["bad"])
    assert found.kind == "note"
    assert "cannot give it `groups` of parameters: AttributeError: 'dict' object has no attribute 'numel'" in found.text


def images_only(prediction: Any, truth: Any, spacing_mm: Any) -> float:
    """Share of the right pixels; defined for empty masks."""
    rows, columns = truth.shape
    return float(((prediction >= 0.5) == truth).sum() / (rows * columns))


def reversed_in_volumes(prediction: Any, truth: Any, spacing_mm: Any) -> float:
    """Share of the right pixels; defined for empty masks."""
    right = float(((prediction >= 0.5) == truth).mean())
    return right if truth.ndim == 2 else 1 - right


def area(prediction: Any, truth: Any, spacing_mm: Any) -> float:
    """Pixels of the prediction; defined for empty masks."""
    return float((prediction >= 0.5).sum())


def undefined_for_images(prediction: Any, truth: Any, spacing_mm: Any) -> float:
    """Share of the right voxels; defined for empty masks, undefined for images."""
    return float(((prediction >= 0.5) == truth).mean()) if truth.ndim == 3 else float("nan")


def found_of(factory: Callable[..., Any], **traits: Any) -> list[str]:
    """Return what is found of a metric."""
    segkit.metrics.register("mine", **traits)(factory)
    return [f"{finding.kind}: {finding}" for finding in check(segkit.metrics["mine"])]


def test_a_metric_for_images_alone_is_warned_of_at_its_line() -> None:
    (text,) = found_of(images_only)
    line = inspect.getsourcelines(images_only)[1] + 2
    assert text.startswith("warning: ")
    assert f"{Path(__file__).name}:{line}: it works on images only, so that volumes cannot be evaluated" in text


def test_a_metric_for_images_alone_is_named_where_a_volume_is_evaluated() -> None:
    segkit.metrics.register("mine")(images_only)
    volume = np.ones((3, 8, 8), bool)
    with pytest.raises(ComponentError, match=r"metric\.mine.*too many values to unpack"):
        checked_value(segkit.metrics.component("mine"), volume, volume, (8.0, 1.0, 1.0))


def test_a_metric_that_ranks_volumes_in_reverse_is_found() -> None:
    (text,) = found_of(reversed_in_volumes)
    assert text.startswith("fault: ")
    assert "a study would rank variants in reverse" in text


def test_a_metric_that_is_undefined_for_images_is_tried_on_volumes() -> None:
    assert found_of(undefined_for_images) == []
    segkit.metrics.register("reversed", lower_is_better=True)(undefined_for_images)
    assert any("rank variants in reverse" in str(finding) for finding in check(segkit.metrics["reversed"]))


def test_a_metric_that_describes_says_so() -> None:
    assert found_of(area, descriptive=True) == []
    segkit.metrics.register("better")(area)
    assert any("register it with `descriptive=True`" in str(finding) for finding in check(segkit.metrics["better"]))
    segkit.metrics.register("both", descriptive=True, best=0.0)(area)
    (contradiction,) = check(segkit.metrics["both"])
    assert "register it without `lower_is_better` and `best`" in str(contradiction)


def test_an_exception_names_the_line_that_raised() -> None:
    segkit.metrics.register("bad")(raises)
    (found,) = [finding for finding in check(segkit.metrics["bad"]) if "an empty truth: Zero" in finding.text]
    line = int((found.place or "").rpartition(":")[2])
    assert "int(truth.sum())" in Path(__file__).read_text().splitlines()[line - 1]


def test_reading_and_devices_are_watched_only_meanwhile() -> None:
    before = builtins.open, io.open, os.open, torch.cuda.is_available
    faults("data", "phantom", PARAMETERS["data", "phantom"])
    faults("loss", "dice")
    assert before == (builtins.open, io.open, os.open, torch.cuda.is_available)


def test_the_line_that_changes_something_is_found_in_helpers_too() -> None:
    values: list[int] = []

    def helper() -> None:
        values.append(1)

    def run() -> None:
        sum([1, 2])
        helper()
        sum([3, 4])

    line = helper.__code__.co_firstlineno + 1
    tracer = sys.gettrace()
    found = line_that_changes(ComponentCode(run), run, lambda: len(values))
    assert found is not None
    assert found.endswith(f"test_testing.py:{line}")
    assert sys.gettrace() is tracer
    assert line_that_changes(ComponentCode(run), lambda: None, lambda: len(values)) is None


def test_of_several_plugins_that_ran_each_may_have_seeded() -> None:
    for name in ("one", "two"):
        segkit.metrics.register(name)(lambda prediction, truth, spacing_mm: 1.0)
    with preserved():
        generators = GeneratorWatch()
        np.random.random()
        (text,) = generators.warnings(*(segkit.metrics.component(name) for name in ("dice", "one", "two")))
    assert text.startswith("metric.one (")
    assert "use a generator of its own; or it is metric.two (" in text
    assert GeneratorWatch().warnings(segkit.metrics.component("one")) == []


def test_what_a_docstring_states_is_a_note() -> None:
    found = check(segkit.losses["combined"], {"bce_reduction": "sum"})
    assert [finding.kind for finding in found] == ["note"]
    assert "it is a sum over the pixels of an image" in found[0].text


class Rounds(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Knows 8 bits only."""

    def __init__(self, *, p: Fraction = 1.0) -> None:
        super().__init__(p=p)

    def apply(self, img: Any, **params: Any) -> Any:
        return (img * 0.7).round().clip(0, 255).astype(img.dtype)


class Unpacks(Rounds):
    """Knows grey images only."""

    def apply(self, img: Any, **params: Any) -> Any:
        rows, columns = img.shape
        return np.minimum(img, np.full((rows, columns), 200, np.uint8))


def test_what_a_transform_does_not_take_is_a_note() -> None:
    for factory, text in (
        (Rounds, "it rounds images of float32, which are from 0 to 1, to whole numbers."),
        (Unpacks, "it does not take images of several inputs: too many values to unpack (expected 2)."),
    ):
        segkit.transforms.register(factory.__name__)(factory)
        (found,) = check(segkit.transforms[factory.__name__])
        assert (found.kind, found.text) == ("note", text)
        assert "test_testing.py:" in (found.place or "")


def test_a_missing_parameter_is_asked_for() -> None:
    found = check(segkit.datasets["rvsc"])
    assert [(finding.kind, finding.text) for finding in found] == [
        ("note", "not tried: needs root. Pass root: `assert_contract(entry, root=...)`.")
    ]
    with pytest.raises(AssertionError, match="not tried: needs root"):
        assert_contract(segkit.datasets["rvsc"])


def test_a_package_that_is_missing_is_no_fault_of_the_component() -> None:
    def needy(in_channels: int, out_channels: int) -> nn.Module:
        try:
            import no_such_package_of_mine
        except ImportError as error:
            raise segkit.UserError("needs no_such_package_of_mine. Install it.") from error
        return no_such_package_of_mine.Model()  # type: ignore[no-any-return]

    segkit.models.register("needy")(needy)
    (found,) = check(segkit.models["needy"])
    assert (found.kind, found.text) == ("note", "not tried: needs no_such_package_of_mine. Install it.")


def test_required_parameters_are_made_up_from_types_and_bounds() -> None:
    registry = Registry("loss", "losses", home=__name__, handed=("logits", "target"), called=True)

    def loss(
        logits: Any,
        target: Any,
        *,
        share: Fraction,
        scale: Positive,
        count: Count,
        kind: Literal["a", "b"],
        flag: bool,
        pair: tuple[float, int],
        many: list[Fraction] | None,
    ) -> Any:
        """Squares."""
        assert 0 <= share <= 1
        assert scale > 0
        assert (count, kind, flag, pair, many) == (1, "a", True, (0.5, 1), [0.5])
        return (logits.sigmoid() - target).square().mean()

    registry.register("mine")(loss)
    assert check(registry["mine"]) == []


def test_an_unknown_parameter_is_the_callers_mistake() -> None:
    with pytest.raises(segkit.UserError, match=r"loss\.dice\.epsilom: no such parameter"):
        check(segkit.losses["dice"], {"epsilom": 1.0})


def test_checking_moves_no_global_randomness() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    for slot, name in (("loss", "dice"), ("model", "unet"), ("initializer", "xavier_normal")):
        faults(slot, name, PARAMETERS.get((slot, name)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]


def test_the_small_dataset_of_these_tests_keeps_the_contract() -> None:
    assert check(segkit.datasets["discs"]) == []
    assert len(small.discs().cases) == 12


def test_a_finding_reads_as_a_line() -> None:
    assert str(Finding("note", "so it is.", "a.py:3")) == "a.py:3: so it is."
    assert str(Finding("note", "so it is.")) == "so it is."
