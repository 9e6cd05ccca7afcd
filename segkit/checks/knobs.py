"""Whether each key that a recipe sets has an effect: perturb it, train a moment, compare."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from segkit.errors import UserError
from segkit.recipe import merge
from segkit.recipe.describe import explain
from segkit.recipe.model import Recipe, validate
from segkit.recipe.paths import slot_of
from segkit.recipe.variants import variants

IMAGES, SIDE = 2, 64  # a step: the whole batch is drawn and compared, but the model sees the middle of these
STEPS = 2
CASES = 1  # of the validation cases
RATES = 4000  # steps of the schedule that are looked at
# what is meant to change how a training runs and nothing of its result; and what only names things
NO_RESULT = {
    ("train", "device"), ("train", "workers"), ("train", "save_every"), ("train", "compile"),
    ("train", "deterministic"), ("title",), ("overlay",), ("studies",), ("study",),
}  # fmt: skip

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Knob:
    """A key of the recipe and what became of it when its value was changed.

    Attributes:
        path: as in the recipe.
        place: where it was written.
        effect: what changed, e.g. "the batches"; "" for nothing: the key is dead. None if it could not be tried.
        tried: the values that were tried.
    """

    path: str
    place: str
    effect: str | None
    tried: tuple[Any, ...] = ()


def check_knobs(recipe: Recipe, document: merge.Document) -> Iterator[Knob]:
    """Yield each key that the recipe or one of its variants sets; a dead one has the effect "".

    A key without effect in the recipe itself, e.g. one of a slot that every variant replaces, is tried in each variant.
    """
    base = document.copy()
    base.tree.pop("study", None)
    laid = [
        ("", base),
        *(
            variants(recipe.study, recipe.split, recipe.title, document)
            if recipe.study.variants or recipe.study.grid
            else []
        ),
    ]
    found: dict[str, Knob] = {}
    for _, own in laid:
        made = validate(own)
        tree, before = made.dump(), None
        for path, place in _written(made, own):
            name = ".".join(str(part) for part in path)
            known = found.get(name)
            if known is not None and known.effect:
                continue
            before = before if before is not None else dict(signature(made))
            knob = _try(tree, path, before, name, place)
            if known is None or knob.effect:
                found[name] = knob
    yield from found.values()


def _written(recipe: Recipe, document: merge.Document) -> Iterator[tuple[Path_, str]]:
    """Yield the path in the filled recipe, and the place, of each value that a layer wrote."""
    for path, value, place in explain(recipe, document):
        if place == "default" or any(path[: len(name)] == name for name in NO_RESULT):
            continue
        for inner in _leaves(value):
            whole: Path_ = (*path, *inner)
            if _is_written(whole, document.tree):
                yield whole, place


def _leaves(value: Any) -> Iterator[Path_]:
    """Yield the paths of the plain values within one; numbers in a list are one value."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from ((name, *rest) for rest in _leaves(part))
    elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
        for number, part in enumerate(value):
            yield from ((number, *rest) for rest in _leaves(part))
    else:
        yield ()


def _is_written(path: Path_, tree: Any) -> bool:
    """Return whether the layers hold a value at a path; a bare component name stands for its table."""
    node = tree
    for part in path:
        if (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        ):
            node = node[part]  # type: ignore[index]
        else:
            return bool(node == part)
    return True


def _try(tree: dict[str, Any], path: Path_, before: dict[str, str], name: str, place: str) -> Knob:
    """Change one value until something changes, or nothing is left to try."""
    tried = []
    for patched, value in _candidates(tree, path):
        try:
            after = signature(Recipe.from_dict(patched))
            changed = next((part for part, digest in after if before[part] != digest), None)
        except UserError:
            continue  # not a value that this key may have
        tried.append(value)
        if changed:
            return Knob(name, place, changed, tuple(tried))
    return Knob(name, place, "" if tried else None, tuple(tried))


def _candidates(tree: dict[str, Any], path: Path_) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield changed trees with the value that is new in them."""
    one, registry = slot_of(tuple(str(part) for part in path[:-1])) if len(path) > 1 else (False, None)
    value = _at(tree, path)
    if value == {} and registry is not None and not one:  # a bare component of several: all but this one
        changed = copy.deepcopy(tree)
        del _at(changed, path[:-1])[path[-1]]
        yield changed, "leaving it out"
        return
    if value == {} and registry is not None:  # a bare component: another one in its place
        for other in registry.names():
            if other != path[-1] and len(path) > 2:
                yield _with(tree, path[:-1], {other: {}}), other
        return
    for other in _others(value):
        yield _with(tree, path, other), other


def _others(value: Any) -> Iterator[Any]:
    """Yield values near one, of its kind."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from dict.fromkeys([value + 1, value * 2, value // 2, value - 1])
    elif isinstance(value, float):
        yield from dict.fromkeys([value * 0.5 or 0.3, 1 - value, value * 2 or 0.5, value + 0.3, value + 1])
    elif isinstance(value, str):
        yield from _words(value)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            for other in _others(item):
                yield [*value[:number], other, *value[number + 1 :]]


def _words(value: str) -> Iterator[str]:
    """Yield the words that some key of segkit's takes beside this one."""
    for group in _GROUPS:
        if value in group:
            yield from (word for word in group if word != value)


_GROUPS = (
    ("case", "batch"), ("mean", "sum"), ("all", "weights"), ("independent", "exclusive"), ("epochs", "steps"),
    ("float32", "bf16"), ("batch", "instance", "group", "none"), ("after", "before"), ("wall", "cavity"),
)  # fmt: skip


def _at(tree: Any, path: Path_) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _with(tree: dict[str, Any], path: Path_, value: Any) -> dict[str, Any]:
    """Return a copy of a tree with another value at a path."""
    changed = copy.deepcopy(tree)
    _at(changed, path[:-1])[path[-1]] = value
    return changed


def signature(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield a hash of each thing that a key may change, the cheap ones first, from a short training on the CPU."""
    import torch

    from segkit.data.cache import DataCache
    from segkit.training.loop import train
    from segkit.training.setup import set_up
    from segkit.training.trial import Limit

    tree = recipe.dump()
    tree["train"] |= {"device": "cpu", "workers": 0, "compile": False}
    parts = set_up(Recipe.from_dict(tree), Limit(), DataCache())
    try:
        state, feed, settings = parts.state, _Few(parts.feed), recipe.train
        steps = -(-parts.feed.steps_per_epoch // settings.accumulate)
        yield "the split", _digest(parts.split, parts.fingerprint)
        yield "the model", _digest(*state.model.state_dict().values())
        yield "the length of the training", _digest(settings.epochs, steps)
        yield "the learning rates", _digest(*_rates(recipe, settings.epochs, steps))
        yield "the batches", _digest(*(part for batch in feed.drawn() for part in batch))
        yield "the images to validate on", _digest(*parts.evaluator.images)
        state.first_batch = [{}]  # shares of the gradient are not asked for
        report = next(train(state, feed, parts.device, epochs=1, clip_norm=settings.clip_norm))
        yield "the first losses", _digest(report.losses)
        yield "the weights", _digest(*state.model.state_dict().items())
        yield "the optimizer", _digest(torch.get_rng_state(), *_flat(state.optimizer.state_dict()))
        parts.evaluator.cases, parts.evaluator._groups = parts.evaluator.cases[:CASES], [[n] for n in range(CASES)]
        yield "the metrics", _digest(parts.evaluator.run(state.model, parts.metrics, state.objective.loss))
    finally:
        parts.close()


class _Few:
    """The first batches, of which the model sees the middle of a few images."""

    steps_per_epoch = STEPS

    def __init__(self, feed: Any) -> None:
        self.feed, self._drawn = feed, list[tuple[Any, Any]]()

    def drawn(self) -> list[tuple[Any, Any]]:
        """Return the first whole batches, of the next epochs where one has fewer."""
        for number in itertools.count(1):
            for batch in self.feed.epoch(number):
                self._drawn.append(batch)
                if len(self._drawn) >= STEPS:
                    return self._drawn
        return self._drawn

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
        """Yield the middles, for the loop."""
        for pair in self._drawn:
            rows, columns = ((size - min(size, SIDE)) // 2 for size in pair[0].shape[2:])
            image, target = (part[:IMAGES, :, rows : rows + SIDE, columns : columns + SIDE] for part in pair)
            yield image, target


def _rates(recipe: Recipe, epochs: int, steps: int) -> list[float]:
    """Return the learning rates of the whole training, without the training."""
    import torch

    from segkit.training.setup import schedule_of

    optimizer = recipe.optimizer.build([torch.nn.Parameter(torch.zeros(2))])
    schedule = schedule_of(recipe.scheduler, optimizer, epochs, steps)
    rates: list[float] = []
    for _ in range(min(epochs, RATES)):
        for _ in range(steps if schedule.unit == "step" and len(rates) < RATES else 1):
            optimizer.step()
            schedule.step_batch()
            rates.append(float(optimizer.param_groups[0]["lr"]))
        schedule.step_epoch(1.0)
        rates.append(float(optimizer.param_groups[0]["lr"]))
    return rates


def _flat(state: Any) -> list[Any]:
    from segkit.training.flatten import flatten

    tensors, skeleton = flatten(state)
    return [skeleton, *tensors.items()]


def _digest(*values: Any) -> str:
    """Return a hash of values, arrays and tensors by their bytes."""
    import numpy as np
    import torch

    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, (list, tuple)) and any(isinstance(part, (torch.Tensor, list, tuple)) for part in value):
            digest.update(_digest(*value).encode())
        elif isinstance(value, torch.Tensor):
            digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, np.ndarray):
            digest.update(value.tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()
