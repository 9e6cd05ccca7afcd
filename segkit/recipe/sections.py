"""The tables of a recipe that are segkit's own: split, transforms, train, study."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from segkit.components.transforms import transforms
from segkit.errors import truncate
from segkit.registry import values
from segkit.registry.component import Component
from segkit.types import Count, Fraction, Positive

DEVICE = re.compile(r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")


def _device(name: str) -> str:
    if not DEVICE.match(name):
        raise ValueError(f'must be "auto", "cpu", "mps", "cuda" or "cuda:N", got {values.format_value(truncate(name))}')
    return name


def _unique(seeds: tuple[int, ...]) -> tuple[int, ...]:
    twice = next((seed for seed, count in Counter(seeds).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is listed twice. List each seed once.")
    return seeds


class Section(BaseModel):
    """A table of a recipe: unknown keys are mistakes, and values are not converted."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


class Split(Section):
    """How patients are divided: always whole patients, the same for every seed of a study."""

    validation: Annotated[float, Gt(0), Lt(1)] = Field(0.2, description="Share of the patients kept for validation.")
    train_fraction: Annotated[Fraction, Gt(0)] = Field(
        1.0, description="Share of the remaining patients that is trained on; smaller sets lie within larger ones."
    )
    seed: int = Field(1, description="Draws the patients; validation does not depend on train_fraction.")
    folds: Annotated[int, Ge(2), Le(1000)] | None = Field(
        None, description="Cross-validate over this many groups of patients."
    )
    fold: Count | None = Field(None, description="Only this fold, counted from 1; all of them when not given.")

    @model_validator(mode="after")
    def _check_fold(self) -> Self:
        if self.fold is not None and (self.folds is None or self.fold > self.folds):
            have = f"only {self.folds} folds" if self.folds else "no folds"
            raise ValueError(f"fold = {self.fold}, but there are {have}: set split.folds, or choose one from 1 on")
        return self


class Transforms(Section):
    """Albumentations pipelines: `train` for training, `eval` for whole images in validation and prediction."""

    train: tuple[Annotated[Component, transforms], ...] = ()
    eval: tuple[Annotated[Component, transforms], ...] = ()


class Every(Section):
    """How often the last checkpoint is saved: every so many epochs or optimizer steps."""

    epochs: Count | None = None
    steps: Count | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps, as in save_every = { epochs = 1 }")
        return self


class Train(Section):
    """The training loop's settings."""

    epochs: Annotated[Count, Le(1_000_000)] = 300
    batch_size: Annotated[Count, Le(65_536)] = 32
    seed: Annotated[int, Ge(0), Lt(2**32)] = 1
    budget: Literal["epochs", "steps"] = Field(
        "epochs",
        description="What stays equal when train_fraction shrinks the data: epochs (fewer steps), "
        "or steps (as many as the whole training set would take).",
    )
    accumulate: Count = Field(1, description="Batches whose gradients are averaged into one optimizer step.")
    clip_norm: Positive | None = Field(None, description="Largest norm of the gradient; no clipping when not given.")
    device: Annotated[str, AfterValidator(_device), WithJsonSchema({"type": "string", "pattern": DEVICE.pattern})] = (
        "auto"
    )
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    threads: Annotated[int, Ge(1), Le(4096)] | Literal["auto"] = Field(
        "auto",
        description="CPU threads of torch, which change the last bits; auto is settled once a study, for all trials.",
    )
    compile: bool = False
    deterministic: bool = Field(False, description="Only deterministic operations on CUDA; slower there.")
    workers: Annotated[int, Ge(0), Le(1024)] | Literal["auto"] = "auto"
    save_every: Every = Every(epochs=1)


class Study(Section):
    """What is varied: variants, a grid, seeds; each variant is trained once a seed."""

    seeds: Annotated[tuple[Annotated[int, Ge(0), Lt(2**32)], ...], Len(1), AfterValidator(_unique)] | None = None
    compare_with: str | None = Field(None, description="The label of the variant that the others are tested against.")
    variants: tuple[dict[str, Any], ...] = ()
    grid: dict[str, Annotated[list[Any], Len(1)]] = Field(default_factory=dict)
