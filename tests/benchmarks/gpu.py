"""How fast segkit trains on a GPU, and what of an epoch is not training: `python -m tests.benchmarks.gpu`.

The first study's U-Net on 194 phantom images of 216 x 256, batches of 32 crops of 192 x 192, and the same network a
quarter as wide; without a GPU a small network on 24 small images. It prints, in one table:

- images a second, eager and compiled, with batches that lie on the device already ("synthetic"), with samples that live
  on the device and are transformed there ("resident"), and with batches that workers make ("workers");
- what of the multiplications and additions a second of a large matrix product in the same precision that is;
- the same in a plain PyTorch loop, and in those of Lightning and MONAI, where these are installed;
- the seconds of a whole trial, with validation, metrics and six saves of its state, the share of its epochs that is not
  training, and memory.

Under ten minutes on an H200; `--seconds` says how long each rate is measured.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import itertools
import logging
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import segkit
from segkit.data.cache import DataCache
from segkit.device import hardware_name
from segkit.recipe.model import Recipe
from segkit.registry.faults import described
from segkit.study.hardware import resolve_auto
from segkit.training.loop import train
from segkit.training.results import History
from segkit.training.run import run_trial
from segkit.training.setup import Setup, set_up
from segkit.training.status import Status
from segkit.training.trial import Limit, Trial
from segkit.types import Batch
from tests.benchmarks import versions_of

ROOT = Path(__file__).parents[2]
PACKAGES = ("segkit", "torch", "lightning", "monai")
SAVES = 6  # of the state of a whole trial
WARM_UP = 3  # steps, after an epoch, whose last batch is smaller and may be compiled by itself


@dataclass(frozen=True)
class Scale:
    """What is trained: the first study's setting on a GPU, a small one on a CPU."""

    device: str
    settings: list[str]
    widths: dict[str, list[int]]
    epochs: int
    product: int

    @classmethod
    def here(cls) -> Scale:
        """Return that of this machine."""
        if torch.cuda.is_available():
            data = "data.phantom={patients=25, slices=242}"  # 194 of them are trained on
            return cls("cuda", [data], {"": [64, 128, 256, 512], ", a quarter": [16, 32, 64, 128]}, 300, 8192)
        data = "data.phantom={patients=8, slices=30, height=64, width=64}"
        crop = "transforms.train.RandomCrop={height=48, width=48}"
        sets = [data, crop, "train.batch_size=4", "train.threads=1"]
        return cls("cpu", sets, {"": [8, 16, 32], ", a quarter": [2, 4, 8]}, 20, 1024)

    def recipe(self, widths: list[int], *sets: str) -> Recipe:
        """Return the baseline with its settings and further ones, nothing left open."""
        given = [*self.settings, f"model.unet.widths={widths}", f"train.device={self.device}", *sets]
        found = Recipe.load(ROOT / "recipes/baseline.toml", sets=given)
        return found.model_copy(update={"train": resolve_auto(found.train, 1)})


class Synthetic:
    """Batches that lie on the device already: the first ones of a feed, again and again."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches, self.steps_per_epoch = batches, 10**9

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield them without end."""
        return itertools.cycle(self.batches)


class Endless:
    """Images and targets of batches, again and again; no list, whose items Lightning takes for loaders."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return itertools.cycle((batch.image, batch.target) for batch in self.batches)


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rate(steps: Iterator[int], seconds: float, epoch: int = 0) -> float:
    """Return the images a second of steps that yield their number of images; the first epoch is not timed."""
    for _ in range(WARM_UP + epoch):
        next(steps)
    synchronize()
    begun, images = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        images += next(steps)
    synchronize()  # the host was ahead
    return images / (time.perf_counter() - begun)


def segkits(parts: Setup, feed: Any) -> Iterator[int]:
    """Train with segkit's loop; yield the images of each step."""
    before = 0
    for report in train(parts.state, feed, parts.device, epochs=10**9, forward=parts.forward):
        yield report.seen - before if report.seen > before else report.seen
        before = 0 if report.complete else report.seen


def plain(model: nn.Module, batches: list[Batch], precision: str) -> Iterator[int]:
    """Train with a loop as one writes it."""
    loss, device = segkit.losses.build("dice_mix"), batches[0].image.device
    fused = device.type == "cuda"
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)
    for image, target, _ in itertools.cycle(batches):
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            scores = model(image)
        loss(scores.float(), target).backward()
        optimizer.step()
        yield len(image)


def lightnings(model: nn.Module, batches: list[Batch], precision: str, seconds: float) -> float:
    """Return the images a second of Lightning's Trainer."""
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    loss = segkit.losses.build("dice_mix")

    class Module(lightning.LightningModule):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.begun, self.images = model, 0.0, 0

        def training_step(self, batch: Any, number: int) -> Tensor:
            if number == WARM_UP:
                synchronize()
                self.begun, self.images = time.perf_counter(), 0
            self.images += len(batch[0])
            if number > WARM_UP and time.perf_counter() - self.begun > seconds:
                self.trainer.should_stop = True
            value: Tensor = loss(self.model(batch[0]).float(), batch[1])
            return value

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(model.parameters(), lr=1e-3, fused=batches[0].image.is_cuda)

    module = Module()
    parts = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet: dict[str, Any] = dict.fromkeys(parts, False)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="gpu" if batches[0].image.is_cuda else "cpu",
        devices=1,
        precision="bf16-mixed" if precision == "bf16" else "32-true",
        **quiet,
    )
    trainer.fit(module, Endless(batches))
    synchronize()
    return module.images / (time.perf_counter() - module.begun)


def monais(model: nn.Module, batches: list[Batch], precision: str) -> Iterator[int]:
    """Train with the loop of MONAI's tutorials, and its DiceLoss."""
    from monai.losses import DiceLoss

    loss, device = DiceLoss(sigmoid=True), batches[0].image.device
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for image, target, _ in itertools.cycle(batches):
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            value = loss(model(image), target)
        value.backward()
        optimizer.step()
        yield len(image)


def operations(model: nn.Module, image: Tensor) -> float:
    """Return the multiplications and additions of an image, forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        model(image[:1]).sum().backward()
    model.zero_grad()
    return float(counter.get_total_flops())


def product_rate(side: int, device: str, precision: str) -> float:
    """Return the multiplications and additions a second of a product of two square matrices."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    one, other = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    times = []
    for _ in range(10):
        synchronize()
        begun = time.perf_counter()
        one @ other
        synchronize()
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / statistics.median(times[3:])


def rates(scale: Scale, seconds: float) -> Iterator[tuple[str, str]]:
    """Yield a row for each rate."""
    for name, widths in scale.widths.items():
        workers = [] if scale.device == "cuda" else ["train.workers=2"]  # of which a CPU has none by itself
        kinds: dict[str, list[str]] = {"resident": ["train.resident=true"], "workers": workers}
        for compiled in ("false", "true"):
            peak = fastest = 0.0
            for kind in ("synthetic", *kinds):
                sets = kinds.get(kind, kinds["resident"])
                parts = set_up(scale.recipe(widths, f"train.compile={compiled}", *sets), Limit(), DataCache())
                try:
                    peak = peak or product_rate(scale.product, scale.device, parts.device.precision)
                    batches = list(itertools.islice(parts.feed.epoch(1), 2))
                    work = operations(copy.deepcopy(parts.state.model), batches[0].image)
                    feed: Any = Synthetic(batches) if kind == "synthetic" else parts.feed
                    found = rate(segkits(parts, feed), seconds, parts.feed.steps_per_epoch)
                finally:
                    parts.feed.batches.close()
                how = "compiled" if compiled == "true" else "eager"
                if kind == "synthetic":
                    fastest, share = found, f"{found * work / peak:.0%} of a matrix product"
                else:
                    share = f"{found / fastest:.2f} of synthetic"
                yield f"segkit{name}, {how}, {kind}", f"{found:,.0f} images/s, {share}"
                if kind == "synthetic" and compiled == "false" and not name:
                    yield from others(parts, batches, seconds)
                torch.compiler.reset()


def others(parts: Setup, batches: list[Batch], seconds: float) -> Iterator[tuple[str, str]]:
    """Yield the rows of other loops with the same network and batches."""
    precision = parts.device.precision

    def model() -> nn.Module:
        return copy.deepcopy(parts.state.model).train()

    loops: dict[str, tuple[str, Callable[[], float]]] = {
        "plain PyTorch": ("torch", lambda: rate(plain(model(), batches, precision), seconds)),
        "Lightning": ("lightning", lambda: lightnings(model(), batches, precision, seconds)),
        "MONAI": ("monai", lambda: rate(monais(model(), batches, precision), seconds)),
    }
    for name, (package, measure) in loops.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = f"{measure():,.0f} images/s" if importlib.util.find_spec(package) else "not installed"
            except Exception as error:  # a fault of another tool leaves the rows of segkit alone
                found = f"failed: {described(error)}"
        yield f"{name}, eager, synthetic", found


def whole_trial(scale: Scale) -> Iterator[tuple[str, str]]:
    """Yield the rows of a trial as `segkit run` trains it."""
    every = scale.epochs // SAVES
    sets = [f"train.epochs={scale.epochs}", f"train.save_every={{ epochs = {every}, seconds = 1e6 }}"]
    recipe = scale.recipe(scale.widths[""], "train.resident=true", *sets)
    with tempfile.TemporaryDirectory(prefix="segkit-gpu-") as folder:
        trial = Trial("benchmark", recipe.train.seed, None, recipe, Path("benchmark/seed-1"), Path(folder))
        begun = time.perf_counter()
        *_, end = run_trial(trial, stop=lambda: False)
        seconds = time.perf_counter() - begun
        assert end.kind == "finished", end.text
        history, split = History.read(trial.path / "metrics.csv"), Status.read(trial.path).split
    images = len((split or {})["train"])
    training = sum(images / found for found in history.column("images_per_second"))
    epochs = sum(history.column("seconds"))
    how = f"{seconds:.1f} s, of which {epochs:.1f} s epochs; saved every {every}"
    yield f"{scale.epochs} epochs of a trial, eager", how
    yield "of an epoch, not training", f"{1 - training / epochs:.0%}"
    if torch.cuda.is_available():
        yield "memory of the device", f"{torch.cuda.max_memory_reserved() / 2**30:.1f} GiB"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each rate")
    options = parser.parse_args()
    if not options.seconds > 0:
        parser.error("--seconds must be positive.")
    scale = Scale.here()
    torch.set_num_threads(1)
    where = f"{hardware_name(torch.device(scale.device))}; Python {platform.python_version()}, {versions_of(PACKAGES)}"
    print(f"{where}\n\n| what | figure |\n| --- | --- |", flush=True)
    for name, figure in itertools.chain(rates(scale, options.seconds), whole_trial(scale)):
        print(f"| {name} | {figure} |", flush=True)


if __name__ == "__main__":
    main()
