"""Who is to blame: a failure inside a component is said with its name, its file and line, and what to do next."""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from segkit.errors import ContractError, UserError, ended, said
from segkit.registry.source import PACKAGE, Source, shown

LONGEST = 300
MEANINGS = {  # of torch's and numpy's own words, what to look for
    "Sizes of tensors must match except in dimension": "two tensors that are joined differ in height or width",
    "shapes cannot be multiplied": "a linear layer is made for one size of image, and is handed another",
    "modified by an inplace operation": "a tensor that the gradient needs was changed in place: use operations without "
    "a trailing underscore",
    "does not require grad and does not have a grad_fn": "no gradient reaches it: something detaches, or rounds",
    "numpy boolean": 'its prediction is a mask (bool): for arithmetic with probabilities register it with `uses="prob'
    'ability"`, for counting convert it with `prediction.astype(float)`',
    "bool tensor": 'its prediction is a mask (bool): for arithmetic with probabilities register it with `uses="'
    'probability"`, for counting convert it with `.float()`',
    "uninitialized parameter": "a lazy layer has not seen an image yet: give it its number of input channels",
    "required positional argument: 'closure'": "its step needs a closure, which segkit does not hand in",
}


class Part(Protocol):
    """What is needed here of a component: its entry, and its parameters, in which further components may be."""

    @property
    def entry(self) -> Any: ...

    @property
    def arguments(self) -> dict[str, Any]: ...


P = TypeVar("P", bound=Part)


class ComponentError(UserError):
    """A component failed, or breaks its slot's contract: the message names it, its file and line, and what to do."""


def described(error: BaseException) -> str:
    """Return "ValueError: what it says" in one line."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({'' if error.code is None else repr(error.code)})"
    text = " ".join(said(error).split("\n\n")[0].split()).rstrip(".")
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
    """Return what an exception says, and where that is a library's own words, what it means."""
    meaning = next((text for words, text in MEANINGS.items() if words in said(error)), "")
    return described(error) + (f" ({meaning})" if meaning else "")


def suspects(component: P) -> Iterator[P]:
    """Yield those of a component and the components in it that are not segkit's or a known library's."""
    if component.entry.foreign:
        yield component
    for value in component.arguments.values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if hasattr(item, "entry"):
                yield from suspects(item)


def fault(component: Part, text: str, place: str | None = None, *, within: Part | None = None) -> UserError:
    """Return the error that says what is wrong with a component.

    Args:
        component: whose fault it is.
        text: what it does wrong, and what to do.
        place: "file:line", if a better one than its definition is known.
        within: what it is a part of, if that is how the user knows it.
    """
    entry = component.entry
    name = key(entry) if within is None or within is component else f"{key(within.entry)} with {key(entry)}"
    if not entry.foreign:
        return ComponentError(f"{name}: {ended(text)}")
    return ComponentError(signed(name, entry.factory, text, place=place or entry.origin, how=how_to_check(entry)))


def signed(
    name: str,
    factory: Callable[..., Any],
    text: str,
    error: BaseException | None = None,
    *,
    place: str | None = None,
    how: str | None = None,
) -> str:
    """Return what is wrong with a plugin's component, with its place and what to do next.

    Args:
        name: of the component.
        factory: its function or class.
        text: what is wrong.
        error: the exception that says so, whose last line of the author is the place.
        place: "file:line", where that is known.
        how: how to try it by itself.
    """
    source = Source(factory)
    where = place or (source.of_error(error) if error is not None else None) or source.definition
    path = _plugin_file(factory)
    how = how or (f"`segkit check {path}`" if path else None)
    return f"{name} ({where}): {ended(text)}" + (f" To try it by itself: {how}" if how else "")


def key(entry: Any) -> str:
    """Return a component's name as in a recipe, e.g. "loss.dice"."""
    return f"{entry.slot.name}.{entry.name}"


def how_to_check(entry: Any) -> str:
    """Return the command, or for a component of no plugin file the call, that tries a component by itself."""
    path = _plugin_file(entry.factory)
    return f"`segkit check {path}`" if path else f'`segkit.testing.check(segkit.{entry.slot.plural}["{entry.name}"])`'


def _plugin_file(factory: Callable[..., Any]) -> Path | None:
    """Return the file or package in a plugin folder that a component comes from."""
    parts = str(factory.__module__).split(".")
    if parts[0] != PACKAGE:
        return None
    for length in range(2, len(parts) + 1):
        name = getattr(sys.modules.get(".".join(parts[:length])), "__file__", None)
        if name:
            path = Path(name).parent if Path(name).name == "__init__.py" else Path(name)
            return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return None


def blame(components: Part | Iterable[Part], error: BaseException) -> NoReturn:
    """Raise the error of a component that raised; Ctrl-C, what already says who and what, and want of memory pass.

    Args:
        components: the component that ran, or those that may be the cause, the likeliest first. The one whose code the
            exception went through last is named, else the first that is a plugin's, alone or inside another.
        error: what was raised.

    Raises:
        ComponentError: with the place in the author's file.
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
    found = [(whole, part) for whole in chosen for part in suspects(whole)]
    traced = [(part, place) for _, part in found if (place := Source(part.entry.factory).of_error(error))]
    text = str(error) if isinstance(error, ContractError) else explained(error)
    if traced:
        part, place = _innermost(traced, error)
        raise fault(part, text, place) from error
    if found:
        others = dict.fromkeys(f"{key(part.entry)} ({part.entry.origin})" for _, part in found[1:])
        also = f"; or it is {', '.join(others)}" if others else ""
        raise fault(found[0][1], text + also, within=found[0][0]) from error
    if isinstance(error, ValueError | ContractError):  # what a library or segkit has against a recipe's values
        raise fault(chosen[0], " ".join(said(error).split()) or described(error)) from None
    raise fault(chosen[0], text) from error


def _raised_by(components: Iterable[Part], error: BaseException) -> bool:
    """Return whether a line of a plugin raised, of one that is no data set: those speak to the user themselves."""
    *_, frame = traceback.walk_tb(error.__traceback__)
    parts = (part for whole in components for part in suspects(whole) if part.entry.slot.name != "data")
    return any(Source(part.entry.factory).owns(frame[0].f_code.co_filename) for part in parts)


def _innermost(traced: list[tuple[Part, str]], error: BaseException) -> tuple[Part, str]:
    """Return the one whose place is the last in a traceback."""
    frames = [shown(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    return max(traced, key=lambda item: frames.index(item[1]) if item[1] in frames else -1)


def misfit(made: Any, kind: type, name: str) -> str | None:
    """Return what is wrong with what a component gave if it is not of a kind, None if it is."""
    if isinstance(made, kind):
        return None
    if made is None:
        return f"it gives None, no {name}: is a `return` missing?"
    return f"it gives a {type(made).__name__}, no {name}."
