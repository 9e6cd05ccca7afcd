"""Folders of images and masks: every kind of file is read right, or refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import segkit
from segkit import UserError
from segkit.datasets import Dataset, read_image
from tests.rvsc_like import dicom

GREY = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10) * 2
MASK = (GREY > 100).astype(np.uint8)


def write(path: Path, pixels: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".dcm":
        path.write_bytes(dicom(pixels))
    else:
        assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("ann/a", "ann/b", "bob/c"):
        write(tmp_path / f"images/{name}.png", GREY)
        write(tmp_path / f"masks/{name}.png", MASK * 255)
    return tmp_path


def read(root: Path, **more: Any) -> Dataset:
    found: Dataset = segkit.datasets.build("image_folder", {"root": str(root), **more})
    return found


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("x.png", GREY), ("x.png", GREY.astype(np.uint16) * 200), ("x.tif", GREY.astype(np.uint16) * 200),
        ("x.bmp", GREY), ("x.tif", GREY.astype(np.float32) / 7), ("x.dcm", GREY.astype(np.uint16)),
        ("one.png", np.full((1, 1), 7, np.uint8)),
    ],
)  # fmt: skip
def test_grey_levels_as_stored(tmp_path: Path, name: str, pixels: Any) -> None:
    image = read_image(write(tmp_path / name, pixels))
    assert image.dtype == pixels.dtype
    assert np.array_equal(image, pixels)


def test_colour_and_alpha(tmp_path: Path) -> None:
    same = np.repeat(GREY[..., None], 4, axis=2)
    same[..., 3] = 99
    assert np.array_equal(read_image(write(tmp_path / "alpha.png", same)), GREY)
    colour = np.zeros((2, 2, 3), np.uint8)
    colour[..., 2] = 200  # red, in OpenCV's order
    assert np.array_equal(read_image(write(tmp_path / "red.png", colour)), np.full((2, 2), 60))


def test_images_masks_and_patients(root: Path) -> None:
    data = read(root)
    assert data.channels == ("foreground",)
    assert [(case.name, case.patient) for case in data.cases] == [("ann/a", "ann"), ("ann/b", "ann"), ("bob/c", "bob")]
    assert np.array_equal(data.cases[0].masks[0], MASK.astype(bool))
    assert [case.patient for case in read(root, patient="^(.)").cases] == ["a", "b", "c"]
    assert read(root, spacing_mm=[1.5, 2.0]).cases[0].spacing_mm == (1.5, 2.0)


def test_several_structures_by_their_grey_level(root: Path) -> None:
    for path in (root / "masks").rglob("*.png"):
        write(path, MASK + (GREY > 200))
    data = read(root, labels={"wall": 1, "cavity": 2})
    assert data.channels == ("wall", "cavity")
    assert int(data.cases[0].masks[1].sum()) == int((GREY > 200).sum())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "masks/ann/a.png").unlink(), r"1 file\(s\) without mask .*: .*images/ann/a.png"),
        (lambda root: (root / "images/ann/a.png").unlink(), r"1 file\(s\) without image .*: .*masks/ann/a.png"),
        (
            lambda root: write(root / "masks/ann/a.png", MASK * 7),
            r"a.png: holds the levels 0, 7; a mask of one structure",
        ),
        (
            lambda root: write(root / "masks/ann/a.png", MASK[:5]),
            r"a.png: the mask has 5 x 10 pixels, its image .* 12 x 10",
        ),
        (lambda root: write(root / "masks/ann/a.png", np.dstack([MASK, MASK * 9, MASK])), r"a.png: a coloured mask"),
        (lambda root: (root / "images/ann/a.png").write_bytes(b"\x89PNG\r\n\x1a\n"), r"a.png: a damaged image"),
        (lambda root: (root / "images/ann/a.png").write_bytes(b""), r"a.png: a damaged image"),
        (lambda root: write(root / "images/ann/a.tif", GREY), r"two files of one name. Which one counts"),
        (lambda root: write(root / "images/ann/a.png", np.full((12, 10), 5, np.uint8)), None),
    ],
)
def test_what_is_wrong_is_named(root: Path, change: Any, message: str | None) -> None:
    change(root)
    if message is None:  # a flat image is an image
        assert len(read(root).cases) == 3
        return
    with pytest.raises(UserError, match=message):
        read(root)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    pixels = GREY.astype(np.float32)
    pixels[0, 0] = np.nan
    with pytest.raises(UserError, match=r"x\.tif: holds values that are not finite"):
        read_image(write(tmp_path / "x.tif", pixels))


def test_a_picture_that_claims_to_be_vast_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    path = tmp_path / "vast.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(
        UserError, match=r"vast\.png: 100000 x 100000 pixels; images are read from 1 x 1 to 8192 x 8192"
    ):
        read_image(path)


def test_links_and_folders_outside(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = write(tmp_path_factory.mktemp("outside") / "d.png", GREY)
    (root / "images/ann/d.png").symlink_to(outside)
    write(root / "masks/ann/d.png", MASK)
    with pytest.raises(UserError, match=r"d\.png: a link out of .*Nothing outside is read"):
        read(root)
    with pytest.raises(UserError, match=r"no such folder|link out of|leads"):
        read(root, images="../..")


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="images: no such folder"):
        read(tmp_path)
