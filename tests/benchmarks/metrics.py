"""Metrics on volumes, segkit's beside MONAI's and medpy's: `python -m tests.benchmarks.metrics`.

Two ellipsoids with holes and islands, isotropic and anisotropic, touching the volume's border or not. For each metric
whose definition the other shares it prints the largest difference, as a share of values above 1 because MONAI computes
in float32; it must be below `BOUND`. Then the seconds that each takes for one pair of masks (100, 256, 256). Medpy's
assd is `masd` here; its hd95, the percentile of both directions pooled, is not compared. Last the time of `nsd` as a
multiple of that of `hd95` on the same masks, in turns: the median with the least and the most; the median must be at
most `MOST`. Needs: pip install monai medpy; what is not installed is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import segkit

Masks = NDArray[np.bool_]
Metric = Callable[[Masks, Masks, tuple[float, ...]], float]

BOUND = 1e-5
MOST, TURNS = 1.2, 9
SHAPE, LARGE = (24, 48, 40), (100, 256, 256)
SPACINGS = ((1.0, 1.0, 1.0), (8.0, 1.25, 1.25), (0.7, 2.3, 1.1))
SEEDS = range(4)


def ellipsoid(shape: tuple[int, ...], centre: NDArray[np.float64], radius: NDArray[np.float64]) -> Masks:
    """Return one whose centre and radii are shares of the shape."""
    grid = np.ogrid[tuple(slice(size) for size in shape)]
    parts = zip(grid, shape, centre, radius, strict=True)
    return np.asarray(sum((((at + 0.5) / size - c) / r) ** 2 for at, size, c, r in parts) < 1)


def masks(seed: int, shape: tuple[int, ...], noise: float) -> tuple[Masks, Masks]:
    """Return a prediction and a truth; with large radii they reach the border."""
    rng = np.random.default_rng(seed)
    centre, radius = rng.uniform(0.4, 0.6, 3), rng.uniform(0.25, 0.55, 3)
    truth = ellipsoid(shape, centre, radius)
    shifted = ellipsoid(shape, centre + rng.uniform(-0.05, 0.05, 3), radius * rng.uniform(0.9, 1.1, 3))
    return shifted ^ (rng.random(shape) < noise), truth


def of_medpy() -> dict[str, Metric]:
    """Return medpy's metrics of segkit's definition, by segkit's names."""
    from medpy.metric import binary

    plain = {"dice": binary.dc, "iou": binary.jc, "precision": binary.precision, "recall": binary.recall}
    found: dict[str, Metric] = {name: lambda p, t, mm, f=f: float(f(p, t)) for name, f in plain.items()}  # type: ignore[misc]
    return found | {
        "hausdorff": lambda p, t, mm: float(binary.hd(p, t, voxelspacing=mm)),
        "masd": lambda p, t, mm: float(binary.assd(p, t, voxelspacing=mm)),
    }


def of_monai() -> dict[str, Metric]:
    """Return MONAI's metrics of segkit's definition, by segkit's names."""
    import torch

    monai: Any = importlib.import_module("monai.metrics")

    def called(compute: Any, p: Masks, t: Masks, **options: Any) -> float:
        batch = (torch.from_numpy(mask)[None, None].float() for mask in (p, t))
        return float(compute(*batch, include_background=True, **options))

    distance, surface = monai.compute_hausdorff_distance, monai.compute_average_surface_distance
    return {
        "dice": lambda p, t, mm: called(monai.compute_dice, p, t),
        "iou": lambda p, t, mm: called(monai.compute_iou, p, t),
        "hausdorff": lambda p, t, mm: called(distance, p, t, spacing=mm),
        "hd95": lambda p, t, mm: called(distance, p, t, spacing=mm, percentile=95),
        "assd": lambda p, t, mm: called(surface, p, t, spacing=mm, symmetric=True),
        "nsd": lambda p, t, mm: called(monai.compute_surface_dice, p, t, spacing=mm, class_thresholds=[2.0]),
    }


OTHERS: dict[str, Callable[[], dict[str, Metric]]] = {"monai": of_monai, "medpy": of_medpy}


def difference(value: float, other: float) -> float:
    """Return the difference of two values, as a share of those above 1."""
    return abs(value - other) / max(1.0, abs(value))


def seconds(metric: Metric, pair: tuple[Masks, Masks]) -> float:
    """Return the time of one call."""
    started = time.perf_counter()
    metric(*pair, (8.0, 1.25, 1.25))
    return time.perf_counter() - started


def surface_dice_is_fast(pairs: dict[str, tuple[Masks, Masks]]) -> bool:
    """Print the time of `nsd` as a multiple of that of `hd95` for each pair; return whether none is above `MOST`."""
    metrics, medians = [segkit.metrics.build(name) for name in ("hd95", "nsd")], []
    for name, pair in pairs.items():
        times = np.array([[seconds(metric, pair) for metric in metrics] for _ in range(TURNS)])
        ratios = times[:, 1] / times[:, 0]
        medians.append(float(np.median(ratios)))
        print(
            f"nsd / hd95, {name}: {medians[-1]:.2f} ({ratios.min():.2f} to {ratios.max():.2f}, bound {MOST:g}) "
            f"of {np.median(times[:, 0]):.3f} s"
        )
    return max(medians) <= MOST


def main() -> int:
    """Print a line for each metric and library; return 1 if one differs by more than `BOUND`, or `nsd` is slow."""
    pairs = [(masks(seed, SHAPE, noise), mm) for seed in SEEDS for noise in (0.0, 0.01) for mm in SPACINGS]
    large, wrong = masks(0, LARGE, 0.0), 0
    for library, load in OTHERS.items():
        if importlib.util.find_spec(library) is None:
            print(f"{library}: not installed")
            continue
        for name, other in load().items():
            ours = segkit.metrics.build(name)
            gap = max(difference(ours(*pair, mm), other(*pair, mm)) for pair, mm in pairs)
            wrong += gap > BOUND
            print(
                f"{library} {name}: largest difference {gap:.1e} over {len(pairs)} pairs (bound {BOUND:g}); "
                f"{seconds(ours, large):.2f} s, {library} {seconds(other, large):.2f} s"
            )
    fast = surface_dice_is_fast({"a large volume": large, "with islands": masks(0, SHAPE, 0.01)})
    return int(wrong > 0 or not fast)


if __name__ == "__main__":
    sys.exit(main())
