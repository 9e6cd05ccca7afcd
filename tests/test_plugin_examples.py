"""The example plugins: each loads, does what its docstring says, and can be used by a recipe."""

from __future__ import annotations

import math
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import segkit
from segkit import plugins
from segkit.errors import UserError
from segkit.testing import assert_contract, check
from segkit.training.levels import log_odds
from tests import small
from tests.fresh_plugins import EXAMPLES, fresh

__all__ = ["fresh"]

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def examples(fresh: Path) -> None:
    """Load the examples, and nothing else."""
    assert plugins.load([EXAMPLES], entry_points=False) == []


def test_every_file_registers_something_under_its_own_slot() -> None:
    found = {Path(plugin.origin).name: plugin.components for plugin in plugins.loaded()}
    assert found == {
        "group_lasso.py": ("regularizer.group_lasso",),
        "log_cosh_dice.py": ("loss.log_cosh_dice",),
        "mean_teacher.py": ("step.mean_teacher",),
        "monai_parts.py": ("model.monai", "loss.monai", "loss.monai_softmax"),
        "smp_models.py": ("model.smp", "loss.smp", "loss.smp_softmax"),
        "sunnybrook.py": ("data.sunnybrook",),
        "volume_similarity.py": ("metric.volume_similarity",),
    }


def test_loading_imports_no_torch_or_numpy() -> None:
    script = (
        "import sys; from segkit import plugins; assert not plugins.load(entry_points=False); "
        "print({'torch', 'cv2', 'numpy', 'pydicom'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "slot, name",
    [
        ("losses", "log_cosh_dice"),
        ("regularizers", "group_lasso"),
        ("metrics", "volume_similarity"),
        ("steps", "mean_teacher"),
    ],
)
def test_keeps_its_contract(slot: str, name: str) -> None:
    assert_contract(getattr(segkit, slot)[name])


def test_log_cosh_dice_is_the_formula_case_by_case() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    target = (torch.rand(2, 3, 5, 4, generator=generator) < 0.4).double()
    values = []
    for case in range(2):
        for channel in range(3):
            p, t = 1 / (1 + np.exp(-logits[case, channel].numpy())), target[case, channel].numpy()
            values.append(math.log(math.cosh(1 - (2 * (p * t).sum() + 2) / (p.sum() + t.sum() + 2))))
    found = segkit.losses.build("log_cosh_dice", {"epsilon": 2.0})(logits, target)
    assert found.item() == pytest.approx(np.mean(values), rel=1e-12)
    assert segkit.losses.build("log_cosh_dice")(torch.full((1, 1, 4, 4), -40.0), torch.zeros(1, 1, 4, 4)) == 0


def test_group_lasso_sums_the_norms_of_filters_and_skips_biases() -> None:
    conv = nn.Conv2d(2, 3, 3)
    expected = sum(float(np.sqrt((row.double().numpy() ** 2).sum())) for row in conv.weight.detach())
    value = segkit.regularizers.build("group_lasso")(conv.named_parameters())
    assert value.item() == pytest.approx(expected, rel=1e-6)
    value.backward()
    assert conv.bias is not None
    assert conv.bias.grad is None
    assert segkit.regularizers.build("group_lasso")(iter([])) == 0


def test_group_lasso_has_a_gradient_at_zero() -> None:
    weight = nn.Parameter(torch.zeros(2, 3))
    segkit.regularizers.build("group_lasso")([("w", weight)]).backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.zeros(2, 3))


def test_proximal_group_lasso_shrinks_norms_and_zeroes_weak_filters() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]))
    bias = nn.Parameter(torch.ones(3))
    built = segkit.regularizers.build("group_lasso", {"proximal": True})
    assert not built([("w", weight)]).requires_grad
    built.step([("w", weight), ("b", bias)], 1.0)
    torch.testing.assert_close(weight.detach(), torch.tensor([[2.4, 3.2], [0, 0], [0, 0]]))
    assert torch.equal(bias.detach(), torch.ones(3))


@pytest.mark.parametrize(
    "predicted, true, expected",
    [(4, 4, 1.0), (2, 4, 1 - 2 / 6), (0, 4, 0.0), (4, 0, 0.0), (0, 0, math.nan)],
    ids=["same area", "half", "missed", "false positive", "both empty"],
)
def test_volume_similarity_compares_areas(predicted: int, true: int, expected: float) -> None:
    mask, truth = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    mask.flat[:predicted] = True
    truth.flat[16 - true :] = True
    found = segkit.metrics.build("volume_similarity")(mask, truth, None)
    assert found == pytest.approx(expected, nan_ok=True)


def test_loss_regularizer_and_metric_train_together(tmp_path: Path) -> None:
    sets = [
        "loss.log_cosh_dice={}",
        "regularizer.group_lasso.weight=1e-3",
        "metrics.volume_similarity={}",
        "train.epochs=1",
    ]
    events = small.train(tmp_path / "run", *sets)
    assert small.kinds(events)[-1] == "finished"
    header, row = (tmp_path / "run/only/seed-1/metrics.csv").read_text().splitlines()
    values = dict(zip(header.split(","), row.split(","), strict=True))
    assert 0 < float(values["loss.log_cosh_dice"]) < 0.434
    assert float(values["regularizer.group_lasso"]) > 0
    assert 0 <= float(values["val_volume_similarity"]) <= 1


def test_the_recipe_of_the_plugin_is_a_study_of_two_losses() -> None:
    from segkit.recipe.merge import compose
    from segkit.recipe.model import check_variants, validate

    document = compose(ROOT / "recipes/plugin_loss.toml")
    variants = check_variants(validate(document), document)
    assert [(label, [loss.name for loss in recipe.loss]) for label, recipe in variants] == [
        ("dice", ["dice"]),
        ("log-cosh dice", ["log_cosh_dice"]),
    ]


# segmentation-models-pytorch


class _Strict(nn.Module):
    """Stands for a model of the package: refuses sizes that its stride does not divide, and small ones."""

    def __init__(self, classes: int, stride: int, least: int = 64) -> None:
        super().__init__()
        self.head, self.least, self.seen = nn.Conv2d(1, classes, 1), least, list[tuple[int, ...]]()
        self.encoder = types.SimpleNamespace(output_stride=stride)

    def forward(self, image: Tensor) -> Tensor:
        assert all(side % self.encoder.output_stride == 0 and side >= self.least for side in image.shape[2:])
        self.seen.append(tuple(image.shape[2:]))
        found: Tensor = self.head(image)
        return found


def _package(monkeypatch: pytest.MonkeyPatch, create_model: Callable[..., Any] | None) -> None:
    package: Any = None
    if create_model is not None:
        package = types.ModuleType("segmentation_models_pytorch")
        package.create_model = create_model
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", package)


def test_smp_says_how_to_install_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    _package(monkeypatch, None)
    with pytest.raises(UserError, match="pip install segmentation-models-pytorch"):
        segkit.models.build("smp", {}, 1, 2)


def test_smp_that_is_there_but_broken_is_not_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> types.ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist")

    _package(monkeypatch, None)
    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(UserError, match=r"is installed, but cannot be imported \(operator torchvision::nms"):
        segkit.models.build("smp", {}, 1, 2)


def test_smp_passes_the_recipe_on_and_takes_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def create_model(arch: str, **values: Any) -> nn.Module:
        given.update(values, arch=arch)
        return _Strict(values["classes"], 16)

    _package(monkeypatch, create_model)
    model = segkit.models.build("smp", {"architecture": "fpn", "encoder": "resnet18"}, 1, 3)
    assert given == {
        "arch": "fpn", "encoder_name": "resnet18", "encoder_weights": None, "in_channels": 1, "classes": 3,
    }  # fmt: skip
    for size in ((128, 144), (130, 200), (17, 1)):
        image = torch.randn(2, 1, *size)
        torch.testing.assert_close(model(image), model.inner.head(image))


def test_smp_pads_no_more_than_an_architecture_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is padded in training is never learned, so that a crop of 96 is given as it is."""

    def create_model(arch: str, **values: Any) -> nn.Module:
        return _Strict(values["classes"], 32, least=128 if arch == "pan" else 64)

    _package(monkeypatch, create_model)
    for architecture, seen in (("unet", (96, 96)), ("pan", (128, 128))):
        model = segkit.models.build("smp", {"architecture": architecture}, 1, 1)
        model(torch.randn(2, 1, 96, 96))
        model(torch.randn(2, 1, 40, 60))
        assert model.inner.seen == [seen, (64, 64) if architecture == "unet" else seen]


@pytest.mark.parametrize("error", [KeyError("Wrong encoder name `nosuch`"), ValueError("no such combination")])
def test_smp_passes_the_packages_complaint_on(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def create_model(arch: str, **values: Any) -> nn.Module:
        raise error

    _package(monkeypatch, create_model)
    with pytest.raises(UserError, match=f"^model.smp: unet with encoder 'nosuch', weights None: {error.args[0]}$"):
        segkit.models.build("smp", {"encoder": "nosuch"}, 1, 2)


def test_smp_knows_its_architectures() -> None:
    with pytest.raises(UserError, match=r"model\.smp\.architecture"):
        segkit.models.build("smp", {"architecture": "unett"}, 1, 2)


def test_smp_says_how_to_install_the_package_for_its_losses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _package(monkeypatch, None)
    with pytest.raises(UserError, match="pip install segmentation-models-pytorch"):
        segkit.losses.component("smp", {"loss": "DiceLoss"})
    (found,) = check(segkit.losses["smp"])
    assert found.text.startswith("not tried: needs loss.")


@pytest.mark.slow
def test_losses_of_smp_are_those_of_segkit() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    logits, target = _example(3)
    build = segkit.losses.build
    for name, parameters, ours in (
        ("JaccardLoss", {}, build("jaccard", {"epsilon": 1e-6, "reduction": "batch"})),
        ("TverskyLoss", {"alpha": 0.3, "beta": 0.7}, build("tversky", {"epsilon": 1e-6, "reduction": "batch"})),
        ("SoftBCEWithLogitsLoss", {}, build("bce")),
    ):
        found = build("smp", {"loss": {name: parameters}})(logits, target)
        torch.testing.assert_close(found, ours(logits, target), rtol=1e-4, atol=1e-5)
    odds, classes = _exclusive(logits)
    found = build("smp_softmax", {"loss": "SoftCrossEntropyLoss"})(odds, classes)
    torch.testing.assert_close(found, build("cross_entropy")(odds, classes), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"loss\.smp\.loss\.TverskyLoss\.alfa: no such parameter"):
        build("smp", {"loss": {"TverskyLoss": {"alfa": 0.3}}})


@pytest.mark.slow
@pytest.mark.parametrize("slot, names", [("smp", "SIGMOID"), ("smp_softmax", "SOFTMAX")])
def test_each_loss_of_smp_keeps_its_contract(slot: str, names: str) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    for name in getattr(_plugin("smp_models"), names):
        assert_contract(segkit.losses[slot], loss={name: {}})


@pytest.mark.slow
def test_a_model_of_smp_keeps_its_contract() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    assert_contract(segkit.models["smp"], encoder="resnet18")


# MONAI


def _plugin(name: str) -> Any:
    return next(module for key, module in sys.modules.items() if key.endswith(f".{name}"))


def _example(channels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, channels, 16, 12, generator=generator)
    return logits, (torch.rand(logits.shape, generator=generator) < 0.4).float()


def _exclusive(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-odds of scores, and some one-hot classes."""
    classes = scores.roll(1, dims=2).argmax(1)
    return log_odds(scores), nn.functional.one_hot(classes, scores.shape[1]).movedim(-1, 1).float()


class _Stacked(nn.Module):
    """Stands for MONAI's DynUNet: with deep supervision it stacks its scores in training."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, strides: Sequence[int]) -> None:
        super().__init__()
        assert (spatial_dims, strides) == (2, (1, 2))
        self.heads = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in range(2))

    def forward(self, image: Tensor) -> Tensor:
        assert all(side % 32 == 0 for side in image.shape[2:])
        found = [head(image) for head in self.heads]
        return torch.stack(found, dim=1) if self.training else found[0]


def test_monai_hands_over_stacked_scores_as_a_tuple_and_takes_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("monai", "monai.networks", "monai.networks.nets"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["monai.networks.nets"], "DynUNet", _Stacked, raising=False)
    component = segkit.models.component("monai", {"network": {"DynUNet": {"strides": [1, 2]}}})
    model, image = component(1, 2), torch.randn(2, 1, 70, 33)
    finest, coarser = model(image)
    torch.testing.assert_close(finest, model.inner.heads[0](image))
    torch.testing.assert_close(coarser, model.inner.heads[1](image))
    torch.testing.assert_close(model.eval()(image), model.inner.heads[0](image))
    with pytest.raises(UserError, match=r"model\.monai\.network\.UNet: no such monai_network.*DynUNet"):
        segkit.models.component("monai", {"network": "UNet"})


@pytest.mark.parametrize("slot, part", [("models", "network"), ("losses", "loss")])
def test_monai_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, slot: str, part: str) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(UserError, match="pip install monai"):
        getattr(segkit, slot).component("monai", {part: "any"})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the library's own imports
@pytest.mark.parametrize(
    "network",
    [
        {"AttentionUnet": {"channels": [4, 8], "strides": [2]}},
        {"BasicUNet": {"features": [4, 4, 8, 8, 16, 4]}},
        {"DynUNet": {"kernel_size": [3, 3, 3, 3], "strides": [1, 2, 2, 2], "upsample_kernel_size": [2, 2, 2],
                     "filters": [4, 8, 8, 8], "deep_supervision": True, "deep_supr_num": 2}},
        {"SegResNet": {}},
        {"SwinUNETR": {"feature_size": 12}},
        {"UNet": {"channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 2}},
    ],
    ids=lambda network: str(*network),
)  # fmt: skip
def test_each_network_of_monai_keeps_its_contract(network: dict[str, Any]) -> None:
    pytest.importorskip("monai")
    if "SwinUNETR" in network:
        pytest.importorskip("einops")
    assert_contract(segkit.models["monai"], network=network)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("slot", ["monai", "monai_softmax"])
def test_each_loss_of_monai_keeps_its_contract(slot: str) -> None:
    pytest.importorskip("monai")
    for name in _plugin("monai_parts").LOSSES:
        if (slot, name) != ("monai", "DiceCELoss"):
            assert_contract(segkit.losses[slot], loss={name: {}})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_losses_of_monai_are_those_of_segkit() -> None:
    pytest.importorskip("monai")
    logits, target = _example(3)
    odds, classes = _exclusive(logits)
    build, small_e = segkit.losses.build, {"epsilon": 1e-6}
    dice, cross_entropy = build("dice", small_e), build("cross_entropy")
    for slot, name, inputs, expected in (
        ("monai", "DiceLoss", (logits, target), dice(logits, target)),
        ("monai", "GeneralizedDiceLoss", (logits, target), build("generalized_dice", small_e)(logits, target)),
        ("monai_softmax", "GeneralizedDiceLoss", (odds, classes), build("generalized_dice", small_e)(odds, classes)),
        ("monai_softmax", "DiceCELoss", (odds, classes), dice(odds, classes) + cross_entropy(odds, classes)),
        ("monai", "DiceCELoss", (logits[:, :1], target[:, :1]),
         dice(logits[:, :1], target[:, :1]) + build("bce")(logits[:, :1], target[:, :1])),
    ):  # fmt: skip
        torch.testing.assert_close(build(slot, {"loss": name})(*inputs), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"use loss\.monai_softmax with exclusive channels"):
        build("monai", {"loss": "DiceCELoss"})(logits, target)
