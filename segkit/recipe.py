"""A recipe: the pydantic models of its tables, and reading, extending, overriding, validating, explaining it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Len, Lt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import segkit
from segkit import layers, plugins, toml
from segkit.component import Component
from segkit.errors import UserError
from segkit.mistakes import plainly
from segkit.registry import Several
from segkit.types import Count, Fraction, Positive


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
    folds: Annotated[int, Ge(2)] | None = Field(None, description="Cross-validate over this many groups of patients.")
    fold: Count | None = Field(None, description="Only this fold, counted from 1; all of them when not given.")

    @model_validator(mode="after")
    def _check_fold(self) -> Self:
        if self.fold is not None and (self.folds is None or self.fold > self.folds):
            raise ValueError(f"fold = {self.fold} needs folds of at least as many (folds = {self.folds})")
        return self


class Transforms(Section):
    """Albumentations pipelines: `train` for training, `eval` for whole images in validation and prediction."""

    train: tuple[Annotated[Component, segkit.transforms], ...] = ()
    eval: tuple[Annotated[Component, segkit.transforms], ...] = ()


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

    epochs: Count = 300
    batch_size: Count = 32
    seed: Annotated[int, Ge(0), Lt(2**32)] = 1
    budget: Literal["epochs", "steps"] = Field(
        "epochs",
        description="What stays equal when train_fraction shrinks the data: epochs (fewer steps), "
        "or steps (as many as the whole training set would take).",
    )
    accumulate: Count = Field(1, description="Batches whose gradients are averaged into one optimizer step.")
    clip_norm: Positive | None = Field(None, description="Largest norm of the gradient; no clipping when not given.")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    threads: Annotated[int, Ge(1), Lt(4097)] | Literal["auto"] = Field(
        "auto",
        description="CPU threads of torch, which change the last bits; auto is settled once a study, for all trials.",
    )
    compile: bool = False
    deterministic: bool = Field(False, description="Only deterministic operations on CUDA; slower there.")
    workers: Annotated[int, Ge(0)] | Literal["auto"] = "auto"
    save_every: Every = Every(epochs=1)


class Study(Section):
    """What is varied: variants, a grid, seeds; each variant is trained once a seed."""

    seeds: Annotated[tuple[Annotated[int, Ge(0), Lt(2**32)], ...], Len(1)] | None = None
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
    data: Annotated[Component, segkit.datasets] = Field(default="phantom", validate_default=True)
    split: Split = Split()
    transforms: Transforms = Transforms()
    model: Annotated[Component, segkit.models] = Field(default="unet", validate_default=True)
    loss: Annotated[tuple[Component, ...], Several(segkit.losses)] = Field(default="dice_mix", validate_default=True)
    regularizer: Annotated[tuple[Component, ...], Several(segkit.regularizers)] = ()
    optimizer: Annotated[Component, segkit.optimizers] = Field(default="Adam", validate_default=True)
    scheduler: Annotated[Component, segkit.schedulers] | None = None
    metrics: Annotated[tuple[Component, ...], Several(segkit.metrics)] = Field(
        default={"dice": {}, "soft_dice": {}, "iou": {}, "precision": {}, "recall": {}}, validate_default=True
    )
    train: Train = Train()
    study: Study = Study()

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        if not self.loss:
            raise ValueError("loss: a recipe needs at least one loss")
        if self.channels == "independent":
            for component in (*self.loss, *self.regularizer):
                if component.entry.traits["exclusive_only"]:
                    name = f"{component.entry.registry.slot}.{component.name}"
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
        from segkit.variants import check_variants

        document = compose(path, overlays=overlays, sets=sets)
        recipe = validate(document)
        check_variants(recipe, document)
        return recipe

    @classmethod
    def from_dict(cls, tree: dict[str, Any], name: str = "recipe") -> Recipe:
        """Validate a recipe that is already a tree of plain values, e.g. a checkpoint's."""
        document = layers.Document()
        document.merge(tree, layers.Source(name, None, Path.cwd()))
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


def compose(path: str | Path, *, overlays: Iterable[str | Path] = (), sets: Iterable[str] = ()) -> layers.Document:
    """Return the merged layers of a recipe: `extends`, the file, each overlay, each setting."""
    plugins.load()
    document = layers.Document()
    layers.lay(document, Path(path))
    for overlay in overlays:
        kept = document.tree.get("overlay")
        layers.lay(document, Path(overlay))
        document.tree.pop("overlay", None)
        if kept is not None:
            document.tree["overlay"] = kept
    for assignment in sets:
        layers.set_value(document, assignment)
    return document


def validate(document: layers.Document) -> Recipe:
    """Return the recipe of merged layers.

    Raises:
        UserError: every mistake, one a line: place, path, what is wrong, what is known.
    """
    try:
        return Recipe.model_validate_json(json.dumps(document.tree, default=str), strict=True)
    except ValidationError as error:
        raise UserError("\n".join(mistakes(error, document))) from None


def mistakes(error: ValidationError, document: layers.Document) -> list[str]:
    """Return a validation error as lines `file:line: path: what is wrong`."""
    lines: list[str] = []
    for found in error.errors(include_url=False):
        path = tuple(str(part) for part in found["loc"])
        message = plainly(found, _known(path[:-1]), "key")
        whole = re.match(r"([a-z_]+(?:\.\w+)*): ", message)
        if whole and not path:  # a mistake of the whole recipe says itself which key it is about
            path, message = tuple(whole[1].split(".")), message[whole.end() :]
        place = document.place(path)
        line = ": ".join(part for part in (place, ".".join(path), message) if part)
        if "no such" in message and plugins.failures() and "parameter" not in message and "key" not in message:
            line += "\n  These plugins failed to load:" + "".join(f"\n    {failure}" for failure in plugins.failures())
        if line not in lines:
            lines.append(line)
    return lines


def _known(path: Sequence[str]) -> list[str]:
    """Return the keys of the recipe's own table at `path`."""
    section: type[Section] = Recipe
    for part in path:
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return []
        section = annotation
    return list(section.model_fields)


def explain(recipe: Recipe, document: layers.Document) -> list[tuple[tuple[str, ...], Any, str]]:
    """Return (path, value, origin) of each value of the filled recipe; origin is file:line, a flag or "default"."""
    rows: list[tuple[tuple[str, ...], Any, str]] = []

    def walk(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, dict) and node and (path[:1] != ("study",) or len(path) == 1):
            for name, value in node.items():
                walk(value, (*path, name))
        else:
            rows.append((path, node, document.place(path) if _written(path, document) else "default"))

    walk(recipe.dump(), ())
    return rows


def _written(path: Sequence[str], document: layers.Document) -> bool:
    """Return whether a layer wrote the value at `path`, or an inline value that holds it."""
    node: Any = document.tree
    for part in path:
        if isinstance(node, dict) and part in node:
            node = node[part]
        else:
            return False
    return True
