"""A dataset's fingerprint: whether two runs saw the same data."""

from __future__ import annotations

import hashlib
import json

from segkit.components.datasets.case import Dataset


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
