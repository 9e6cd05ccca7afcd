"""A trial becomes the parts of its training: data, batches, model, optimizer, schedule, evaluator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from segkit import plugins
from segkit.components.datasets.case import Dataset
from segkit.components.metrics import metrics
from segkit.components.models import checked
from segkit.components.schedulers import Schedule
from segkit.data.batches import Batches
from segkit.data.cache import DataCache
from segkit.data.pipeline import Pipeline
from segkit.data.samples import Samples, to_device_float
from segkit.data.splits import Split, split_cases
from segkit.device import Device, choose, use_deterministic_algorithms
from segkit.errors import UserError, counted
from segkit.evaluation.evaluator import Evaluator, Normalization
from segkit.recipe.model import Recipe
from segkit.registry.component import Component
from segkit.registry.faults import fault
from segkit.training.global_state import GeneratorWatch
from segkit.training.loop import State
from segkit.training.objective import Objective
from segkit.training.trial import Limit
from segkit.training.warnings import blind_loss, large_batch

ALWAYS = "dice"  # computed each epoch, whatever the recipe's metrics


@dataclass
class Setup:
    """The parts of one training, ready to run.

    Attributes:
        evaluator: of the validation cases.
        tested: of the test cases, None without a test set.
    """

    state: State
    feed: Feed
    device: Device
    evaluator: Evaluator
    tested: Evaluator | None
    epoch_metrics: Sequence[Component]
    forward: Callable[[Tensor], Tensor]
    dataset: Dataset
    split: Split
    fingerprint: str
    log: list[str]
    warnings: list[str]


class Feed:
    """The loop's batches: normalised images and one-hot targets, made on the device."""

    def __init__(
        self, batches: Batches, normalization: Normalization, channels: int, exclusive: bool, limit: int | None
    ) -> None:
        self.batches, self.normalization = batches, normalization
        self.channels, self.exclusive = channels, exclusive
        self.steps_per_epoch = min(batches.steps_per_epoch, limit or batches.steps_per_epoch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (image (N, 1, H, W), target (N, C, H, W)) of an epoch, beginning with batch `start`."""
        norm = self.normalization
        for number, (images, masks) in enumerate(self.batches.epoch(epoch, start), start):
            yield to_device_float(images, masks, norm.mean, norm.std, self.channels, self.exclusive)
            if number + 1 == self.steps_per_epoch:
                return


def build_model(recipe: Recipe, channels: int) -> nn.Module:
    """Return the recipe's model: one output a structure, and one for background where classes are exclusive."""
    model: nn.Module = recipe.model(1, channels + (recipe.channels == "exclusive"))
    return model


def read_and_split(recipe: Recipe, data: DataCache) -> tuple[Dataset, str, Split]:
    """Return the data of a trial's recipe, their fingerprint and their split.

    Raises:
        UserError: data or split are not available as the recipe asks.
    """
    dataset, fingerprint = data.read(recipe.data)
    for case in dataset.cases if recipe.channels == "exclusive" else ():
        if case.masks.shape[0] > 1 and int(case.masks.sum(axis=0).max()) > 1:
            text = 'its channels overlap, but the recipe says channels = "exclusive". Use "independent".'
            raise UserError(f"{case.name}: {text}")
    return dataset, fingerprint, split_cases(_known(dataset), **recipe.split.model_dump(exclude={"file"}))


@dataclass(frozen=True)
class _Known:
    """A case as a split sees it."""

    name: str
    patient: str | None
    labelled: bool
    present: Sequence[int]
    digest: str


@dataclass(frozen=True)
class _KnownData:
    name: str
    channels: Sequence[str]
    cases: Sequence[_Known]


def _known(dataset: Dataset) -> _KnownData:
    """Return what a split looks at."""
    cases = []
    for case in dataset.cases:
        image, masks = case.read()
        present = [] if masks is None else [number for number, mask in enumerate(masks) if mask.any()]
        content = repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()
        digest = "" if image.min() == image.max() else hashlib.blake2b(content, digest_size=16).hexdigest()
        cases.append(_Known(case.name, case.patient, masks is not None, present, digest))
    return _KnownData(dataset.name, dataset.channels, cases)


def set_up(recipe: Recipe, limit: Limit, data: DataCache) -> Setup:
    """Build everything a training needs from a recipe without "auto", in the order in which randomness is drawn.

    Raises:
        UserError: data, split, device or a component are not available as the recipe asks.
    """
    settings, exclusive = recipe.train, recipe.channels == "exclusive"
    dataset, fingerprint, whole = read_and_split(recipe, data)
    split, transforms = _limited(whole, recipe, limit)
    device = choose(settings.device, settings.precision)
    if settings.deterministic:
        use_deterministic_algorithms(device.device)
    channels = len(dataset.channels)
    torch.manual_seed(settings.seed)
    generators = GeneratorWatch()
    model = build_model(recipe, channels).to(device.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    drawn = generators.warnings(recipe.model)
    samples = Samples.of([dataset.cases[n] for n in split.train], Pipeline(transforms, exclusive=exclusive))
    batches = Batches(
        samples,
        batch_size=settings.batch_size,
        seed=settings.seed,
        workers=settings.workers,
        samples_per_epoch=len(split.full_train) if settings.budget == "steps" else None,
        device=device.device,
        plugins=plugins.folders(),
    )
    normalization = Normalization(*samples.mean_std())
    feed = Feed(batches, normalization, channels, exclusive, limit.batches)
    state, warnings = _state(recipe, model, feed.steps_per_epoch, device)
    validation, test = ([dataset.cases[n] for n in numbers] for numbers in (split.validation, split.test))
    large = None if limit.batches or limit.overfit else large_batch(recipe, len(split.train))
    doubtful = [text for text in (large, blind_loss(recipe)) if text]
    return Setup(
        state=state,
        feed=feed,
        device=device,
        evaluator=Evaluator(validation, dataset.channels, recipe, normalization, device),
        tested=Evaluator(test, dataset.channels, recipe, normalization, device) if test else None,
        epoch_metrics=_every_epoch(recipe.metrics),
        forward=checked(torch.compile(model) if settings.compile else model, recipe.model, channels + exclusive),
        dataset=dataset,
        split=split,
        fingerprint=fingerprint,
        log=[device.text, _counts(dataset, split), *dataset.notes, *split.notes],
        warnings=[*split.warnings, *doubtful, *drawn, *warnings],
    )


def _state(recipe: Recipe, model: nn.Module, steps_per_epoch: int, device: Device) -> tuple[State, list[str]]:
    """Return the state at the beginning of a training, and warnings about the components that move the model."""
    objective = Objective(recipe.loss, recipe.regularizer, model, exclusive=recipe.channels == "exclusive")
    if not objective.parameters:
        raise fault(recipe.model, "it has no parameter to train.")
    parts = {"model": recipe.model, "optimizer": recipe.optimizer}
    generators = GeneratorWatch()
    optimizer = recipe.optimizer(list(model.parameters()))  # a list, which a plugin may iterate over twice
    warnings = generators.warnings(recipe.optimizer)
    if recipe.scheduler is None:
        schedule = Schedule.constant(optimizer)
    else:
        parts["scheduler"], generators = recipe.scheduler, GeneratorWatch()
        steps = -(-steps_per_epoch // recipe.train.accumulate)
        schedule = Schedule.of(recipe.scheduler(optimizer, recipe.train.epochs, steps))
        warnings += generators.warnings(recipe.scheduler)
    state = State(model, optimizer, schedule, device.scaler(), objective, parts=parts)
    left_out = state.step_watch.left_out()
    return state, warnings if left_out is None else [*warnings, str(left_out)]


def _every_epoch(chosen: Sequence[Component]) -> list[Component]:
    """Return the metrics to compute each epoch, which choose the best epoch; always Dice."""
    quick = [metric for metric in chosen if not metric.entry.traits["final_only"]]
    return quick if ALWAYS in {metric.name for metric in quick} else [*quick, metrics.component(ALWAYS)]


def _limited(split: Split, recipe: Recipe, limit: Limit) -> tuple[Split, Sequence[Component]]:
    """Return the split and training transforms of a training cut short."""
    if limit.overfit:
        few = split.train[: limit.overfit]
        return replace(split, train=few, full_train=few, validation=few, test=()), recipe.transforms.eval
    if limit.batches:
        most = limit.batches * recipe.train.batch_size
        split = replace(split, validation=split.validation[:most], test=split.test[:most])
    return split, recipe.transforms.train


def _counts(dataset: Dataset, split: Split) -> str:
    def patients(numbers: Sequence[int]) -> str:
        return counted(len({dataset.cases[n].patient or dataset.cases[n].name for n in numbers}), "patient")

    test = f", {len(split.test)} of {patients(split.test)} for the test" if split.test else ""
    return (
        f"data {dataset.name}: {counted(len(split.train), 'case')} of {patients(split.train)} for training, "
        f"{len(split.validation)} of {patients(split.validation)} for validation{test}; "
        f"channels {', '.join(dataset.channels)}"
    )
