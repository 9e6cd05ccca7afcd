"""Wrong plugins of every slot, and unusual right ones: `check` and `run` name the former with file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import segkit
from segkit import plugins
from segkit.testing.plugin import PluginReport, check_plugin
from segkit.testing.surroundings import unmoved
from segkit.training.events import Event
from tests.fresh_plugins import fresh as fresh
from tests.small import discs, kinds, train

HEAD = """from __future__ import annotations

import random

import albumentations
import numpy as np
import torch
from torch import nn

import segkit
from segkit import datasets, initializers, losses, metrics, models, optimizers, regularizers, schedulers, transforms
from segkit import upsamplers
from segkit.datasets import Case, Dataset
from segkit.types import Array, Count, Fraction, Positive, Tensor

"""
FIRST = HEAD.count("\n") + 1  # the line of the decorator
SMALL = (
    "data={ discs = { patients = 3, size = 24 } }", "transforms={ train = [], eval = [] }", "model.unet.widths=[2, 4]",
    "train.epochs=1", "train.batch_size=2",
)  # fmt: skip
USED = {
    "loss": "loss={ bad = {} }",
    "regularizer": "regularizer={ bad = {} }",
    "model": "model={ bad = {} }",
    "upsampler": "model.unet.upsampler=bad",
    "initializer": "model.unet.initializer=bad",
    "optimizer": "optimizer={ bad = {} }",
    "scheduler": "scheduler={ bad = {} }",
    "transform": "transforms.train=['bad']",
    "data": "data={ bad = {} }",
    "metric": "metrics={ bad = {}, dice = {} }",
}
HANDED = {
    "loss": "logits: Tensor, target: Tensor",
    "regularizer": "named_parameters: object",
    "model": "in_channels: int, out_channels: int",
    "upsampler": "in_channels: int, out_channels: int",
    "initializer": "module: nn.Module",
    "optimizer": "parameters: object",
    "scheduler": "optimizer: object, epochs: int, steps_per_epoch: int",
    "transform": "",
    "data": "",
    "metric": "prediction: Array, truth: Array, spacing_mm: object",
}
PLURALS = {"loss": "losses", "data": "datasets"}


@dataclass(frozen=True)
class Wrong:
    """A wrong plugin.

    Attributes:
        slot: its slot.
        body: the function's body; `@` begins the line that is to be named, else it is the definition.
        checked: words of `check`'s fault, None where `check` cannot know.
        run: words of the failed trial's message, None where the trial is none the worse.
        doc: its docstring.
    """

    slot: str
    body: str
    checked: str | None
    run: str | None

    def source(self) -> str:
        plural = PLURALS.get(self.slot, f"{self.slot}s")
        head = f'{HEAD}@{plural}.register("bad")\ndef bad({HANDED[self.slot]}) -> object:\n    """Is wrong."""\n'
        return head + "".join(f"    {line.removeprefix('@')}\n" for line in self.body.splitlines())

    def lines(self) -> set[int]:
        """Return the lines that may be named."""
        marked = {FIRST + 3 + n for n, line in enumerate(self.body.splitlines()) if line.startswith("@")}
        return marked or ({FIRST, FIRST + 3, FIRST + 4} if self.slot == "transform" else {FIRST})


MSE = "return (logits.sigmoid() - target).square().mean()"
NET = """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(in_channels, out_channels, 1)
    def forward(self, image):
        {}
return Net()"""
CASES = """cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    {}
{}"""
DATASET = 'return Dataset("bad", ("blob",), tuple(cases))'
CASE = 'cases.append(Case(f"c{number}", f"p{number // 2}", image, masks, (1.0, 1.0)))'
SGD = "made = torch.optim.SGD(parameters, lr=0.01)\n"
IMAGE_ONLY = """class Odd(albumentations.ImageOnlyTransform):
    def apply(self, img, **params):
        {}
return Odd(p=1)"""

WRONG: dict[str, Wrong] = {
    # losses
    "loss per case": Wrong("loss", "return (logits.sigmoid() - target).square().mean((1, 2, 3))", "no scalar", "no scalar"),
    "loss float": Wrong("loss", "return float((logits.sigmoid() - target).square().mean())", "it gives a float, no tensor", "it gives a float, no tensor"),
    "loss list": Wrong("loss", "return [(logits.sigmoid() - target).square().mean()]", "it gives a list, no tensor", "it gives a list, no tensor"),
    "loss None": Wrong("loss", "value = (logits.sigmoid() - target).square().mean()", "it gives None, no tensor: is a `return` missing?", "it gives None, no tensor: is a `return` missing?"),
    "loss detached": Wrong("loss", "p = logits.sigmoid()\n@q = p.detach()\nreturn (q - target).square().mean()", "no gradient", "its value has no gradient"),
    "loss in place on logits": Wrong("loss", "@p = logits.sigmoid_()\nreturn (p - target).square().mean()", "it writes to its logits", "it writes to its logits"),
    "loss in place on target": Wrong("loss", "p = logits.sigmoid()\n@target.mul_(0.9)\nreturn (p - target).square().mean()", "it writes to its target", "it writes to its target"),
    "loss assigns to target": Wrong("loss", "p = logits.sigmoid()\n@target[...] = 0\nreturn (p - target).square().mean()", "it writes to its target", "it writes to its target"),
    "loss writes behind autograd": Wrong("loss", "target.numpy()[:] = 0\n" + MSE, "it writes to its target", "it writes to its target"),
    "loss NaN": Wrong("loss", "p = logits.sigmoid()\n@odd = (p - 2).log()\nreturn odd.mean() + (p - target).square().mean()", "it gives nan", "it gives nan by itself: the model's scores are finite"),
    "loss raises": Wrong("loss", '@raise IndexError("no such thing")', "IndexError: no such thing", "IndexError: no such thing"),
    "loss RuntimeError of torch": Wrong("loss", "@return torch.cat([logits, target[:, :, :3]], 1).mean()", "Sizes of tensors must match", "two tensors that are joined differ in height or width"),
    "loss asserts": Wrong("loss", "@assert logits.shape[0] == 99\n" + MSE, "AssertionError: assert logits.shape[0] == 99", "AssertionError: assert logits.shape[0] == 99"),
    "loss exits": Wrong("loss", "@raise SystemExit(0)", "it calls sys.exit(0)", "it calls sys.exit(0)"),
    "loss seeds torch": Wrong("loss", "@torch.manual_seed(0)\n" + MSE, "it seeds torch's global random generator", None),
    "loss seeds numpy": Wrong("loss", "@np.random.seed(0)\n" + MSE, "it seeds numpy's global random generator", None),
    "loss seeds Python": Wrong("loss", "@random.seed(3)\n" + MSE, "it seeds Python's global random generator", None),
    "loss switches gradients off": Wrong("loss", "value = (logits.sigmoid() - target).square().mean()\n@torch.set_grad_enabled(False)\nreturn value", "changes a global setting (torch.set_grad_enabled)", None),
    "loss changes the default type": Wrong("loss", "@torch.set_default_dtype(torch.float64)\n" + MSE, "changes a global setting (torch.set_default_dtype)", None),
    # regularizers
    "regularizer None": Wrong("regularizer", "total = sum(p.square().sum() for _, p in named_parameters)", "it gives None", "it gives None"),
    "regularizer float": Wrong("regularizer", "return float(sum(p.square().sum() for _, p in named_parameters))", "it gives a float, no", "it gives a float, no tensor"),
    "regularizer changes weights": Wrong("regularizer", "for _, p in named_parameters:\n    p.data.mul_(0.5)\nreturn sum(p.square().sum() for _, p in named_parameters)", "it changes the weights", "it changes the weights when called"),
    "regularizer NaN": Wrong("regularizer", "return sum(p.square().sum() for _, p in named_parameters) * float('nan')", "it gives nan", "it gives nan by itself"),
    "regularizer raises": Wrong("regularizer", "@return named_parameters.missing", "AttributeError", "AttributeError"),
    # models
    "model None": Wrong("model", "made = nn.Conv2d(in_channels, out_channels, 1)", "it gives None, no torch.nn.Module", "it gives None, no torch.nn.Module"),
    "model channels": Wrong("model", "return nn.Conv2d(in_channels, out_channels + 1, 1)", "that should be", "that should be"),
    "model size": Wrong("model", "return nn.Conv2d(in_channels, out_channels, 3)", "that should be", "that should be"),
    "model dict": Wrong("model", NET.format("return {'out': self.one(image)}"), "a dict, no tensor", "it gives a dict, no tensor of scores"),
    "model raises": Wrong("model", NET.format("raise KeyError('missing')").replace("        raise", "@        raise"), "KeyError: 'missing'", "KeyError: 'missing'"),
    "model NaN": Wrong("model", NET.format("return self.one(image) * float('nan')"), "scores are not finite", "the model's scores are not finite before any step"),
    "model detached": Wrong("model", NET.format("return self.one(image).detach()"), "does not require grad", "its scores have no gradient"),
    "model rounds": Wrong("model", NET.format("return self.one(image).long()"), None, "its scores are torch.int64"),
    "model joins sizes": Wrong("model", NET.format("return torch.cat([self.one(image), self.one(image[..., 2:])], 1)").replace("        return torch", "@        return torch"), "Sizes of tensors must match", "Sizes of tensors must match"),
    "model without parameters": Wrong("model", "return nn.AdaptiveAvgPool2d(None)" if False else "class Net(nn.Module):\n    def forward(self, image):\n        return image.repeat(1, out_channels, 1, 1)\nreturn Net()", "grad", "it has no parameter to train"),
    "model seeds": Wrong("model", "@torch.manual_seed(1)\nreturn nn.Conv2d(in_channels, out_channels, 1)", "it seeds torch's global", None),
    # upsamplers and initializers
    "upsampler triples": Wrong("upsampler", "return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=3)", "twice the height and width", "twice the height and width"),
    "upsampler list": Wrong("upsampler", "return [nn.Conv2d(in_channels, out_channels, 1)]", "it gives a list, no torch.nn.Module", "it gives a list, no torch.nn.Module"),
    "upsampler raises": Wrong("upsampler", "@return nn.Conv2d(in_channels, 0 // 0, 1)", "ZeroDivisionError", "ZeroDivisionError"),
    "initializer raises": Wrong("initializer", "@module.weight.fill_(1)", "AttributeError", "AttributeError"),
    "initializer NaN": Wrong("initializer", "for p in module.parameters():\n    nn.init.constant_(p, float('nan'))", "not finite", "the model's scores are not finite before any step"),
    "initializer replaces": Wrong("initializer", "for p in module.parameters():\n    p.data = torch.randn(1)", "Fill in place", "model.unet with initializer.bad"),
    # optimizers and schedulers
    "optimizer None": Wrong("optimizer", SGD, "it gives None, no torch.optim.Optimizer: is a `return` missing?", "it gives None, no torch.optim.Optimizer: is a `return` missing?"),
    "optimizer function": Wrong("optimizer", "return torch.optim.SGD", "no torch.optim.Optimizer", "no torch.optim.Optimizer"),
    "optimizer refuses": Wrong("optimizer", "@return torch.optim.SGD(parameters, lr=-1.0)", "Invalid learning rate", "Invalid learning rate"),
    "optimizer step raises": Wrong("optimizer", "class Odd(torch.optim.SGD):\n    def step(self, closure=None):\n@        return self.missing\nreturn Odd(parameters, lr=0.1)", "AttributeError", "AttributeError"),
    "optimizer closure": Wrong("optimizer", "class Odd(torch.optim.SGD):\n    def step(self, closure):\n        return closure()\nreturn Odd(parameters, lr=0.1)", "closure", "its step needs a closure"),
    "optimizer seeds": Wrong("optimizer", "@torch.manual_seed(0)\n" + SGD + "return made", "it seeds torch's global", None),
    "scheduler None": Wrong("scheduler", "made = torch.optim.lr_scheduler.StepLR(optimizer, 3)", "None: is a `return` missing?", "None: is a `return` missing?"),
    "scheduler unit": Wrong("scheduler", "return torch.optim.lr_scheduler.StepLR(optimizer, 3), 'batch'", "'epoch' or 'step'", "'epoch' or 'step'"),
    "scheduler step raises": Wrong("scheduler", "class Odd(torch.optim.lr_scheduler.LRScheduler):\n    def get_lr(self):\n        if self.last_epoch > 0:\n@            raise ValueError('lost')\n        return self.base_lrs\nreturn Odd(optimizer)", "lost", "lost"),
    "scheduler by step raises": Wrong("scheduler", "class Odd(torch.optim.lr_scheduler.LRScheduler):\n    def get_lr(self):\n        if self.last_epoch > 0:\n@            raise ValueError('lost')\n        return self.base_lrs\nreturn Odd(optimizer), 'step'", "lost", "lost"),
    # transforms
    "transform None": Wrong("transform", "made = albumentations.NoOp(p=1)", "it gives None, no Albumentations transform", "it gives None, no Albumentations transform"),
    "transform float": Wrong("transform", IMAGE_ONLY.format("return img.astype(np.float32)"), "not become float32", "not become float32"),
    "transform size": Wrong("transform", IMAGE_ONLY.format("return img[::2]"), "of one size", "of one size"),
    "transform raises": Wrong("transform", IMAGE_ONLY.format("raise LookupError('gone')").replace("        raise", "@        raise"), "gone", "gone"),
    "transform list": Wrong("transform", IMAGE_ONLY.format("return img.tolist()"), "", ""),
    "transform random": Wrong("transform", IMAGE_ONLY.format("return img + np.uint8(np.random.randint(9))"), "one key gives several results", None),
    # data
    "data list": Wrong("data", CASES.format(CASE, "return cases"), "it gives a list, no segkit.datasets.Dataset", "it gives a list, no segkit.datasets.Dataset"),
    "data None": Wrong("data", CASES.format(CASE, DATASET.removeprefix("return ")), "it gives None", "it gives None"),
    "data masks not bool": Wrong("data", CASES.format(CASE.replace("masks,", "masks.astype(np.uint8),"), "@" + DATASET), "they should be bool", "they should be bool"),
    "data masks of other size": Wrong("data", CASES.format(CASE.replace("masks,", "masks[:, 1:],"), "@" + DATASET), "they should be bool (1, 16, 16)", "they should be bool (1, 16, 16)"),
    "data NaN": Wrong("data", CASES.format(CASE.replace("image,", "np.full((16, 16), np.nan, np.float32),"), "@" + DATASET), "not finite", "not finite"),
    "data twice the same": Wrong("data", CASES.format(CASE.replace('f"c{number}"', '"c"'), "@" + DATASET), "are called 'c'", "are called 'c'"),
    "data lists": Wrong("data", CASES.format(CASE.replace("image,", "image.tolist(),"), "@" + DATASET), "its image is a list", "its image is a list"),
    "data tuples": Wrong("data", CASES.format("cases.append((image, masks))", "@" + DATASET), "a case is a tuple", "a case is a tuple"),
    "data spacing": Wrong("data", CASES.format(CASE.replace("(1.0, 1.0)", "1.0"), "@" + DATASET), "pixel spacing is 1.0", "pixel spacing is 1.0"),
    "data raises": Wrong("data", '@raise FileNotFoundError("here/images")', "FileNotFoundError: here/images", "FileNotFoundError: here/images"),
    "data seeds": Wrong("data", "@np.random.seed(0)\n" + CASES.format(CASE, DATASET), "it seeds numpy's", None),
    # metrics
    "metric None": Wrong("metric", "value = float((prediction & truth).sum())", "it gives None, no number", "it gives no number, but None: is a `return` missing?"),
    "metric array": Wrong("metric", "return (prediction & truth).sum(0)", "it gives a ndarray, no number", "a ndarray of shape (24,)"),
    "metric tensor of several": Wrong("metric", "return torch.ones(3)", "it gives a Tensor", "a Tensor of shape (3,)"),
    "metric raises": Wrong("metric", "@return [][0]", "IndexError", "IndexError"),
    "metric writes to its truth": Wrong("metric", "@truth[:] = False\nreturn float((prediction & truth).sum())", "it writes to its inputs", "it writes to its truth"),
    "metric writes to its prediction": Wrong("metric", "@prediction |= True\nreturn float((prediction & truth).sum())", "it writes to its inputs", "it writes to its prediction"),
    "metric of probabilities": Wrong("metric", "@return float(np.square(prediction - truth).mean())", 'register it with `uses="probability"`', 'register it with `uses="probability"`'),
    "metric of probabilities in torch": Wrong("metric", "@return float((torch.from_numpy(prediction) - torch.from_numpy(truth)).square().mean())", 'register it with `uses="probability"`', 'register it with `uses="probability"`'),
    "metric worse for the truth": Wrong("metric", "return float((prediction != truth).mean())", "register it with `lower_is_better=True`", None),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(fresh: Path) -> Iterator[None]:
    if "discs" not in segkit.datasets:
        segkit.datasets.register("discs")(discs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with unmoved():
        yield
    torch.set_num_threads(threads)


def checked(folder: Path, source: str, *sets: str) -> PluginReport:
    (folder / "mine.py").write_text(source, encoding="utf-8")
    return check_plugin(Path("mine.py"), sets)


def trained(folder: Path, source: str, *sets: str) -> list[Event]:
    (folder / "mine.py").write_text(source, encoding="utf-8")
    plugins.load([folder], entry_points=False)
    assert plugins.failures() == []
    return train(folder / "run", *SMALL, *sets)


@pytest.mark.parametrize("what", [what for what, wrong in WRONG.items() if wrong.checked is not None])
def test_check_names_a_wrong_plugin(what: str, tmp_path: Path) -> None:
    wrong = WRONG[what]
    report = checked(tmp_path, wrong.source())
    found = [
        finding for finding in report.findings if finding.kind == "fault" and (wrong.checked or "") in finding.text
    ]
    assert found, [str(finding) for finding in report.findings]
    places = {finding.place for finding in found}
    assert places & {f"mine.py:{line}" for line in (*wrong.lines(), FIRST)}, places


@pytest.mark.parametrize("what", [what for what, wrong in WRONG.items() if wrong.run is not None])
def test_run_names_a_wrong_plugin(what: str, tmp_path: Path) -> None:
    wrong = WRONG[what]
    events = trained(tmp_path, wrong.source(), USED[wrong.slot])
    assert kinds(events)[-1] == "failed", events[-1]
    text = events[-1].text
    assert (wrong.run or "") in text
    assert re.search(rf"(?:{wrong.slot}\.|transform )bad \(mine\.py:([0-9]+)\): ", text), text
    assert any(f"(mine.py:{line})" in text for line in wrong.lines()), text
    assert "`segkit check mine.py`" in text
    assert "Traceback" not in text
    assert "\n" not in text


# Right, if unusual: slot, what stands above the function, the function's body, what it is registered with.
METRIC_COUNTS = """p, t = np.asarray(prediction) >= 0.5, truth
tp, fp, fn, tn = int((p & t).sum()), int((p & ~t).sum()), int((~p & t).sum()), int((~p & ~t).sum())
"""
RIGHT: dict[str, tuple[str, str, str]] = {
    "specificity": ("metric", METRIC_COUNTS + "return tn / (tn + fp) if tn + fp else float('nan')", ""),
    "negative predictive value": ("metric", METRIC_COUNTS + "return tn / (tn + fn) if tn + fn else float('nan')", ""),
    "accuracy": ("metric", "return float((prediction == truth).mean())", ""),
    "error rate": ("metric", "return float((prediction != truth).mean())", ", lower_is_better=True, best=0.0"),
    "volume difference": (
        "metric",
        "return float(abs(int(prediction.sum()) - int(truth.sum())))",
        ", lower_is_better=True, best=0.0",
    ),
    "Brier score": (
        "metric",
        "return float(np.square(prediction - truth).mean())",
        ', uses="probability", lower_is_better=True, best=0.0',
    ),
    "cross-entropy in torch": (
        "metric",
        "p = torch.from_numpy(prediction).double().clamp(1e-6, 1 - 1e-6)\n"
        "return nn.functional.binary_cross_entropy(p, torch.from_numpy(truth).double())",
        ', uses="probability", lower_is_better=True',
    ),
    "kappa": (
        "metric",
        METRIC_COUNTS
        + "n = tp + fp + fn + tn\n"
        + "chance = ((tp + fp) * (tp + fn) + (tn + fn) * (tn + fp)) / n**2\n"
        + "return ((tp + tn) / n - chance) / (1 - chance) if chance < 1 else float('nan')",
        "",
    ),
    "Matthews' correlation": (
        "metric",
        METRIC_COUNTS
        + "whole = float(tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)\n"
        + "return (tp * tn - fp * fn) / whole**0.5 if whole else 0.0",
        "",
    ),
    "number of components": (
        "metric",
        "from scipy import ndimage\nreturn abs(ndimage.label(prediction)[1] - ndimage.label(truth)[1])",
        ", lower_is_better=True, best=0.0",
    ),
    "boundary IoU": (
        "metric",
        "from scipy import ndimage\n"
        "if not prediction.any() and not truth.any():\n    return float('nan')\n"
        "p, t = (mask & ~ndimage.binary_erosion(mask, iterations=2) for mask in (prediction, truth))\n"
        "return float((p & t).sum() / max((p | t).sum(), 1))",
        "",
    ),
    "Hausdorff in a box": (
        "metric",
        "from scipy.spatial.distance import directed_hausdorff\n"
        "if not prediction.any() or not truth.any():\n"
        "    return float('nan') if prediction.any() == truth.any() else float(np.hypot(*truth.shape))\n"
        "p, t = (np.argwhere(mask) * np.array(spacing_mm or (1.0, 1.0)) for mask in (prediction, truth))\n"
        "return max(directed_hausdorff(p, t)[0], directed_hausdorff(t, p)[0])",
        ", lower_is_better=True, best=0.0",
    ),
    "a threshold of its own": ("metric", METRIC_COUNTS + "return 2 * tp / max(2 * tp + fp + fn, 1)", ""),
    "a loss of torch's": ("loss", "return nn.functional.binary_cross_entropy_with_logits(logits, target)", ""),
    "a loss that works on a copy": (
        "loss",
        "p = logits.clone().sigmoid_()\nt = target.clone()\nt[t > 2] = 2\nreturn (p - t).square().mean()",
        "",
    ),
    "a loss in float64": ("loss", "return (logits.double().sigmoid() - target).square().mean()", ""),
    "a loss with a generator of its own": (
        "loss",
        "generator = torch.Generator(logits.device).manual_seed(0)\n"
        "chosen = torch.rand(logits.shape[2:], generator=generator, device=logits.device) > -1\n"
        "return (chosen * (logits.sigmoid() - target).square()).mean()",
        "",
    ),
    "an optimizer of noise": (
        "optimizer",
        "class Odd(torch.optim.SGD):\n"
        "    @torch.no_grad()\n"
        "    def step(self, closure=None):\n"
        "        super().step()\n"
        "        for group in self.param_groups:\n"
        "            for weight in group['params']:\n"
        "                weight.add_(1e-6 * torch.randn_like(weight))\n"
        "return Odd(parameters, lr=0.01)",
        "",
    ),
    "a scheduler by step": (
        "scheduler",
        "return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)), 'step'",
        "",
    ),
    "a model with frozen weights": (
        "model",
        "made = nn.Sequential(nn.Conv2d(in_channels, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, out_channels, 1))\n"
        "made[0].requires_grad_(False)\nreturn made",
        "",
    ),
    "an upsampler of two steps": (
        "upsampler",
        "return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels),"
        " nn.Upsample(scale_factor=2))",
        "",
    ),
    "a data set of lists": ("data", CASES.format(CASE, 'return Dataset("bad", ["blob"], cases)'), ""),
}


@pytest.mark.parametrize("what", RIGHT)
def test_an_unusual_plugin_is_right(what: str, tmp_path: Path) -> None:
    slot, body, traits = RIGHT[what]
    source = Wrong(slot, body, None, None).source().replace('register("bad")', f'register("bad"{traits})')
    events = trained(tmp_path, source.replace("Is wrong.", "Undefined where the quotient is."), USED[slot])
    assert kinds(events)[-1] == "finished", events[-1].text
    report = check_plugin(Path("mine.py"))
    assert [str(finding) for finding in report.findings if finding.kind == "fault"] == []
