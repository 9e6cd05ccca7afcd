"""A recipe becomes the trials of its study: its variants, each with its folds and seeds."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segkit import files
from segkit.errors import UserError, counted
from segkit.recipe import merge
from segkit.recipe.identity import evaluation_identity, training_identity
from segkit.recipe.model import Recipe, check_variants
from segkit.recipe.variants import folders


@dataclass(frozen=True)
class Trial:
    """One training: one variant, one seed, and one fold where the split has folds.

    Attributes:
        variant: the variant's label.
        seed: the training seed.
        fold: the fold, counted from 1, or None.
        recipe: the filled recipe of this trial alone; it has no study.
        folder: where its files go, below the study's run folder.
    """

    variant: str
    seed: int
    fold: int | None
    recipe: Recipe
    folder: Path

    @functools.cached_property
    def identity(self) -> str:
        """The hash of all that its weights depend on."""
        return training_identity(self.recipe)

    @functools.cached_property
    def evaluation(self) -> str:
        """The hash of what is decided after the scores."""
        return evaluation_identity(self.recipe)


def holder(run: Path, name: str) -> str | None:
    """Return the label whose trials lie in a folder of a run; None where there are none."""
    for path in sorted((run / name).glob("*/trial.json")):
        try:
            found = files.read_json(path)
        except UserError:
            continue
        if isinstance(found, dict) and isinstance(found.get("variant"), str):
            return str(found["variant"])
    return None


def trials(recipe: Recipe, document: merge.Document, run: Path | None = None) -> list[Trial]:
    """Return the trials of a study: each variant, each fold, each seed.

    Args:
        recipe: the study's.
        document: the layers it is made of.
        run: the run folder, whose trials stay where they are.
    """
    planned = []
    checked = check_variants(recipe, document)
    labels = [label for label, _ in checked]
    names = folders(labels, functools.partial(holder, run)) if run else folders(labels)
    for label, variant in checked:
        seeds = recipe.study.seeds or (variant.train.seed,)
        split = variant.split
        folds = [split.fold] if split.folds is None or split.fold else list(range(1, split.folds + 1))
        for fold, seed in itertools.product(folds, seeds):
            own = variant.model_copy(
                update={
                    "split": split.model_copy(update={"fold": fold}),
                    "train": variant.train.model_copy(update={"seed": seed}),
                }
            )
            name = f"fold-{fold}-seed-{seed}" if fold else f"seed-{seed}"
            planned.append(Trial(label, seed, fold, own, Path(names[label]) / name))
    return planned


def size_of(planned: Sequence[Trial]) -> str:
    """Return how much a study is: "2 variants, 6 trials"."""
    counts = {"variant": len({trial.variant for trial in planned}), "trial": len(planned)}
    return ", ".join(counted(count, name) for name, count in counts.items())
