"""Try a component as its slot's contract says; a plugin's own test is one line.

from segkit import losses
from segkit.testing import assert_contract

def test_my_loss() -> None:
    assert_contract(losses["my_loss"])
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

from segkit.errors import UserError
from segkit.registry.component import Component, Entry
from segkit.registry.plausible import filled
from segkit.registry.registry import Registry
from segkit.registry.signatures import recipe_name
from segkit.testing.dataset import examine_data
from segkit.testing.findings import Finding, in_order
from segkit.testing.intensity import examine_intensity
from segkit.testing.loss import examine_loss
from segkit.testing.metric import examine_metric
from segkit.testing.modules import examine_model, examine_upsampler
from segkit.testing.postprocess import examine_postprocess
from segkit.testing.rates import examine_optimizer, examine_scheduler
from segkit.testing.report import ExaminationEndedError, Report
from segkit.testing.step import examine_step
from segkit.testing.transform import examine_transform
from segkit.testing.weights import examine_initializer, examine_regularizer
from segkit.training.global_state import preserved

__all__ = ["Finding", "assert_contract", "check"]

EXAMINE = {
    "data": examine_data,
    "initializer": examine_initializer,
    "intensity": examine_intensity,
    "loss": examine_loss,
    "metric": examine_metric,
    "model": examine_model,
    "optimizer": examine_optimizer,
    "postprocess": examine_postprocess,
    "regularizer": examine_regularizer,
    "scheduler": examine_scheduler,
    "step": examine_step,
    "transform": examine_transform,
    "upsampler": examine_upsampler,
}


def check(entry: Entry, parameters: dict[str, Any] | None = None) -> list[Finding]:
    """Try a component on small inputs and return what was found, faults first.

    Args:
        entry: e.g. `losses["my_loss"]`.
        parameters: as a recipe sets them; missing ones that are required get a plausible value.
    """
    given = {recipe_name(key): value for key, value in (parameters or {}).items()}
    report = Report(entry)
    with warnings.catch_warnings(action="ignore"):
        component = _component(report, given)
        if component is not None:
            with preserved(), contextlib.suppress(ExaminationEndedError), report.trying("tried"):
                EXAMINE[entry.slot.name](report, component)
    return in_order(dict.fromkeys(report.findings))


def _component(report: Report, given: dict[str, Any]) -> Component | None:
    """Return the component with a value for each required parameter, or note which have to be passed."""
    entry = report.entry
    values, unknown = filled(entry, given)
    if unknown:
        report.note(f"not tried: needs {', '.join(unknown)}. {report.how_to_pass(unknown)}")
        return None
    report.guessed = {key: value for key, value in values.items() if key not in given}
    try:
        assert isinstance(entry.slot, Registry), "an entry is of a registry"
        return entry.slot.component(entry.name, values)
    except UserError as error:
        if not report.guessed:
            raise
        report.note(f"not tried: plausible values are not valid ({error}). {report.how_to_pass(report.guessed)}")
        return None


def assert_contract(entry: Entry, **parameters: Any) -> None:
    """Raise unless a component fulfils the contract of its slot.

    Args:
        entry: e.g. `losses["my_loss"]`.
        parameters: as a recipe sets them; `lambda_` stands for `lambda`.

    Raises:
        AssertionError: it does not, or could not be tried; every fault is listed, one per line.
    """
    findings = check(entry, parameters)
    wrong = [finding for finding in findings if finding.kind == "fault" or finding.text.startswith("not tried")]
    if wrong:
        listed = "\n".join(f"  {finding}" for finding in wrong)
        raise AssertionError(f"{entry.slot.name} '{entry.name}' breaks its contract:\n{listed}")
