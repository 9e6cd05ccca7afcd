"""Folders of images and masks: every kind of file is read right, or refused by name."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import segkit
from segkit import UserError
from segkit.components.datasets import Case, Dataset, read_image
from segkit.errors import ContractError
from tests.all_cases import read_all
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


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("ann/a", "ann/b", "bob/c"):
        write(tmp_path / f"images/{name}.png", GREY)
        write(tmp_path / f"masks/{name}.png", MASK * 255)
    return tmp_path


def read(root: Path, **more: Any) -> Any:
    return read_all(segkit.datasets.build("image_folder", {"root": str(root), **more}))


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
        (
            lambda root: (root / "masks/ann/a.png").unlink(),
            r"images/ann/a\.png: has no mask of the same name in masks/",
        ),
        (
            lambda root: (root / "images/ann/a.png").unlink(),
            r"masks/ann/a\.png: has no image of the same name in images/",
        ),
        (
            lambda root: write(root / "masks/ann/a.png", MASK * 7),
            r"a.png: holds more values than 0 and 1, .* \(0, 7\)",
        ),
        (
            lambda root: write(root / "masks/ann/a.png", MASK[:5]),
            r"a.png: the mask has 5 x 10 pixels, its image .* 12 x 10",
        ),
        (lambda root: write(root / "masks/ann/a.png", np.dstack([MASK, MASK * 9, MASK])), r"a mask of . colours"),
        (lambda root: (root / "images/ann/a.png").write_bytes(b"\x89PNG\r\n\x1a\n"), r"a.png: a damaged image"),
        (lambda root: (root / "images/ann/a.png").write_bytes(b""), r"a.png: a damaged image"),
        (
            lambda root: write(root / "images/ann/a.tif", GREY),
            r"a\.tif: has the name of \S+a\.png\. Which one counts\? Remove the other",
        ),
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


def test_the_problems_of_all_files_are_raised_together(root: Path) -> None:
    write(root / "images/ann/a.png", GREY[:5])
    write(root / "masks/ann/b.png", MASK * 7)
    write(root / "images/bob/d.png", GREY)
    with pytest.raises(UserError, match=r"images/bob/d\.png: has no mask of the same name in masks/\.") as caught:
        read(root)
    places = [Path(line.partition(": ")[0]).relative_to(root) for line in str(caught.value).splitlines()]
    assert [str(place) for place in places] == ["images/bob/d.png"]  # what the names show, before any file is read
    (root / "images/bob/d.png").unlink()
    write(root / "images/bob/c.png", GREY).write_bytes(b"")
    with pytest.raises(UserError, match="12 x 10 pixels") as caught:
        read(root)
    places = [Path(line.partition(": ")[0]).relative_to(root) for line in str(caught.value).splitlines()]
    assert [str(place) for place in places] == ["masks/ann/a.png", "masks/ann/b.png", "images/bob/c.png"]


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    pixels = GREY.astype(np.float32)
    pixels[0, 0] = np.nan
    with pytest.raises(UserError, match=r"x\.tif: contains values that are not finite"):
        read_image(write(tmp_path / "x.tif", pixels))


def png(rows: int, columns: int, data: bytes, *, bits: int = 8, colours: int = 0) -> bytes:
    """Return a PNG that states a size, whatever its data hold."""

    header = struct.pack(">IIBBBBB", columns, rows, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_what_a_png_says_beside_its_pixels_is_no_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "x.png", GREY).read_bytes()
    extra = chunk(b"iCCP", b"a\0\0" + zlib.compress(b"no profile")) + chunk(b"tEXt", b"no zero byte")
    (tmp_path / "x.png").write_bytes(data[:33] + extra + data[33:])
    assert np.array_equal(read_image(tmp_path / "x.png"), GREY)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png(100_000, 100_000, b""), "100000 x 100000 pixels; images are read from 1 x 1 to 8192 x 8192"),
        (png(8192, 8192, b"few"), "a damaged image: 60 bytes cannot hold its 8192 x 8192 pixels"),
        (png(8192, 8192, bytes(1 << 20), bits=16, colours=6), "512 MiB of pixels; images are read up to 256 MiB"),
    ],
    ids=["sides", "few data", "many bytes"],
)
def test_a_picture_that_claims_to_be_vast_is_refused_before_it_is_decoded(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "vast.png"
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"vast\.png: {message}"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


def pillow(kind: str, mode: str = "L", **options: Any) -> bytes:
    """Return an image as Pillow writes it."""
    out = io.BytesIO()
    if options.pop("twice", False):
        options |= {"save_all": True, "append_images": [Image.fromarray(255 - GREY)]}
    if turned := options.pop("turned", None):
        options["exif"] = Image.Exif()
        options["exif"][0x112] = turned
    Image.fromarray(GREY).convert(mode).save(out, kind, **options)
    return out.getvalue()


NIFTI = struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(100)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pillow("PNG", twice=True), "an animation of 2 images; only files of one image are read"),
        (pillow("TIFF", twice=True), "several images in one file; only files of one image are read"),
        (pillow("GIF", twice=True), "a GIF picture; images are PNG, TIFF, JPEG, BMP or DICOM files"),
        (pillow("JPEG", turned=6), r"to be shown rotated or mirrored \(EXIF orientation 6\).* Save it upright"),
        (pillow("PNG", turned=3), r"to be shown rotated or mirrored \(EXIF orientation 3\)"),
        (pillow("TIFF", turned=3), r"to be shown rotated or mirrored \(EXIF orientation 3\)"),
        (pillow("JPEG", "CMYK"), "in CMYK colours, for print"),
        (pillow("TIFF", "CMYK"), "in CMYK colours, for print"),
        (pillow("PNG")[:-20], "a damaged image: cut off"),
        (pillow("TIFF")[:60], "a damaged image"),
        (pillow("JPEG")[:-9], "a damaged image: cut off"),
        (b"", "a damaged image: it is empty, 0 bytes"),
        (NIFTI, r"a NIfTI volume; the datasets nifti and nnunet read NIfTI"),
        (gzip.compress(NIFTI, mtime=0), "a NIfTI volume; the datasets nifti"),
        (b"ObjectType = Image\nNDims = 3\n", "a MetaImage volume; convert it to NIfTI"),
        (b"\x93NUMPY\1\0", "a NumPy array; images are PNG"),
        (b"PK\3\4" + bytes(30), "a ZIP archive; images are PNG"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "an HDF5 file; images are PNG"),
        (b"MATLAB 5.0 MAT-file", "a MATLAB file; images are PNG"),
        (b"just words\n", "a text file; images are PNG"),
        (bytes(range(256)), "of an unknown kind; images are PNG"),
    ],
)
def test_files_that_are_no_image_are_named_as_what_they_are(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(UserError, match=rf"x\.png: {message}") as caught:
        read_image(tmp_path / "x.png")
    assert len(str(caught.value).splitlines()) == 1


def test_upright_pictures_and_palettes_are_read(tmp_path: Path) -> None:
    for data in (pillow("PNG", turned=1), pillow("PNG", "P"), pillow("TIFF", "LA"), pillow("BMP", "P")):
        (tmp_path / "x.png").write_bytes(data)
        assert np.array_equal(read_image(tmp_path / "x.png"), GREY)


def test_a_picture_in_the_alpha_channel_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    pixels = np.zeros((12, 10, 4), np.uint8)
    pixels[..., 3] = GREY
    with pytest.raises(UserError, match=r"x\.png: its picture is in the alpha channel"):
        read_image(write(tmp_path / "x.png", pixels))


def rgba(alpha: Any) -> Any:
    return np.dstack([MASK * 255] * 3 + [np.broadcast_to(np.uint8(alpha), MASK.shape)])


def test_masks_saved_as_rgb_are_grey_masks(root: Path) -> None:
    before = read(root).cases[0].masks
    for pixels in (np.dstack([MASK * 255] * 3), rgba(255)):
        write(root / "masks/ann/a.png", pixels)
        assert np.array_equal(read(root).cases[0].masks, before)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (rgba(GREY), "a partly transparent mask. Save it without alpha"),
        (np.dstack([MASK * 255, MASK * 0, GREY // 200]), "a mask of 3 colours. Save it with one grey level"),
    ],
)
def test_masks_in_which_colours_or_transparency_count(root: Path, pixels: Any, message: str) -> None:
    write(root / "masks/ann/a.png", pixels)
    with pytest.raises(UserError, match=rf"masks/ann/a\.png: {message}"):
        read(root)


VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def indexed(path: Path, indices: Any, palette: list[int], **more: Any) -> None:
    picture = Image.fromarray(indices, "L")
    picture.putpalette(palette)
    picture.save(path, **more)


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("more", [{}, {"transparency": 0}], ids=["opaque", "clear background"])
def test_indices_of_a_palette_of_colours_are_a_masks_levels(root: Path, bits: int, more: dict[str, Any]) -> None:
    before = read(root).cases[0].masks
    for name in ("ann/a", "ann/b", "bob/c"):
        indexed(root / f"masks/{name}.png", MASK, VOC[: 3 * 2**bits], bits=bits, **more)
    assert np.array_equal(read(root).cases[0].masks, before)
    if bits == 8:
        indexed(root / "masks/ann/a.png", MASK + (GREY > 200), VOC)
        masks = read(root, labels={"one": 1, "two": 2}).cases[0].masks
        assert np.array_equal(masks, [(GREY > 100) & (GREY <= 200), GREY > 200])


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize(
    ("indices", "palette", "message"),
    [
        (MASK, [255, 0, 0, 0, 0, 0], "a mask of 2 colours in a palette that is not one of labels"),
        (MASK, [0, 0, 0, 0, 128, 0], r"its palette gives index 1 another colour than that of .*masks/ann/a\.png"),
    ],
)
def test_palettes_that_are_not_of_the_same_labels(root: Path, indices: Any, palette: list[int], message: str) -> None:
    indexed(root / "masks/ann/a.png", MASK, VOC)
    indexed(root / "masks/ann/b.png", indices, palette)
    with pytest.raises(UserError, match=rf"masks/ann/b\.png: {message}"):
        read(root)


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_an_index_beyond_the_palette_is_damage(root: Path) -> None:
    path = root / "masks/ann/a.png"
    indexed(path, MASK + 6, [*VOC, *VOC])
    data = path.read_bytes()
    at = data.index(b"PLTE") - 4
    path.write_bytes(data[:at] + chunk(b"PLTE", bytes(VOC)) + data[at + 12 + 24 :])
    with pytest.raises(UserError, match=r"a\.png: a damaged image: index 7 of a palette of 4 colours"):
        read(root)


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
def test_palettes_of_grey_levels_are_grey_pictures(root: Path) -> None:
    indexed(root / "masks/ann/a.png", MASK, [0, 0, 0, 255, 255, 255])
    Image.fromarray(np.dstack([MASK * 255] * 3)).convert("P").save(root / "masks/ann/b.png")  # of a web palette
    Image.fromarray(GREY).convert("P").save(root / "images/ann/a.png")
    found = read(root).cases
    assert all(np.array_equal(case.masks, found[2].masks) for case in found)
    assert np.array_equal(found[0].image, GREY)


def test_coloured_images_are_turned_into_grey_with_a_note(root: Path) -> None:
    assert read(root, grey=True).notes == ()
    write(root / "images/ann/a.png", np.dstack([GREY, GREY, GREY // 2]))
    data = read(root, grey=True)
    assert data.inputs == ("image",)
    assert np.array_equal(data.cases[0].image, (299 * (GREY // 2).astype(int) + 701 * GREY.astype(int) + 500) // 1000)
    assert data.notes == (
        "1 coloured image turned into grey (0.299 red + 0.587 green + 0.114 blue): one channel is read: ann/a.",
    )


def sparse(path: Path) -> None:
    """Write a file that states a terabyte and takes no room."""
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: os.mkfifo(path), r"a\.png: a pipe, not a regular file"),
        (lambda path: path.symlink_to("nowhere"), r"a\.png: a link that leads nowhere"),
        (lambda path: path.symlink_to(path.name), r"a\.png: a link that leads to itself"),
        (lambda path: path.mkdir(), r"has no image .* \S+images/ann/a\.png is a folder"),
        (lambda path: path.with_suffix(".nii.gz").touch(), r"ann/a\.nii\.gz is a NIfTI volume; the datasets nifti"),
        (lambda path: path.with_suffix(".gif").touch(), r"has no image .*ann/a\.gif is of a kind that is not read"),
        (sparse, r"a\.png: 1,099,511,627,776 bytes; .* up to"),
    ],
)
def test_what_stands_where_an_image_should(root: Path, make: Any, message: str) -> None:
    (root / "images/ann/a.png").unlink()
    make(root / "images/ann/a.png")
    with pytest.raises(UserError, match=message):
        read(root)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("new\nline", r"images/bob: the name 'new\\nline\.png' contains a control character. Rename it"),
        ("\x1b[31m", r"the name '\\x1b\[31m\.png' contains a control character"),
        ("a\u202egnp", r"the name 'a\\u202egnp\.png' contains a control character"),
        (os.fsdecode(b"\xff"), r"the name '\\udcff\.png' is not valid UTF-8"),
    ],
)
def test_names_that_cannot_stand_in_a_table(root: Path, name: str, message: str) -> None:
    for folder in ("images", "masks"):
        write(root / folder / "bob/x.png", MASK).rename(root / folder / f"bob/{name}.png")
    with pytest.raises(UserError, match=message):
        read(root)


def test_links_that_lead_back_are_not_followed_without_end(root: Path) -> None:
    (root / "images/ann/loop").symlink_to(root / "images")
    with pytest.raises(UserError, match=r"images/ann/loop: a link to .*images, which is read already. Remove the link"):
        read(root)


def test_a_folder_without_images(root: Path) -> None:
    (root / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: contains no images\. It is empty"):
        read(root, images="empty")
    (root / "empty/a.nii.gz").touch()
    with pytest.raises(UserError, match=r"empty: contains no images\. It contains NIfTI volumes; the datasets nifti"):
        read(root, images="empty")


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


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["all"], "a channel cannot be called 'all': this is the name of the mean over channels"),
        (["ALL"], "a channel cannot be called 'ALL'"),
        (["overlay"], "a channel cannot be called 'overlay'"),
        ([" "], "a channel has an empty name"),
        (["wall "], r"the channel name 'wall ' holds a slash, or white space at an end"),
        (["../x"], r"the channel name '\.\./x' holds a slash"),
        (["a\x1b[31m"], r"the channel name 'a\\x1b\[31m' holds the character \\x1b"),
        (["a\u202eb"], r"holds the character \\u202e"),
        (["x" * 101], "has 101 characters; at most 100 are allowed"),
        (["wall", "Wall"], "channels are called 'wall' and 'Wall'; names must differ in more than case"),
        (["\u00e9", "e\u0301"], "names must differ in more than case"),
        (["c", "c"], "channels are called 'c' and 'c'"),
    ],
)
def test_channels_have_names_that_tables_and_files_can_bear(root: Path, names: list[str], message: str) -> None:
    case = Case("a", None, GREY, np.zeros((len(names), *GREY.shape), bool), None)
    with pytest.raises(ContractError, match=f"^mine: .*{message}"):
        Dataset("mine", tuple(names), (case,))
    if len(set(names)) == len(names):
        with pytest.raises(UserError, match=f"labels: .*{message}"):
            read(root, labels={name: number for number, name in enumerate(names, 1)})


@pytest.mark.parametrize("name", ["left atrium", "学習率", "a, b", "=cmd", "mean", "T2*", "val_dice", "background"])
def test_channels_may_be_called_anything_else(name: str) -> None:
    case = Case("a", None, GREY, np.zeros((1, *GREY.shape), bool), None)
    assert Dataset("mine", (name,), (case,)).channels == (name,)
