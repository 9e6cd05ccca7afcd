"""Writes run folders as trainings leave them, without training."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segkit import files
from segkit.evaluation.overlay import draw_overlay
from segkit.training.results import HEADER

CHANNELS = ("wall", "cavity")
METRICS = ("dice", "soft_dice", "iou", "precision", "recall", "hd95")


def slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=+-]+", "_", label).strip("._") or "variant"


def write_recipe(
    run: Path,
    variants: Iterable[str],
    seeds: Sequence[int],
    *,
    title: str = "Does it help?",
    compare_with: str = "none",
    extra: str = "",
) -> None:
    lines = [f"title = {json.dumps(title)}", extra, "[study]", f"seeds = {json.dumps(list(seeds))}"]
    if compare_with:
        lines.append(f"compare_with = {json.dumps(compare_with)}")
    for number, label in enumerate(variants):
        lines += [
            "[[study.variants]]",
            f"label = {json.dumps(label, ensure_ascii=False)}",
            f"loss.dice_mix = {{ lambda = 0.0{number + 1} }}",
        ]
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def curve_rows(rng: np.random.Generator, final: float, epochs: int, loss_scale: float) -> Iterator[list[float]]:
    for epoch in range(1, epochs + 1):
        rise = 1 - math.exp(-4 * epoch / epochs) + 0.02 * rng.standard_normal()
        train = loss_scale * math.exp(-5 * epoch / epochs) + 1 - final + 0.01 * rng.random()
        lr = 2e-3 * 0.1 ** (3 * (epoch - 1) // epochs)
        dice = max(0.0, final * rise)
        yield [epoch, 8 * epoch, lr, train, train * 1.1, train, 0.3 * train, dice, dice * 0.97, 1.25, 60.5]


def case_rows(
    rng: np.random.Generator, delta: float, luck: float, patients: int, cases: int, metrics: Sequence[str]
) -> Iterator[list[Any]]:
    for patient in range(patients):
        base = 0.82 + 0.06 * math.sin(3.0 * patient) + delta + luck + 0.01 * rng.standard_normal()
        for number in range(cases):
            for channel in CHANNELS:
                apical = number == cases - 1 and channel == "cavity"
                dice = float(np.clip(base - 0.1 * (number == 0) + 0.05 * rng.standard_normal(), 0, 1))
                truth, predicted = (0 if apical else 500), 480
                if apical:
                    predicted = 0 if rng.random() < 0.7 else 12
                    dice = math.nan if predicted == 0 else 0.0
                elif dice < 0.6:
                    dice, predicted = 0.0, 0
                values = dict.fromkeys(METRICS, dice) | {"hd95": 4 + 10 * (1 - dice)}
                for metric in metrics:
                    value = values[metric]
                    shown = "" if math.isnan(value) else repr(float(value))
                    name = f"patient{patient:02}/P{patient:02}-{number:04}"
                    yield [name, f"patient{patient:02}", channel, metric, "validation", shown, truth, predicted]


def write_trial(
    run: Path,
    variant: str,
    seed: int,
    *,
    delta: float = 0.0,
    status: str = "finished",
    patients: int = 4,
    cases: int = 6,
    epochs: int = 60,
    fold: int | None = None,
    pictures: bool = True,
    loss_scale: float = 1.0,
    metrics: Sequence[str] = METRICS,
    rows: Sequence[Sequence[Any]] | None = None,
    info: Mapping[str, Any] | None = None,
    tested: int = 0,
) -> Path:
    """Write a trial; `rows` are its cases.csv in place of drawn ones, `info` what its trial.json says besides.

    `tested` patients of a test set, "test00" and so on, are a little worse than those of the validation set.
    """
    rng = np.random.default_rng([seed, len(variant), int(1e4 * (delta + 1))])
    folder = run / slug(variant) / (f"fold-{fold}-seed-{seed}" if fold else f"seed-{seed}")
    folder.mkdir(parents=True, exist_ok=True)
    luck, whole = 0.01 * rng.standard_normal(), status == "finished"
    done = epochs if whole else max(1, epochs // 3)
    header: str | list[str]
    header = "epoch,step,lr,train_loss,val_loss,loss.dice_mix,regularizer.l1,val_dice,val_soft_dice"
    header += ",seconds,images_per_second"
    write_csv(
        folder / "metrics.csv", header.split(","), list(curve_rows(rng, 0.8 + delta + luck, epochs, loss_scale))[:done]
    )
    rows = list(case_rows(rng, delta, luck, patients, cases, metrics)) if rows is None else rows
    if fold:
        rows = [row for row in rows if int(row[1][-2:]) % 2 == fold - 1]
    own = np.random.default_rng([seed, fold or 0, len(variant)])
    shift = delta - 0.1 + 0.01 * own.standard_normal()
    test = case_rows(own, shift, luck, tested, cases, metrics)
    rows = [*rows, *([x.replace("patient", "test") for x in row[:2]] + row[2:4] + ["test", *row[5:]] for row in test)]
    if whole:
        files.write_text(folder / "cases.csv", files.to_csv(HEADER, rows))
    names = list(dict.fromkeys(row[0] for row in rows if row[4] == ("test" if tested else "validation")))
    content = {
        "status": status, "identity": f"{seed:064x}", "variant": variant, "seed": seed, "fold": fold, "limited": False,
        "epochs": epochs, "epochs_done": done, "best_epoch": done - 1, "seconds": 75.5, "device": "cpu",
        "error": "train_loss is not finite: loss.dice_mix is nan in epoch 20" if status == "failed" else None,
        "warnings": ["loss.bce has 99.9 % of the gradient"] if variant == "summed" else [],
        "hardware": "Intel Xeon, 2 cores", "precision": "float32", "threads": 1,
        "versions": {"segkit": "0.1.0", "python": "3.11.2", "torch": "2.13.0"},
        "data": {"name": "phantom", "cases": 243, "patients": 16, "fingerprint": "ab" * 32},
        "split": {"train": ["a", "b"], "validation": names, "test": names if tested else []},
        "channels": list(CHANNELS),
        "first_batch": [
            {"term": "loss.dice_mix", "value": 0.9312, "gradient_share": 0.8},
            {"term": "regularizer.l1", "value": 121.5, "gradient_share": 0.2},
        ],
    }  # fmt: skip
    (folder / "trial.json").write_text(json.dumps(content | dict(info or {})), encoding="utf-8")
    if whole and pictures:
        write_overlays(folder / "overlays", names, rng)
    return folder


def write_overlays(folder: Path, names: Iterable[str], rng: np.random.Generator) -> None:
    folder.mkdir(exist_ok=True)
    rows, columns = np.mgrid[:96, :80]
    for name in names:
        distance = np.hypot(rows - rng.uniform(40, 56), columns - 40)
        image = (60 + 80 * (distance < 25) + 20 * rng.random((96, 80))).astype(np.uint8)
        truth = np.stack([(distance < 25) & (distance > 17), distance < 17])
        prediction = np.roll(truth, int(rng.integers(1, 6)), axis=1)
        picture = np.ascontiguousarray(draw_overlay(image, truth, prediction)[..., ::-1])
        cv2.imwrite(str(folder / f"{name.replace('/', '__')}.png"), picture)


def make_run(
    run: Path,
    variants: Mapping[str, float] | None = None,
    seeds: Sequence[int] = (1, 2, 3),
    *,
    status: Mapping[tuple[str, int], str | None] | None = None,
    recipe: Mapping[str, Any] | None = None,
    **words: Any,
) -> Path:
    """Write a whole study; `variants` is {label: effect on Dice}, `status` {(label, seed): status or None}."""
    variants = variants or {"none": 0.0, "l1=1e-3": -0.02, "l1=1e-2": -0.15}
    write_recipe(run, variants, seeds, **(recipe or {}))
    for label, delta in variants.items():
        for seed in seeds:
            state = (status or {}).get((label, seed), "finished")
            if state:
                write_trial(run, label, seed, delta=delta, status=state, **words)
    return run
