"""Transforms: those of Albumentations 2 that apply to an image and its masks, under their own names.

Which of them take the images that the data and the intensity give (colour or several inputs, float32) is found out when
these are known (`segkit.data.fitting`).

Albumentations only warns about unknown parameters; here every parameter is checked. Masks are labels: scaling resamples
them by area (`segkit.data.resampling`), they are 0 beyond borders, and parameters that would blend or relabel them are
not offered; a `mask_interpolation` of 0 is accepted, and changes nothing.

Not offered are transforms that change the type of the image (Normalize, ToFloat), since segkit normalizes on the
device, and those that need boxes or reference images. A single number for CLAHE's `clip_limit` is that limit,
exactly; Albumentations would draw one from (1, limit).
"""

from __future__ import annotations

import functools
import inspect
import os
import typing
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from segkit.components.families import classes, narrowed, plain, summary, writable
from segkit.registry.component import Component
from segkit.registry.faults import wrong_type
from segkit.registry.messages import describe_value, on_one_line
from segkit.registry.registry import Registry
from segkit.registry.slot import Function
from segkit.types import Count, Fraction

if TYPE_CHECKING:
    from albumentations import BasicTransform

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network when imported, also by a plugin

LARGEST = 8192  # pixels a side
MAPPING = {"ElasticTransform", "GridDistortion", "OpticalDistortion", "PiecewiseAffine", "ThinPlateSpline"}
INPUTS_AT_ONCE = 4  # that OpenCV takes; Albumentations calls it again for further ones
UNUSABLE = {
    "ConstrainedCoarseDropout",  # picks regions by label or box; a pixel's bits are no label
    "Lambda",  # is set by code
}
FITTING = {"Superpixels"}  # known to fit; trying it costs half a second of imports
HIDDEN = {"ignore_channels", "ignore_values", "keypoint_remapping_method", "mask_params"}  # not applicable
ADVICE = ".*(special|alias|very slow)"  # "is a special case of": advice about a class, not about values
ANY = float | int | str | bool | list[float] | list[list[float]]


def _register_albumentations(registry: Registry) -> None:
    """Register each transform that fits a grey or a colour image with masks, and the compositions of transforms."""
    import albumentations as a

    found = [(cls, _takes(cls)) for _, cls in classes(a, a.DualTransform, a.ImageOnlyTransform)]
    compositions = (a.OneOf, a.RandomOrder, a.Sequential, a.SomeOf)
    for cls, images in [*found, *((cls, "grey") for cls in compositions)]:
        signature = narrowed(cls, functools.partial(_in_recipe, registry, cls), hidden=HIDDEN) if images else None
        if signature is not None:
            traits = {"colour": images == "colour"}
            registry.add(cls.__name__, _factory(cls), signature, doc=_doc(cls), origin="albumentations", traits=traits)


def _takes(cls: type[BasicTransform]) -> Literal["grey", "colour"] | None:
    """Return which images a transform takes, with their masks alone and without changing their type; None for none."""
    from albumentations import DualTransform
    from albumentations.core.type_definitions import Targets

    name, targets = cls.__name__, getattr(cls, "_targets", ())
    takes_image = Targets.IMAGE in (targets if isinstance(targets, tuple) else (targets,))
    more_data = "BBox" in name or "metadata_key" in inspect.signature(cls).parameters
    if name in UNUSABLE or not takes_image or more_data:
        return None
    if issubclass(cls, DualTransform) or name in FITTING or _changes(cls, (32, 32)):
        return "grey"
    return "colour" if _changes(cls, (32, 32, 3)) else None


def _changes(cls: type[BasicTransform], size: tuple[int, ...]) -> bool:
    """Try an image-only transform: does it change an image of a size, and keep its type and shape?"""
    import numpy as np

    image = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
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
    note = ["A single `clip_limit` is taken exactly, not as a range from 1."] if cls.__name__ == "CLAHE" else []
    return "\n\n".join([summary(cls), *note, *(cls.__doc__ or "").strip().split("\n\n", 1)[1:]])


def _in_recipe(registry: Registry, cls: type, name: str, hint: Any, default: Any) -> tuple[Any, Any]:
    """Return type and default of a parameter; Albumentations validates the values."""
    from albumentations import BaseCompose

    if issubclass(cls, BaseCompose):
        known = {"transforms": list[Annotated[Component, registry]], "n": Count, "replace": bool, "p": Fraction}
        return known.get(name), default
    annotation = writable(hint, _leaf)
    if name in ("fill_mask", "mask_drop_value"):
        # None leaves the mask under a hole as it is, 0 erases it; a fixed 0 is no choice.
        annotation = Literal[0] | None if default is None else None
    elif name == "mask_interpolation":
        annotation = Literal[0]
    if annotation is None:
        return None, default
    if default is None or isinstance(default, (list, dict)) or name in ("min_height", "min_width"):
        annotation, default = annotation | None, None
    return Annotated[annotation, _check(cls, name)], default


def _leaf(hint: Any) -> Any:
    if typing.get_origin(hint) is Literal:  # "image_mask" would blend masks
        return Literal[tuple(value for value in typing.get_args(hint) if value != "image_mask")]
    return ANY if hint is Any else plain(hint)


def _check(cls: type[Any], name: str) -> Any:
    """Return a validator that has Albumentations check a value, but keeps it as it was written."""
    from pydantic import AfterValidator, TypeAdapter, ValidationError

    @functools.cache
    def adapter() -> TypeAdapter[Any] | None:
        info = cls.InitSchema.model_fields.get(name)
        return TypeAdapter(Annotated[info.annotation, info]) if info else None  # type: ignore[arg-type]

    def judge(value: Any) -> Any:
        if _largest(value) > LARGEST:  # it would be a side of the image
            raise ValueError(f"must be {LARGEST} or less, got {describe_value(value)}")
        known = adapter()
        try:
            if known and value is not None:
                known.validate_python(value)
        except ValidationError as error:
            raise ValueError(on_one_line(error)) from None
        return value

    return AfterValidator(judge)


def _largest(value: Any) -> int:
    """Return the largest whole number in a value, 0 where there is none."""
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0)
    return abs(value) if isinstance(value, int) else 0


def _factory(cls: type[Any]) -> Callable[..., Any]:
    """Return a function that builds a transform from a recipe's values.

    Raises (when called):
        ValueError: Albumentations refuses the combination of values, or would change them.
    """
    from pydantic import ValidationError

    def build(**values: Any) -> Any:
        given = {key: value for key, value in values.items() if value is not None}
        if "transforms" in given:
            if not given["transforms"]:
                raise ValueError("transforms: needs at least one transform")
            given["transforms"] = [component() for component in given["transforms"]]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # it would correct values, or fall back to its defaults
                warnings.filterwarnings("ignore", ADVICE, UserWarning)
                return cls(**_adjusted(cls.__name__, given))
        except (ValueError, UserWarning) as error:
            cause = error if isinstance(error, ValidationError) else error.__cause__
            text = on_one_line(cause) if isinstance(cause, ValidationError) else " ".join(str(error).split())
            raise ValueError(text) from error

    return build


def _adjusted(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Express what TOML cannot: a limit that is not a range, one fill for all inputs, "no minimum" beside a divisor."""
    fill = given.get("fill")
    if name in MAPPING and isinstance(fill, (int, float)):
        return {**given, "fill": (fill,) * INPUTS_AT_ONCE}  # OpenCV would fill the first input alone
    if name == "CLAHE" and isinstance(given["clip_limit"], (int, float)):
        return {**given, "clip_limit": (given["clip_limit"], given["clip_limit"])}
    if name == "PadIfNeeded":
        for side in ("height", "width"):
            if f"pad_{side}_divisor" in given:
                given = {f"min_{side}": None, **given}
    return given


def _check_made(made: Any) -> str | None:
    from albumentations import BaseCompose, BasicTransform

    return None if isinstance(made, BaseCompose) else wrong_type(made, BasicTransform, "Albumentations transform")


transforms = Registry(
    "transform",
    "transforms",
    home=__name__,
    family=_register_albumentations,
    check=_check_made,
    # colour: it cannot take images of one input; on_device: see `segkit.components.device_forms`
    traits={"colour": bool, "on_device": Function},
)
