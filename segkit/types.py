"""Types for the parameters of components: bounded numbers as a recipe may write them."""

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

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Array = NDArray[np.generic]
else:  # names for annotations alone: a component's file needs no torch to be listed
    Tensor = Any
    Array = Any

__all__ = ["Array", "Count", "Fraction", "NonNegative", "Positive", "Tensor"]
