"""From probabilities to masks: decided once, at native resolution, then postprocessed.

A structure is where its probability is one half or more, or, where classes exclude each other, where it is the
likeliest of all classes, background included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segkit.components.postprocess import applied
from segkit.registry.component import Component
from segkit.types import Array, Mask, Spacing


def decide(
    probability: Array,
    names: Sequence[str],
    *,
    exclusive: bool,
    postprocess: Sequence[Component] = (),
    spacing_mm: Spacing = None,
) -> Mask:
    """Return the masks of a case, (C, H, W) or (C, D, H, W) bool, decided and postprocessed.

    Args:
        probability: (C, ...) float32 of its structures; (C + 1, ...) with the background first where exclusive. A mean
            of several predictions is decided like a single one.
        names: of the C structures.
        exclusive: whether classes exclude each other.
        postprocess: what is done to the masks, in this order.
        spacing_mm: of the case.

    Raises:
        ComponentError: a postprocess failed.
    """
    masks: Mask = likely(torch.from_numpy(probability), exclusive=exclusive).numpy()
    return postprocessed(masks, names, postprocess, spacing_mm, exclusive=exclusive)


def likely(probability: Tensor, *, exclusive: bool, classes: int = 0) -> Tensor:
    """Return where each structure is decided to be, bool, on the device of the probabilities.

    Args:
        probability: as for `decide`, on any device.
        exclusive: whether classes exclude each other.
        classes: the dimension of the classes.
    """
    if not exclusive:
        return probability >= 0.5
    numbers = torch.arange(1, probability.shape[classes], device=probability.device)
    axes = [1] * probability.ndim
    axes[classes] = -1
    return probability.argmax(dim=classes, keepdim=True) == numbers.view(axes)


def postprocessed(
    masks: Mask, names: Sequence[str], postprocess: Sequence[Component], spacing_mm: Spacing, *, exclusive: bool
) -> Mask:
    """Return the masks of a case after all its postprocesses; arguments as for `decide`.

    Where classes exclude each other, what no class keeps becomes background, and what several then claim stays with
    the class that it was of, or else goes to the first.
    """
    for component in postprocess:
        found = applied(component, masks, spacing_mm, names)
        masks = _without_overlap(masks, found) if exclusive else found
    return masks


def _without_overlap(before: Mask, after: Mask) -> Mask:
    contested = np.count_nonzero(after, axis=0) > 1
    if not contested.any():
        return after
    claims = after[:, contested]
    kept = claims & before[:, contested]
    owner = np.where(kept.any(axis=0), kept, claims).argmax(axis=0)
    after = after.copy()
    after[:, contested] = owner == np.arange(len(after))[:, None]
    return after
