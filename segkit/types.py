"""Types for the signatures of components: bounded numbers as a recipe may write them, and what segkit hands in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor as Tensor
    from torch.nn import Parameter

    Array = NDArray[np.generic]
    Mask = NDArray[np.bool_]
    Probability = NDArray[np.float32]
    NamedParameters = Iterable[tuple[str, Parameter]]
else:  # names for annotations alone: a component's file needs no torch to be listed
    Tensor = Array = Mask = Probability = NamedParameters = Any
