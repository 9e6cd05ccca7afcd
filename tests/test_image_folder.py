"""Image folders in colour, of several inputs, of TIFF stacks, and with colours as labels."""

from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

import segkit
from segkit import UserError
from segkit.components.datasets import Dataset, read_image
from segkit.components.datasets.formats.images import may_be_coloured, read_picture
from segkit.components.datasets.formats.masks import read_levels
from tests.all_cases import read_all
from tests.rvsc_like import dicom

MASK = np.zeros((12, 10), np.uint8)
MASK[3:9, 2:7] = 1
GREY = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10) * 2
STACK = np.stack([GREY // 2 + page for page in range(4)])
STACK_MASK = np.stack([np.roll(MASK, page) for page in range(4)])


def equal_luma() -> Any:
    """Return a picture whose structure shows in colour alone: (0, 200, 0) and (137, 130, 0) are as bright."""
    picture = np.zeros((12, 10, 3), np.uint8)
    picture[...] = (0, 200, 0)
    picture[MASK == 1] = (137, 130, 0)
    return picture


def save(path: Path, pixels: Any, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.shape[-1] == 3 else "minisblack", **more)
    elif path.suffix == ".dcm":
        path.write_bytes(dicom(pixels))
    else:
        Image.fromarray(pixels).save(path)
    return path


def fill(root: Path, image: Any, mask: Any = MASK * 255, ending: str = "png", count: int = 3) -> Path:
    for number in range(count):
        save(root / f"images/p{number}/x.{ending}", image)
        save(root / f"masks/p{number}/x.{ending}", mask)
    return root


def build(root: Path, **more: Any) -> Dataset:
    made: Dataset = segkit.datasets.build("image_folder", {"root": str(root), **more})
    return made


def read(root: Path, **more: Any) -> Any:
    return read_all(build(root, **more))


def test_a_structure_that_only_colour_shows_is_read_as_three_inputs(tmp_path: Path) -> None:
    data = read(fill(tmp_path, equal_luma()))
    assert data.inputs == ("red", "green", "blue")
    image, masks = data.cases[0].read()
    assert image.dtype == np.uint8
    assert np.array_equal(image, equal_luma().transpose(2, 0, 1))
    assert masks is not None
    assert np.array_equal(masks[0], MASK == 1)
    grey = read(tmp_path, grey=True)
    assert grey.inputs == ("image",)
    assert np.ptp(grey.cases[0].read()[0]) == 0  # the structure is lost, as the note says
    assert grey.notes[0].startswith("3 coloured images turned into grey")


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_equal_channels_are_one_grey_input_with_the_same_bytes(tmp_path: Path, ending: str) -> None:
    data = read(fill(tmp_path, np.dstack([GREY] * 3), ending=ending))
    assert data.inputs == ("image",)
    assert data.notes == ()
    assert np.array_equal(data.cases[0].read()[0], GREY)


def test_grey_false_reads_three_inputs_of_every_image(tmp_path: Path) -> None:
    save(fill(tmp_path, GREY) / "images/p1/x.png", equal_luma())
    data = read(tmp_path, grey=False)
    assert data.inputs == ("red", "green", "blue")
    assert np.array_equal(data.cases[0].read()[0], [GREY] * 3)
    save(tmp_path / "images/p2/x.dcm", GREY.astype(np.uint16))
    (tmp_path / "images/p2/x.png").unlink()
    assert read(tmp_path, grey=False).cases[2].read()[0].shape == (3, 12, 10)


def test_one_coloured_image_that_the_headers_show_is_found_among_many(tmp_path: Path) -> None:
    fill(tmp_path, GREY, count=40)
    assert not may_be_coloured(tmp_path / "images/p1/x.png")
    save(tmp_path / "images/p31/x.png", equal_luma())
    assert build(tmp_path).inputs == ("red", "green", "blue")


@pytest.mark.parametrize(
    ("name", "pixels", "expected"),
    [
        ("x.png", GREY, False), ("x.png", equal_luma(), True), ("x.jpg", GREY, False), ("x.jpg", equal_luma(), True),
        ("x.tif", GREY, False), ("x.tif", equal_luma(), True), ("x.dcm", GREY.astype(np.uint16), False),
        ("x.bmp", equal_luma(), True),
    ],
)  # fmt: skip
def test_headers_that_allow_colours(tmp_path: Path, name: str, pixels: Any, expected: bool) -> None:
    path = save(tmp_path / name, pixels)
    assert may_be_coloured(path) == expected
    path.write_bytes(path.read_bytes()[:20])
    assert may_be_coloured(path) == (name != "x.dcm")  # it does not tell


def test_a_coloured_image_that_contradicts_those_looked_at_is_named(tmp_path: Path) -> None:
    fill(tmp_path, np.dstack([GREY] * 3), count=20)
    save(tmp_path / "images/p1/x.png", equal_luma())
    assert build(tmp_path).inputs == ("image",)
    with pytest.raises(
        UserError, match=r"images/p1/x\.png: a coloured image among grey ones.* grey = true .* grey = fal"
    ):
        read(tmp_path)


def test_pixels_are_read_when_they_are_needed(tmp_path: Path) -> None:
    fill(tmp_path, GREY)
    (tmp_path / "images/p1/x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "masks/p2/x.png").write_bytes(b"")
    data = build(tmp_path)
    assert data.cases[0].image is None
    assert [path.relative_to(tmp_path).as_posix() for path in data.cases[0].files] == [
        "images/p0/x.png",
        "masks/p0/x.png",
    ]
    with pytest.raises(
        UserError, match=r"images/p1/x\.png: a damaged image.*\n.*masks/p2/x\.png: a damaged image: it is"
    ):
        read_all(data)


def test_cases_are_read_in_several_threads_without_a_sound(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = build(fill(tmp_path, equal_luma(), ending="tif", count=24))
    before = list(warnings.filters), cv2.utils.logging.getLogLevel()
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda case: case.read()[0], data.cases))
    assert all(np.array_equal(image, images[0]) for image in images)
    assert (list(warnings.filters), cv2.utils.logging.getLogLevel()) == before
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ["_segmentation", "_mask", "-label1", "_GT"])
def test_names_of_masks_may_end_in_a_word(tmp_path: Path, ending: str) -> None:
    for name in ("p/a", "p/b_mask"):
        save(tmp_path / f"images/{name}.png", GREY)
        save(tmp_path / f"masks/{name}{ending}.png", MASK * 255)
    assert [case.name for case in build(tmp_path).cases] == ["p/a", "p/b_mask"]
    save(tmp_path / "masks/p/a.png", MASK)
    with pytest.raises(UserError, match=rf"a(\.|{ending}\.)png: a second mask of .*images/p/a\.png, beside .*Keep one"):
        build(tmp_path)


def test_several_inputs_of_one_name_in_several_folders(tmp_path: Path) -> None:
    for name in ("p1/a.png", "p2/b.png"):
        save(tmp_path / "t1" / name, GREY)
        save(tmp_path / "t2" / Path(name).with_suffix(".tif"), GREY.astype(np.uint16) * 100)
        save(tmp_path / "masks" / name, MASK)
    images = {"T1": "t1", "T2": "t2"}
    data = read(tmp_path, images=images)
    assert data.inputs == ("T1", "T2")
    image = data.cases[0].read()[0]
    assert image.dtype == np.uint16
    assert np.array_equal(image, np.stack([GREY.astype(np.uint16), GREY.astype(np.uint16) * 100]))
    assert len(data.cases[0].files) == 3
    save(tmp_path / "t2/p2/b.tif", GREY[:5])
    with pytest.raises(UserError, match=r"t2/p2/b\.tif: the image has 5 x 10 pixels, .*t1/p2/b\.png has 12 x 10"):
        read(tmp_path, images=images)
    (tmp_path / "t2/p2/b.tif").rename(tmp_path / "t2/p2/c.tif")
    with pytest.raises(
        UserError, match=r"t1/p2/b\.png: has no image .* in t2/(.|\n)*t2/p2/c\.tif: has no image .* in t1/"
    ):
        read(tmp_path, images=images)


@pytest.mark.parametrize(
    "more",
    [
        {}, {"bigtiff": True}, {"compression": "zlib"}, {"tile": (32, 32)}, {"byteorder": ">"},
        {"ome": True, "metadata": {"axes": "ZYX"}}, {"metadata": {"axes": "ZYX"}},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_tiff_of_several_pages_is_a_volume(tmp_path: Path, kind: Any, more: dict[str, Any]) -> None:
    fill(tmp_path, GREY, count=1)
    for folder, pixels in (("images", STACK.astype(kind)), ("masks", STACK_MASK)):
        save(tmp_path / folder / "p0/x.tif", pixels, **more)
        (tmp_path / folder / "p0/x.png").unlink()
    (case,) = read(tmp_path, spacing_mm=[3.0, 1.0, 1.0]).cases
    image, masks = case.read()
    assert image.dtype == kind
    assert np.array_equal(image, STACK[None])
    assert np.array_equal(masks, STACK_MASK[None] == 1)


def test_stacks_of_imagej_of_lzw_and_in_colour(tmp_path: Path) -> None:
    fill(tmp_path, np.stack([equal_luma()] * 4), STACK_MASK, ending="tif", count=2)
    data = read(tmp_path)
    assert data.inputs == ("red", "green", "blue")
    assert data.cases[0].read()[0].shape == (3, 4, 12, 10)
    pages = [Image.fromarray(page) for page in STACK]
    pages[0].save(tmp_path / "lzw.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    tifffile.imwrite(tmp_path / "imagej.tif", STACK.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    for name in ("lzw.tif", "imagej.tif"):
        assert np.array_equal(read_picture(tmp_path / name).pixels, STACK[None])


def test_a_stack_of_one_slice_among_volumes(tmp_path: Path) -> None:
    (case, *_) = read(fill(tmp_path, GREY, ending="tif"), spacing_mm=[3.0, 1.0, 1.0]).cases
    assert case.read()[0].shape == (1, 1, 12, 10)


def damaged(data: bytes) -> bytes:
    """Return a TIFF whose last directory leads back to its first."""
    pages = len(tifffile.TiffFile(io.BytesIO(data)).pages)
    at = struct.unpack("<I", data[4:8])[0]
    first = at
    for _ in range(pages):
        end = at + 2 + 12 * struct.unpack("<H", data[at : at + 2])[0]
        at = struct.unpack("<I", data[end : end + 4])[0]
    return data[:end] + struct.pack("<I", first) + data[end + 4 :]


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def imagej(path: Path, axes: str, shape: tuple[int, ...]) -> Path:
    tifffile.imwrite(path, np.zeros((*shape, 12, 10), np.uint8), imagej=True, metadata={"axes": axes})
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: save(path, STACK_MASK[:3]), "the mask has 3 x 12 x 10 pixels, its image has 4 x 12 x 10"),
        (lambda path: save(path, MASK), "the mask has 12 x 10 pixels, its image has 4 x 12 x 10"),
        (lambda path: imagej(path, "ZCYX", (2, 2)), "2 channels and 2 slices in one file; only stacks of slices"),
        (lambda path: imagej(path, "TZYX", (2, 2)), "2 slices and 2 frames in one file"),
        (
            lambda path: tifffile.imwrite(
                path, np.zeros((2, 2, 12, 10), np.uint8), ome=True, metadata={"axes": "TZYX"}
            ),
            "2 slices and 2 frames in one file",
        ),
        (
            lambda path: edit(imagej(path, "ZYX", (4,)), lambda data: data.replace(b"images=4", b"images=9")),
            "ImageJ states 9 images in it, of which 4 can be read",
        ),
        (lambda path: edit(path, damaged), "a damaged image: its directories have no end"),
        (lambda path: edit(path, lambda data: data[:-40]), "a damaged image"),
        (
            lambda path: tifffile.imwrite(path, STACK, photometric="minisblack", volumetric=True, tile=(16, 16, 16)),
            "a volume in one page, which few programs read",
        ),
    ],
)
def test_stacks_that_are_not_slices_or_do_not_fit(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    fill(tmp_path, STACK, STACK_MASK, ending="tif", count=2)
    make(tmp_path / "masks/p1/x.tif")
    with pytest.raises(UserError, match=rf"masks/p1/x\.tif: {message}"):
        read(tmp_path)


def test_pages_of_different_sizes_and_too_many_pixels(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        for pixels in (GREY, GREY[::2, ::2]):
            file.write(pixels, photometric="minisblack", metadata=None)
    with pytest.raises(UserError, match=r"pyramid\.tif: its pages differ in size or kind"):
        read_picture(tmp_path / "pyramid.tif")
    vast = np.zeros((6, 8000, 8000), np.uint8)
    tifffile.imwrite(tmp_path / "vast.tif", vast, photometric="minisblack", compression="zlib", rowsperstrip=8000)
    edit(
        tmp_path / "vast.tif",
        lambda data: data.replace(struct.pack("<HHII", 258, 3, 1, 8), struct.pack("<HHII", 258, 3, 1, 32)),
    )
    del vast
    tracemalloc.start()
    with pytest.raises(UserError, match=r"vast\.tif: more than 1024 MiB of pixels in its 6 pages"):
        read_picture(tmp_path / "vast.tif")
    assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    tracemalloc.stop()


def test_spacing_of_two_lengths_for_a_volume(tmp_path: Path) -> None:
    fill(tmp_path, STACK, STACK_MASK, ending="tif", count=1)
    with pytest.raises(UserError, match=r"x\.tif: a stack of 4 slices: spacing_mm needs \(slice, row, column\)"):
        read(tmp_path, spacing_mm=[1.0, 1.0])


def coloured_mask(background: tuple[int, int, int] = (0, 0, 0)) -> Any:
    mask = np.empty((12, 10, 3), np.uint8)
    mask[...] = background
    mask[2:6, 2:6], mask[7:9, 2:6] = (255, 0, 0), (0, 255, 0)
    return mask


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_colours_as_labels(tmp_path: Path, ending: str) -> None:
    fill(tmp_path, GREY, coloured_mask(), ending=ending)
    data = read(tmp_path, labels={"wall": [255, 0, 0], "cavity": "#00FF00"})
    assert data.channels == ("wall", "cavity")
    assert [int(mask.sum()) for mask in data.cases[0].read()[1]] == [16, 8]
    fill(tmp_path, GREY, coloured_mask((255, 255, 255)), ending=ending)
    white = read(tmp_path, labels={"wall": [255, 0, 0], "cavity": "#00FF00"}, background="#ffffff")
    assert np.array_equal(white.cases[0].read()[1], data.cases[0].read()[1])


def test_colours_as_labels_of_a_palette_a_grey_mask_and_a_stack(tmp_path: Path) -> None:
    fill(tmp_path, GREY, coloured_mask())
    Image.fromarray(coloured_mask()).convert("P").save(tmp_path / "masks/p1/x.png")
    save(tmp_path / "masks/p2/x.png", MASK * 0)
    labels = {"wall": "#ff0000", "cavity": "#00ff00"}
    sums = [case.read()[1].sum(axis=(1, 2)).tolist() for case in read(tmp_path, labels=labels).cases]
    assert sums == [[16, 8], [16, 8], [0, 0]]
    fill(tmp_path / "stack", STACK, np.stack([coloured_mask()] * 4), ending="tif")
    masks = read(tmp_path / "stack", labels=labels).cases[0].read()[1]
    assert masks.shape == (2, 4, 12, 10)


def test_a_colour_of_no_structure_is_counted(tmp_path: Path) -> None:
    mask = coloured_mask()
    mask[0, :3] = (1, 2, 3)
    fill(tmp_path, GREY, mask, count=1)
    with pytest.raises(
        UserError,
        match=r"x\.png: holds unexpected values \(#010203\)\. Known are #000000 \(none\), "
        r"#ff0000 \(wall\), #00ff00 \(cavity\)\.",
    ):
        read(tmp_path, labels={"wall": "#ff0000", "cavity": "#00ff00"})
    with pytest.raises(UserError, match=r"a mask of 4 colours\. Save it .* labels = { wall = .#ff0000."):
        read(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(
        tmp_path / "masks/p0/x.png"
    )
    with pytest.raises(UserError, match=r"holds unexpected values .*more.* Many colours come from JPEG"):
        read(tmp_path, labels={"wall": "#ff0000"})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"labels": {"wall": "red"}}, r"labels\.wall: 'red' is no colour. Write \"#ff0000\", or \[255, 0, 0\]"),
        ({"labels": {"wall": [300, 0, 0]}}, r"labels\.wall\.0: must be 255 or less, got 300"),
        ({"labels": {"wall": [1, 0]}}, r"labels\.wall: must be a whole number, or a list of at least 3"),
        ({"labels": {"a": "#ffffff", "b": 1}}, "labels: give every structure a grey level, or every"),
        ({"labels": {"a": "#ffffff", "b": [255, 255, 255]}}, "labels: each structure needs a colour of its own"),
        ({"labels": {"a": "#000000"}}, "each structure needs a colour of its own, got background #000000, a #000000"),
        ({"labels": {"a": 1}, "background": "#ffffff"}, "background: counts only if labels are colours"),
        ({"background": "#ffffff"}, "background: counts only if labels are colours, e.g. labels = "),
        ({"images": {}}, "images: name at least one input"),
        ({"images": {"a": "images", "A": "images"}}, "images: inputs are called 'a' and 'A'"),
        ({"images": {"a": "images", "b": "images"}, "grey": False}, "grey: images of several inputs are grey each"),
        ({"images": {"a": "images", "b": "t2"}}, r"t2: no such folder. \S+ holds images, masks"),
        ({"spacing_mm": [1.0]}, "spacing_mm: must be a list of at least 2 values"),
        ({"spacing_mm": [1.0, 1.0, 1.0, 1.0]}, "spacing_mm: must be a list of at most 3 values"),
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    fill(tmp_path, GREY)
    with pytest.raises(UserError, match=message):
        read(tmp_path, **more)


def test_names_with_numerals_that_are_no_numbers(tmp_path: Path) -> None:
    fill(tmp_path, GREY)
    for folder in ("images", "masks"):
        (tmp_path / folder / "p1/x.png").rename(tmp_path / folder / "p1/x2\u00b23.png")
    assert [case.name for case in read(tmp_path, grey=True).cases] == ["p0/x", "p1/x2\u00b23", "p2/x"]


def test_masks_of_a_stack_have_levels_by_page(tmp_path: Path) -> None:
    levels, colours = read_levels(save(tmp_path / "x.tif", STACK_MASK * 3))
    assert colours == {}
    assert np.array_equal(levels, STACK_MASK * 3)
    with pytest.raises(UserError, match=r"x\.tif: several images in one file; only files of one image are read"):
        read_image(tmp_path / "x.tif")
