"""Errors of transforms: messages that name the transform, a plugin's with its file and line."""

from __future__ import annotations

from typing import Any

from segkit.components.transforms import transforms
from segkit.errors import UserError, message_of
from segkit.registry.faults import described, explained, plugin_message


class TransformError(UserError):
    """A transform failed on a sample; the message names both, if known."""


def is_albumentations(transform: Any) -> bool:
    """Return whether a transform, and all that it is composed of, are of Albumentations itself."""
    inner = getattr(transform, "transforms", [])
    return type(transform).__module__.startswith("albumentations.") and all(map(is_albumentations, inner))


def failure(name: str, transform: Any, text: str, error: BaseException | None = None) -> TransformError:
    """Return the error of a transform; a plugin's has its file and line."""
    factory: Any = type(transform)
    if is_albumentations(transform):
        if name not in transforms or not transforms[name].foreign:
            return TransformError(f"transform {name}: {text}")
        factory = transforms[name].factory
    return TransformError(plugin_message(f"transform {name}", factory, text, error))


def explained_failure(name: str, transform: Any, error: BaseException) -> TransformError:
    """Return the error of a transform that raised."""
    text = " ".join(message_of(error).split()) if isinstance(error, Exception) else explained(error)
    if isinstance(error, KeyError):
        text = described(error)
    if type(error).__name__ == "CropSizeError":
        text += ". Put PadIfNeeded before it, or crop less."
    return failure(name, transform, text or type(error).__name__, error)
