"""pydantic's mistakes in segkit's words: none of its own is left, whatever is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core._pydantic_core import list_all_errors

from segkit.components import REGISTRIES
from segkit.errors import UserError, counted, join_mistakes, printable, sentence
from segkit.recipe.model import Recipe
from segkit.registry.messages import MUST_BE, on_one_line

JARGON = re.compile(
    r"after validation|validation error|tuple|[Ii]nput should|instance of|pattern|model_type|NoneType|dict|"
    r"\bstr\b|\bint\b|constrained|"
    r"literal\[|function-|valid (?:integer|number|boolean|array|string)|Input|\bobject\b|\(given"
)
WRONG: list[Any] = [
    None,
    True,
    0,
    -1,
    2,
    10**9,
    0.5,
    -0.5,
    1e30,
    "",
    "x",
    [],
    ["x"],
    [1],
    [1, 2, 3],
    [[]],
    {},
    {"x": 1},
]
OTHERS = ("value_error", "assertion_error", "missing", "extra_forbidden")


def test_every_error_of_pydantic_has_words() -> None:
    wrong = []
    for kind in list_all_errors():
        context: Any = kind.get("example_context")
        if context and context.get("error", "") is None:
            context = context | {"error": ValueError("must be even")}
        row: Any = {"type": kind["type"], "loc": ("x",), "input": 3, "ctx": context or {}}
        text = on_one_line(ValidationError.from_exception_data("x", [row]))
        begins = text.startswith("must be ") or (text and kind["type"] in OTHERS)
        wrong += [f"{kind['type']}: {text}"] if JARGON.search(text) or not begins else []
    assert wrong == []


def test_the_table_names_errors_that_there_are() -> None:
    known = {error["type"] for error in list_all_errors()}
    assert len(set(MUST_BE) & known) > 40


BY_SLOT = {registry.name: registry for registry in REGISTRIES}
ENTRIES = [entry for registry in REGISTRIES for entry in registry]


def test_wrong_parameters_of_every_component_are_refused_without_jargon() -> None:
    wrong: list[str] = []
    for entry in ENTRIES:
        messages: list[str] = []
        for name in entry.fields:
            for value in WRONG:
                try:
                    BY_SLOT[entry.slot.name].component(entry.name, {name: value})
                except UserError as error:
                    messages.append(str(error))
        wrong += [text for text in messages if JARGON.search(text)]
        wrong += [f"{entry.name}: takes anything"] if entry.fields and not messages else []
    assert wrong == []


def test_wrong_values_of_every_key_of_a_recipe_are_said_plainly() -> None:
    said: list[str] = []
    for name, field in Recipe.model_fields.items():
        keys = list(getattr(field.annotation, "model_fields", {}))
        for path in [(name,), *((name, key) for key in keys)]:
            for value in WRONG:
                tree = {path[0]: value} if len(path) == 1 else {path[0]: {path[1]: value}}
                try:
                    Recipe.from_dict(tree)
                except UserError as error:
                    said.append(str(error))
    assert [text for text in said if JARGON.search(text)] == []
    assert len(said) > 200


def test_alternatives_are_one_mistake() -> None:
    with pytest.raises(UserError, match=r'^recipe: train.workers: must be a whole number, or "auto", got "x"$'):
        Recipe.from_dict({"train": {"workers": "x"}})


def test_what_a_terminal_must_not_be_given_is_spelled_out() -> None:
    assert printable("a\x1b[31m\x9b\u202e\r\u2028\udcff") == "a\\x1b[31m\\u009b\\u202e\\x0d\\u2028\\udcff"
    assert printable("é 学 🙂\n\thi") == "é 学 🙂\n\thi"


def test_very_many_mistakes_are_counted() -> None:
    lines = str(join_mistakes([str(number) for number in range(1000)])).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "... and 980 more mistakes"
    with pytest.raises(UserError, match=r"\.\.\. and 480 more mistakes$"):
        Recipe.from_dict({"train": {f"nonsense_{number}": 1 for number in range(500)}})


def test_numbers_agree_with_their_nouns_and_sentences_end_once() -> None:
    assert [counted(number, "fault") for number in (0, 1, 2, 10_000)] == [
        "0 faults",
        "1 fault",
        "2 faults",
        "10,000 faults",
    ]
    assert [sentence(text) for text in ("is a `return` missing?", "no.", "no", "and so on...")] == [
        "is a `return` missing?", "no.", "no.", "and so on...",
    ]  # fmt: skip
    sources = [path for name in ("segkit", "plugins") for path in (Path(__file__).parents[1] / name).rglob("*.py")]
    assert len(sources) > 100
    assert [path.name for path in sources if re.search(r"[a-z]\(s\)", path.read_text(encoding="utf-8"))] == []
