"""The identities of a trial: when two trainings are the same, and what may change when one is resumed.

The training identity hashes everything that the weights and the chosen epoch depend on: trials that share it have the
same weights. The evaluation identity hashes what is computed from the scores: if only it differs, the trial is
evaluated again but not trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from segkit import plugins
from segkit.components import SINGLE
from segkit.errors import UserError, truncate
from segkit.recipe.model import Recipe
from segkit.recipe.sections import Evaluation
from segkit.registry.component import Component
from segkit.registry.faults import parts_of

TRAINING_NUMBER = 2
"""Incremented whenever an unchanged recipe gives other numbers; trials of another number are shown, but not resumed,
reused or compared. 1: segkit 0.1.0. 2: masks are resampled with the area they cover, exclusive classes are decided by
arg max, and the epoch is always chosen by Dice."""
EVALUATION_NUMBER = 2
"""The same for what is computed from the scores."""

# what weights and chosen epoch do not depend on
NOT_TRAINING = (
    ("title",), ("study",), ("metrics",), ("evaluation",), ("train", "workers"), ("train", "save_every"),
    ("train", "init_from"),
)  # fmt: skip
# keys added since training number 2: at their defaults a trial is the one that it was without them
ADDED = (
    ("intensity",), ("split", "test"), ("split", "train"), ("train", "select"), ("train", "select_by"), ("step",),
    ("train", "init_match"),
)  # fmt: skip
# the same of parameters of data, and of the model
ADDED_TO_DATA = {"volumes": False, "unlabelled": 0}
ADDED_TO_UNET = {
    "activation": "relu", "convolutions": 2, "deep_supervision": False, "downsampling": "max_pool", "residual": False,
}  # fmt: skip
# what may change when a trial is resumed
RESUMABLE = {".".join(path) for path in NOT_TRAINING} | {"train.epochs"}
# where `_comparable` puts an evaluation that training uses too, and so depends on
DURING_TRAINING = "evaluation during training"
# settings of train that determine on what hardware, and how, a trial computes
HARDWARE = ("device", "precision", "threads", "compile", "resident")


def incomparable_note(number: object) -> str:
    """Return the sentence about trials of another training number than the current one."""
    which = "a newer" if isinstance(number, int) and number > TRAINING_NUMBER else "an older"
    return (
        f"it was trained by {which} version of segkit, in which the same recipe gives other numbers (training number "
        f"{number}, now {TRAINING_NUMBER}). It can be evaluated and shown, but not resumed, reused or compared "
        "with current trials"
    )


def plugin_hashes(recipe: Recipe) -> dict[str, list[str]]:
    """Return the hashes of the plugins that training and evaluation use."""

    def of(components: Iterable[Component]) -> list[str]:
        return sorted(plugin.sha256 for plugin in plugins.used_by(components))

    only_reported = {id(metric) for metric in recipe.metrics if not _chooses(recipe.train.select_by, metric.name)}
    postprocess = [part for component in recipe.evaluation.postprocess for part in parts_of(component)]
    if not recipe.evaluation.during_training:
        only_reported |= {*map(id, postprocess)}
    training = [component for component in recipe.components() if id(component) not in only_reported]
    return {"training": of(training), "evaluation": of([*recipe.metrics, *postprocess])}


def training_identity(recipe: Recipe, hashes: Iterable[str] | None = None) -> str:
    """Return the hash that identifies a training: its filled recipe and the sources of the plugins it uses.

    Device, precision and threads of the recipe are resolved; `hashes` are by default those of the loaded plugins.
    """
    tree = _comparable(recipe.dump())
    for path in NOT_TRAINING:
        node = tree
        for part in path[:-1]:
            node = node.get(part, {})
        node.pop(path[-1], None)
    for path in ADDED:
        _drop_default(tree, path)
    tree["data"] = {name: _without(values, ADDED_TO_DATA) for name, values in tree.get("data", {}).items()}
    tree["model"] = {
        name: _without(values, ADDED_TO_UNET if name == "unet" else {})
        for name, values in tree.get("model", {}).items()
    }
    return _digest(TRAINING_NUMBER, tree, plugin_hashes(recipe)["training"] if hashes is None else sorted(hashes))


def evaluation_identity(recipe: Recipe, hashes: Iterable[str] | None = None) -> str:
    """Return the hash of what is computed from the scores: metrics, `[evaluation]` and the sources of their plugins."""
    used = plugin_hashes(recipe)["evaluation"] if hashes is None else sorted(hashes)
    tree = recipe.dump()
    settings = evaluation_settings(tree)
    return _digest(EVALUATION_NUMBER, tree.get("metrics"), used, *([settings] if settings else []))


def evaluation_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a filled recipe's `[evaluation]` changes about an evaluation: nothing at the defaults."""
    defaults = Evaluation().model_dump(mode="json")
    settings: dict[str, Any] = tree.get("evaluation", {})
    return {key: value for key, value in settings.items() if key != "during_training" and value != defaults.get(key)}


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _chooses(select_by: str, metric: str) -> bool:
    """Return whether a metric other than Dice, which has no parameters, chooses the epoch."""
    return metric == select_by != "dice"


def _drop_default(tree: dict[str, Any], path: tuple[str, ...]) -> None:
    """Remove the value of a slot, or of a key of a table, from a filled recipe if it is the default."""
    *tables, name = path
    node = tree.get(tables[0], {}) if tables else tree
    field = Recipe.model_fields.get(path[0])
    if name not in node or field is None:
        return
    default = getattr(field.default, name) if tables else SINGLE[name].component(field.default).dump()
    if node[name] == default:
        del node[name]


def _without(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without those that have the default."""
    return {key: value for key, value in values.items() if key not in defaults or value != defaults[key]}


def _comparable(tree: dict[str, Any]) -> dict[str, Any]:
    """Return a filled recipe without the number of its device, and with what else chooses the epoch.

    cuda:0 and cuda:1 compute alike; the parameters of the metric that chooses, and an evaluation that is made during
    training too, belong to the training.
    """
    train = tree.get("train", {})
    made: dict[str, Any] = {"device": str(train.get("device", "auto")).partition(":")[0]}
    if train.get("resident") is not True:  # as before there was the key
        train = {key: value for key, value in train.items() if key != "resident"}
    name, metrics = train.get("select_by", "dice"), tree.get("metrics")
    if isinstance(metrics, dict) and isinstance(name, str) and name in metrics and _chooses(name, name):
        made["select_by"] = {name: metrics[name]}
    tree = tree | {"train": train | made}
    settings = evaluation_settings(tree)
    if settings and tree["evaluation"].get("during_training"):
        rest = {key: value for key, value in tree.items() if key != "evaluation"}
        return rest | {DURING_TRAINING: settings}
    return tree


def with_current_defaults(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an older filled recipe with the defaults of keys that have been added since.

    A recipe that is no longer valid, e.g. because a plugin is missing, is returned unchanged.
    """
    try:
        return Recipe.from_dict(dict(tree), name).dump()
    except UserError:
        return dict(tree)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys in which two filled recipes differ, with both values."""
    before, now = _flat(_comparable(dict(old))), _flat(_comparable(dict(new)))
    return {
        key: f"was {_shown(before, key)}, is now {_shown(now, key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }


def _shown(values: Mapping[str, Any], key: str) -> str:
    return truncate(str(values.get(key, "not set")), 200)  # a list of patients may be long


def not_resumable(changed: Mapping[str, str]) -> dict[str, str]:
    """Return those of `differences` that keep a training from being resumed."""
    return {
        key: text for key, text in changed.items() if not any(f"{key}.".startswith(f"{name}.") for name in RESUMABLE)
    }


def _flat(node: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {path: node}
    return {
        key: value for name, part in node.items() for key, value in _flat(part, f"{path}.{name}".lstrip(".")).items()
    }
