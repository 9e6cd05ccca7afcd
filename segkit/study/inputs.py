"""Checks of a study's recipes that need the data and the machine, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from segkit.data.cache import DataCache
from segkit.errors import UserError
from segkit.recipe.model import Recipe


def data_key(recipe: Recipe) -> str:
    """Return a key that is equal for recipes with the same data."""
    return json.dumps(recipe.dump()["data"], sort_keys=True)


def fingerprint_data(recipes: Sequence[Recipe], data: DataCache) -> tuple[dict[str, str], list[str]]:
    """Read the data of recipes; return their fingerprints by `data_key`, and every mistake once.

    A mistake here keeps the whole study from being trained. Other errors are left to the trials, which report them.
    """
    if not recipes:
        return {}, []
    from segkit.training.setup import read_and_split

    found: dict[str, str] = {}
    mistakes: list[str] = []
    distinct = {recipe.model_dump_json(include={"data", "split", "channels"}): recipe for recipe in recipes}
    for recipe in distinct.values():
        try:
            found[data_key(recipe)] = read_and_split(recipe, data)[1]
        except (UserError, OSError) as error:
            mistakes.append(str(error))
        except Exception:
            continue
    return found, mistakes


def check_inputs(recipes: Sequence[Recipe], mistakes: Iterable[str]) -> None:
    """Check the devices of recipes.

    Raises:
        UserError: `mistakes` of the data, and each device or precision that the machine does not have; each once.
    """
    from segkit import device

    found = dict.fromkeys(mistakes)
    for name, precision in dict.fromkeys((recipe.train.device, recipe.train.precision) for recipe in recipes):
        try:
            device.choose(name, precision)
        except UserError as error:
            found[str(error)] = None
    if found:
        raise UserError("\n".join(found))
