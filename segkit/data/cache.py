"""The data last read, kept for the next trial: most trials of a study share their data."""

from __future__ import annotations

import json

from segkit.components.datasets.case import Dataset
from segkit.data.fingerprint import fingerprint
from segkit.registry.component import Component


class DataCache:
    """Reads datasets and keeps the last one in memory, with its fingerprint."""

    def __init__(self) -> None:
        self._kept: tuple[str, Dataset, str] | None = None

    def read(self, component: Component) -> tuple[Dataset, str]:
        """Return the dataset that a recipe names, and its fingerprint.

        Raises:
            ComponentError, UserError: it cannot be read.
        """
        key = json.dumps(component.dump(), sort_keys=True)
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # two at a time may not fit into memory
            dataset = component()
            self._kept = key, dataset, fingerprint(dataset)
        return self._kept[1:]

    def clear(self) -> None:
        """Forget what was read."""
        self._kept = None
