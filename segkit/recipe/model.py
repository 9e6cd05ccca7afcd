"""The pydantic model of a recipe: loading, validation, and the mistakes of a file with their places."""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from segkit import plugins
from segkit.components import SEVERAL, SINGLE
from segkit.errors import MAX_LISTED, UserError, join_mistakes, suggest, truncate
from segkit.recipe import merge, toml
from segkit.recipe.initial_weights import with_initial_weights
from segkit.recipe.lint import StudyLint
from segkit.recipe.listed_split import with_listed_split
from segkit.recipe.sections import Evaluation, Section, Split, Study, Train, Transforms
from segkit.recipe.variants import variants
from segkit.registry.component import Component
from segkit.registry.faults import parts_of
from segkit.registry.messages import MAX_READ, translate_errors
from segkit.registry.registry import Several

ALWAYS_COMPUTED = ("dice", "val_loss")  # whatever the metrics of a recipe


class Recipe(Section):
    """A recipe: everything that a study and its trials need."""

    title: str = ""
    channels: Literal["independent", "exclusive"] = Field(
        "independent",
        description="independent: a sigmoid a channel, structures may overlap; exclusive: a softmax with background.",
    )
    data: Annotated[Component, SINGLE["data"]] = Field(default="phantom", validate_default=True)
    intensity: Annotated[Component, SINGLE["intensity"]] = Field(default="percentile", validate_default=True)
    split: Split = Split()
    transforms: Transforms = Transforms()
    model: Annotated[Component, SINGLE["model"]] = Field(default="unet", validate_default=True)
    loss: Annotated[tuple[Component, ...], Several(SEVERAL["loss"])] = Field(default="dice_mix", validate_default=True)
    regularizer: Annotated[tuple[Component, ...], Several(SEVERAL["regularizer"])] = ()
    optimizer: Annotated[Component, SINGLE["optimizer"]] = Field(default="Adam", validate_default=True)
    scheduler: Annotated[Component, SINGLE["scheduler"]] | None = None
    step: Annotated[Component, SINGLE["step"]] = Field(default="supervised", validate_default=True)
    metrics: Annotated[tuple[Component, ...], Several(SEVERAL["metrics"])] = Field(
        default={"dice": {}, "soft_dice": {}, "iou": {}, "precision": {}, "recall": {}}, validate_default=True
    )
    train: Train = Train()
    evaluation: Evaluation = Evaluation()
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
                    raise ValueError(f'{name}: is defined for exclusive classes only: set channels = "exclusive"')
        self._check_selection()
        return self

    @model_validator(mode="after")
    def _check_intensity(self) -> Self:
        if not self.intensity.entry.foreign:
            try:
                self.intensity.build()
            except ValueError as error:  # two values that do not go together
                raise ValueError(f"intensity.{self.intensity.name}: {error}") from None
        return self

    def _check_selection(self) -> None:
        """Raise unless what chooses the epoch is computed each epoch, and has better and worse values."""
        name = self.train.select_by
        if name in ALWAYS_COMPUTED:
            return
        traits = {metric.name: metric.entry.traits for metric in self.metrics}
        if name not in traits:
            usable = {key for key, own in traits.items() if not own["final_only"] and not own["descriptive"]}
            known = suggest(name, usable.union(ALWAYS_COMPUTED))
            raise ValueError(f"train.select_by: '{truncate(name)}' is no metric of this recipe. {known}".rstrip("."))
        if traits[name]["final_only"]:
            raise ValueError(f"train.select_by: {name} is computed once, at the end: choose one computed each epoch")
        if traits[name]["descriptive"]:
            raise ValueError(f"train.select_by: no value of {name} is better than another: choose another metric")

    @classmethod
    def load(cls, path: str | Path, *, overlays: Iterable[str | Path] = (), sets: Iterable[str] = ()) -> Recipe:
        """Load a recipe file and validate it, its variants included.

        Args:
            path: the TOML file.
            overlays: files merged over it, in order (`--with`).
            sets: `path=value` settings merged over those, in order (`--set`).

        Raises:
            UserError: every mistake found, one a line, each with its place.
        """
        document = merge.compose(path, overlays=overlays, sets=sets)
        recipe = validate(document)
        check_variants(recipe, document)
        return recipe

    @classmethod
    def from_dict(cls, tree: dict[str, Any], name: str = "recipe") -> Recipe:
        """Validate a recipe that is already a tree of values, e.g. a checkpoint's; `name` is its place in messages."""
        return validate(merge.Document.from_tree(tree, name))

    def dump(self) -> dict[str, Any]:
        """Return the filled recipe, defaults included, as values from which `load` makes the same recipe."""
        tree: dict[str, Any] = json.loads(self.model_dump_json(exclude_none=True))
        for name in ("title", "regularizer"):
            if not tree.get(name):
                tree.pop(name, None)
        study = {name: value for name, value in tree.pop("study").items() if value}
        return tree | ({"study": study} if study else {})

    def to_toml(self) -> str:
        """Return the filled recipe as TOML text."""
        return toml.dumps(self.dump())

    def components(self) -> list[Component]:
        """Return all components of the recipe, nested ones included."""
        own = [self.data, self.intensity, self.model, self.optimizer, self.step]
        own += [*self.loss, *self.regularizer, *self.metrics]
        own += [*self.transforms.train, *self.transforms.eval, *([self.scheduler] if self.scheduler else [])]
        own += self.evaluation.postprocess
        return [part for component in own for part in parts_of(component)]


def validate(document: merge.Document) -> Recipe:
    """Return the recipe of merged layers.

    Raises:
        UserError: every mistake, one a line: place, path, what is wrong, what is known.
    """
    document = with_initial_weights(with_listed_split(document))
    try:
        return Recipe.model_validate_json(json.dumps(document.tree, default=str), strict=True)
    except ValidationError as error:
        raise join_mistakes(_explained(error, document), unread=error.error_count() - MAX_READ) from None


def _explained(error: ValidationError, document: merge.Document) -> Iterator[str]:
    """Yield the mistakes of a validation error as `file:line: path: what is wrong`."""
    foreign = _foreign_files(document)
    yield from foreign.values()
    for place, text, _ in translate_errors(error, document.tree, lambda path: _known_keys(path[:-1]), "key"):
        path, message = tuple(str(part) for part in place), text
        whole = re.match(r"([a-z_]+(?:\.\w+)*): ", message)
        if whole and not path:  # messages of `Recipe`'s validators begin with their key
            path, message = tuple(whole[1].split(".")), message[whole.end() :]
        source = document.origin(path)
        if len(path) == 1 and message.startswith("no such key") and source and source.name in foreign:
            continue  # the whole file is reported
        line = ": ".join(part for part in (document.place(path), ".".join(map(toml.format_key, path)), message) if part)
        if "no such" in message and plugins.failures() and "parameter" not in message and "key" not in message:
            line += "\n  These plugins failed to load:" + "".join(f"\n    {failure}" for failure in plugins.failures())
        yield line


def _foreign_files(document: merge.Document) -> dict[str, str]:
    """Return a message for each TOML file that is not a recipe: it extends none, and has none of its tables."""
    tables: dict[str, set[str]] = {}
    texts: dict[str, str] = {}
    for path, source in document.origins.items():
        if source.text is not None:
            tables.setdefault(source.name, set()).add(path[0])
            texts[source.name] = source.text
    known = list(Recipe.model_fields)
    return {
        name: f"{name}: not a recipe: it contains {truncate(', '.join(map(toml.format_key, sorted(own))))}. A recipe "
        "has tables such as data, model, loss, train and study."
        for name, own in tables.items()
        if not any(difflib.get_close_matches(table[:100].lower(), known, n=1) for table in sorted(own)[:MAX_LISTED])
        and not toml.line_of(texts[name], ("extends",))
    }


def _known_keys(path: Sequence[str | int]) -> list[str]:
    section: type[Section] = Recipe
    for part in map(str, path):
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        choices = [annotation, *typing.get_args(annotation)]  # of `Window | None` too
        inner = next((choice for choice in choices if isinstance(choice, type) and issubclass(choice, Section)), None)
        if inner is None:
            return []
        section = inner
    return list(section.model_fields)


def check_variants(recipe: Recipe, document: merge.Document) -> list[tuple[str, Recipe]]:
    """Validate each variant and return (label, recipe); warnings are added to the document.

    Raises:
        UserError: every mistake of every variant, and every flag that has no effect.
    """
    found: list[tuple[str, Recipe]] = []
    mistakes: dict[str, None] = {}
    lint = StudyLint(recipe.study, document)
    for label, layers in variants(recipe.study, recipe.split, recipe.title, document):
        try:
            own = validate(layers)
        except UserError as error:
            mistakes |= dict.fromkeys(str(error).splitlines())
            continue
        content = own.model_copy(update={"title": "", "study": Study()}).model_dump_json()
        lint.add_variant(label, content, layers, _recipe_warnings(own, layers))
        found.append((label, own))
    if not mistakes:
        mistakes |= dict.fromkeys(lint.mistakes())
    if mistakes:
        raise join_mistakes(list(mistakes))
    document.warnings += [text for text in lint.warnings() if text not in document.warnings]
    return found


def _recipe_warnings(recipe: Recipe, document: merge.Document) -> Iterator[str]:
    def at(*path: str) -> str:
        return f"{document.place(path)}: {'.'.join(path)}: ".removeprefix(": ")

    if recipe.optimizer.arguments.get("lr") == 0:
        yield f"{at('optimizer', recipe.optimizer.name, 'lr')}is 0: nothing is learned."
    if recipe.split.folds is not None and ("split", "validation") in document.origins:
        yield f"{at('split', 'validation')}has no effect: with split.folds each fold is validated on in turn."
    if recipe.evaluation.during_training and not recipe.evaluation.text:
        yield f"{at('evaluation', 'during_training')}has no effect: nothing else of [evaluation] is set."
    if not recipe.metrics:
        yield f"{at('metrics')}no metrics: nothing can be compared."
