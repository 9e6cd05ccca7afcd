"""What only the data and the losses tell of a recipe that is allowed, but seldom meant."""

from __future__ import annotations

import torch

from segkit.recipe.model import Recipe
from segkit.training.objective import Objective
from segkit.training.tracing import generators_kept

SIDE = 32  # of the picture that the losses are tried on


def batch_warning(recipe: Recipe, cases: int) -> str | None:
    """Return what is odd about the size of a batch; None where nothing is.

    Args:
        recipe: a trial's.
        cases: how many cases it is trained on.
    """
    size = recipe.train.batch_size
    if size <= cases:
        return None
    return (
        f"train.batch_size is {size}, but there are {cases} training cases: an epoch is a single step on all of them. "
        "Use a smaller train.batch_size."
    )


def loss_warning(recipe: Recipe) -> str | None:
    """Return whether the losses take everything marked, or nothing, for as good as the truth; None where they do not.

    The weighted sum is tried on two structures in a small picture. A loss that cannot be tried so is not judged.
    """
    exclusive = recipe.channels == "exclusive"
    truth = torch.zeros(1, 2, SIDE, SIDE)
    truth[:, 0, 8:16, 8:16], truth[:, 1, 18:28, 18:24] = 1, 1
    everything, nothing = torch.zeros_like(truth), torch.zeros_like(truth)
    everything[:, 0], everything[:, 1] = 1, 0 if exclusive else 1
    if exclusive:
        truth, everything, nothing = (
            torch.cat([(1 - masks.sum(1, keepdim=True)), masks], 1) for masks in (truth, everything, nothing)
        )
    try:
        with generators_kept(), torch.no_grad():
            if exclusive and _ignores_background(recipe, truth):
                names = ", ".join(f"loss.{component.name}" for component in recipe.loss)
                return (
                    f"{names}: the background, channel 0 of exclusive classes, has no part in it: background is "
                    "learned only from where the structures are. Let the loss take channel 0 too, or add one that does."
                )
            objective = Objective(recipe.loss, (), torch.nn.Identity(), exclusive=exclusive)
            best, *others = (float(objective.loss(40 * masks - 20, truth)) for masks in (truth, everything, nothing))
    except Exception:  # it is built and tried on the data later, where its error is told
        return None
    for value, what, effect in zip(others, ("everything", "nothing"), ("too much", "too little"), strict=True):
        if value <= best + 1e-4 * max(1.0, abs(best)):
            names = ", ".join(f"loss.{component.name}" for component in recipe.loss)
            return (
                f"{names}: {what} marked costs no more than the truth ({value:.4g}, and {best:.4g}): what is "
                f"{effect} is not held down. Change the loss's parameters, or add another loss."
            )
    return None


def _ignores_background(recipe: Recipe, truth: torch.Tensor) -> bool:
    """Return whether no loss has a gradient in the first channel, the background."""
    logits = torch.linspace(-3, 3, truth.numel()).reshape(truth.shape).requires_grad_()
    objective = Objective(recipe.loss, (), torch.nn.Identity(), exclusive=False)  # log-odds are handed in as they are
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(objective.loss(logits, truth), logits)
    return not bool(gradient[:, 0].any()) and bool(gradient.any())
