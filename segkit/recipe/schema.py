"""The JSON Schema of recipes, plugins included, with which editors complete and check TOML.

Parameters without a default are required, except in a file that extends another. Component names are listed as
registered; the loader also accepts another case, and `-` for `_`.
"""

from __future__ import annotations

from typing import Any

from segkit.components import REGISTRIES, SEVERAL, SINGLE
from segkit.components.postprocess import postprocessors
from segkit.components.transforms import transforms
from segkit.recipe.model import Recipe
from segkit.registry.component import Entry
from segkit.registry.registry import REFERENCE, Registry

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LISTS = ((transforms, "Transforms", ("train", "eval")), (postprocessors, "Evaluation", ("postprocess",)))
LISTED = [registry.name for registry, _, _ in LISTS]
FILE_KEYS: dict[str, Any] = {
    "extends": {"type": "string", "description": "The recipe that this one extends, relative to this file."},
    "drop": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Inherited keys to remove, e.g. regularizer or scheduler.",
    },
}


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe file."""
    schema: dict[str, Any] = Recipe.model_json_schema(by_alias=True)
    recipe = {key: value for key, value in schema.items() if key != "$defs"}
    recipe["properties"] = FILE_KEYS | recipe["properties"]
    defs: dict[str, Any] = dict(schema.get("$defs", {}))
    for registry in REGISTRIES:
        one = _table(registry, complete=registry.name in LISTED) | {"minProperties": 1, "maxProperties": 1}
        defs[registry.name] = {"anyOf": [_bare(registry), one]}
        for entry in registry:
            defs[f"{registry.name}.{entry.name}"] = _parameters(entry)
    for registry, table, keys in LISTS:
        some = _table(registry)
        by_name = some | {"patternProperties": {"^[0-9]+$": some}}
        for key in keys:
            items = defs[table]["properties"][key]
            told = {name: items.pop(name) for name in ("default", "title", "description") if name in items}
            defs[table]["properties"][key] = {"anyOf": [items, by_name], **told}
    defs["Study"]["properties"]["variants"] = {
        "type": "array",
        "items": {"$ref": "#/$defs/variant"},
        "description": "A variant: a label, and keys of the recipe that differ.",
    }
    parts = {name: part for name, part in recipe["properties"].items() if name not in ("study", "extends", "title")}
    defs["variant"] = {
        "type": "object",
        "properties": {"label": {"type": "string"}} | parts,
        "required": ["label"],
        "additionalProperties": False,
    }
    found = {
        "$schema": DIALECT,
        "title": "segkit recipe",
        "minProperties": 1,
        **{key: value for key, value in recipe.items() if key != "title"},
        "if": {"not": {"required": ["extends"]}},
        "then": {"properties": _required()},
        "$defs": dict(sorted(defs.items())),
    }
    return dict(_linked(found))


def _bare(registry: Registry) -> dict[str, Any]:
    """Describe a bare name: that of a component whose parameters all have defaults."""
    return {"enum": [entry.name for entry in registry if not entry.required]}


def _table(registry: Registry, *, complete: bool = False) -> dict[str, Any]:
    """Describe a table of components; where layers merge, one may set only some of what a complete table requires."""
    found: dict[str, dict[str, Any]] = {
        entry.name: {"$ref": f"#/$defs/{registry.name}.{entry.name}"}
        | ({"required": entry.required} if complete and entry.required else {})
        for entry in registry
    }
    return {"type": "object", "properties": found, "additionalProperties": False}


def _parameters(entry: Entry) -> dict[str, Any]:
    """Describe an entry's parameters; none is required, since a layer may set only some."""
    schema = entry.parameters.model_json_schema(by_alias=True)
    schema.pop("required", None)
    return schema | {"title": entry.name, "description": entry.summary}


def _required() -> dict[str, Any]:
    """Describe the required parameters of the components of a recipe that stands alone."""
    needs = {
        slot: {entry.name: {"required": entry.required} for entry in registry if entry.required}
        for slot, registry in (SINGLE | SEVERAL).items()
    }
    return {slot: {"properties": entries} for slot, entries in needs.items() if entries}


def _linked(node: Any) -> Any:
    """Return a schema in which placeholders for slots are replaced by references to their components."""
    if isinstance(node, list):
        return [_linked(part) for part in node]
    if not isinstance(node, dict):
        return node
    if REFERENCE in node:
        slot, several = node[REFERENCE]
        registry = next((registry for registry in REGISTRIES if registry.name == slot), None)
        rest = {key: _linked(value) for key, value in node.items() if key != REFERENCE}
        if registry is None:  # a plugin's own: its library, if it has one, is not imported for this
            return rest | {"type": ["string", "object"]}
        return rest | ({"anyOf": [_bare(registry), _table(registry)]} if several else {"$ref": f"#/$defs/{slot}"})
    return {key: _linked(value) for key, value in node.items()}
