"""The report on one component while it is being tried."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

from segkit.errors import UserError, sentence
from segkit.registry.component import Component, Entry
from segkit.registry.faults import ComponentError, described, explained, how_to_check
from segkit.registry.source import ComponentCode
from segkit.testing.findings import Finding
from segkit.training.global_state import LIBRARIES, changed_setting, generator_states, restore, settings
from segkit.training.tracing import line_that_changes, tensors_in

SEEDS, LAST_SEED = (4_021, 977_113), 55_021  # which no component chooses by itself
MISPLACED = ("expected device", "same device", "CUDA enabled", "NVIDIA")  # of torch's messages about devices


class ExaminationEndedError(Exception):
    """The examination of a component ends early: later checks need what has failed."""


class Report:
    """Collects findings; any exception of the component becomes one.

    Attributes:
        guessed: the parameters whose values were not given, with a plausible value each.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.source = ComponentCode(entry.factory)
        self.guessed: dict[str, Any] = {}
        self.findings: list[Finding] = []

    def fault(self, text: str, place: str | None = None) -> None:
        """Add a fault, at the component's definition unless a better place is known."""
        self.findings.append(Finding("fault", text, place or self.source.definition))

    def warn(self, text: str, place: str | None = None) -> None:
        """Add a warning, at the component's definition unless a better place is known."""
        self.findings.append(Finding("warning", text, place or self.source.definition))

    def note(self, text: str, place: str | None = None) -> None:
        """Add a note, at the component's definition unless a better place is known."""
        self.findings.append(Finding("note", text, place or self.source.definition))

    @property
    def faults(self) -> int:
        """How many faults there are."""
        return sum(finding.kind == "fault" for finding in self.findings)

    def documents(self, *phrases: str) -> bool:
        """Return whether the component's docstring has one of some phrases, in any case."""
        doc = " ".join(self.entry.doc.lower().split())
        return any(phrase.lower() in doc for phrase in phrases)

    @contextmanager
    def trying(self, what: str, *, needed: bool = False) -> Iterator[None]:
        """Turn an exception into a fault of what is tried, e.g. "called with an empty mask"; restore the settings.

        Raises:
            ExaminationEndedError: after a fault, here or before, if later checks `needed` this one to pass.
        """
        saved = settings(LIBRARIES)
        try:
            yield
        except (KeyboardInterrupt, ExaminationEndedError):
            raise
        except ComponentError as error:
            self.fault(f"{what}: {error.text}", error.place)
        except BaseException as error:
            self.fault(f"{what}: {sentence(explained(error))}", self.source.of_error(error))
        finally:
            restore(saved)
        if needed and self.faults:
            raise ExaminationEndedError

    def how_to_pass(self, names: Iterable[str]) -> str:
        """Return how to pass parameters to `segkit check`, or in a test."""
        path, named = how_to_check(self.entry).strip("`"), list(names)
        if path.startswith("segkit check"):
            return f"Pass {', '.join(named)}: `{path} {' '.join(f'--set {name}=...' for name in named)}`."
        return f"Pass {', '.join(named)}: `assert_contract(entry, {', '.join(f'{name}=...' for name in named)})`."

    def build(self, component: Component, *inputs: Any) -> Any:
        """Build the component.

        Raises:
            ExaminationEndedError: it failed or made something of the wrong kind, which is a finding.
        """
        try:
            made = component.build(*inputs)
            wrong = component.entry.slot.check(made, *inputs)
            if wrong is None:
                return made
            self.fault(wrong)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if isinstance(error, UserError) and isinstance(error.__context__, ImportError):
                self.note(f"not tried: {error}", self.source.of_error(error))
            elif self.guessed and isinstance(error, (ValueError, OSError)):
                guesses = ", ".join(f"{key} = {value!r}" for key, value in self.guessed.items())
                self.note(f"not tried: plausible values ({guesses}) fail: {error}. {self.how_to_pass(self.guessed)}")
            else:
                self.fault(f"it cannot be built: {sentence(explained(error))}", self.source.of_error(error))
        raise ExaminationEndedError

    def check_side_effects(self, run: Callable[[], Any], *, may_draw: Collection[str] = ()) -> list[Any]:
        """Run twice, from two states of the global random generators; report side effects, and return both results.

        What the first run changes (it may import libraries) counts only if the second changes it again.

        Args:
            run: builds and calls the component.
            may_draw: the generators that it may draw from, of "torch", "numpy" and "Python".
        """
        results, befores, afters = [], [], []
        changed: list[str] = []
        for seed in SEEDS:
            _seed(seed)
            befores.append(generator_states())
            saved = settings()
            try:
                results.append(run())
            finally:
                changed = restore(saved)
            afters.append(generator_states())
        for name in befores[0]:
            if afters[0][name] == afters[1][name]:
                what = f"it seeds {name}'s global random generator, so that all later random numbers repeat"
            elif name not in may_draw and [after[name] for after in afters] != [before[name] for before in befores]:
                what = f"it draws from {name}'s global random generator, so that all later random numbers differ"
            else:
                continue
            _seed(LAST_SEED)
            place = line_that_changes(self.source, run, lambda: generator_states()[name])  # noqa: B023
            self.fault(f"{what}: use a generator of its own.", place)
        for name in changed:
            self.fault(*changed_setting(name, self.source, run))
        return results

    def check_device(self, run: Callable[[str], Any]) -> None:
        """Run with inputs on the CPU as if there were a GPU, on torch's `meta` device, and on CUDA if available."""
        found = torch.cuda.is_available()
        for device in ["cpu", "meta", "cuda"] if found else ["cpu", "meta"]:
            try:
                with mock.patch.object(torch.cuda, "is_available", return_value=found or device == "cpu"):
                    value = run(device)
            except Exception as error:
                if device == "cuda" or any(words in str(error) for words in MISPLACED):
                    self.fault(
                        f"it computes on another device than that of its inputs ({described(error)}). Make tensors "
                        "with `device=` of its inputs.",
                        self.source.of_error(error),
                    )
                    return
                continue  # what needs values cannot run on meta
            elsewhere = [tensor.device for tensor in tensors_in(value) if tensor.device.type != device]
            if elsewhere:
                self.fault(f"for inputs on {device} its result is on {elsewhere[0]}.")
                return


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
