"""Errors of components: messages that name the component, its file and line, and what to do next."""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from segkit.errors import ContractError, UserError, message_of, sentence
from segkit.files import display_path
from segkit.registry.source import PACKAGE, ComponentCode, file_and_line

LONGEST = 300
MEANINGS = {  # part of a message of torch or numpy: what it means for a component
    "Sizes of tensors must match except in dimension": "two tensors that are joined differ in height or width",
    "shapes cannot be multiplied": "a linear layer is built for one image size and got another",
    "modified by an inplace operation": "a tensor that the gradient needs was changed in place: use operations without "
    "a trailing underscore",
    "does not require grad and does not have a grad_fn": "no gradient reaches it: is something detached or rounded?",
    "numpy boolean": 'its prediction is a mask (bool): for arithmetic with probabilities register it with `uses="prob'
    'ability"`, for counting convert it with `prediction.astype(float)`',
    "bool tensor": 'its prediction is a mask (bool): for arithmetic with probabilities register it with `uses="'
    'probability"`, for counting convert it with `.float()`',
    "uninitialized parameter": "a lazy layer has not seen an image yet: give it its number of input channels",
    "required positional argument: 'closure'": "its step needs a closure, which segkit does not pass",
}


class Part(Protocol):
    """The attributes of a component that are used here: its entry, and its arguments, which may be components too."""

    @property
    def entry(self) -> Any: ...

    @property
    def arguments(self) -> dict[str, Any]: ...


P = TypeVar("P", bound=Part)


class ComponentError(UserError):
    """A component failed, or breaks its slot's contract: the message names it, its file and line, and what to do.

    Attributes:
        text: what is wrong and what to do, without the component's name.
        place: "file:line" where it is known more exactly than the component's definition.
    """

    def __init__(self, message: str, text: str = "", place: str | None = None) -> None:
        super().__init__(message)
        self.text, self.place = text or message, place


def described(error: BaseException) -> str:
    """Return "ValueError: its message" on one line."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({'' if error.code is None else repr(error.code)})"
    text = " ".join(message_of(error).split("\n\n")[0].split()).rstrip(".")
    if isinstance(error, UserError):
        return text
    if not text and isinstance(error, AssertionError):
        text = _failing_line(error)
    if len(text) > LONGEST:
        text = text[:LONGEST] + " ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _failing_line(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return linecache.getline(frames[-1].filename, frames[-1].lineno or 0).strip() if frames else ""


def explained(error: BaseException) -> str:
    """Return an exception's type and message, with an explanation of some messages of libraries."""
    meaning = next((text for words, text in MEANINGS.items() if words in message_of(error)), "")
    return described(error) + (f" ({meaning})" if meaning else "")


def plugin_parts(component: P) -> Iterator[P]:
    """Yield the component and its nested components, as far as they come from plugins."""
    if component.entry.foreign:
        yield component
    for value in component.arguments.values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if hasattr(item, "entry"):
                yield from plugin_parts(item)


def or_others(parts: Iterable[Part]) -> str:
    """Return "; or it is loss.b (b.py:3)" for further possible causes, "" for none."""
    others = dict.fromkeys(f"{key(part.entry)} ({part.entry.origin})" for part in parts)
    return f"; or it is {', '.join(others)}" if others else ""


def fault(component: Part, text: str, place: str | None = None, *, within: Part | None = None) -> ComponentError:
    """Return the error to raise for a component.

    Args:
        component: the one at fault.
        text: what is wrong, and what to do.
        place: "file:line"; by default that of its definition.
        within: the component of the recipe that it is nested in.
    """
    entry = component.entry
    name = key(entry) if within is None or within is component else f"{key(within.entry)} with {key(entry)}"
    message = f"{name}: {sentence(text)}"
    if entry.foreign:
        message = plugin_message(name, entry.factory, text, place=place or entry.origin, how=how_to_check(entry))
    return ComponentError(message, sentence(text), place)


def plugin_message(
    name: str,
    factory: Callable[..., Any],
    text: str,
    error: BaseException | None = None,
    *,
    place: str | None = None,
    how: str | None = None,
) -> str:
    """Return the message about a component of a plugin: its name, place, what is wrong and how to check it.

    Args:
        name: of the component.
        factory: its function or class.
        text: what is wrong.
        error: the cause; the last line of the component's code in its traceback is the place.
        place: "file:line", if known.
        how: the command that checks it alone.
    """
    source = ComponentCode(factory)
    where = place or (source.of_error(error) if error is not None else None) or source.definition
    path = _plugin_file(factory)
    how = how or (f"`segkit check {path}`" if path else None)
    return f"{name} ({where}): {sentence(text)}" + (f" To try it by itself: {how}" if how else "")


def key(entry: Any) -> str:
    """Return a component's name as in a recipe, e.g. "loss.dice"."""
    return f"{entry.slot.name}.{entry.name}"


def how_to_check(entry: Any) -> str:
    """Return the command that checks a component alone, or the Python call if it is not in a plugin file."""
    path = _plugin_file(entry.factory)
    return f"`segkit check {path}`" if path else f'`segkit.testing.check(segkit.{entry.slot.plural}["{entry.name}"])`'


def _plugin_file(factory: Callable[..., Any]) -> str | None:
    """Return the plugin file or package that a component comes from, None if it is in no plugin folder."""
    parts = str(factory.__module__).split(".")
    if parts[0] != PACKAGE:
        return None
    for length in range(2, len(parts) + 1):
        name = getattr(sys.modules.get(".".join(parts[:length])), "__file__", None)
        if name:
            return display_path(Path(name).parent if Path(name).name == "__init__.py" else Path(name))
    return None


def raise_fault(components: Part | Iterable[Part], error: BaseException) -> NoReturn:
    """Raise the error of a component; Ctrl-C, errors with a final message and lack of memory are raised unchanged.

    Args:
        components: the component that ran, or the possible causes, the likeliest first. The innermost one in the
            traceback is named, else the first that comes from a plugin, itself or nested in another.
        error: what was raised.

    Raises:
        ComponentError: with the place in the plugin.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    chosen = list(components) if isinstance(components, Iterable) else [components]
    if isinstance(error, UserError) and not isinstance(error, ContractError) and not _raised_by(chosen, error):
        raise error
    if type(error).__name__ in ("OutOfMemoryError", "NonFiniteError"):
        raise error
    if not chosen:
        raise error
    found = [(whole, part) for whole in chosen for part in plugin_parts(whole)]
    traced = [(part, place) for _, part in found if (place := ComponentCode(part.entry.factory).of_error(error))]
    text = str(error) if isinstance(error, ContractError) else explained(error)
    if traced:
        part, place = _innermost(traced, error)
        raise fault(part, text, place) from error
    if found:
        raise fault(found[0][1], text + or_others(part for _, part in found[1:]), within=found[0][0]) from error
    if isinstance(error, ValueError | ContractError):  # a library, or segkit, refuses values of the recipe
        raise fault(chosen[0], " ".join(message_of(error).split()) or described(error)) from None
    raise fault(chosen[0], text) from error


def _raised_by(components: Iterable[Part], error: BaseException) -> bool:
    """Return whether a plugin raised the error; datasets are excluded, since their messages are for the user."""
    *_, frame = traceback.walk_tb(error.__traceback__)
    parts = (part for whole in components for part in plugin_parts(whole) if part.entry.slot.name != "data")
    return any(ComponentCode(part.entry.factory).owns(frame[0]) for part in parts)


def _innermost(traced: list[tuple[Part, str]], error: BaseException) -> tuple[Part, str]:
    """Return the part whose place comes last in the traceback."""
    frames = [file_and_line(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    return max(traced, key=lambda item: frames.index(item[1]) if item[1] in frames else -1)


def wrong_type(made: Any, kind: type, name: str) -> str | None:
    """Return what is wrong with a component's result that is not of a type; None if it is."""
    if isinstance(made, kind):
        return None
    must = f"it must return {'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
    return f"{must}, got None: is a `return` missing?" if made is None else f"{must}, got {type(made).__name__}."
