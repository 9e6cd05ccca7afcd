"""Dice losses beside MONAI's: `python -m tests.benchmarks.losses`.

The time of forward and backward on 32 x 2 x 192 x 192 scores, in turns: `dice` as a multiple of MONAI's DiceLoss, and
`dice_mix` of the two DiceLoss that make it there, the second on the background; the median with the quartiles. Both
kinds of memory are timed, contiguous and channels-last, in which segkit's tensors lie. The medians must be at most
`MOST`. Needs: pip install monai.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

import segkit

MOST, TURNS, WARM_UP = 1.0, 60, 5
SHAPE = (32, 2, 192, 192)
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
Loss = Callable[[Tensor, Tensor], Tensor]


def pairs() -> dict[str, tuple[Loss, Loss]]:
    """Return by name segkit's loss and MONAI's of the same meaning."""
    dice: Loss = importlib.import_module("monai.losses").DiceLoss(sigmoid=True, smooth_nr=1, smooth_dr=1)

    def both(logits: Tensor, target: Tensor) -> Tensor:
        return 0.5 * dice(logits, target) + 0.5 * dice(-logits, 1 - target)

    return {"dice": (segkit.losses.build("dice", {}), dice), "dice_mix": (segkit.losses.build("dice_mix", {}), both)}


def seconds(loss: Loss, logits: Tensor, target: Tensor) -> float:
    """Return how long a forward and a backward pass take."""
    logits.grad = None
    begun = time.perf_counter()
    loss(logits, target).backward()  # type: ignore[no-untyped-call]
    if logits.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main() -> None:
    """Time both, and exit with 1 if segkit's takes longer."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    slow = False
    for kind, memory in FORMATS.items():
        made = torch.Generator().manual_seed(0)
        target = (torch.rand(SHAPE, generator=made) < 0.1).float().to(device, memory_format=memory)
        logits = (3 * torch.randn(SHAPE, generator=made)).to(device, memory_format=memory).requires_grad_()
        for name, (ours, theirs) in pairs().items():
            turns = [(seconds(ours, logits, target), seconds(theirs, logits, target)) for _ in range(WARM_UP + TURNS)]
            ratios = [one / other for one, other in turns[WARM_UP:]]
            low, middle, high = statistics.quantiles(ratios, n=4)
            least = [min(times) * 1e3 for times in zip(*turns, strict=True)]
            slow |= middle > MOST
            print(
                f"{name}, {kind}, {device}: {middle:.2f} times MONAI's (quartiles {low:.2f} to {high:.2f}); "
                f"least {least[0]:.2f} and {least[1]:.2f} ms"
            )
    if slow:
        sys.exit(f"a median is above {MOST}")


if __name__ == "__main__":
    main()
