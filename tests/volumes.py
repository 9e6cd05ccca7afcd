"""NIfTI files and folders of them for tests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

SHAPE = (6, 5, 4)
AFFINE = np.array([[-1.5, 0, 0, 90], [0, -1.5, 0, 120], [0, 0, 8, -60], [0, 0, 0, 1.0]])


def save(path: Path, voxels: Any, affine: Any = AFFINE, **header: Any) -> Path:
    """Write voxels (X, Y, Z); `header` sets fields of the header as they are stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Any = nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype)  # type: ignore[no-untyped-call]
    nibabel.save(image, path)
    if header:
        data = bytearray(decompressed(path))
        block: Any = nibabel.Nifti1Header(bytes(data[:348]), check=False)  # type: ignore[no-untyped-call]
        for name, value in header.items():
            block[name] = value
        data[:348] = block.binaryblock
        path.write_bytes(compressed(path, bytes(data)))
    return path


def load(path: Path) -> Any:
    """Return nibabel's image."""
    return nibabel.load(path)


def decompressed(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def compressed(path: Path, data: bytes) -> bytes:
    return gzip.compress(data, mtime=0) if path.suffix == ".gz" else data


def grey(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Any:
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def labels(seed: int = 0, shape: tuple[int, ...] = SHAPE, most: int = 3) -> Any:
    found = np.random.default_rng(seed).integers(0, most + 1, shape).astype(np.uint8)
    found.flat[: most + 1] = range(most + 1)
    return found


def acdc(root: Path, patients: int = 2, shape: tuple[int, ...] = SHAPE) -> Path:
    """Lay out a folder like ACDC's."""
    for number in range(1, patients + 1):
        name = f"patient{number:03d}"
        folder = root / name
        for frame in (1, 12):
            save(folder / f"{name}_frame{frame:02d}.nii.gz", grey(number + frame, shape))
            save(folder / f"{name}_frame{frame:02d}_gt.nii.gz", labels(number + frame, shape))
        save(folder / f"{name}_4d.nii.gz", grey(0, (*shape, 2)))
        (folder / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\n", encoding="utf-8")
    return root


def decathlon(root: Path, cases: int = 2, inputs: int = 1, shape: tuple[int, ...] = SHAPE) -> Path:
    """Lay out a folder like a task of the Medical Segmentation Decathlon."""
    names = [f"hippocampus_{number:03d}" for number in range(1, cases + 1)]
    for number, name in enumerate(names):
        save(root / f"imagesTr/{name}.nii.gz", grey(number, (*shape, inputs) if inputs > 1 else shape))
        save(root / f"labelsTr/{name}.nii.gz", labels(number, shape, 2))
    pairs = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
    modality = {str(index): f"MRI{index}" if inputs > 1 else "MRI" for index in range(inputs)}
    listing = {
        "name": "Hippocampus", "modality": modality, "numTraining": cases, "training": pairs, "test": [],
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(listing), encoding="utf-8")
    return root


def nnunet(root: Path, cases: int = 2, inputs: int = 2, **changes: Any) -> Path:
    """Lay out a folder as nnU-Net's second version does; `changes` of its dataset.json, None to leave a key out."""
    for number in range(cases):
        for index in range(inputs):
            save(root / f"imagesTr/case{number}_{index:04d}.nii.gz", grey(10 * number + index))
        save(root / f"labelsTr/case{number}.nii.gz", labels(number))
    listing: dict[str, Any] = {
        "channel_names": {str(index): name for index, name in zip(range(inputs), ("T1", "T2", "FLAIR"), strict=False)},
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
        "regions_class_order": [1, 2, 3], "numTraining": cases, "file_ending": ".nii.gz",
    }  # fmt: skip
    listing = {key: value for key, value in {**listing, **changes}.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(listing), encoding="utf-8")
    return root
