"""Types for the signatures of components: bounded numbers as a recipe may write them, and what segkit hands in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Protocol

from annotated_types import Ge, Gt, Le

Fraction = Annotated[float, Ge(0), Le(1)]
"""A number from 0 to 1."""
Positive = Annotated[float, Gt(0)]
"""A number above 0."""
NonNegative = Annotated[float, Ge(0)]
"""A number of 0 or more."""
Count = Annotated[int, Ge(1)]
"""A whole number of 1 or more."""
PRETRAINED = object()
Pretrained = Annotated[str | None, PRETRAINED]
"""The name of weights that a component downloads; None, whatever the recipe says, where it is filled from a file."""
Spacing = tuple[float, ...] | None
"""The distance between pixel centres in mm along (row, column), or (slice, row, column); None if not stated."""

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor as Tensor
    from torch.nn import Parameter

    Array = NDArray[np.generic]
    Mask = NDArray[np.bool_]
    Probability = NDArray[np.float32]
    NamedParameters = Iterable[tuple[str, Parameter]]
    Scores = Tensor | tuple[Tensor, ...]
    Forward = Callable[[Tensor], Scores]
else:  # names for annotations alone: a component's file needs no torch to be listed
    Tensor = Array = Mask = Probability = NamedParameters = Scores = Forward = Any


class Batch(NamedTuple):
    """The samples of one training step.

    Attributes:
        image: (N, I, H, W) float32, normalised, on the device of the training.
        target: (N, C, H, W) float32 in {0, 1}, beside it; with background as channel 0 where classes are exclusive. A
            sample without masks shows no structure.
        labelled: (N,) bool, whether a sample has masks; on the CPU, so that no choice by it waits for the device.
    """

    image: Tensor
    target: Tensor
    labelled: Tensor


class Losses(Protocol):
    """The recipe's losses as a step gets them."""

    def __call__(self, scores: Scores, target: Tensor, members: Tensor | None = None) -> dict[str, Tensor]:
        """Return each loss by name, unweighted, in float32.

        Args:
            scores: (N, C, H, W), or several of falling resolution, which are weighted within each loss.
            target: (N, C, H, W) in {0, 1}.
            members: (N,) bool, those of the batch that count, all by default; losses of none are 0.
        """

    def probabilities(self, scores: Scores) -> Tensor:
        """Return the probability of each channel (N, C, H, W) float32, of several scores that of the finest."""
