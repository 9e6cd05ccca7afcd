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
from segkit.training.global_state import preserved
from segkit.training.trial import Event
from tests.fresh_plugins import fresh as fresh
from tests.small import discs, kinds, train
from tests.wrong_plugins import BLOCKS

HEAD = """from __future__ import annotations

import random

import albumentations
import numpy as np
import torch
from torch import nn

import segkit
from segkit import datasets, initializers, losses, metrics, models, optimizers, postprocessors, regularizers
from segkit import schedulers, transforms, upsamplers
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
    "postprocess": "evaluation.postprocess=['bad']",
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
    "postprocess": "masks: Array, spacing_mm: object, names: tuple[str, ...]",
    "metric": "prediction: Array, truth: Array, spacing_mm: object",
}
PLURALS = {"loss": "losses", "data": "datasets", "postprocess": "postprocessors"}


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


CASES = """cases = []
for number in range(8):
    image = np.random.default_rng(number).integers(0, 255, (16, 16), dtype=np.uint8)
    masks = np.zeros((1, 16, 16), bool)
    masks[:, 4:10, 4:9] = True
    cases.append(Case(f"c{number}", f"p{number // 2}", image, masks, (1.0, 1.0)))
"""


def _read(block: str) -> tuple[str, Wrong]:
    name, slot, checked, run, body = block.strip("\n").split("\n", 4)
    words = [line.partition(": ")[2] for line in (checked, run)]
    return name, Wrong(slot, body, *(None if text == "-" else text for text in words))


WRONG = dict(_read(block) for block in BLOCKS.split("=== ")[1:])


@pytest.fixture(autouse=True)
def _alone(fresh: Path) -> Iterator[None]:
    if "discs" not in segkit.datasets:
        segkit.datasets.register("discs")(discs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with preserved():
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
    assert places & {f"mine.py:{line}" for line in wrong.lines()}, places


@pytest.mark.parametrize("what", [what for what, wrong in WRONG.items() if wrong.run is not None])
def test_run_names_a_wrong_plugin(what: str, tmp_path: Path) -> None:
    is_named(WRONG[what], tmp_path)


def is_named(wrong: Wrong, folder: Path, device: str = "cpu") -> None:
    """Train with a wrong plugin on a device; its error has to say where it is, and how to check it."""
    events = trained(folder, wrong.source(), USED[wrong.slot], f"train.device={device}")
    assert kinds(events)[-1] == "failed", events[-1]
    text = events[-1].text
    assert (wrong.run or "") in text
    assert re.search(rf"(?:{wrong.slot}\.|transform )bad \(mine\.py:([0-9]+)\): ", text), text
    assert any(f"(mine.py:{line})" in text for line in wrong.lines()), text
    assert "`segkit check mine.py`" in text
    assert "Traceback" not in text
    assert "\n" not in text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("what", [what for what, wrong in WRONG.items() if "finite" in (wrong.run or "")])
def test_run_names_it_also_where_losses_are_read_some_steps_later(what: str, tmp_path: Path) -> None:
    is_named(WRONG[what], tmp_path, "cuda")


@pytest.mark.parametrize("what", [what for what in WRONG if " seeds" in what and not what.startswith("data")])
def test_run_warns_of_a_plugin_that_seeds(what: str, tmp_path: Path) -> None:
    wrong = WRONG[what]
    events = trained(tmp_path, wrong.source(), USED[wrong.slot])
    assert kinds(events)[-1] == "finished", events[-1]
    texts = [event.text for event in events if event.kind == "warning" and " global random generator" in event.text]
    assert len(texts) == 1
    assert f"{wrong.slot}.bad (mine.py:{FIRST}): it seeds " in texts[0]


def test_run_warns_of_an_optimizer_that_leaves_weights_out(tmp_path: Path) -> None:
    source = Wrong("optimizer", "return torch.optim.SGD(list(parameters)[:1], lr=0.1)", None, None).source()
    events = trained(tmp_path, source, USED["optimizer"])
    text = next(event.text for event in events if event.kind == "warning")
    assert re.search(r"optimizer\.bad \(mine\.py:\d+\): it leaves out \d+ of \d+ parameters, which are not tr", text)


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
    "a lazy model": (
        "model",
        "return nn.Sequential(nn.LazyConv2d(4, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.LazyConv2d("
        "out_channels, 1))",
        "",
    ),
    "a lazy upsampler": (
        "upsampler",
        "return nn.Sequential(nn.LazyConv2d(out_channels, 1), nn.Upsample(scale_factor=2))",
        "",
    ),
    "a scheduler that ends below zero": (
        "scheduler",
        "return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 - epoch / (epochs - 0.5))",
        "",
    ),
    "a warmup from zero": (
        "scheduler",
        "return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: epoch / 3)",
        "",
    ),
    "an optimizer that goes through its parameters twice": (
        "optimizer",
        "matrices = [weight for weight in parameters if weight.ndim > 1]\n"
        "vectors = [weight for weight in parameters if weight.ndim <= 1]\n"
        "return torch.optim.SGD([{'params': matrices, 'weight_decay': 1e-4}, {'params': vectors}], lr=0.01)",
        "",
    ),
    "an optimizer that gathers": (
        "optimizer",
        "class Odd(torch.optim.SGD):\n"
        "    @torch.no_grad()\n"
        "    def step(self, closure=None):\n"
        "        for weight in self.param_groups[0]['params']:\n"
        "            if weight.grad is not None:\n"
        "                kept = self.state[weight]\n"
        "                kept['count'] = kept.get('count', 0) + 1\n"
        "                kept['sum'] = kept.get('sum', torch.zeros_like(weight)) + weight.grad\n"
        "                if kept['count'] % 4 == 0:\n"
        "                    weight.sub_(0.1 * kept['sum'] / 4)\n"
        "                    kept['sum'] = torch.zeros_like(weight)\n"
        "return Odd(parameters, lr=0.1)",
        "",
    ),
    "a penalty of layers that are not there": (
        "regularizer",
        "chosen = [weight for name, weight in named_parameters if 'attention' in name]\n"
        "nothing = torch.zeros((), device=named_parameters[0][1].device)\n"
        "return sum((weight.square().sum() for weight in chosen), nothing)",
        "",
    ),
    "a hinge": (
        "regularizer",
        "return torch.relu(sum(weight.square().sum() for _, weight in named_parameters) - 1e4)",
        "",
    ),
    "a model that hides nothing": (
        "model",
        "from torch.utils.checkpoint import checkpoint\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.one = nn.utils.parametrizations.weight_norm(nn.Conv2d(in_channels, 4, 3, padding=1))\n"
        "        self.two = nn.ModuleDict({'a': nn.Conv2d(4, 4, 1), 'b': nn.Conv2d(4, out_channels, 1)})\n"
        "        self.scale = nn.ParameterList([nn.Parameter(torch.ones(()))])\n"
        "        self.register_buffer('shift', torch.ones(()))\n"
        "    def forward(self, image):\n"
        "        found = checkpoint(lambda x: self.two['a'](x).relu(), self.one(image), use_reentrant=False)\n"
        "        return self.scale[0] * self.two['b'](self.two['a'](found)) + self.shift\n"
        "return Net()",
        "",
    ),
    "an upsampler of a fixed kernel": (
        "upsampler",
        "class Up(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.mix = nn.Conv2d(in_channels, out_channels, 1)\n"
        "        self.fixed = nn.Parameter(torch.ones(out_channels, 1, 2, 2), requires_grad=False)\n"
        "    def forward(self, x):\n"
        "        mixed = self.mix(x)\n"
        "        return nn.functional.conv_transpose2d(mixed, self.fixed, stride=2, groups=mixed.shape[1])\n"
        "return Up()",
        "",
    ),
    "a crop of noise": (
        "transform",
        "noise = albumentations.GaussNoise(std_range=(0.3, 0.4), p=1)\n"
        "return albumentations.Compose([albumentations.RandomCrop(12, 12), noise])",
        "",
    ),
    "a metric of a bool": ("metric", "return bool(prediction.any() == truth.any())", ""),
    "a metric of a fraction": (
        "metric",
        "from fractions import Fraction as F\n"
        "return F(2 * int((prediction & truth).sum()), max(int(prediction.sum() + truth.sum()), 1))",
        "",
    ),
    "an upsampler of two steps": (
        "upsampler",
        "return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels),"
        " nn.Upsample(scale_factor=2))",
        "",
    ),
    "a data set of lists": ("data", CASES + 'return Dataset("bad", ["blob"], cases)', ""),
}


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("what", RIGHT)
def test_an_unusual_plugin_is_right(what: str, tmp_path: Path) -> None:
    slot, body, traits = RIGHT[what]
    source = Wrong(slot, body, None, None).source().replace('register("bad")', f'register("bad"{traits})')
    events = trained(tmp_path, source.replace("Is wrong.", "Undefined where the quotient is."), USED[slot])
    assert kinds(events)[-1] == "finished", events[-1].text
    report = check_plugin(Path("mine.py"))
    assert [str(finding) for finding in report.findings if finding.kind == "fault"] == []


WHOLE = """
import functools


@losses.register("bad")
class Bad(nn.Module):
    \"\"\"Squared error, of a buffer, and a parameter that is not trained.\"\"\"

    def __init__(self, *, scale: Positive = 1.0) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.own = nn.Parameter(torch.ones(()))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.own * self.scale * (logits.sigmoid() - target).square().mean()


def overlap(prediction: Array, truth: Array, spacing_mm: object, *, eps: Positive = 1e-3) -> float:
    \"\"\"Dice; defined as 1 where both are empty.\"\"\"
    return float((2 * (prediction & truth).sum() + eps) / (prediction.sum() + truth.sum() + eps))


class Accuracy:
    \"\"\"Of pixels; defined of empty masks.\"\"\"

    def __call__(self, prediction: Array, truth: Array, spacing_mm: object, *, bonus: Fraction = 0.0) -> float:
        return float((prediction == truth).mean()) + bonus


metrics.register("bad")(functools.partial(overlap, eps=1e-6))
metrics.register("accuracy")(Accuracy())


@regularizers.register("bad")
class Box:
    \"\"\"Pulls what is above a limit back to it.\"\"\"

    proximal = True

    def __init__(self, *, limit: Positive = 1.0) -> None:
        self.limit = limit

    def __call__(self, named_parameters: object) -> Tensor:
        return sum(torch.relu(weight.detach().abs() - self.limit).sum() for _, weight in named_parameters)

    @torch.no_grad()
    def step(self, named_parameters: object, size: float) -> None:
        for _, weight in named_parameters:
            weight.sub_(weight.sign() * torch.relu(weight.abs() - self.limit).clamp(max=size))


@optimizers.register("bad")
def biases(parameters: object) -> object:
    \"\"\"SGD of biases and norms; the other weights stay frozen.\"\"\"
    return torch.optim.SGD([weight for weight in parameters if weight.ndim == 1], lr=0.1)
"""


def test_classes_partials_and_objects_are_right(tmp_path: Path) -> None:
    metric = "metrics={ bad = {}, accuracy = { bonus = 0.5 }, dice = {} }"
    events = trained(tmp_path, HEAD + WHOLE, USED["loss"], USED["regularizer"], USED["optimizer"], metric)
    assert kinds(events)[-1] == "finished", events[-1].text
    texts = [event.text for event in events if event.kind == "warning"]
    assert any("its own parameters are not trained, only the model's: own stay" in text for text in texts), texts
    report = check_plugin(Path("mine.py"))
    assert [str(finding) for finding in report.findings if finding.kind == "fault"] == []


def test_a_wrong_partial_is_named_with_its_line(tmp_path: Path) -> None:
    source = HEAD + WHOLE.replace("    return float((2", "    raise LookupError('gone')\n    return float((2")
    line = source.splitlines().index("    raise LookupError('gone')") + 1
    events = trained(tmp_path, source, USED["metric"])
    assert events[-1].text.startswith(
        f"metric.bad (mine.py:{line}): LookupError: gone. To try it by itself: `segkit ch"
    )
    assert f"mine.py:{line}" in {finding.place for finding in check_plugin(Path("mine.py")).findings}


def test_a_step_after_the_optimizer_s_that_ruins_weights_is_named(tmp_path: Path) -> None:
    source = HEAD + WHOLE.replace("weight.sub_(weight.sign()", "weight.div_(0 * weight.sign()")
    events = trained(tmp_path, source, USED["regularizer"])
    assert kinds(events)[-1] == "failed"
    assert "regularizer.bad (mine.py:" in events[-1].text
    assert "its step made weights that are not finite from finite gradients (step 1, " in events[-1].text
    faults = [finding.text for finding in check_plugin(Path("mine.py")).findings if finding.kind == "fault"]
    assert "its step makes weights that are not finite." in faults


def test_a_rate_of_0_to_the_end_is_warned_of(tmp_path: Path) -> None:
    body = "return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.0)"
    events = trained(tmp_path, Wrong("scheduler", body, None, None).source(), USED["scheduler"])
    texts = [event.text for event in events if event.kind == "warning"]
    assert "the learning rate was 0 in every step, so nothing was learned: see scheduler." in texts


def test_weights_that_no_gradient_reaches_are_warned_of(tmp_path: Path) -> None:
    body = (
        "class Up(nn.Upsample):\n    def forward(self, x):\n"
        "        return super().forward(x[:, :out_channels]).detach()\n"
        "return Up(scale_factor=2)"
    )
    events = trained(tmp_path, Wrong("upsampler", body, None, None).source(), USED["upsampler"])
    text = next(event.text for event in events if event.kind == "warning" and "no gradient" in event.text)
    assert re.match(r"upsampler\.bad \(mine\.py:\d+\): on the first batch, no gradient reaches down\.1\.0\.w", text)


NEEDY = (
    HEAD
    + '''
@datasets.register("needy")
def needy(*, root: Path, count: Count = 1) -> Dataset:
    """Reads a folder of one array."""
    image = np.load(root / "image.npy")
    cases = [Case(f"c{n}", f"p{n}", image.copy(), image[None] > 9, (1.0, 1.0)) for n in range(count)]
    return Dataset("needy", ("blob",), tuple(cases))


@losses.register("scaled")
def scaled(logits: Tensor, target: Tensor, *, scale: Positive) -> Tensor:
    """A squared error."""
    return (logits.sigmoid() - target).square().mean() * scale
'''
)


def test_check_is_given_what_a_component_needs(tmp_path: Path) -> None:
    source = NEEDY.replace("import random\n", "import random\nfrom pathlib import Path\n")
    np.save(tmp_path / "image.npy", np.arange(64, dtype=np.uint8).reshape(8, 8))
    (found,) = checked(tmp_path, source).findings
    assert found.text == "not tried: needs root. Pass root: `segkit check mine.py --set root=...`."
    for flags in ([f"root={tmp_path}"], [f"needy.root={tmp_path}", "needy.count=2"], [f"data.needy.root={tmp_path}"]):
        assert check_plugin(Path("mine.py"), flags).findings == []
    with pytest.raises(
        segkit.UserError, match=r"--set roof=x: no component has this parameter in mine\.py \(needy: root"
    ):
        check_plugin(Path("mine.py"), ["roof=x"])
    with pytest.raises(segkit.UserError, match=r"loss\.scaled\.scale: must be above 0"):
        check_plugin(Path("mine.py"), ["scaled.scale=-1"])
    assert list(check_plugin(Path("mine.py"), ["scale=2.5"]).checked) == [
        "data.needy", "loss.scaled",
    ]  # fmt: skip


def test_a_setting_changed_by_an_import_is_a_fault(tmp_path: Path) -> None:
    report = checked(tmp_path, HEAD + "torch.set_default_dtype(torch.float64)\n")
    expected = "importing it changes a global setting (torch.set_default_dtype) for everything that follows."
    assert expected in [finding.text for finding in report.findings if finding.kind == "fault"]


def test_a_wrong_plugin_that_is_installed_or_in_a_notebook_is_tried_from_python(tmp_path: Path) -> None:
    @segkit.losses.register("of_a_notebook")
    def of_a_notebook(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise LookupError("nothing here")

    events = train(tmp_path / "run", *SMALL, "loss={ of_a_notebook = {} }")
    assert 'itself: `segkit.testing.check(segkit.losses["of_a_notebook"])`' in events[-1].text


def test_a_batch_that_is_not_finite_is_saved_for_a_plugin_s_loss_too(tmp_path: Path) -> None:
    events = trained(tmp_path, WRONG["loss NaN"].source(), USED["loss"])
    assert "loss.bad is not finite at epoch 1, step 1 (loss.bad = nan). loss.bad (mine.py:" in events[-1].text
    assert "learning rate" not in events[-1].text
    assert (tmp_path / "run/only/seed-1/nonfinite.safetensors").is_file()
    assert "The batch is in " in events[-1].text
