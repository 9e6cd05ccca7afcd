"""The tables of a recipe that are segkit's own: split, transforms, train, evaluation, study."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticSerializationError

from segkit.components.postprocess import postprocessors
from segkit.components.transforms import transforms
from segkit.errors import truncate
from segkit.registry import values
from segkit.registry.component import Component
from segkit.types import Count, Fraction, NonNegative, Positive

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


def _some_weight(weights: tuple[float, ...]) -> tuple[float, ...]:
    if not any(weights):
        raise ValueError("all of them are 0: nothing would be learned. Give one a weight above 0")
    return weights


def _tag(text: str) -> str:
    name, _, value = text.partition("=")
    if not name.strip() or not value.strip():
        raise ValueError(f'a tag is written "name=value", as in "phase=ES", got {values.format_value(truncate(text))}')
    return text


class Section(BaseModel):
    """A table of a recipe: unknown keys are mistakes, and values are not converted."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )

    def model_dump_json(self, **options: Any) -> str:
        """Return the table as JSON; a Ctrl-C stays one, which pydantic would turn into an error of its own."""
        try:
            return super().model_dump_json(**options)
        except PydanticSerializationError as error:
            if "KeyboardInterrupt" in str(error):
                raise KeyboardInterrupt from None
            raise


NamePattern = Annotated[str, Len(1)]
Share = Annotated[float, Gt(0), Lt(1)]
Names = Annotated[tuple[str, ...], Len(1), AfterValidator(lambda names: tuple(sorted(names)))]  # any order is one split


class Split(Section):
    """How patients are divided: always whole patients, the same for every seed of a study."""

    test: Share | Names | None = Field(
        None,
        description="Share of the patients kept for the test set, which is drawn first, or their names. The verdict of "
        "a study is made on it.",
    )
    validation: Share | Names = Field(
        0.2, description="Share of the patients kept for validation, or their names; it chooses the epoch."
    )
    train: Names | None = Field(
        None, description="The names of the only patients to train on, or to divide into training and validation."
    )
    file: Path | None = Field(
        None, description="A CSV that names the set or the fold of each patient: columns patient (or case), set, fold."
    )
    train_fraction: Annotated[Fraction, Gt(0)] = Field(
        1.0, description="Share of the remaining patients that is trained on; smaller sets lie within larger ones."
    )
    seed: int = Field(1, description="Draws the patients; validation does not depend on train_fraction.")
    folds: Annotated[int, Ge(2), Le(1000)] | Annotated[tuple[Names, ...], Len(2, 1000)] | None = Field(
        None, description="Cross-validate over this many groups of patients, or over these."
    )
    fold: Count | None = Field(None, description="Only this fold, counted from 1; all of them when not given.")

    @property
    def fold_count(self) -> int | None:
        """The number of folds, None without cross-validation."""
        return self.folds if self.folds is None or isinstance(self.folds, int) else len(self.folds)

    @model_validator(mode="after")
    def _check_folds(self) -> Self:
        count = self.fold_count
        if self.fold is not None and (count is None or self.fold > count):
            have = f"only {count} folds" if count else "no folds"
            raise ValueError(f"fold = {self.fold}, but there are {have}: set split.folds, or choose one from 1 on")
        if count and not isinstance(self.validation, float):
            raise ValueError("validation names patients, but folds are validated in turn: leave out one of the two")
        if self.train is not None and isinstance(self.folds, tuple):
            raise ValueError("folds names the patients that are trained on in turn: leave out train")
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        lists: dict[str, Any] = {"test": self.test, "validation": self.validation, "train": self.train}
        if isinstance(self.folds, tuple):
            lists |= {f"folds.{number}": names for number, names in enumerate(self.folds)}
        seen: dict[str, str] = {}
        for key, names in lists.items():
            for name in names if isinstance(names, tuple) else ():
                if name in seen:
                    where = f"listed twice in {key}" if seen[name] == key else f"in {seen[name]} and in {key}"
                    raise ValueError(f"{values.format_value(truncate(name))} is {where}. Leave out one")
                seen[name] = key
        return self


class Transforms(Section):
    """Albumentations pipelines: `train` for training, `eval` for whole images in validation and prediction."""

    train: tuple[Annotated[Component, transforms], ...] = ()
    eval: tuple[Annotated[Component, transforms], ...] = ()


class Every(Section):
    """How often the state is saved: every so many epochs, optimizer steps or seconds, whichever comes first."""

    epochs: Count | None = None
    steps: Count | None = None
    seconds: Positive | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if self.epochs is None and self.steps is None and self.seconds is None:
            raise ValueError("give epochs, steps or seconds, as in save_every = { epochs = 1 }")
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
    steps_per_epoch: Annotated[Count, Le(1_000_000)] | None = Field(
        None, description="Optimizer steps that count as an epoch; as many as see each sample once when not given."
    )
    select: Literal["best", "last"] = Field(
        "best", description="The epoch whose weights are evaluated: the best one on the validation set, or the last."
    )
    select_by: str = Field(
        "dice", description="What the best epoch is best in: a metric of the recipe, computed each epoch, or val_loss."
    )
    accumulate: Count = Field(1, description="Batches whose gradients are averaged into one optimizer step.")
    clip_norm: Positive | None = Field(None, description="Largest norm of the gradient; no clipping when not given.")
    ema: Share | None = Field(
        None,
        description="Decay of a moving average of the weights, which is then evaluated and kept; none when not given. "
        "After step n, from 0, it is at most (1 + n) / (10 + n), so that the average forgets the first weights.",
    )
    auxiliary_weights: Annotated[tuple[NonNegative, ...], Len(1, 16), AfterValidator(_some_weight)] | None = Field(
        None,
        description="Weights of the several scores that a model returns in training, the finest first, normalized to a "
        "sum of 1; each is half of the one before when not given.",
    )
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
    resident: bool | Literal["auto"] = Field(
        "auto",
        description="Whether samples live on the device and are transformed there, if all transforms have a device "
        "form; auto: on CUDA, if the data take at most a quarter of its memory.",
    )
    patience: Count | None = Field(
        None, description="Epochs without a better select_by after which training ends; never when not given."
    )
    warmup: Count | None = Field(
        None, description="Optimizer steps over which the rate rises linearly to the schedule's."
    )
    init_from: Path | None = Field(None, description="A checkpoint whose weights training begins with.")
    init_match: Literal["exact", "names"] = Field(
        "exact", description="exact: all weights must fit; names: those whose name and shape fit are taken."
    )
    init_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="The hash of these weights, which segkit fills in: they are then what must be found there."
    )
    freeze: Annotated[tuple[NamePattern, ...], Len(1)] | None = Field(
        None, description='Patterns of the names of parameters that are not trained, or "norms" or "biases".'
    )
    oversample_foreground: Annotated[Fraction, Gt(0)] | None = Field(
        None, description="Share of each batch that is drawn among slices with foreground, and cropped to show some."
    )
    save_every: Every = Every(epochs=1)  # tables come last, as in the TOML of a filled recipe
    sampling_weights: Annotated[dict[Annotated[str, AfterValidator(_tag)], NonNegative], Len(1)] | None = Field(
        None, description='How often cases with a tag are drawn, as in { "phase=ES" = 2.0 }; others have weight 1.'
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.patience is not None and self.select == "last":
            raise ValueError('patience ends the training at its best epoch, but select = "last" keeps the last one')
        if self.init_from is None and (self.init_match != "exact" or self.init_sha256 is not None):
            raise ValueError("init_match and init_sha256 are about init_from, which is not given: leave them out")
        if self.steps_per_epoch is not None and self.budget == "steps":
            raise ValueError('steps_per_epoch states the steps of an epoch already: leave out budget = "steps"')
        return self


class Window(Section):
    """Sliding windows: the network sees windows of one size, and their probabilities are averaged."""

    size: tuple[Annotated[Count, Le(65_536)], Annotated[Count, Le(65_536)]] = Field(
        description="(rows, columns) of a window; smaller images are padded with their mean to it."
    )
    overlap: Annotated[float, Ge(0), Lt(1)] = Field(0.5, description="Share of a window that the next one covers too.")
    sigma: Annotated[float, Ge(0.01), Le(100)] = Field(
        0.125, description="Of the Gaussian that weighs the pixels of a window, as a share of its size."
    )


class Evaluation(Section):
    """How a trained model is evaluated, and how it predicts: a change trains nothing again."""

    tta: Literal["none", "flips", "d4"] = Field(
        "none",
        description="Test-time augmentation: probabilities are the mean over the 4 flips of the image, or over the 8 "
        "symmetries of the square.",
    )
    window: Window | None = None
    postprocess: tuple[Annotated[Component, postprocessors], ...] = Field(
        (), description="What is done, in this order, to the masks of a case once they are decided."
    )
    during_training: bool = Field(
        False, description="Whether validation in each epoch does all this too; it then chooses the epoch by it."
    )

    @property
    def averages(self) -> bool:
        """Whether a probability is the mean of several, over symmetries or windows."""
        return self.tta != "none" or self.window is not None

    @property
    def text(self) -> str:
        """What is done, on one line; "" where nothing is."""
        views = {"flips": "mean over 4 flips", "d4": "mean over 8 symmetries"}
        parts = [views[self.tta]] if self.tta != "none" else []
        parts += [f"windows of {self.window.size[0]} x {self.window.size[1]}"] if self.window else []
        parts += [component.name for component in self.postprocess]
        return ", ".join(parts) + (" (in each epoch too)" if parts and self.during_training else "")

    @property
    def of_epochs(self) -> Evaluation:
        """What of it validation in each epoch does."""
        return self if self.during_training else Evaluation()


class Study(Section):
    """What is varied: variants, a grid, seeds; each variant is trained once a seed."""

    seeds: Annotated[tuple[Annotated[int, Ge(0), Lt(2**32)], ...], Len(1), AfterValidator(_unique)] | None = None
    compare_with: str | None = Field(None, description="The label of the variant that the others are tested against.")
    variants: tuple[dict[str, Any], ...] = ()
    grid: dict[str, Annotated[list[Any], Len(1)]] = Field(default_factory=dict)
