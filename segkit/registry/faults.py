"""Errors of components: messages that name the component, its file and line, and what to do next."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, Protocol, TypeVar

from segkit.errors import ContractError, UserError, message_of, sentence, truncate
from segkit.files import display_path
from segkit.registry.source import ComponentCode, file_and_line, frames_of, location

LONGEST = 300
MEANINGS = {  # part of a message of torch or numpy: what it means for a component
    "Sizes of tensors must match except in dimension": "two tensors that are joined differ in height or width",
    "shapes cannot be multiplied": "a linear layer is built for one image size and got another",
    "modified by an inplace operation": "a tensor that the gradient needs was changed in place: use operations without "
    "a trailing underscore",
    "backward through the graph a second time": "segkit calls backward on what is returned: call none on it before, "
    "and detach what is kept from step to step",
    "does not require grad and does not have a grad_fn": "no gradient reaches it: is something detached or rounded?",
    "numpy boolean": "its prediction is a mask (bool): for arithmetic with probabilities register it with "
    '`uses="probability"`, for counting convert it with `prediction.astype(float)`',
    "bool tensor": "its prediction is a mask (bool): for arithmetic with probabilities register it with "
    '`uses="probability"`, for counting convert it with `.float()`',
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
        place: "file:line" if it is known more exactly than the component's definition.
    """

    def __init__(self, message: str, text: str = "", place: str | None = None) -> None:
        super().__init__(message)
        self.text, self.place = text or message, place


def described(error: BaseException) -> str:
    """Return "ValueError: its message" on one line."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({'' if error.code is None else repr(error.code)})"
    text = " ".join(message_of(error).strip().split("\n\n")[0].split()).rstrip(".")
    if isinstance(error, UserError):
        return text
    if not text and isinstance(error, AssertionError) and error.__traceback__:
        text = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return f"{type(error).__name__}: {truncate(text, LONGEST)}" if text else type(error).__name__


def explained(error: BaseException) -> str:
    """Return an exception's type and message, with an explanation of some messages of libraries and its notes."""
    meaning = [text for words, text in MEANINGS.items() if words in message_of(error)][:1]
    return described(error) + "".join(f" ({text})" for text in (*meaning, *getattr(error, "__notes__", ())))


def parts_of(component: P) -> Iterator[P]:
    """Yield a component and those nested in it, at any depth."""
    yield component
    for value in component.arguments.values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if hasattr(item, "entry"):
                yield from parts_of(item)


def plugin_parts(component: P) -> Iterator[P]:
    """Yield those of `parts_of` that come from plugins."""
    return (part for part in parts_of(component) if part.entry.foreign)


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
    entry, text = component.entry, sentence(text)
    name = key(entry) if within is None or within is component else f"{key(within.entry)} with {key(entry)}"
    message = f"{name}: {text}"
    if entry.foreign:
        message = f"{name} ({place or entry.origin}): {text} To try it by itself: {how_to_check(entry)}"
    return ComponentError(message, text, place)


def plugin_message(name: str, factory: Callable[..., Any], text: str, error: BaseException | None) -> str:
    """Return the message about a component that is known by its factory alone; `error` is the cause, if any."""
    place = ComponentCode(factory).of_error(error) if error is not None else None
    how = f" To try it by itself: {command}" if (command := _check_command(factory)) else ""
    return f"{name} ({place or location(factory)}): {sentence(text)}{how}"


def key(entry: Any) -> str:
    """Return a component's name as in a recipe, e.g. "loss.dice"."""
    return f"{entry.slot.name}.{entry.name}"


def how_to_check(entry: Any) -> str:
    """Return the command that checks a component alone, or the Python call if it is not in a plugin file."""
    return _check_command(entry.factory) or f'`segkit.testing.check(segkit.{entry.slot.plural}["{entry.name}"])`'


def _check_command(factory: Callable[..., Any]) -> str:
    plugin = ComponentCode(factory).plugin
    return f"`segkit check {display_path(plugin)}`" if plugin else ""


def raise_fault(components: Part | Iterable[Part], error: BaseException) -> NoReturn:
    """Raise the error of a component; Ctrl-C, errors with a final message and lack of memory are raised unchanged.

    Args:
        components: the component that ran, or the possible causes, the likeliest first. The innermost one in the
            traceback is named, else the first that comes from a plugin, itself or nested in another.
        error: what was raised.

    Raises:
        ComponentError: with the place in the plugin.
    """
    chosen = list(components) if isinstance(components, Iterable) else [components]
    found = [(whole, part) for whole in chosen for part in plugin_parts(whole)]
    sources = [(part, ComponentCode(part.entry.factory)) for _, part in found]
    if not chosen or _is_final(error, sources):
        try:
            raise error
        finally:
            del error  # else the frame and the error hold each other, and all that the failed operation held
    text = str(error) if isinstance(error, ContractError) else explained(error)
    for frame, line in reversed(frames_of(error)):
        for part, source in sources:
            if source.owns(frame):
                raise fault(part, text, file_and_line(frame.f_code.co_filename, line)) from error
    if found:
        raise fault(found[0][1], text + or_others(part for _, part in found[1:]), within=found[0][0]) from error
    if isinstance(error, ValueError | ContractError):  # a library, or segkit, refuses values of the recipe
        raise fault(chosen[0], " ".join(message_of(error).split()) or described(error)) from None
    raise fault(chosen[0], text) from error


def _is_final(error: BaseException, sources: Iterable[tuple[Part, ComponentCode]]) -> bool:
    """Return whether an error is raised unchanged: its message is for the user, or it is no fault of a component."""
    if isinstance(error, UserError) and not isinstance(error, ContractError):
        frame, _ = frames_of(error)[-1]  # a plugin's own error gets its name and line, but datasets address the user
        return not any(source.owns(frame) for part, source in sources if part.entry.slot.name != "data")
    return isinstance(error, KeyboardInterrupt) or type(error).__name__ == "NonFiniteError" or lacks_memory(error)


def lacks_memory(error: BaseException) -> bool:
    """Return whether a GPU had no memory left: torch says so, or CUDA, cuBLAS or cuDNN, which then say it as text."""
    found = isinstance(error, RuntimeError) and re.search(r"CUDA.*out of memory|_ALLOC_FAILED", str(error))
    return type(error).__name__ == "OutOfMemoryError" or bool(found)


def wrong_type(made: Any, kind: type, name: str) -> str | None:
    """Return what is wrong with a component's result that is not of a type; None if it is."""
    if isinstance(made, kind):
        return None
    must = f"it must return {'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
    return f"{must}, got None: is a `return` missing?" if made is None else f"{must}, got {type(made).__name__}."
