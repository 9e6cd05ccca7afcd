"""Does a component compute where its inputs lie?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from segkit.registry.faults import described
from segkit.testing.report import Report

MISPLACED = ("expected device", "same device")


def follows_the_device(report: Report, run: Callable[[str], Any]) -> None:
    """Run on CUDA where there is one and on torch's `meta` device everywhere; read the source for names of devices.

    Args:
        report: of the component.
        run: runs it on inputs on a device; what it gives should lie there too.
    """
    named = report.source.cuda_line()
    if named is not None:
        report.fault("it names a CUDA device. Make tensors with `device=` of its inputs.", named)
        return
    for device in ["meta", "cuda"] if torch.cuda.is_available() else ["meta"]:
        try:
            value = run(device)
        except Exception as error:
            if device == "cuda" or any(words in str(error) for words in MISPLACED):
                report.fault(
                    f"it computes on another device than its inputs' ({described(error)}). Make tensors with "
                    "`device=` of its inputs.",
                    report.source.of_error(error),
                )
                return
            continue  # what needs values cannot run on meta
        if isinstance(value, torch.Tensor) and value.device.type != device:
            report.fault(f"for inputs on another device its value lies on {value.device}: it moves them.")
            return
