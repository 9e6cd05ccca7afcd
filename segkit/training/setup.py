"""A trial becomes the parts of its training: data, batches, model, optimizer, schedule, evaluator."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from segkit import plugins
from segkit.components.metrics import metrics
from segkit.components.models import checked
from segkit.components.schedulers import Schedule
from segkit.data.batches import Batches
from segkit.data.cache import DataCache
from segkit.data.cases import Data
from segkit.data.fitting import unfit
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
from segkit.training.warnings import blind_loss, large_batch, undefined_volumes

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
    data: Data
    split: Split
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
        """Yield (image (N, I, H, W), target (N, C, H, W)) of an epoch, beginning with batch `start`."""
        norm = self.normalization
        for number, (images, masks) in enumerate(self.batches.epoch(epoch, start), start):
            yield to_device_float(images, masks, norm.mean, norm.std, self.channels, self.exclusive)
            if number + 1 == self.steps_per_epoch:
                return


def _check_fit(recipe: Recipe, data: Data) -> None:
    """Raise if a transform cannot take the images that the intensity gives."""
    flaws = unfit(recipe.transforms.train, data.kind)
    flaws += unfit(recipe.transforms.eval, data.kind, "transforms.eval")
    if flaws:
        raise UserError("\n".join(flaws))


def build_model(recipe: Recipe, inputs: int, channels: int) -> nn.Module:
    """Return the recipe's model: one output a structure, and one for background where classes are exclusive."""
    model: nn.Module = recipe.model(inputs, channels + (recipe.channels == "exclusive"))
    return model


def read_and_split(recipe: Recipe, cache: DataCache) -> tuple[Data, Split]:
    """Return the data of a trial's recipe and their split.

    Raises:
        UserError: data or split are not available as the recipe asks.
    """
    data = cache.read(recipe.data, recipe.intensity)
    for case in data.cases if recipe.channels == "exclusive" else ():
        if case.overlapping:
            text = 'its channels overlap, but the recipe says channels = "exclusive". Use "independent".'
            raise UserError(f"{case.name}: {text}")
    return data, split_cases(data, **recipe.split.model_dump(exclude={"file"}))


def set_up(recipe: Recipe, limit: Limit, cache: DataCache) -> Setup:
    """Build everything a training needs from a recipe without "auto", in the order in which randomness is drawn.

    Raises:
        UserError: data, split, device or a component are not available as the recipe asks.
    """
    settings, exclusive = recipe.train, recipe.channels == "exclusive"
    data, whole = read_and_split(recipe, cache)
    split, transforms = _limited(data, whole, recipe, limit)
    _check_fit(recipe, data)
    device = choose(settings.device, settings.precision)
    if settings.deterministic:
        use_deterministic_algorithms(device.device)
    channels = len(data.channels)
    torch.manual_seed(settings.seed)
    generators = GeneratorWatch()
    model = build_model(recipe, len(data.inputs), channels)
    model = model.to(device.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    drawn = generators.warnings(recipe.model)
    samples = Samples.of(data, split.train, transforms, exclusive=exclusive)
    batches = Batches(
        samples,
        batch_size=settings.batch_size,
        seed=settings.seed,
        workers=settings.workers,
        samples_per_epoch=_slices(data, split.full_train) if settings.budget == "steps" else None,
        device=device.device,
        plugins=plugins.folders(),
    )
    standardized = recipe.intensity.entry.traits["standardized"]
    normalization = Normalization.identity(len(data.inputs)) if standardized else Normalization(*samples.mean_std())
    feed = Feed(batches, normalization, channels, exclusive, limit.batches)
    state, warnings = _state(recipe, model, feed.steps_per_epoch, device)
    large = None if limit.batches or limit.overfit else large_batch(recipe, len(samples))
    evaluated = [data.cases[number] for number in (*split.validation, *split.test)]
    doubtful = [text for text in (large, blind_loss(recipe), undefined_volumes(recipe, evaluated)) if text]
    return Setup(
        state=state,
        feed=feed,
        device=device,
        evaluator=Evaluator(data, split.validation, recipe, normalization, device),
        tested=Evaluator(data, split.test, recipe, normalization, device) if split.test else None,
        epoch_metrics=_every_epoch(recipe.metrics),
        forward=checked(torch.compile(model) if settings.compile else model, recipe.model, channels + exclusive),
        data=data,
        split=split,
        log=[
            device.text,
            _counts(data, split if limit.overfit else whole),
            *_evaluation(recipe),
            *data.notes,
            *split.notes,
        ],
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


def _evaluation(recipe: Recipe) -> list[str]:
    return [f"evaluation: {recipe.evaluation.text}"] if recipe.evaluation.text else []


def _every_epoch(chosen: Sequence[Component]) -> list[Component]:
    """Return the metrics to compute each epoch, which choose the best epoch; always Dice."""
    quick = [metric for metric in chosen if not metric.entry.traits["final_only"]]
    return quick if ALWAYS in {metric.name for metric in quick} else [*quick, metrics.component(ALWAYS)]


def _limited(data: Data, split: Split, recipe: Recipe, limit: Limit) -> tuple[Split, Sequence[Component]]:
    """Return the split and training transforms of a training cut short."""
    if limit.overfit:
        few = split.train[: limit.overfit]
        return replace(split, train=few, full_train=few, validation=few, test=()), recipe.transforms.eval
    if limit.batches:
        most = limit.batches * recipe.train.batch_size
        few, tested = (_first(data, cases, most) for cases in (split.validation, split.test))
        split = replace(split, validation=few, test=tested)
    return split, recipe.transforms.train


def _first(data: Data, cases: Sequence[int], slices: int) -> tuple[int, ...]:
    """Return as many of the first cases as it takes for so many slices."""
    before = itertools.accumulate((len(data.cases[number].slices) for number in cases), initial=0)
    return tuple(number for number, count in zip(cases, before, strict=False) if count < slices)


def _slices(data: Data, cases: Sequence[int]) -> int:
    return sum(len(data.cases[number].slices) for number in cases)


def _counts(data: Data, split: Split) -> str:
    def patients(numbers: Sequence[int]) -> str:
        return counted(len({data.cases[n].patient or data.cases[n].name for n in numbers}), "patient")

    volumes = f" ({counted(_slices(data, split.train), 'slice')})" if any(len(c.shape) == 3 for c in data.cases) else ""
    inputs = "" if data.inputs == ("image",) else f"inputs {', '.join(data.inputs)}; "
    test = f", {len(split.test)} of {patients(split.test)} for the test" if split.test else ""
    return (
        f"data {data.name}: {counted(len(split.train), 'case')}{volumes} of {patients(split.train)} for training, "
        f"{len(split.validation)} of {patients(split.validation)} for validation{test}; "
        f"{inputs}channels {', '.join(data.channels)}"
    )
