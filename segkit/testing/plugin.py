"""Load a plugin file or folder and try every component that it registers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit import plugins
from segkit.components import REGISTRIES
from segkit.errors import UserError
from segkit.recipe import merge, paths
from segkit.recipe.source import Source
from segkit.registry.component import Entry
from segkit.registry.faults import key
from segkit.registry.slot import fold
from segkit.testing import check
from segkit.testing.findings import Finding
from segkit.training.global_state import LIBRARIES, restore, settings


@dataclass(frozen=True)
class PluginReport:
    """A plugin that was checked.

    Attributes:
        failures: why it did not load, and findings about the file as a whole.
        checked: what was found of each component, e.g. "loss.my_loss", in the order of loading.
    """

    failures: list[Finding]
    checked: dict[str, list[Finding]]

    @property
    def findings(self) -> list[Finding]:
        """All of them."""
        return [*self.failures, *itertools.chain.from_iterable(self.checked.values())]


def check_plugin(path: Path, sets: Iterable[str] = ()) -> PluginReport:
    """Load a plugin file or a folder of them, and try the components; nothing is printed.

    Args:
        path: the file or folder.
        sets: `parameter=value` where one of its components has that parameter, else `name.parameter=value`.

    Raises:
        UserError: there is no such path, or a setting fits no component, several, or not its parameter.
    """
    path, assigned = Path(path), [*map(merge.parse_setting, sets)]
    saved = settings(LIBRARIES)
    if (path / "__init__.py").is_file() and path.resolve().parent.is_dir():
        plugins.load_one(path.resolve(), path.resolve().parent)  # `load` takes a folder for one that holds plugins
    else:
        plugins.load([path], entry_points=False)
    failed = [failure for failure in plugins.failures() if _is_below(failure.origin, path)]
    loaded = [plugin for plugin in plugins.loaded() if _is_below(plugin.origin, path)]
    whole = []
    for failure in failed:
        place = f"{failure.origin}:{failure.line}" if failure.line else failure.origin
        whole.append(Finding("fault", f"it does not load: {failure.message.removeprefix(place + ': ')}", place))
    whole += [
        Finding("note", 'it registers no component. Register one: `@losses.register("name")`.', plugin.origin)
        for plugin in loaded
        if not plugin.components
    ]
    if not failed and not loaded:
        text = "no plugin file here: a .py file whose name does not start with '_', '.' or 'test_'."
        whole.append(Finding("fault", text, str(path)))
    whole += [
        Finding("fault", f"importing it changes a global setting ({name}) for everything that follows.", str(path))
        for name in restore(saved)
    ]
    registries = {registry.name: registry for registry in REGISTRIES}
    names = [name.partition(".") for plugin in loaded for name in plugin.components]
    entries = [registries[slot][name] for slot, _, name in names]
    given = _given(assigned, entries, path)
    return PluginReport(whole, {key(entry): check(entry, given.get(id(entry))) for entry in entries})


def _given(
    assigned: list[tuple[str, tuple[str, ...], Any]], entries: list[Entry], path: Path
) -> dict[int, dict[str, Any]]:
    """Return the parameters that are assigned to each component, by the identity of its entry."""
    documents = {id(entry): merge.Document() for entry in entries}
    for flag, names, value in assigned:
        named = [entry for entry in entries if len(names) > 1 and fold(names[0]) == fold(entry.name)]
        rest = names[1:] if named else names
        if not named and len(names) > 2:  # as in a recipe: data.mine.root
            named = [e for e in entries if (e.slot.name, fold(e.name)) == (names[0], fold(names[1]))]
            rest = names[2:] if named else names
        chosen = named or [entry for entry in entries if names[0] in entry.fields]
        if len(chosen) != 1:
            listed = ", ".join(f"{entry.name}: {', '.join(entry.fields) or 'none'}" for entry in entries)
            what = "several components have" if chosen else "no component has"
            raise UserError(
                f"{flag}: {what} this parameter in {path} ({listed}). Write --set parameter=value, or "
                "name.parameter=value."
            )
        documents[id(chosen[0])].merge(paths.tree_at(rest, value), Source(flag, None, Path.cwd()))
    return {number: document.tree for number, document in documents.items()}


def _is_below(origin: str, folder: Path) -> bool:
    return Path(origin).resolve().is_relative_to(folder.resolve())
