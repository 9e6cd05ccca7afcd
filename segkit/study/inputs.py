"""What only the data and the machine tell of a study's recipes, asked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence

from segkit.errors import UserError
from segkit.recipe import Recipe


def check(recipes: Sequence[Recipe], *, keep: bool) -> None:
    """Raise what is wrong with the data of any of the recipes before one of them is trained.

    Whatever is found here is the user's input, a plugin that gives no data included: nothing begins. What only a
    trial can tell, it tells itself, and fails.

    Args:
        recipes: of the trials that are to be trained.
        keep: leave the data in memory, for trials in this process.

    Raises:
        UserError: data, split or device cannot be had as a recipe says; every mistake once.
    """
    from segkit.training import assembly

    mistakes: dict[str, None] = {}  # a set that keeps its order
    seen: set[str] = set()
    for recipe in recipes:
        tree = recipe.dump()
        key = json.dumps([tree["data"], tree["split"], tree["channels"], recipe.train.device, recipe.train.precision])
        if key in seen:
            continue
        seen.add(key)
        try:
            assembly.check_inputs(recipe)
        except (UserError, OSError) as error:
            mistakes[str(error)] = None
        except Exception:
            continue
    if not keep:
        assembly.release_data()
    if mistakes:
        raise UserError("\n".join(mistakes))
