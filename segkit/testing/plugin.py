"""Load a plugin file or folder and try every component that it registers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segkit import plugins
from segkit.component import Entry
from segkit.plugins import Failure, Plugin
from segkit.testing import check
from segkit.testing.findings import Finding


@dataclass(frozen=True)
class Checked:
    """A component that was tried: "loss.my_loss" and what was found."""

    component: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class PluginReport:
    """A plugin that was checked.

    Attributes:
        path: the file or folder.
        failures: what kept it from loading, and what concerns it as a whole.
        checked: its components, in the order of loading.
    """

    path: Path
    failures: tuple[Finding, ...]
    checked: tuple[Checked, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them."""
        return self.failures + tuple(finding for item in self.checked for finding in item.findings)

    @property
    def faults(self) -> int:
        """How many break a contract."""
        return sum(finding.kind == "fault" for finding in self.findings)


def check_plugin(path: Path) -> PluginReport:
    """Load a plugin file or a folder of them, and try the components; nothing is printed.

    Raises:
        UserError: there is no such path.
    """
    path = Path(path)
    if (path / "__init__.py").is_file() and path.resolve().parent.is_dir():
        plugins._load_file(path, path.resolve().parent)  # `load` takes a folder for one that holds plugins
    else:
        plugins.load([path], entry_points=False)
    failed = [failure for failure in plugins.failures() if _below(Path(failure.origin), path)]
    loaded = [plugin for plugin in plugins.loaded() if _below(Path(plugin.origin), path)]
    whole = [_as_finding(failure) for failure in failed]
    whole += [
        Finding("note", 'it registers no component. Decorate one: `@losses.register("name")`.', plugin.origin)
        for plugin in loaded
        if not plugin.components
    ]
    if not failed and not loaded:
        whole.append(
            Finding("fault", "no plugin file is here: names in .py that start with no '_', '.' or 'test_'.", str(path))
        )
    checked = [Checked(name, tuple(check(entry))) for plugin in loaded for name, entry in _entries(plugin)]
    return PluginReport(path, tuple(whole), tuple(checked))


def _below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _entries(plugin: Plugin) -> Iterator[tuple[str, Entry]]:
    registries = {registry.slot: registry for registry in plugins.registries()}
    for name in plugin.components:
        slot, _, own = name.partition(".")
        yield name, registries[slot][own]


def _as_finding(failure: Failure) -> Finding:
    place = f"{failure.origin}:{failure.line}" if failure.line else failure.origin
    return Finding("fault", f"it does not load: {failure.message.removeprefix(place + ': ')}", place)
