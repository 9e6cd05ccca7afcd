"""The weights of another checkpoint that a training begins with, and the report of which of them were taken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from segkit.data.cases import Data
from segkit.errors import UserError, counted, first_few
from segkit.files import display_path
from segkit.recipe.initial_weights import weights_sha256
from segkit.recipe.sections import Train
from segkit.training import checkpoint

MOST_NAMED = 8  # tensors on a line of the log


def begin_with(model: nn.Module, train: Train) -> dict[str, Any]:
    """Copy the weights of `train.init_from` into a model.

    With `init_match = "exact"` all must fit. With "names" those are taken whose name and shape fit; of models for other
    numbers of inputs or channels that is everything but the first convolution and the head.

    Returns:
        The report: `taken`, the number of tensors; `initial`, those of the model that stay as they were initialized,
        and `unused`, those of the file, each with the reason; `channels` and `inputs` of the file's model; `patients`,
        those that shaped it, and `cases`, where the data named no patients.

    Raises:
        UserError: the file cannot be read, is not the one that the recipe was filled with, or does not fit.
    """
    assert train.init_from is not None
    path, shown = train.init_from, display_path(train.init_from)
    found = checkpoint.load(path)
    weights, known = found.weights, {name: found.meta[name] for name in ("channels", "inputs")}
    known |= {"patients": [*found.meta["trained_patients"], *found.meta["validation_patients"]], "cases": []}
    known["cases"] += (found.meta["initial_weights"] or {}).get("cases", ())
    if not known["patients"]:
        split = found.meta["split"]
        known["cases"] += [name for part in ("train", "unlabelled", "validation") for name in split.get(part, ())]
    if weights_sha256(path) != train.init_sha256:
        raise UserError(
            f"train.init_from: {shown} holds other weights than when the recipe was filled (see train.init_sha256). "
            "Restore the file, or remove train.init_sha256 to begin with the new ones."
        )
    if train.init_match == "exact":
        try:
            checkpoint.check_fit(model, weights, f"train.init_from: {shown}")
        except UserError as error:
            raise UserError(f'{error} With train.init_match = "names", what fits is taken.') from None
    own = model.state_dict()
    fitting = {name: w for name, w in weights.items() if name in own and w.shape == own[name].shape}
    if not fitting:
        raise UserError(f"train.init_from: {shown}: no weight has the name and the shape of one of the model's.")
    model.load_state_dict(fitting, strict=False)
    shapes = {
        name: f"shape {tuple(own[name].shape)}, there {tuple(weights[name].shape)}"
        for name in own
        if name in weights and name not in fitting
    }
    initial = {name: shapes.get(name, "not in the file") for name in own if name not in fitting}
    unused = {name: shapes.get(name, "not in the model") for name in sorted(weights) if name not in fitting}
    return known | {"sha256": train.init_sha256, "taken": len(fitting), "initial": initial, "unused": unused}


def seen_before(report: dict[str, Any], data: Data, cases: Iterable[int]) -> str | None:
    """Return the warning that patients to evaluate, or cases of none, shaped the initial weights, if any did."""
    known = {*report["patients"], *report.get("cases", ())}
    shown = {data.cases[number].patient or data.cases[number].name for number in cases}
    seen = sorted(shown & known)
    if not seen:
        return None
    return (
        f"train.init_from: {len(seen)} of {counted(len(shown), 'patient')} to evaluate shaped these weights, if the "
        f"same names are the same patients ({first_few(seen, MOST_NAMED)}): results say nothing about new ones."
    )


def lines_of(report: dict[str, Any], train: Train, data: Data) -> list[str]:
    """Return the report of `begin_with` as lines for the log, and what else differs from `data`."""
    assert train.init_from is not None
    total = report["taken"] + len(report["initial"])
    lines = [f"initial weights: {report['taken']} of {counted(total, 'tensor')} from {display_path(train.init_from)}"]
    for label, key in (("left as initialized", "initial"), ("not used", "unused")):
        if report[key]:
            named = (f"{name} ({why})" for name, why in report[key].items())
            lines.append(f"{label}: {first_few(named, MOST_NAMED)}")
    for kind, now in (("channels", data.channels), ("inputs", data.inputs)):
        if report[kind] != list(now):
            lines.append(f"its {kind} were {', '.join(report[kind])}, and are now {', '.join(now)}")
    return lines
