"""Steps: what a training computes from one batch, and what it moves besides the model.

A step is a `torch.nn.Module`. `forward(model, batch, objective)` returns named losses, scalars, under the same names at
every step. `model` turns an image into scores, `batch` is a `segkit.types.Batch`, and `objective(scores, target)` gives
the recipe's losses by name, unweighted. The loop weighs and sums them, runs backward, and steps the recipe's optimizer.
What else a step owns are its attributes: modules and buffers, which are moved to the device, optimizers, schedules and
plain numbers. All of it is saved and restored; the step itself drives it.

A step that is registered with `unlabelled=True` also gets the cases without masks; those with masks repeat to be about
half of a batch.

Two more methods are optional: `prepare(model)`, called once before training, makes what depends on the model's module;
`updated(model)` is called after each step of the recipe's optimizer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from segkit.registry.faults import wrong_type
from segkit.registry.registry import Registry

if TYPE_CHECKING:
    from torch import nn


def _check_made(made: Any) -> str | None:
    from torch import nn

    wrong = wrong_type(made, nn.Module, "torch.nn.Module")
    if wrong is None and type(made).forward is nn.Module.forward:
        return "it has no forward(model, batch, objective), which returns the losses by name."
    return wrong


steps = Registry("step", "steps", home=__name__, traits={"unlabelled": bool}, check=_check_made)


@steps.register("supervised")
def supervised() -> nn.Module:
    """Supervised learning: the recipe's losses of the model's scores."""
    from segkit.components.supervised import Supervised

    return Supervised()
