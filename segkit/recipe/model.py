"""A recipe: the pydantic models of its tables, and reading, extending, overriding, validating, explaining it."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from segkit import plugins
from segkit.components import SEVERAL, SINGLE
from segkit.components.transforms import transforms
from segkit.errors import MOST, several, shortened
from segkit.recipe import merge, toml
from segkit.registry.component import Component
from segkit.registry.messages import plain
from segkit.registry.registry import Several
from segkit.types import Count, Fraction, Positive

DEVICE = re.compile(r"^(auto|cpu|mps|cuda(:\d{1,3})?)$")


def _device(name: str) -> str:
    if not DEVICE.match(name):
        raise ValueError(f'must be "auto", "cpu", "mps", "cuda" or "cuda:N", got {toml.value(shortened(name))}')
    return name


def _once(seeds: tuple[int, ...]) -> tuple[int, ...]:
    twice = next((seed for seed, count in Counter(seeds).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is there twice: the same training would be counted as two. Give each seed once.")
    return seeds


class Section(BaseModel):
    """A table of a recipe: unknown keys are mistakes, and nothing is converted."""

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

    seeds: Annotated[tuple[Annotated[int, Ge(0), Lt(2**32)], ...], Len(1), AfterValidator(_once)] | None = None
    compare_with: str | None = Field(None, description="The label of the variant that the others are tested against.")
    variants: tuple[dict[str, Any], ...] = ()
    grid: dict[str, Annotated[list[Any], Len(1)]] = Field(default_factory=dict)


class Recipe(Section):
    """One recipe: everything that a trial or a study needs."""

    title: str = ""
    overlay: bool = Field(False, description="This file is laid over recipes with --with; it is none by itself.")
    studies: tuple[str, ...] = Field((), description="Recipes that this one runs, each its own study.")
    channels: Literal["independent", "exclusive"] = Field(
        "independent",
        description="independent: a sigmoid a channel, structures may overlap; exclusive: a softmax with background.",
    )
    data: Annotated[Component, SINGLE["data"]] = Field(default="phantom", validate_default=True)
    split: Split = Split()
    transforms: Transforms = Transforms()
    model: Annotated[Component, SINGLE["model"]] = Field(default="unet", validate_default=True)
    loss: Annotated[tuple[Component, ...], Several(SEVERAL["loss"])] = Field(default="dice_mix", validate_default=True)
    regularizer: Annotated[tuple[Component, ...], Several(SEVERAL["regularizer"])] = ()
    optimizer: Annotated[Component, SINGLE["optimizer"]] = Field(default="Adam", validate_default=True)
    scheduler: Annotated[Component, SINGLE["scheduler"]] | None = None
    metrics: Annotated[tuple[Component, ...], Several(SEVERAL["metrics"])] = Field(
        default={"dice": {}, "soft_dice": {}, "iou": {}, "precision": {}, "recall": {}}, validate_default=True
    )
    train: Train = Train()
    study: Study = Study()

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        if not self.loss:
            raise ValueError("loss: a recipe needs at least one loss")
        if all(component.weight == 0 for component in self.loss):
            raise ValueError("loss: every loss has weight 0: nothing would be learned. Give one a weight above 0")
        if self.channels == "independent":
            for component in (*self.loss, *self.regularizer):
                if component.entry.traits["exclusive_only"]:
                    name = f"{component.entry.slot.name}.{component.name}"
                    raise ValueError(f'{name}: has a meaning for exclusive classes only: channels = "exclusive"')
        return self

    @classmethod
    def load(cls, path: str | Path, *, overlays: Iterable[str | Path] = (), sets: Iterable[str] = ()) -> Recipe:
        """Read, extend, override and validate a recipe file; its variants too.

        Args:
            path: the TOML file.
            overlays: files laid over it, in order (`--with`).
            sets: `path=value` settings laid over those, in order (`--set`).

        Raises:
            UserError: every mistake found, one a line, each with its place.
        """
        from segkit.recipe.variants import check_variants

        document = compose(path, overlays=overlays, sets=sets)
        recipe = validate(document)
        check_variants(recipe, document)
        return recipe

    @classmethod
    def from_dict(cls, tree: dict[str, Any], name: str = "recipe") -> Recipe:
        """Validate a recipe that is already a tree of plain values, e.g. a checkpoint's."""
        document = merge.Document()
        document.merge(tree, merge.Source(name, None, Path.cwd()))
        return validate(document)

    def dump(self) -> dict[str, Any]:
        """Return the filled recipe, defaults included, as plain values that `load` reads back the same."""
        tree: dict[str, Any] = json.loads(self.model_dump_json(exclude_none=True))
        for name in ("overlay", "studies", "title", "regularizer"):
            if not tree.get(name):
                tree.pop(name, None)
        study = {name: value for name, value in tree.pop("study").items() if value}
        return tree | ({"study": study} if study else {})

    def to_toml(self) -> str:
        """Return the filled recipe as TOML text."""
        return toml.dumps(self.dump())

    def components(self) -> list[Component]:
        """Return every component the recipe uses, nested ones included."""
        found = [self.data, self.model, self.optimizer, *self.loss, *self.regularizer, *self.metrics]
        found += [*self.transforms.train, *self.transforms.eval]
        found += [self.scheduler] if self.scheduler else []
        for component in found:  # the list grows while it is walked: nested components are walked in turn
            for value in component.arguments.values():
                items = value if isinstance(value, (list, tuple)) else [value]
                found.extend(item for item in items if isinstance(item, Component))
        return found


def compose(path: str | Path, *, overlays: Iterable[str | Path] = (), sets: Iterable[str] = ()) -> merge.Document:
    """Return the merged layers of a recipe: `extends`, the file, each overlay, each setting."""
    plugins.load()
    document = merge.Document()
    merge.lay(document, Path(path))
    for overlay in overlays:
        kept = document.tree.get("overlay")
        merge.lay(document, Path(overlay), flag=f"--with {overlay}")
        document.tree.pop("overlay", None)
        if kept is not None:
            document.tree["overlay"] = kept
    for assignment in sets:
        merge.set_value(document, assignment)
    return document


def validate(document: merge.Document) -> Recipe:
    """Return the recipe of merged layers.

    Raises:
        UserError: every mistake, one a line: place, path, what is wrong, what is known.
    """
    try:
        return Recipe.model_validate_json(json.dumps(document.tree, default=str), strict=True)
    except ValidationError as error:
        lines, count = mistakes(error, document), error.error_count()
        if count > 10 * MOST:
            lines = [*lines[:MOST], f"... and {count - MOST:,} more mistakes"]
        raise several(lines) from None


def mistakes(error: ValidationError, document: merge.Document) -> list[str]:
    """Return a validation error as lines `file:line: path: what is wrong`."""
    strange = _strangers(document)
    lines = list(strange.values())
    for place, text, _ in plain(error, document.tree, lambda path: _known(path[:-1]), "key"):
        path, message = tuple(str(part) for part in place), text
        whole = re.match(r"([a-z_]+(?:\.\w+)*): ", message)
        if whole and not path:  # a mistake of the whole recipe says itself which key it is about
            path, message = tuple(whole[1].split(".")), message[whole.end() :]
        source = document.origin(path)
        if len(path) == 1 and message.startswith("no such key") and source and source.name in strange:
            continue  # the file as a whole was named
        line = ": ".join(part for part in (document.place(path), ".".join(map(toml.key, path)), message) if part)
        if "no such" in message and plugins.failures() and "parameter" not in message and "key" not in message:
            line += "\n  These plugins failed to load:" + "".join(f"\n    {failure}" for failure in plugins.failures())
        if line not in lines:
            lines.append(line)
    return lines


def _strangers(document: merge.Document) -> dict[str, str]:
    """Return a line for each file that is TOML, but of something else: it extends none, and has no table of one."""
    tables: dict[str, set[str]] = {}
    texts: dict[str, str] = {}
    for path, source in document.origins.items():
        if source.text is not None:
            tables.setdefault(source.name, set()).add(path[0])
            texts[source.name] = source.text
    known = list(Recipe.model_fields)
    return {
        name: f"{name}: no recipe: it holds {shortened(', '.join(map(toml.key, sorted(own))))}. A recipe has tables "
        "such as data, model, loss, train and study."
        for name, own in tables.items()
        if not any(difflib.get_close_matches(table[:100].lower(), known, n=1) for table in sorted(own)[:MOST])
        and not toml.line_of(texts[name], ("extends",))
    }


def _known(path: Sequence[str | int]) -> list[str]:
    """Return the keys of the recipe's own table at `path`."""
    section: type[Section] = Recipe
    for part in map(str, path):
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return []
        section = annotation
    return list(section.model_fields)
