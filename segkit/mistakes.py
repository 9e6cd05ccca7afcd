"""pydantic's validation errors, said in the words of a recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from segkit.errors import suggest

if TYPE_CHECKING:
    from pydantic_core import InitErrorDetails, ValidationError


def mistake(title: str, place: tuple[str | int, ...], message: str, value: Any) -> ValidationError:
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


def rewritten(error: ValidationError, known: Iterable[str], place: tuple[str, ...], word: str) -> ValidationError:
    """Return the error under `place`, unknown keys answered with the nearest known one."""
    from pydantic_core import PydanticCustomError, ValidationError

    names = list(known)
    rows = details(error)
    for detail, found in zip(rows, error.errors(include_url=False), strict=True):
        path = tuple(part for part in found["loc"])
        text = found["msg"]
        if found["type"] == "extra_forbidden" and len(path) == 1:
            text = f"no such {word}. {suggest(str(path[0]), names)}"
        elif found["type"] not in ("extra_forbidden", "missing", "component", "recipe"):
            text = f"{text} (given {json.dumps(found['input'], default=str)})"
        elif found["type"] == "missing":
            text = f"{word} is missing"
        detail["type"] = PydanticCustomError("recipe", "{text}", {"text": text})
        detail["loc"] = place + path
    return ValidationError.from_exception_data(error.title, rows)
