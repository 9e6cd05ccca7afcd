"""Fuzz the readers: `python -m tests.fuzz --seconds 600 [checkpoint contours dicom images recipes]`.

Prints for each: inputs tried, how many were refused with a message, the slowest, and how much memory the process came
to hold at most. Anything but a message stops it with the traceback and the seed that leads there.
"""

from __future__ import annotations

import argparse
import importlib
import random
import resource
import time

import torch

READERS = ("checkpoint", "contours", "dicom", "images", "recipes")
SLOWEST = 10.0  # seconds; more is a hang
MOST_MIB = 512  # that reading may add to what the process held


def fuzz(reader: str, seconds: float, seed: int) -> str:
    """Feed a reader for a while; return what happened on one line."""
    module = importlib.import_module(f"tests.fuzz.{reader}")
    tried = refused = 0
    slowest = 0.0
    module.one(module.mutate(random.Random(f"{seed} warm")))
    before, end = _mib(), time.monotonic() + seconds
    while time.monotonic() < end:
        key = f"{seed} {tried}"
        begun = time.monotonic()
        try:
            refused += module.one(module.mutate(random.Random(key)))
        except BaseException:
            print(f"{reader}: crashed on input {key!r}")
            raise
        slowest = max(slowest, time.monotonic() - begun)
        tried += 1
    grown = _mib() - before
    assert slowest < SLOWEST, f"{reader}: an input took {slowest:.1f} s"
    assert grown < MOST_MIB, f"{reader}: memory grew by {grown} MiB"
    return f"{reader}: {tried} inputs, {refused} refused, 0 crashes, slowest {slowest:.2f} s, memory +{grown} MiB"


def _mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Fuzz each reader in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", default=READERS)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for reader in options.readers:
        print(fuzz(reader, options.seconds, options.seed), flush=True)


if __name__ == "__main__":
    main()
