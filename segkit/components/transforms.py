"""Transforms: those of Albumentations 2 that apply to a grey image and its masks, under their own names.

Albumentations warns about an unknown parameter and goes on; here every parameter is checked. Masks are labels: where an
image is scaled they are resampled by area (`segkit.data.resampling`), beyond borders they are filled with 0, and what
would
blend or relabel them cannot be set; a `mask_interpolation` of 0 may be written, and changes nothing. Transforms that
change the type of the image (Normalize, ToFloat) are absent: segkit normalizes on the device. So are those that need
colour, boxes, or reference images. A single number given to CLAHE's `clip_limit` is that limit, exactly; Albumentations
would draw one from (1, limit).
"""

from __future__ import annotations

import inspect
import os
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from segkit.registry.component import Component
from segkit.registry.faults import misfit
from segkit.registry.messages import shown, summed
from segkit.registry.registry import Registry
from segkit.types import Count, Fraction

if TYPE_CHECKING:
    from albumentations import BasicTransform

__all__ = ["transforms"]

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network when imported, also by a plugin

LARGEST = 8192  # pixels a side
COMPOSITIONS = ("OneOf", "RandomOrder", "Sequential", "SomeOf")
UNUSABLE = {
    "ConstrainedCoarseDropout",  # picks regions by label or box; a pixel's bits are no label
    "ImageOnlyTransform",  # the base class
    "Lambda",  # is set by code
}
TRIED = {"Superpixels"}  # fits; to try it anew costs half a second of imports
NOT_SETTABLE = {"ignore_channels", "ignore_values", "keypoint_remapping_method", "mask_params"}  # no such things here
BLENDS_MASKS = "image_mask"
ADVICE = ".*(special|alias|very slow)"  # "is a special case of": advice about a class, not about values
ANY = float | int | str | bool | list[float] | list[list[float]]


def _register_albumentations(registry: Registry) -> None:
    """Register each transform that fits a grey image with masks, and the compositions of transforms."""
    import albumentations

    for name, cls in _fitting():
        signature = _narrowed(cls)
        if signature is not None:
            registry.add(name, _factory(cls), signature, doc=_doc(cls), origin="albumentations")
    for name in COMPOSITIONS:
        cls = getattr(albumentations, name)
        registry.add(name, _factory(cls), _composed(cls, registry), doc=_doc(cls), origin="albumentations")


def _fitting() -> Iterator[tuple[str, type[BasicTransform]]]:
    """Yield Albumentations' transforms that take a grey image and its masks and leave the image's type alone."""
    import albumentations as a
    from albumentations.core.type_definitions import Targets

    for name, cls in sorted(vars(a).items()):
        if not inspect.isclass(cls) or not issubclass(cls, (a.DualTransform, a.ImageOnlyTransform)):
            continue
        targets = getattr(cls, "_targets", ())
        takes_image = Targets.IMAGE in (targets if isinstance(targets, tuple) else (targets,))
        more_data = "BBox" in name or "metadata_key" in inspect.signature(cls).parameters
        if name in UNUSABLE or not takes_image or more_data:
            continue
        if issubclass(cls, a.DualTransform) or name in TRIED or _fits_grey(cls):
            yield name, cls


def _fits_grey(cls: type[BasicTransform]) -> bool:
    """Try an image-only transform: does it change a grey image, and keep its type and shape?"""
    import numpy as np

    image = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    image[8:16, 8:16] = 200
    changed = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "not applicable to grayscale" and the like
            transform = cls(p=1.0)
            for seed in range(4):
                transform.set_random_seed(seed)
                found = transform(image=image.copy())["image"]
                if found.dtype != image.dtype or found.shape != image.shape:
                    return False
                changed = changed or bool((found != image).any())
    except Exception:
        return False
    return changed


def _doc(cls: type) -> str:
    first, *rest = (cls.__doc__ or cls.__name__).strip().split("\n\n", 1)
    note = ["A single `clip_limit` is that limit, exactly, not a range from 1."] if cls.__name__ == "CLAHE" else []
    return "\n\n".join([" ".join(first.split()), *note, *rest])


def _narrowed(cls: type[BasicTransform]) -> inspect.Signature | None:
    """Return the signature as a recipe may write it; None if what it requires cannot be written, or nothing is left."""
    scope = {**vars(typing), **vars(sys.modules[cls.__module__]), "Path": Path, "Sequence": Sequence}
    own = []
    for name, parameter in inspect.signature(cls).parameters.items():
        hint, default = parameter.annotation, parameter.default
        hint = eval(hint, scope) if isinstance(hint, str) else hint
        annotation: Any = None if name in NOT_SETTABLE else _writable(hint)
        if name in ("fill_mask", "mask_drop_value"):
            # None leaves the mask under a hole as it is, 0 erases it; a fixed 0 is no choice.
            annotation = Literal[0] | None if default is None else None
        elif name == "mask_interpolation":
            annotation = Literal[0]
        if annotation is None and default is parameter.empty:
            return None
        if annotation is None:
            continue
        if default is None or isinstance(default, (list, dict)) or name in ("min_height", "min_width"):
            annotation, default = annotation | None, None
        checked = Annotated[annotation, _check(cls, name)]
        own.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=checked, default=default))
    return inspect.Signature(own) if own else None


def _writable(hint: Any) -> Any:
    """Return the part of a type that a recipe can write; None if there is none."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return ANY
    if hint in (bool, int, float, str, type(None)):
        return hint
    if origin is Literal:
        return Literal[tuple(value for value in arguments if value != BLENDS_MASKS)]
    if origin in (Union, types.UnionType):
        members = [member for member in map(_writable, arguments) if member is not None]
        return None if members in ([], [type(None)]) else Union[tuple(members)]  # noqa: UP007
    if origin in (tuple, list, dict, Sequence):
        inner = tuple(argument if argument is Ellipsis else _writable(argument) for argument in arguments)
        return None if None in inner else (list if origin is Sequence else origin)[inner]
    return None


def _check(cls: type[BasicTransform], name: str) -> Any:
    """Return a validator that lets Albumentations judge a value, but keeps it as it was written."""
    from pydantic import AfterValidator, TypeAdapter, ValidationError

    adapter: Any = None

    def judge(value: Any) -> Any:
        nonlocal adapter
        if _largest(value) > LARGEST:  # it would be a side of the picture
            raise ValueError(f"must be {LARGEST} or less, got {shown(value)}")
        info = cls.InitSchema.model_fields.get(name)
        if info is None or value is None:
            return value
        if adapter is None:
            whole: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
            adapter = TypeAdapter(whole)
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            raise ValueError(_said(error)) from None
        return value

    return AfterValidator(judge)


def _largest(value: Any) -> int:
    """Return the largest whole number in a value, 0 where there is none."""
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, int) else 0


def _said(error: Exception) -> str:
    """Return the messages of an Albumentations error in one line."""
    from pydantic import ValidationError

    cause = error if isinstance(error, ValidationError) else error.__cause__
    if not isinstance(cause, ValidationError):
        return " ".join(str(error).split())
    return summed(cause)


def _factory(cls: type[Any]) -> Callable[..., Any]:
    """Return what builds a transform from a recipe's values.

    Raises (when called):
        ValueError: Albumentations finds that the values make no sense together, or would change them.
    """

    def build(**values: Any) -> Any:
        given = {key: value for key, value in values.items() if value is not None}
        if "transforms" in given:
            if not given["transforms"]:
                raise ValueError("transforms: needs at least one transform")
            given["transforms"] = [component() for component in given["transforms"]]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # where it would put values right, or take its defaults
                warnings.filterwarnings("ignore", ADVICE, UserWarning)
                return cls(**_adjusted(cls.__name__, given))
        except (ValueError, UserWarning) as error:
            raise ValueError(_said(error)) from error

    return build


def _adjusted(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Say what TOML cannot: a limit that is no range, and "no minimum" beside a divisor."""
    if name == "CLAHE" and isinstance(given["clip_limit"], (int, float)):
        return {**given, "clip_limit": (given["clip_limit"], given["clip_limit"])}
    if name == "PadIfNeeded":
        for side in ("height", "width"):
            if f"pad_{side}_divisor" in given:
                given = {f"min_{side}": None, **given}
    return given


def _composed(cls: type, registry: Registry) -> inspect.Signature:
    """Return the signature of a composition: nested transforms, and its own plain parameters."""
    known = {"n": Count, "replace": bool, "p": Fraction}
    parameters = inspect.signature(cls).parameters
    own = [
        parameters[name].replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
        for name, annotation in {"transforms": list[Annotated[Component, registry]], **known}.items()
        if name in parameters
    ]
    return inspect.Signature(own)


def _check_made(made: Any) -> str | None:
    from albumentations import BaseCompose, BasicTransform

    if isinstance(made, BaseCompose):
        return None
    return misfit(made, BasicTransform, "Albumentations transform")


transforms = Registry(
    "transform",
    "transforms",
    home=__name__,
    handed=(),
    called=False,
    family=_register_albumentations,
    check=_check_made,
)
