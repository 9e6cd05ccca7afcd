"""The trials of a study: its variants, each with its folds and seeds."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from segkit.errors import counted
from segkit.recipe import merge
from segkit.recipe.model import Recipe, check_variants
from segkit.recipe.sections import Split
from segkit.recipe.variants import assign_folders
from segkit.training.status import Status
from segkit.training.trial import Limit, Trial


def folder_owner(run: Path, name: str) -> str | None:
    """Return the label of the variant whose trials are in a folder of a run, or None."""
    for path in sorted((run / name).glob("*/trial.json")):
        found = Status.find(path.parent)
        if found is not None and found.variant is not None:
            return found.variant
    return None


def trial_folders(
    variants: Sequence[tuple[str, Split, int]], seeds: Sequence[int] | None, run: Path | None
) -> Iterator[tuple[int, int, int | None, Path]]:
    """Yield (index of the variant, seed, fold, folder below the run) of each trial.

    Args:
        variants: the label, split and training seed of each.
        seeds: those of the study; None for the seed of each variant.
        run: the run folder, whose trials keep their folders; None for a new one.
    """
    labels = [label for label, _, _ in variants]
    names = assign_folders(labels, functools.partial(folder_owner, run)) if run else assign_folders(labels)
    for number, (label, split, seed) in enumerate(variants):
        count = split.fold_count
        folds = [split.fold] if count is None or split.fold else list(range(1, count + 1))
        for fold, own in itertools.product(folds, seeds or (seed,)):
            name = f"fold-{fold}-seed-{own}" if fold else f"seed-{own}"
            yield number, own, fold, Path(names[label]) / name


WHOLE = Limit()


def plan_trials(recipe: Recipe, document: merge.Document, run: Path | None = None, limit: Limit = WHOLE) -> list[Trial]:
    """Return the trials of a study.

    Args:
        recipe, document: the study's recipe and its merged layers.
        run: the run folder, whose trials keep their folders.
        limit: how its trainings are shortened.
    """
    variants = check_variants(recipe, document)
    planned = []
    listed = [(label, variant.split, variant.train.seed) for label, variant in variants]
    for number, seed, fold, folder in trial_folders(listed, recipe.study.seeds, run):
        label, variant = variants[number]
        own = {
            "split": variant.split.model_copy(update={"fold": fold}),
            "train": variant.train.model_copy(update={"seed": seed}),
        }
        planned.append(Trial(label, seed, fold, variant.model_copy(update=own), folder, run or Path(), limit))
    return planned


def study_size(planned: Sequence[Trial]) -> str:
    """Return the size of a study: "2 variants, 6 trials"."""
    return f"{counted(len({trial.variant for trial in planned}), 'variant')}, {counted(len(planned), 'trial')}"
