"""`segkit check DATA`: counts, kinds, what is wrong, and recipe lines that really read the folder."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest

import segkit
from segkit import UserError
from segkit.checks.data import DataReport, check_data
from segkit.datasets import Dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(4):
        for name, picture in (
            ("pictures", random.integers(0, 255, (20, 30), dtype=np.uint8)),
            ("labels", random.integers(0, 3, (20, 30), dtype=np.uint8)),
        ):
            path = tmp_path / name / f"p{number // 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), picture)
    return tmp_path


def read(report: DataReport) -> Dataset:
    """Build the dataset from the lines of recipe."""
    ((name, parameters),) = tomllib.loads(report.recipe)["data"].items()
    found: Dataset = segkit.datasets.build(name, parameters)
    return found


def texts(report: DataReport) -> str:
    return "\n".join(str(finding) for finding in report.findings)


def test_images_and_masks_in_folders_of_any_name(folder: Path) -> None:
    report = check_data(folder)
    assert report.layout == "image_folder"
    facts = dict(report.facts)
    assert (facts["images"], facts["patients"]) == ("4", "2")
    assert facts["sizes"] == "20 x 30 (4)"
    assert facts["mask levels"] == "0 (in 4), 1 (in 4), 2 (in 4)"
    assert report.findings == []
    assert len(read(report).cases) == 4
    assert read(report).channels == ("structure_1", "structure_2")


def test_every_fault_is_named_not_only_the_first(folder: Path) -> None:
    (folder / "pictures/p0/broken.png").write_bytes(b"\x89PNG")
    (folder / "labels/p0/broken.png").write_bytes((folder / "labels/p0/0.png").read_bytes())
    (folder / "pictures/p0/again.png").write_bytes((folder / "pictures/p0/0.png").read_bytes())
    (folder / "labels/p1/alone.png").write_bytes((folder / "labels/p0/0.png").read_bytes())
    cv2.imwrite(str(folder / "labels/p1/2.png"), np.zeros((5, 5), np.uint8))
    cv2.imwrite(str(folder / "labels/p1/3.png"), np.arange(600, dtype=np.uint16).reshape(20, 30))
    found = texts(check_data(folder))
    for expected in (
        "broken.png: a damaged image", "again.png: has no mask", "alone.png: has no image",
        "the same image 2 times", "the mask has (5, 5) pixels, its image (20, 30)",
        "holds 600 levels: no label map",
    ):  # fmt: skip
        assert expected in found


def test_real_data_in_the_challenges_layout() -> None:
    root = Path(os.environ.get("SEGKIT_TEST_DATA", Path(__file__).parents[2] / "shared/data")) / "sunnybrook"
    if not root.is_dir():
        pytest.skip(f"no real data: {root} is not there; name the folder that holds it by SEGKIT_TEST_DATA")
    report = check_data(root)
    assert report.layout == "rvsc"
    facts = dict(report.facts)
    assert (facts["images"], facts["patients"]) == ("28", "3")
    assert facts["spacing"] == "1.36719 x 1.36719 mm (18), 1.2891 x 1.2891 mm (10)"
    assert report.findings == []
    assert len(read(report).cases) == 28


def test_a_folder_of_no_known_layout(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    report = check_data(tmp_path)
    assert (report.layout, report.recipe) == ("unknown", "")
    assert "no known layout" in texts(report)
    with pytest.raises(UserError, match="no such folder"):
        check_data(tmp_path / "nowhere")
