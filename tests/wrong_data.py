"""Folders of data with one thing wrong each, for the table of `test_wrong_data`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests import volumes
from tests.rvsc_like import patient
from tests.volumes import AFFINE, grey, labels, save

Make = Callable[[Path], object]
CASES = ("p1", "p2", "p3")


def pairs(root: Path, *, inputs: tuple[str, ...] = ("",)) -> Path:
    """NIfTI images, `images/p1.nii.gz` or one an input, and label maps."""
    for number, name in enumerate(CASES):
        for index, part in enumerate(inputs):
            save(root / f"images/{name}{part}.nii.gz", grey(10 * number + index))
        save(root / f"labels/{name}.nii.gz", labels(number))
    return root


def pictures(root: Path, *, suffix: str = "png") -> Path:
    """Pictures with masks of 0 and 255."""
    for number, name in enumerate(CASES):
        random = np.random.default_rng(number)
        paint(root / f"images/{name}/1.{suffix}", random.integers(0, 255, (20, 30), dtype=np.uint8))
        paint(root / f"masks/{name}/1.{suffix}", np.uint8(255) * (random.random((20, 30)) > 0.5))
    return root


def paint(path: Path, pixels: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def written(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def stacks(root: Path) -> Path:
    """TIFF files of four pages."""
    for number, name in enumerate(CASES):
        for folder, most in (("images", 200), ("masks", 2)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            pages = np.random.default_rng(number).integers(0, most, (4, 20, 30), dtype=np.uint8)
            assert cv2.imwritemulti(str(root / f"{folder}/{name}.tif"), list(pages))
    return root


def table(root: Path, *lines: str, header: str = "image,mask,patient") -> Path:
    """Pictures, and a table that lists them; `lines` follow."""
    pictures(root)
    rows = [f"images/{name}/1.png,masks/{name}/1.png,{name}" for name in CASES]
    (root / "list.csv").write_text("\n".join([header, *rows, *lines]) + "\n", encoding="utf-8")
    return root


def series(root: Path, *heights: float, **elements: Any) -> Path:
    """RVSC patients whose slices lie at these heights in mm."""
    for number in (1, 2):
        patient(
            root,
            number,
            [20 * index for index in range(len(heights))],
            header=lambda frame: {"ImagePositionPatient": [0, 0, heights[min(frame // 20, len(heights) - 1)]]},
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            SliceThickness=8.0,
            **elements,
        )
    return root


def described(root: Path, **changes: Any) -> Path:
    """nnU-Net's layout, whose dataset.json has other keys, or lacks those that are None."""
    return volumes.nnunet(root, 3, **changes)


def without(make: Make, *paths: str) -> Make:
    """Return what makes a folder without some of its files."""

    def made(root: Path) -> None:
        make(root)
        for path in paths:
            (root / path).unlink() if (root / path).is_file() else shutil.rmtree(root / path)

    return made


def changed(make: Make, change: Make) -> Make:
    """Return what makes a folder, and then changes it."""

    def made(root: Path) -> None:
        make(root)
        change(root)

    return made


def with_nan(root: Path) -> None:
    for name in CASES:
        voxels = grey(1).astype(np.float32)
        voxels[0, 0, :2] = np.nan
        save(root / f"images/{name}.nii.gz", voxels)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def moved(root: Path) -> None:
    other = AFFINE.copy()
    other[0, 3] += 30
    for name in CASES:
        save(root / f"labels/{name}.nii.gz", labels(0), other)


def listed(root: Path, **changes: Any) -> None:
    """Change dataset.json."""
    path = root / "dataset.json"
    found = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}), encoding="utf-8")
