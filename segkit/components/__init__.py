"""The slots of a recipe and what segkit brings for each; this is the one list of them."""

from __future__ import annotations

from segkit.components import (
    datasets,
    initializers,
    intensities,
    losses,
    metrics,
    models,
    optimizers,
    postprocess,
    regularizers,
    schedulers,
    steps,
    transforms,
    upsamplers,
)
from segkit.errors import UserError, suggest
from segkit.registry.registry import Registry

SINGLE: dict[str, Registry] = {
    "data": datasets.datasets,
    "intensity": intensities.intensities,
    "model": models.models,
    "optimizer": optimizers.optimizers,
    "scheduler": schedulers.schedulers,
    "step": steps.steps,
}
"""The tables of a recipe that hold one component, and of which registry."""

SEVERAL: dict[str, Registry] = {
    "loss": losses.losses,
    "regularizer": regularizers.regularizers,
    "metrics": metrics.metrics,
}
"""The tables that hold one or more."""

REGISTRIES: tuple[Registry, ...] = (
    datasets.datasets,
    intensities.intensities,
    models.models,
    losses.losses,
    regularizers.regularizers,
    optimizers.optimizers,
    schedulers.schedulers,
    steps.steps,
    upsamplers.upsamplers,
    initializers.initializers,
    transforms.transforms,
    metrics.metrics,
    postprocess.postprocessors,
)
"""All of them, in the order of `segkit list`."""


def registry_of(slot: str) -> Registry:
    """Return the registry of a slot, by its name or plural, e.g. "loss" or "losses".

    Raises:
        UserError: there is no such slot.
    """
    known = {name: registry for registry in REGISTRIES for name in (registry.name, registry.plural)}
    if slot.lower() not in known:
        raise UserError(f"no slot is called '{slot}'. {suggest(slot, known)}")
    return known[slot.lower()]
