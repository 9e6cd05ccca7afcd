"""Each reader, fed for a moment with what is nearly right; ten minutes each: `python -m tests.fuzz`."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import recipes
from tests.fuzz.__main__ import READERS, fuzz


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("seconds", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_nothing_but_messages(reader: str, seconds: float) -> None:
    said = fuzz(reader, seconds, seed=7)
    assert "0 crashes" in said
    assert not said.startswith(f"{reader}: 0 inputs")


@given(st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_recipe_with_a_mistake_is_refused_at_its_place(chance: Random) -> None:
    recipes.refuse(*recipes.invalid(chance))


@given(st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_valid_recipe_is_built_and_runs_one_batch(chance: Random) -> None:
    recipes.run_one_batch(recipes.valid(chance))
