"""What `segkit show NAME` says of a component, and that its piece of recipe works when pasted."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated

from segkit import plugins
from segkit.components import REGISTRIES
from segkit.components.losses import losses
from segkit.errors import UserError
from segkit.plugins import isolated
from segkit.recipe import describe
from segkit.recipe.merge import Document
from segkit.recipe.model import validate
from segkit.recipe.source import Source
from segkit.types import Fraction, Tensor
from tests.fresh_plugins import EXAMPLES, fresh
from tests.small import BASE

__all__ = ["fresh"]

EVERY = [entry for registry in REGISTRIES for entry in registry]


def pasted(snippet: str) -> None:
    """Validate the small recipe with a snippet laid over it."""
    own = tomllib.loads(snippet)
    document = Document()
    base = {key: value for key, value in (BASE | {"data": "phantom"}).items() if key not in own or key == "transforms"}
    for tree, name in ((base, "base.toml"), (own, "pasted.toml")):
        document.merge(tree, Source(name, None, Path.cwd()))
    validate(document)


def test_every_snippet_works_when_pasted() -> None:
    refused = []
    for entry in EVERY:
        try:
            pasted(describe.snippet(entry))
        except UserError as error:
            refused.append(f"{entry.slot.name}.{entry.name}: {error}")
    assert len(EVERY) > 100
    assert refused == []


def test_everything_is_described() -> None:
    wrong = []
    for entry in EVERY:
        lines, parameters = describe.describe(entry), describe.parameters(entry)
        text, name = "\n".join(lines), f"{entry.slot.name} {entry.name}"
        wrong += [] if lines[0] == f"{name}    (from {entry.origin})" else [f"{name}: {lines[0]}"]
        wrong += [f"{name}: no documentation"] if "(no documentation)" in lines else []
        wrong += [f"{name}: {p.name} is not shown" for p in parameters if f"\n  {p.name} " not in text]
        wrong += [f"{name}: {p.name}: {p.type}" for p in parameters if not p.type.strip() or "None" in p.type]
    assert wrong == []


def test_the_example_plugins_snippets_work_too(fresh: object) -> None:
    assert plugins.load([EXAMPLES], entry_points=False) == []
    own = [entry for registry in REGISTRIES for entry in registry if entry.origin.startswith(str(EXAMPLES))]
    assert len(own) == 11
    for entry in own:
        try:
            pasted(describe.snippet(entry))
        except UserError as error:  # an adapter of a library that is not installed
            if not re.search("needs the package (monai|segmentation-models-pytorch)|cannot be imported", str(error)):
                raise


def test_types_and_bounds_in_words() -> None:
    def described(
        logits: Tensor,
        target: Tensor,
        *,
        needed: Fraction,
        kind: Annotated[str, "any"] = "a",
        pair: tuple[float, int] = (0.5, 1),
        several: list[int] | None = None,
        lambda_: bool = True,
    ) -> Tensor:
        """Described loss."""
        return logits.mean() * needed

    with isolated():
        losses.register("described")(described)
        found = {p.name: (p.type, p.default) for p in describe.parameters(losses["described"])}
    assert found == {
        "needed": ("float >= 0 and <= 1", None),
        "kind": ("string", '"a"'),
        "pair": ("[float, int]", "[0.5, 1]"),
        "several": ("[int, ...]", ""),
        "lambda": ("bool", "true"),
        "weight": ("float >= 0", "1.0"),  # every loss of a sum has one
    }


def test_components_say_what_they_are_in_a_notebook() -> None:
    assert repr(losses["dice"]).startswith("<loss dice, from segkit: Dice loss: ")
    assert repr(losses.component("dice_mix", {"lambda": 0.6})) == (
        "dice_mix(lambda=0.6, epsilon=1.0, reduction='case', weight=1.0)"
    )
