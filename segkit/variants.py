"""A recipe's variants: every listed one at every point of the grid, each with its own layers."""

from __future__ import annotations

import itertools
import re
from typing import Any

from segkit import layers, toml
from segkit.errors import UserError, suggest
from segkit.recipe import Recipe, validate


def slug(label: str) -> str:
    """Return a label as a folder name."""
    return re.sub(r"[^A-Za-z0-9.=+-]+", "_", label).strip("._") or "variant"


def variants(recipe: Recipe, document: layers.Document) -> list[tuple[str, layers.Document]]:
    """Return (label, merged layers) of each variant: every listed variant at every point of the grid.

    Raises:
        UserError: a variant without a label, two with the same one, or a grid path that is none.
    """
    base = document.copy()
    base.tree.pop("study", None)
    mistakes: list[str] = []
    listed: list[tuple[str, layers.Document]] = []
    for number, variant in enumerate(recipe.study.variants):
        patch, place = dict(variant), ("study", "variants", str(number))
        label = patch.pop("label", None)
        if not isinstance(label, str) or not label.strip():
            mistakes.append(f"{document.place(place)}: {'.'.join(place)}.label: a variant needs a label, a text.")
            continue
        nested = {name for name in patch if name in ("study", "studies", "overlay", "title")}
        if nested:
            mistakes.append(f"{document.place(place)}: {'.'.join(place)}: a variant cannot set {', '.join(nested)}.")
            continue
        laid, source = base.copy(), document.origin(place)
        assert source is not None, "a variant was written somewhere"
        try:
            laid.merge(patch, source.at(*source.prefix, *place))
        except UserError as error:
            mistakes.append(str(error))
            continue
        listed.append((label, laid))
    if mistakes:
        raise UserError("\n".join(mistakes))
    points = grid(recipe, document)
    found = [
        (", ".join(part for part in (label, *texts) if part) or recipe.title or "baseline", _set(laid, patches))
        for label, laid in (listed or [("", base)])
        for texts, patches in points
    ]
    _check_labels([label for label, _ in found], recipe, document)
    return found


def grid(recipe: Recipe, document: layers.Document) -> list[tuple[list[str], list[Any]]]:
    """Return each point of the grid as (labels, patches)."""
    axes = []
    for name, values in recipe.study.grid.items():
        source = document.origin(("study", "grid", name))
        assert source is not None, "a grid was written somewhere"
        try:
            path = layers.dotted(name)
        except ValueError as error:
            raise UserError(f"{document.place(('study', 'grid', name))}: study.grid: {error}.") from None
        prefix = source.at(*source.prefix, "study", "grid", name)
        axes.append([(f"{path[-1]}={_text(value)}", (layers.nest(path, value), prefix)) for value in values])
    return [([text for text, _ in point], [patch for _, patch in point]) for point in itertools.product(*axes)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else toml.value(value)


def _set(laid: layers.Document, patches: list[Any]) -> layers.Document:
    laid = laid.copy()
    for patch, source in patches:
        laid.merge(patch, source)
    return laid


def _check_labels(labels: list[str], recipe: Recipe, document: layers.Document) -> None:
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(slug(label).lower(), label)
        if other is not label:
            raise UserError(
                f"{document.place(('study', 'variants'))}: study.variants: two variants share the label or folder name "
                f"of '{label}'. Give each its own."
            )
    reference = recipe.study.compare_with
    if reference is not None and reference not in labels:
        place = document.place(("study", "compare_with"))
        raise UserError(
            f"{place}: study.compare_with: no variant is labelled '{reference}'. {suggest(reference, labels)}"
        )


def check_variants(recipe: Recipe, document: layers.Document) -> list[tuple[str, Recipe]]:
    """Return (label, recipe) of each variant, validated.

    Raises:
        UserError: every mistake of every variant.
    """
    found, mistakes = [], []
    for label, laid in variants(recipe, document):
        try:
            found.append((label, validate(laid)))
        except UserError as error:
            mistakes += [line for line in str(error).splitlines() if line not in mistakes]
    if mistakes:
        raise UserError("\n".join(mistakes))
    return found
