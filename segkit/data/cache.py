"""The data last read, kept for the next trial since most trials of a study share it, and its fingerprint."""

from __future__ import annotations

import hashlib
import json

from segkit.components.datasets.case import Dataset
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


def fingerprint(dataset: Dataset) -> str:
    """Return the sha256 (hex) of channels, names, patients, pixels, masks and spacing, in the order of the cases.

    It does not depend on where the files lie, on the machine, or on the dataset's own name.
    """
    import numpy as np

    found = hashlib.sha256(json.dumps(dataset.channels).encode())
    for case in dataset.cases:
        # The header fixes every length that follows, so that no two datasets share one stream of bytes.
        header = [case.name, case.patient, case.spacing_mm, case.image.dtype.name, case.image.shape]
        found.update(json.dumps(header).encode() + b"\n")
        image = case.image.astype(case.image.dtype.newbyteorder("<"), copy=False)
        found.update(np.ascontiguousarray(image).tobytes())
        found.update(np.packbits(case.masks.astype(np.bool_)).tobytes())
    return found.hexdigest()
