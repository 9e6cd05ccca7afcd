"""pydantic's validation errors, said in the words of a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from segkit.errors import suggest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails, InitErrorDetails, ValidationError


def mistake(title: str, place: tuple[str | int, ...], message: str, value: Any) -> ValidationError:
    """Return one mistake at a place, as pydantic raises it."""
    from pydantic_core import PydanticCustomError, ValidationError

    error = PydanticCustomError("component", "{text}", {"text": message})
    return ValidationError.from_exception_data(title, [{"type": error, "loc": place, "input": value}])


def details(error: ValidationError) -> list[InitErrorDetails]:
    """Return an error's mistakes in the form from which a new error can be made."""
    from pydantic_core import PydanticCustomError

    return [
        {
            "type": PydanticCustomError("recipe", "{text}", {"text": found["msg"]}),
            "loc": found["loc"],
            "input": found["input"],
        }
        for found in error.errors(include_url=False)
    ]


def plainly(found: ErrorDetails, known: Iterable[str], word: str) -> str:
    """Return one of pydantic's mistakes in words: an unknown key with the nearest known one, a value as given."""
    if found["type"] == "extra_forbidden":
        return f"no such {word}. {suggest(str(found['loc'][-1]), known)}"
    if found["type"] == "missing":
        return f"this {word} is required"
    if found["type"] in ("component", "recipe"):
        return found["msg"]
    if found["type"] == "value_error":
        return found["msg"].removeprefix("Value error, ")
    return f"{found['msg'][0].lower()}{found['msg'][1:]} (given {json.dumps(found['input'], default=str)})"


def rewritten(error: ValidationError, known: Iterable[str], place: tuple[str, ...]) -> ValidationError:
    """Return the error of a component's parameters under `place`, said plainly."""
    from pydantic_core import PydanticCustomError, ValidationError

    names = list(known)
    rows = details(error)
    for detail, found in zip(rows, error.errors(include_url=False), strict=True):
        text = plainly(found, names, "parameter")
        detail["type"] = PydanticCustomError("recipe", "{text}", {"text": text})
        detail["loc"] = place + tuple(found["loc"])
    return ValidationError.from_exception_data(error.title, rows)
