"""Checks of a study's recipes that need the data and the machine, made before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from segkit.data.cache import DataCache
from segkit.errors import UserError
from segkit.recipe.model import Recipe


def data_key(recipe: Recipe) -> str:
    """Return a key for the data of a recipe."""
    return json.dumps(recipe.dump()["data"], sort_keys=True)


def fingerprint_data(recipes: Sequence[Recipe], data: DataCache) -> tuple[dict[str, str], list[str]]:
    """Read the data of recipes as they are now; return their fingerprints by `data_of`, and every mistake once.

    Whatever is found here is the user's input, a plugin that gives no data included: nothing begins. What only a
    trial can find out, it reports itself, and fails.
    """
    if not recipes:
        return {}, []
    from segkit.training.setup import check_data

    found: dict[str, str] = {}
    mistakes: dict[str, None] = {}  # a set that keeps its order
    seen: set[str] = set()
    for recipe in recipes:
        tree = recipe.dump()
        key = json.dumps([tree["data"], tree["split"], tree["channels"]])
        if key in seen:
            continue
        seen.add(key)
        try:
            found[data_key(recipe)] = check_data(recipe, data)
        except (UserError, OSError) as error:
            mistakes[str(error)] = None
        except Exception:
            continue
    return found, list(mistakes)


def check_inputs(recipes: Sequence[Recipe], mistakes: Iterable[str]) -> None:
    """Raise what is wrong with any recipe before one of them is trained.

    Args:
        recipes: of the trials that are to be trained.
        mistakes: what `fingerprints` found.

    Raises:
        UserError: data, split or device are not available as a recipe asks; every mistake once.
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
