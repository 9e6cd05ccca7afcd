"""Warnings about a training that is allowed but seldom intended: its batches, its losses, its predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from segkit.data.cases import StoredCase
from segkit.errors import counted
from segkit.evaluation.rows import Row
from segkit.recipe.model import Recipe
from segkit.recipe.sections import Train
from segkit.training.global_state import generators_preserved
from segkit.training.objective import Objective

SIDE = 32  # pixels, of the image that losses are tried on
DOMINANT = 0.99  # share of the gradient norm
NOTHING = 0.01  # share of a structure's pixels that are predicted


def large_batch(recipe: Recipe, samples: int) -> str | None:
    """Return a warning if a batch holds more than all `samples` that the recipe is trained on; None otherwise."""
    size = recipe.train.batch_size
    if size <= samples:
        return None
    return (
        f"train.batch_size is {size}, but there are {samples} training samples: an epoch is a single step on all of "
        "them. Use a smaller train.batch_size."
    )


def long_warmup(train: Train, batches: int) -> str | None:
    """Return a warning if a warm-up does not end within a training of so many batches an epoch; None otherwise."""
    steps = train.epochs * -(-batches // train.accumulate)
    if (train.warmup or 0) <= steps:
        return None
    return f"train.warmup is {train.warmup:,} steps, but the training has {steps:,}: it never reaches the full rate."


def undefined_volumes(recipe: Recipe, cases: Sequence[StoredCase]) -> str | None:
    """Return a warning if the recipe asks for volumes in ml of cases that are no volumes in mm; None otherwise."""
    asked = [f"metrics.{metric.name}" for metric in recipe.metrics if metric.entry.traits["unit"] == "ml"]
    lacking = [case for case in cases if len(case.spacing_mm or ()) != 3]
    if not asked or not lacking:
        return None
    reason, remedy = "cases without spacing", "State their spacing"
    if any(case.spacing_mm for case in lacking):
        reason, remedy = "2-D cases", "Use a dataset of volumes"
        if "volumes" in recipe.data.entry.fields:
            remedy = f"Set data.{recipe.data.name}.volumes = true"
    count = f"{len(lacking)} of {counted(len(cases), 'evaluated case')}"
    return f"{' and '.join(asked)}: undefined for {reason} ({count}). {remedy}, or drop what is undefined."


def blind_loss(recipe: Recipe) -> str | None:
    """Return a warning if the losses are as small for everything marked, or nothing, as for the truth; None otherwise.

    Their weighted sum is computed for two structures in a small image. A loss that fails there is not judged.
    """
    exclusive, names = recipe.channels == "exclusive", ", ".join(f"loss.{loss.name}" for loss in recipe.loss)
    truth = torch.zeros(1, 2, SIDE, SIDE)
    truth[:, 0, 8:16, 8:16], truth[:, 1, 18:28, 18:24] = 1, 1
    everything, nothing = torch.zeros_like(truth), torch.zeros_like(truth)
    everything[:, 0], everything[:, 1] = 1, 0 if exclusive else 1
    if exclusive:
        truth, everything, nothing = (
            torch.cat([(1 - masks.sum(1, keepdim=True)), masks], 1) for masks in (truth, everything, nothing)
        )
    try:
        with generators_preserved(), torch.no_grad():
            if exclusive and _ignores_background(recipe, truth):
                return (
                    f"{names}: the background, channel 0 of exclusive classes, is ignored: it is learned only from the "
                    "structures. Include channel 0 in the loss, or add a loss that does."
                )
            objective = Objective(recipe.loss, (), torch.nn.Identity(), exclusive=exclusive)
            best, *others = (float(objective.loss(40 * masks - 20, truth)) for masks in (truth, everything, nothing))
    except Exception:  # training calls it too, and reports the error
        return None
    for value, what, effect in zip(others, ("everything", "nothing"), ("too much", "too little"), strict=True):
        if value <= best + 1e-4 * max(1.0, abs(best)):
            return (
                f"{names}: {what} marked costs no more than the truth ({value:.4g} and {best:.4g}): marking {effect} "
                "is not penalized. Change the loss's parameters, or add another loss."
            )
    return None


def _ignores_background(recipe: Recipe, truth: torch.Tensor) -> bool:
    """Return whether no loss has a gradient in the first channel, the background."""
    logits = torch.linspace(-3, 3, truth.numel()).reshape(truth.shape).requires_grad_()
    objective = Objective(recipe.loss, (), torch.nn.Identity(), exclusive=False)  # given log-odds already
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(objective.loss(logits, truth), logits)
    return not bool(gradient[:, 0].any()) and bool(gradient.any())


def dominant_term(first_batch: Sequence[dict[str, Any]]) -> str | None:
    """Return a warning if one of several summands has over 99 % of the gradient norm on the first batch, or none.

    A step may let losses of its own rise: they do not count.
    """
    first_batch = [row for row in first_batch if not row["term"].startswith("step.")]
    if len(first_batch) < 2:
        return None
    for row in first_batch:
        if row["term"].startswith("loss.") and row["weight"] and row["value"] and row["gradient_share"] == 0:
            return (
                f"{row['term']} has no gradient on the first batch (value {row['value']:.4g}): nothing is learned from "
                "it there. Is its value detached, rounded or constant?"
            )
    for row in first_batch:
        if row["gradient_share"] > DOMINANT:
            others = ", ".join(other["term"] for other in first_batch if other is not row)
            return (
                f"{row['term']} has {100 * row['gradient_share']:.2f} % of the gradient on the first batch "
                f"(value {row['value']:.4g}, weight {row['weight']:g}): {others} will hardly be learned. Likely a sum "
                "over pixels beside a mean, or a weight of another scale: use a mean, or lower its weight."
            )
    return None


def only_background(rows: Sequence[Row]) -> str | None:
    """Return a warning if a structure is hardly predicted at all: under 1 % of its pixels over all cases."""
    truth, predicted = Counter[str](), Counter[str]()
    for row in rows:
        truth[row.channel] += row.truth_pixels
        predicted[row.channel] += row.predicted_pixels
    black = [channel for channel in truth if predicted[channel] < NOTHING * truth[channel]]
    if black:
        return (
            f"the model predicts only background for {', '.join(black)} (a black output). Likely a loss dominated "
            "by the background: see the first batch's gradient shares, the learning rate and the regularizers' weights."
        )
    return None


def no_foreground(rows: Sequence[Row]) -> str | None:
    """Return a warning if the validation cases hold no foreground at all."""
    if rows and not any(row.truth_pixels for row in rows):
        return "no validation case has any foreground: Dice is undefined there. See split and the data's channels."
    return None
