"""pydantic's validation errors in the terms of a recipe: where, what is expected, what was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from segkit.errors import MAX_LISTED, counted, suggest, truncate
from segkit.registry.values import format_value

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails, InitErrorDetails, ValidationError

Place = tuple[str | int, ...]
MAX_READ = 10 * MAX_LISTED  # of the mistakes of one pydantic error
OWN = ("recipe", "required")  # types of errors with segkit's own messages
NOT_OF_VALUES = (*OWN, "extra_forbidden", "missing", "value_error", "assertion_error")

# what a value must be, by pydantic's type of error
OTHER_VALUE = "a value that this key takes"
MUST_BE = {
    kind: text
    for text, kinds in {
        "true or false": "bool_type bool_parsing",
        "a whole number": "int_type int_parsing int_from_float",
        "a smaller whole number": "int_parsing_size",
        "a number": "float_type float_parsing decimal_type decimal_parsing",
        "a finite number": "finite_number",
        "above {gt}": "greater_than",
        "{ge} or more": "greater_than_equal",
        "below {lt}": "less_than",
        "{le} or less": "less_than_equal",
        "a multiple of {multiple_of}": "multiple_of",
        "a string": "string_type string_sub_type bytes_type",
        "a string in UTF-8": "string_unicode",
        "a string of at least {min_length} characters": "string_too_short",
        "a string of at most {max_length} characters": "string_too_long",
        "a string of ASCII characters": "string_not_ascii",
        "a string of the form {pattern}": "string_pattern_mismatch",
        "a path, written as a string": "path_type",
        "{expected}": "literal_error enum",
        "a list": "list_type tuple_type set_type frozen_set_type deque_type iterable_type named_tuple_type",
        "a list of at least {min_length}": "too_short",
        "a list of at most {max_length}": "too_long",
        "a table": "dict_type mapping_type model_type model_attributes_type "
        "dataclass_type dataclass_exact_type arguments_type",
        "a table whose keys are strings": "invalid_key",
        "left out": "none_required",
        "nested less deeply": "recursion_loop recursion_depth_exceeded",
        "valid JSON": "json_invalid json_type",
    }.items()
    for kind in kinds.split()
}


class Mistake(NamedTuple):
    """What is wrong at a path, and whether it is that something required is missing."""

    path: Place
    text: str
    required: bool = False


def error_of(title: str, mistakes: Iterable[Mistake], place: Place = ()) -> ValidationError:
    """Return a validation error with segkit's own messages, of mistakes in the values at `place`."""
    from pydantic_core import PydanticCustomError, ValidationError

    rows: list[InitErrorDetails] = [
        {
            "type": PydanticCustomError("required" if required else "recipe", "{text}", {"text": text}),
            "loc": place + path,
            "input": None,
        }
        for path, text, required in mistakes
    ]
    return ValidationError.from_exception_data(title, rows)


def mistakes_of(error: ValidationError) -> list[Mistake]:
    """Return the mistakes that `error_of` made an error of."""
    return [Mistake(found["loc"], found["msg"], found["type"] == "required") for found in error.errors()]


def translate_errors(
    error: ValidationError, tree: Any, known: Callable[[Place], Iterable[str]], word: str
) -> list[Mistake]:
    """Return the mistakes with their paths in `tree`; the alternatives of a union are one mistake.

    Args:
        error: of pydantic, about the values `tree`.
        known: returns the valid names at a path.
        word: "key" or "parameter".
    """
    places: dict[Place, list[ErrorDetails]] = {}
    for found in error.errors(include_url=False)[:MAX_READ]:
        places.setdefault(_place(found, tree), []).append(found)
    mistakes: list[Mistake] = []
    for path, here in places.items():
        deeper = any(len(other) > len(path) and other[: len(path)] == path for other in places)
        wrong = [found for found in here if _is_wrong_value(found)]
        for found in here:
            if not _is_wrong_value(found):
                required = found["type"] in ("missing", "required")
                mistakes.append(Mistake(path, _message(found, path, known, word), required))
        if deeper:  # the best fitting alternative has mistakes of its own, further down
            wrong = [found for found in wrong if _is_missing_item(found)]
        if wrong:
            mistakes.append(Mistake(path, _must_be(wrong, tree, path)))
    return mistakes


def on_one_line(error: ValidationError) -> str:
    """Return all mistakes on one line, without places."""
    texts = [text for _, text, _ in translate_errors(error, None, lambda path: [], "parameter")]
    return "; ".join(dict.fromkeys(texts))


def _is_wrong_value(found: ErrorDetails) -> bool:
    return found["type"] not in NOT_OF_VALUES or _is_missing_item(found)


def _is_missing_item(found: ErrorDetails) -> bool:
    return found["type"] == "missing" and bool(found["loc"]) and isinstance(found["loc"][-1], int)


def _place(found: ErrorDetails, tree: Any) -> Place:
    """Return the path of an error in the tree, without pydantic's names for the alternatives of a union."""
    path: list[str | int] = []
    node = tree
    for number, part in enumerate(found["loc"], 1):
        last = number == len(found["loc"])
        if _holds(node, part):
            node = node[part]
        elif isinstance(node, str) and node == part:  # a bare name stands for its table
            node = {}
        elif not (last and found["type"] in ("missing", "required")) or _is_missing_item(found):
            continue
        path.append(part)
    return tuple(path)


def _holds(node: Any, part: str | int) -> bool:
    if isinstance(node, Mapping):
        return part in node
    return isinstance(node, (list, tuple)) and part in range(len(node))


def _message(found: ErrorDetails, path: Place, known: Callable[[Place], Iterable[str]], word: str) -> str:
    if found["type"] == "extra_forbidden":
        name = str(found["loc"][-1])
        return f"no such {word}. {suggest(name, known((*path[:-1], name)))}"
    if found["type"] == "missing":
        return f"this {word} is required"
    if found["type"] in OWN:
        return found["msg"]
    text = str((found.get("ctx") or {}).get("error") or found["msg"])
    return text.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _must_be(kinds: list[ErrorDetails], tree: Any, path: Place) -> str:
    """Return what a value must be, all alternatives included, and what it is."""
    wanted = dict.fromkeys(_expected(found) for found in kinds)
    value = kinds[-1]["input"]
    if _is_missing_item(kinds[-1]):  # its input is not the list
        for part in path:
            tree = tree[part]
        value = tree
    return f"must be {', or '.join(wanted)}, got {describe_value(value)}"


def _expected(found: ErrorDetails) -> str:
    if _is_missing_item(found):
        return f"a list of at least {counted(int(found['loc'][-1]) + 1, 'value')}"
    context = dict(found.get("ctx") or {})
    if "expected" in context:  # 'a', 'b' or True, as Python writes them
        text = re.sub(r"'([^']*)'", r'"\1"', str(context["expected"]))
        context["expected"] = text.replace("True", "true").replace("False", "false").replace("None", "nothing")
    text = MUST_BE.get(found["type"], OTHER_VALUE).format_map(context)
    if found["type"] in ("too_short", "too_long"):
        what = "table" if isinstance(found["input"], Mapping) else "list"
        count = context.get("min_length", context.get("max_length"))
        text = f"{text.replace('list', what)} {'value' if count == 1 else 'values'}"
    return re.sub(r"(?<=\d)\.0(?!\d)", "", text).replace(" 1 characters", " 1 character")


def describe_value(value: Any) -> str:
    """Return a value for a message: as TOML, preceded by its kind if it is a list or a table."""
    if value is None:
        return "nothing"
    if isinstance(value, (list, tuple, Mapping)):
        kind = "table" if isinstance(value, Mapping) else "list"
        return f"the {kind} {truncate(format_value(value))}" if value else f"an empty {kind}"
    return truncate(format_value(value) if isinstance(value, (bool, int, float, str)) else str(value))
