"""Descriptions for `segkit show`: of a component with an example, of a recipe with the origins of its values."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segkit.recipe import merge, toml
from segkit.recipe.initial_weights import with_initial_weights
from segkit.recipe.listed_split import with_listed_split
from segkit.registry.component import Entry
from segkit.registry.plausible import filled
from segkit.registry.registry import REFERENCE

if TYPE_CHECKING:
    from segkit.recipe.model import Recipe

BOUNDS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
KINDS = {"number": "float", "integer": "int", "string": "string", "boolean": "bool", "null": "none"}


@dataclass(frozen=True)
class Parameter:
    """A parameter in a recipe; `default` is TOML, "" if it has none, and None if it is required."""

    name: str
    type: str
    default: str | None


def parameters(entry: Entry) -> list[Parameter]:
    """Return the parameters that a recipe may set, in the order of the signature."""
    properties = entry.parameters.model_json_schema(by_alias=True).get("properties", {})
    found = []
    for name, info in entry.fields.items():
        default = None if info.is_required() else "" if info.default is None else toml.format_value(info.default)
        found.append(Parameter(name, _type(properties[name]), default))
    return found


def _type(schema: dict[str, Any]) -> str:
    """Return the type that a JSON Schema describes, e.g. "float >= 0"."""
    if REFERENCE in schema:
        return f"a component: {schema[REFERENCE][0]}"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(part) for part in schema["anyOf"] if part.get("type") != "null"))
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " | ".join(toml.format_value(value) for value in values if value is not None)
    kind = schema.get("type", "any value")
    if kind == "array":
        parts = schema.get("prefixItems")
        inner = ", ".join(_type(part) for part in parts) if parts else f"{_type(schema.get('items', {}))}, ..."
        return f"[{inner}]"
    if "properties" in schema:
        return "table"
    if kind == "object":
        return f"table of {_type(schema.get('additionalProperties', {}))}"
    if schema.get("format") == "path":
        return "path"
    bounds = [f"{sign} {schema[key]:g}" for key, sign in BOUNDS if key in schema]
    return " ".join([KINDS.get(kind, kind), " and ".join(bounds)]).strip()


def snippet(entry: Entry) -> str:
    """Return an excerpt of a recipe that uses a component, each parameter with its default or a plausible value."""
    made, unknown = filled(entry, {})
    made |= {name: "FOLDER" if name == "root" else name.upper() for name in unknown}
    filled_in = {name: made[name] if field.is_required() else field.default for name, field in entry.fields.items()}
    values = {name: value for name, value in filled_in.items() if value is not None}
    slot, choice = entry.slot.name, {entry.name: values}
    tree: dict[str, Any] = {"channels": "exclusive"} if entry.traits.get("exclusive_only") else {}
    if slot == "transform":
        tree["transforms"] = {"train": [choice]}
    elif slot == "postprocess":
        tree["evaluation"] = {"postprocess": [choice]}
    elif slot in ("upsampler", "initializer"):
        tree["model"] = {"unet": {slot: choice}}
    else:
        tree["metrics" if slot == "metric" else slot] = choice
    return toml.dumps(tree)


def describe(entry: Entry) -> list[str]:
    """Return the description of a component as lines: documentation, parameters, and an excerpt of a recipe."""
    lines = [f"{entry.slot.name} {entry.name}    (from {entry.origin})", ""]
    lines += inspect.cleandoc(entry.doc).splitlines() or ["(no documentation)"]
    rows = [
        (p.name, p.type, "required" if p.default is None else f"default {p.default}" if p.default else "optional")
        for p in parameters(entry)
    ]
    if rows:
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines += ["", "Parameters:"]
        lines += [f"  {name:<{widths[0]}}  {kind:<{min(widths[1], 40)}}  {default}" for name, kind, default in rows]
    return [*lines, "", "In a recipe:", *(f"  {line}".rstrip() for line in snippet(entry).splitlines())]


def value_origins(recipe: Recipe, document: merge.Document) -> list[tuple[tuple[str, ...], Any, str]]:
    """Return (path, value, origin) of each value of the filled recipe; origin is file:line, a flag or "default".

    A list that several layers changed has several, separated by commas.
    """
    document = with_initial_weights(with_listed_split(document))

    def walk(node: Any, written: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, str]]:
        if isinstance(node, dict) and node and (path[:1] != ("study",) or len(path) == 1):
            for name, value in node.items():
                yield from walk(value, written.get(name) if isinstance(written, dict) else None, (*path, name))
        else:
            yield path, node, "default" if written is None else _origin(document, path)

    return list(walk(recipe.dump(), document.tree, ()))


def _origin(document: merge.Document, path: tuple[str, ...]) -> str:
    """Return the first place in each source of the values at a path."""
    below = [key for key in document.origins if key[: len(path)] == path]
    first = {document.origins[key].name: key for key in reversed(below)}
    return ", ".join(document.place(key) for key in reversed(first.values())) or document.place(path)
