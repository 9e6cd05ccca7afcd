"""A trial becomes the parts of its training: data, batches, model, optimizer, schedule, evaluator."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from segkit import plugins
from segkit.components.models import checked
from segkit.components.schedulers import Schedule
from segkit.data.batches import Batches
from segkit.data.cache import DataCache
from segkit.data.cases import Data
from segkit.data.fitting import unfit
from segkit.data.order import weights_by_tag
from segkit.data.samples import Samples
from segkit.data.splits import Split, split_cases
from segkit.device import Device, choose, use_deterministic_algorithms
from segkit.errors import UserError, counted
from segkit.evaluation.evaluator import Evaluator
from segkit.evaluation.slices import Normalization
from segkit.recipe.model import Recipe
from segkit.recipe.sections import Train
from segkit.registry.component import Component
from segkit.registry.faults import fault, raise_fault
from segkit.training.average import Average
from segkit.training.compiling import compiled
from segkit.training.feed import Feed, on_device
from segkit.training.global_state import GeneratorWatch
from segkit.training.initial import begin_with, lines_of, seen_before
from segkit.training.loop import State
from segkit.training.objective import Objective
from segkit.training.parameters import check_groups, for_optimizer, freeze
from segkit.training.training_step import TrainingStep
from segkit.training.trial import Limit
from segkit.training.validation import Validation
from segkit.training.warnings import blind_loss, large_batch, long_warmup, undefined_volumes
from segkit.types import Forward


@dataclass
class Setup:
    """The parts of one training, ready to run.

    Attributes:
        validation: of each epoch, on the validation cases.
        tested: of the test cases, None without a test set.
        compiling: whether the first step compiles the model, in words; "" where it is not compiled.
        initial_weights: the report of those that come from another checkpoint.
    """

    state: State
    feed: Feed
    device: Device
    validation: Validation
    tested: Evaluator | None
    forward: Forward
    data: Data
    split: Split
    log: list[str]
    warnings: list[str]
    compiling: str = ""
    initial_weights: dict[str, Any] | None = None


def _check_fit(recipe: Recipe, data: Data) -> None:
    """Raise if a transform cannot take the images that the intensity gives."""
    flaws = unfit(recipe.transforms.train, data.kind)
    flaws += unfit(recipe.transforms.eval, data.kind, "transforms.eval")
    if flaws:
        raise UserError("\n".join(flaws))


def build_model(recipe: Recipe, inputs: int, channels: int, *, filled: bool = False) -> nn.Module:
    """Return the recipe's model: one output a structure, and one for background where classes are exclusive.

    Args:
        recipe: of the trial.
        inputs, channels: of the data.
        filled: whether all of its weights are then read from a file, so that none need be downloaded.
    """
    component = recipe.model.to_be_filled() if filled else recipe.model
    model: nn.Module = component(inputs, channels + (recipe.channels == "exclusive"))
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
    wanted = recipe.step.entry.traits["unlabelled"]
    return data, split_cases(data, unlabelled=wanted, **recipe.split.model_dump(exclude={"file"}))


def set_up(recipe: Recipe, limit: Limit, cache: DataCache, *, begun: bool = False, gpu_share: float = 1.0) -> Setup:
    """Build everything a training needs from a recipe without "auto", in the order in which randomness is drawn.

    Args:
        recipe: of the trial.
        limit: how the training is cut short.
        cache: reads the data.
        begun: whether the weights are then read from a checkpoint of the trial, so that initial ones are not needed.
        gpu_share: of a GPU's memory, which the training may take at most.

    Raises:
        UserError: data, split, device or a component are not available as the recipe asks.
    """
    settings, exclusive = recipe.train, recipe.channels == "exclusive"
    data, whole = read_and_split(recipe, cache)
    split, transforms = _limited(data, whole, recipe, limit)
    _check_fit(recipe, data)
    device = choose(settings.device, settings.precision)
    device.limit_memory(gpu_share)
    if settings.deterministic:
        use_deterministic_algorithms()
    channels = len(data.channels)
    torch.manual_seed(settings.seed)
    generators = GeneratorWatch()
    model, initial, begins = _initial_model(recipe, data, begun)
    model = model.to(device.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    drawn = generators.warnings(recipe.model)
    samples = Samples.of(data, _drawn(data, split, split.train), transforms, exclusive=exclusive)
    resident, place = on_device(samples, device.device, settings.resident, exclusive=exclusive)
    batches = Batches(
        samples,
        batch_size=settings.batch_size,
        seed=settings.seed,
        workers=settings.workers,
        samples_per_epoch=_samples_per_epoch(settings, data, split),
        weights=weights_by_tag(data, samples.numbers, settings.sampling_weights) if settings.sampling_weights else None,
        foreground_share=settings.oversample_foreground or 0.0,
        device=device.device,
        resident=resident,
        plugins=plugins.folders(),
    )
    standardized = recipe.intensity.entry.traits["standardized"]
    normalization = Normalization.identity(len(data.inputs)) if standardized else Normalization(*samples.mean_std())
    feed = Feed(batches, normalization, channels, exclusive, limit.batches)
    state, warnings = _state(recipe, model, feed.steps_per_epoch, device)
    large = None if limit.batches or limit.overfit else large_batch(recipe, len(samples))
    long = None if limit.batches else long_warmup(settings, feed.steps_per_epoch)
    evaluated = [data.cases[number] for number in (*split.validation, *split.test)]
    seen = seen_before(initial, data, (*split.validation, *split.test)) if initial is not None else None
    doubts = (large, long, seen, blind_loss(recipe), undefined_volumes(recipe, evaluated))
    evaluator = Evaluator(data, split.validation, recipe, normalization, device)
    forward, compiling = compiled(model) if settings.compile else (model, "")
    return Setup(
        state=state,
        feed=feed,
        device=device,
        validation=Validation(evaluator, recipe, beside=device.is_cuda, resident=resident is not None),
        tested=Evaluator(data, split.test, recipe, normalization, device) if split.test else None,
        forward=checked(forward, recipe.model, channels + exclusive),
        data=data,
        split=split,
        log=[
            device.text,
            _counts(data, split if limit.overfit else whole),
            *_evaluation(recipe),
            *([place] if settings.resident is True or device.is_cuda or limit.batches else []),
            *data.notes,
            *split.notes,
            *begins,
        ],
        compiling=compiling,
        initial_weights=initial,
        warnings=[*split.warnings, *filter(None, doubts), *drawn, *warnings],
    )


def _initial_model(recipe: Recipe, data: Data, begun: bool) -> tuple[nn.Module, dict[str, Any] | None, list[str]]:
    """Return the model as training begins with it, the report of its initial weights, and both as lines for the log."""
    train = recipe.train
    exact = train.init_from is not None and train.init_match == "exact"
    model = build_model(recipe, len(data.inputs), len(data.channels), filled=begun or exact)
    report, lines = None, list[str]()
    if train.init_from is not None and not begun:
        report = begin_with(model, train)
        lines = lines_of(report, train, data)
    if train.freeze is not None:
        frozen = len(freeze(model, train.freeze))
        lines.append(f"frozen: {frozen} of {counted(len(list(model.parameters())), 'parameter')}")
    return model, report, lines


def _state(recipe: Recipe, model: nn.Module, steps_per_epoch: int, device: Device) -> tuple[State, list[str]]:
    """Return the state at the beginning of a training, and warnings about the components that move the model."""
    exclusive, levels = recipe.channels == "exclusive", recipe.train.auxiliary_weights
    objective = Objective(recipe.loss, recipe.regularizer, model, exclusive=exclusive, level_weights=levels)
    if not objective.parameters:
        raise fault(recipe.model, "it has no parameter to train.")
    parts = {"model": recipe.model, "optimizer": recipe.optimizer, "step": recipe.step}
    generators = GeneratorWatch()
    optimizer = recipe.optimizer(for_optimizer(model, recipe.optimizer, frozen=recipe.train.freeze is not None))
    warnings = generators.warnings(recipe.optimizer)
    check_groups(recipe.optimizer, optimizer)
    if recipe.scheduler is None:
        schedule = Schedule.constant(optimizer)
    else:
        parts["scheduler"], generators = recipe.scheduler, GeneratorWatch()
        steps = -(-steps_per_epoch // recipe.train.accumulate)
        schedule = Schedule.of(recipe.scheduler(optimizer, recipe.train.epochs, steps))
        warnings += generators.warnings(recipe.scheduler)
    training_step = TrainingStep(recipe.step)
    training_step.prepare(model, device.device)
    state = State(
        model,
        optimizer,
        schedule,
        device.scaler(),
        objective,
        parts=parts,
        warmup=recipe.train.warmup or 0,
        training_step=training_step,
        average=_average(recipe, model),
    )
    left_out = state.step_watch.left_out()
    return state, warnings if left_out is None else [*warnings, str(left_out)]


def _average(recipe: Recipe, model: nn.Module) -> Average | None:
    try:
        return Average(model, recipe.train.ema) if recipe.train.ema is not None else None
    except BaseException as error:  # not every plugin's model can be copied
        raise_fault(recipe.model, error)


def _evaluation(recipe: Recipe) -> list[str]:
    return [f"evaluation: {recipe.evaluation.text}"] if recipe.evaluation.text else []


def _samples_per_epoch(settings: Train, data: Data, split: Split) -> int | None:
    """Return how many samples an epoch draws, None for each sample once."""
    if settings.steps_per_epoch is not None:
        return settings.steps_per_epoch * settings.accumulate * settings.batch_size
    return _slices(data, _drawn(data, split, split.full_train)) if settings.budget == "steps" else None


def _limited(data: Data, split: Split, recipe: Recipe, limit: Limit) -> tuple[Split, Sequence[Component]]:
    """Return the split and training transforms of a training cut short."""
    if limit.overfit:
        few = split.train[: limit.overfit]
        return replace(split, train=few, full_train=few, validation=few, test=(), unlabelled=()), recipe.transforms.eval
    if limit.batches:
        most = limit.batches * recipe.train.batch_size
        few, tested = (_first(data, cases, most) for cases in (split.validation, split.test))
        split = replace(split, validation=few, test=tested)
    return split, recipe.transforms.train


def _first(data: Data, cases: Sequence[int], slices: int) -> tuple[int, ...]:
    """Return as many of the first cases as it takes for so many slices."""
    before = itertools.accumulate((len(data.cases[number].slices) for number in cases), initial=0)
    return tuple(number for number, count in zip(cases, before, strict=False) if count < slices)


def _drawn(data: Data, split: Split, labelled: Sequence[int]) -> Sequence[int]:
    """Return the cases to draw from: where those with masks are fewer, they repeat, to be about half of a batch."""
    times = round(_slices(data, split.unlabelled) / _slices(data, labelled))
    return (*(tuple(labelled) * max(1, times)), *split.unlabelled)


def _slices(data: Data, cases: Sequence[int]) -> int:
    return sum(len(data.cases[number].slices) for number in cases)


def _counts(data: Data, split: Split) -> str:
    def patients(numbers: Sequence[int]) -> str:
        return counted(len({data.cases[n].patient or data.cases[n].name for n in numbers}), "patient")

    without = f" and {len(split.unlabelled)} without masks" if split.unlabelled else ""
    volumes = f" ({counted(_slices(data, split.train), 'slice')})" if any(len(c.shape) == 3 for c in data.cases) else ""
    inputs = "" if data.inputs == ("image",) else f"inputs {', '.join(data.inputs)}; "
    test = f", {len(split.test)} of {patients(split.test)} for the test" if split.test else ""
    return (
        f"data {data.name}: {counted(len(split.train), 'case')}{volumes} of {patients(split.train)}{without} for "
        f"training, {len(split.validation)} of {patients(split.validation)} for validation{test}; "
        f"{inputs}channels {', '.join(data.channels)}"
    )
