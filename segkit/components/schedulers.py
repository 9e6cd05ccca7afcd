"""Schedulers: those of `torch.optim.lr_scheduler` that plain values can set, under their own names.

A scheduler steps in its own unit: OneCycleLR and CyclicLR after each step of the optimizer, the others after each
epoch, ReduceLROnPlateau with the validation loss. Lengths that follow from the recipe are filled in: OneCycleLR spans
the training, and `T_max` is the number of epochs (inside SequentialLR: of its own part). Rates that a scheduler sets
(`max_lr`, `base_lr`, `min_lr`) are those of the optimizer's first group; the others keep their ratio to it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import typing
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Len

from segkit.components.families import classes, narrowed, plain, summary, writable
from segkit.components.optimizers import wrong_rate
from segkit.errors import counted
from segkit.registry.component import Component
from segkit.registry.registry import Registry
from segkit.types import Count, Fraction, NonNegative, Positive

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

Unit = Literal["epoch", "step"]

BY_STEP = {"CyclicLR", "OneCycleLR"}
HIDDEN = {"epochs", "last_epoch", "optimizer", "steps_per_epoch", "total_steps"}
HIDDEN_OF = {
    "CyclicLR": "scale_mode",  # belongs to a scale function, which is code
    "ReduceLROnPlateau": "mode",  # it watches a loss: less is better
}
FRACTIONS = {"base_momentum", "end_factor", "factor", "max_momentum", "pct_start", "start_factor"}
RATES = {"base_lr", "max_lr", "min_lr"}  # learning rates, which torch takes for each parameter group
NON_NEGATIVE = {"cooldown", "eps", "eta_min", "min_lr", "patience", "power", "threshold"}


@dataclass
class Schedule:
    """A learning-rate scheduler and the unit in which it steps.

    Args:
        scheduler: one of torch's, or a subclass of its LRScheduler.
        unit: "step": after each step of the optimizer; "epoch": after each epoch.
    """

    scheduler: LRScheduler
    unit: Unit = "epoch"
    _first: bool = field(default=True, repr=False)

    @classmethod
    def of(cls, made: Any) -> Schedule:
        """Return the Schedule that a component made: as such, as a (scheduler, unit) pair, or as a scheduler by epoch.

        Raises:
            ValueError: it made something else.
        """
        from torch.optim.lr_scheduler import LRScheduler

        if isinstance(made, Schedule):
            return made
        parts: tuple[Any, ...] = made if isinstance(made, tuple) else (made, "epoch")
        if len(parts) == 2 and isinstance(parts[0], LRScheduler) and parts[1] in typing.get_args(Unit):
            return cls(*parts)
        given = made if isinstance(made, tuple) else [made]
        listed = ", ".join(repr(part) if isinstance(part, str) else f"a {type(part).__name__}" for part in given)
        got = "None: is a `return` missing?" if made is None else f"{listed}."
        raise ValueError(f"must return a torch LRScheduler, alone or with its unit 'epoch' or 'step', got {got}")

    @classmethod
    def constant(cls, optimizer: Optimizer) -> Schedule:
        """Return the schedule of a recipe without a scheduler, which keeps the rates."""
        from torch.optim.lr_scheduler import ConstantLR

        return cls(ConstantLR(optimizer, factor=1.0, total_iters=0))

    def step_batch(self) -> None:
        """Step after a step of the optimizer, if that is the unit."""
        if self.unit == "step":
            self._step()

    def step_epoch(self, val_loss: float) -> None:
        """Step after an epoch, if that is the unit; ReduceLROnPlateau watches the validation loss."""
        if self.unit == "epoch":
            self._step(val_loss)

    def _step(self, val_loss: float | None = None) -> None:
        from torch.optim.lr_scheduler import ReduceLROnPlateau

        values = (val_loss,) if isinstance(self.scheduler, ReduceLROnPlateau) else ()
        if not self._first:
            self.scheduler.step(*values)
            return
        with warnings.catch_warnings():  # if loss scaling skipped the first step, torch suspects a wrong order
            warnings.simplefilter("ignore", UserWarning)
            self.scheduler.step(*values)
        self._first = False

    def state_dict(self) -> dict[str, Any]:
        """Return the state as numbers, strings, lists and dicts, without what the recipe fixes."""
        return _plain(self.scheduler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; load the optimizer's own beside it."""
        self.scheduler.load_state_dict(_merged(self.scheduler.state_dict(), state))


def warmth(step: int, warmup: int) -> float:
    """Return the factor of the rates of step number `step`, from 0: it rises linearly to 1 over the warm-up's steps."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


@contextlib.contextmanager
def scaled_rates(optimizer: Optimizer, factor: float) -> Iterator[None]:
    """Multiply an optimizer's learning rates; restore them at the end, since schedules compute the next from them."""
    kept = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, kept, strict=True):
        group["lr"] = rate * factor
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, kept, strict=True):
            group["lr"] = rate


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers, strings and lists of them in a state; infinities are values that are not set yet."""

    def keep(value: Any) -> bool:
        if isinstance(value, list):
            return all(keep(item) for item in value)
        return isinstance(value, (int, str)) or (isinstance(value, float) and math.isfinite(value))

    kept = {key: value for key, value in state.items() if keep(value)}
    if "_schedulers" in state:
        kept["_schedulers"] = [_plain(inner) for inner in state["_schedulers"]]
    return kept


def _merged(own: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    merged = {**own, **state}
    if "_schedulers" in own:
        merged["_schedulers"] = [_merged(*pair) for pair in zip(own["_schedulers"], state["_schedulers"], strict=True)]
    return merged


def _register_torch(registry: Registry) -> None:
    """Register each scheduler of torch that can be set from plain values."""
    from torch.optim import lr_scheduler

    for name, cls in classes(lr_scheduler, lr_scheduler.LRScheduler):
        choose = functools.partial(_in_recipe, registry, cls)
        signature = narrowed(cls, choose, handed=registry.handed, hidden={*HIDDEN, HIDDEN_OF.get(name, "")})
        if signature is not None:
            factory = _composite if "schedulers" in signature.parameters else _factory
            registry.add(name, factory(cls), signature, doc=summary(cls), origin="torch.optim.lr_scheduler")


def _in_recipe(registry: Registry, cls: type, name: str, hint: Any, default: Any) -> tuple[Any, Any]:
    """Return type and default of a parameter of one of torch's schedulers, bounded by its name."""
    from torch.optim.lr_scheduler import LRScheduler

    def bounded(kind: Any) -> Any:
        if kind is LRScheduler:
            return Annotated[Component, registry]
        if kind is int:
            return Annotated[int, Ge(0)] if name in NON_NEGATIVE else Count
        if kind is float:
            return NonNegative if name in NON_NEGATIVE else Fraction if name in FRACTIONS else Positive
        return plain(kind)

    if {float, list[float]} <= set(typing.get_args(hint)):  # a list is for parameter groups: see `_of_groups`
        hint, default = float, float(default) if isinstance(default, int) else default
    annotation = writable(hint, bounded)
    if name == "schedulers":  # a sequence of one would be no sequence
        annotation = Annotated[annotation, Len(2 if cls.__name__ == "SequentialLR" else 1)]
    if name == "T_max":
        annotation, default = annotation | None, None
    return annotation, default


def _factory(cls: Callable[..., LRScheduler]) -> Callable[..., Schedule]:
    """Return a function that builds one of torch's schedulers, its lengths filled in."""
    known = inspect.signature(cls).parameters

    def build(optimizer: Optimizer, epochs: int, steps_per_epoch: int, /, **values: Any) -> Schedule:
        given = {
            key: _of_groups(optimizer, value) if key in RATES else value
            for key, value in values.items()
            if value is not None
        }
        if "T_max" in known:
            given.setdefault("T_max", epochs)
        if "total_steps" in known:
            given["total_steps"] = epochs * steps_per_epoch
        return Schedule(cls(optimizer, **given), "step" if cls.__name__ in BY_STEP else "epoch")

    return build


def _of_groups(optimizer: Optimizer, rate: float) -> float | list[float]:
    """Return a rate of the first parameter group as one of each, which keeps the ratios of the optimizer's own."""
    own = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    return rate if len(set(own)) == 1 or not own[0] else [rate * other / own[0] for other in own]


def _unit_of(component: Component) -> Unit:
    inner = component.arguments.get("schedulers")
    return _unit_of(inner[0]) if inner else "step" if component.name in BY_STEP else "epoch"


def _composite(cls: Callable[..., LRScheduler]) -> Callable[..., Schedule]:
    """Return a function that builds a scheduler of schedulers, which all step in one unit."""

    def build(
        optimizer: Optimizer,
        epochs: int,
        steps_per_epoch: int,
        /,
        *,
        schedulers: list[Component],
        milestones: list[int] | None = None,
    ) -> Schedule:
        units = {component.name: _unit_of(component) for component in schedulers}
        if len(set(units.values())) > 1:
            listed = ", ".join(f"{name} by {unit}" for name, unit in units.items())
            raise ValueError(f"its schedulers step in different units: {listed}. Choose schedulers of one unit.")
        unit: Unit = next(iter(units.values()))
        steps = 1 if unit == "step" else steps_per_epoch
        whole = epochs * steps_per_epoch if unit == "step" else epochs
        lengths = [whole] * len(schedulers) if milestones is None else _lengths(schedulers, milestones, whole)
        parts = [
            Schedule.of(component(optimizer, length, steps)).scheduler
            for component, length in zip(schedulers, lengths, strict=True)
        ]
        return Schedule(cls(parts, optimizer) if milestones is None else cls(optimizer, parts, milestones), unit)

    return build


def _lengths(schedulers: list[Component], milestones: list[int], whole: int) -> list[int]:
    """Return how long each scheduler of a sequence runs, the last one to the end."""
    if len(milestones) != len(schedulers) - 1:
        needed = counted(len(schedulers) - 1, "milestone")
        raise ValueError(f"{len(schedulers)} schedulers need {needed}, got {len(milestones)}.")
    if milestones != sorted(set(milestones)):
        raise ValueError(f"milestones must increase, got {milestones}.")
    for component in schedulers:
        if "schedulers" in component.arguments:
            raise ValueError(f"torch cannot start a {component.name} at a milestone; name its parts here.")
    return [max(1, end - start) for start, end in zip([0, *milestones], [*milestones, whole], strict=True)]


def _check_made(made: Any, optimizer: Optimizer, *lengths: int) -> str | None:
    try:
        scheduler = Schedule.of(made).scheduler
    except ValueError as error:
        return str(error)
    groups = {id(group) for group in optimizer.param_groups}
    if groups.isdisjoint(id(group) for group in getattr(scheduler, "optimizer", optimizer).param_groups):
        return "its scheduler sets the learning rates of another optimizer: make it with the one that is handed in."
    return wrong_rate(optimizer)


schedulers = Registry(
    "scheduler",
    "schedulers",
    home=__name__,
    handed=("optimizer", "epochs", "steps_per_epoch"),
    family=_register_torch,
    check=_check_made,
)
