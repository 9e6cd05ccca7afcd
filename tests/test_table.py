"""Cases that a CSV lists: what it says of them, and what is wrong with its lines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest

import segkit
from segkit import UserError
from tests.all_cases import read_all

GREY = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10) * 2
MASK = (GREY > 100).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        for folder, pixels in (("t1", GREY), ("t2", 255 - GREY), ("wall", MASK), ("cavity", MASK * 0 + (GREY > 200))):
            (tmp_path / folder).mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / folder / f"{name}.png"), pixels)
    return tmp_path


LINES = (
    "image,mask,patient,set,phase",
    "t1/a.png,wall/a.png,ann,train,ED",
    "t1/b.png,wall/b.png,ann,train,ES",
    "t1/c.png,wall/c.png,bob,test,",
)


def save(folder: Path, *lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
    path = folder / "cases.csv"
    path.write_bytes(end.join([*lines, ""]).encode(encoding))
    return path


def build(folder: Path, **more: Any) -> Any:
    return segkit.datasets.build("table", {"file": str(folder / "cases.csv"), **more})


def read(folder: Path, **more: Any) -> Any:
    return read_all(build(folder, **more))


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_images_masks_patients_and_tags(folder: Path, mark: str, encoding: str, end: str) -> None:
    save(folder, *(line.replace(",", mark) for line in LINES), "", encoding=encoding, end=end)
    data = read(folder)
    assert [(case.name, case.patient) for case in data.cases] == [("t1/a", "ann"), ("t1/b", "ann"), ("t1/c", "bob")]
    assert [case.tags for case in data.cases] == [
        {"set": "train", "phase": "ED"}, {"set": "train", "phase": "ES"}, {"set": "test"},
    ]  # fmt: skip
    assert np.array_equal(data.cases[1].image, GREY)
    assert np.array_equal(data.cases[1].masks, MASK[None] == 1)
    assert data.channels == ("foreground",)


def test_columns_of_any_name_several_inputs_and_a_mask_a_structure(folder: Path) -> None:
    rows = [f'"t1/{name}.png",t2/{name}.png,wall/{name}.png,cavity/{name}.png,"case, {name}"' for name in "abc"]
    save(folder, "T1 file,T2 file,w,c,id", *rows)
    images, masks = {"t1": "T1 file", "t2": "T2 file"}, {"wall": "w", "cavity": "c"}
    data = read(folder, image=images, mask=masks, name="id", patient="id", tags=[])
    assert (data.inputs, data.channels) == (("t1", "t2"), ("wall", "cavity"))
    assert (data.cases[0].name, data.cases[0].patient, data.cases[0].tags) == ("case, a", "case, a", {})
    assert np.array_equal(data.cases[2].image, np.stack([GREY, 255 - GREY]))
    assert np.array_equal(data.cases[2].masks, np.stack([MASK == 1, GREY > 200]))
    assert read(folder, image=["T1 file", "T2 file"], mask="w").inputs == ("T1 file", "T2 file")


def test_names_and_cells_that_hold_delimiters_and_lines(folder: Path) -> None:
    save(folder, 'image;"size, h, w, d";mask;', 't1/a.png;"one', 'two";wall/a.png;', ";;;", "t1/x.png;;;")
    with pytest.raises(UserError, match=r"csv:2: a cell contains a control character(.|\n)*csv:5: .* not there: 't1/x"):
        build(folder)
    save(folder, 'image;"size, h, w, d";mask;', 't1/a.png;"1; 2";wall/a.png;', ";;;")
    assert read(folder).cases[0].tags == {"size, h, w, d": "1; 2"}


def test_labels_and_colours_are_those_of_an_image_folder(folder: Path) -> None:
    colour = np.zeros((12, 10, 3), np.uint8)
    colour[MASK == 1] = (0, 0, 255)  # red, in OpenCV's order
    for name in "abc":
        cv2.imwrite(str(folder / f"wall/{name}.png"), colour)
    save(folder, *LINES)
    assert np.array_equal(read(folder, labels={"wall": "#ff0000"}).cases[0].masks, MASK[None] == 1)
    for name in "abc":
        cv2.imwrite(str(folder / f"t1/{name}.png"), colour)
    assert read(folder, labels={"wall": "#ff0000"}).inputs == ("red", "green", "blue")
    assert read(folder, labels={"wall": "#ff0000"}, grey=True).notes[0].startswith("3 coloured images turned into grey")


def test_spacing_of_all_cases_or_of_columns(folder: Path) -> None:
    save(folder, "image;mask;dy;dx", "t1/a.png;wall/a.png;1,5;2", "t1/b.png;wall/b.png;0.5;1", "t1/c.png;wall/c.png;;")
    assert [case.spacing_mm for case in read(folder, spacing_mm=["dy", "dx"]).cases] == [(1.5, 2.0), (0.5, 1.0), None]
    assert read(folder, spacing_mm=[1.0, 2.0]).cases[2].spacing_mm == (1.0, 2.0)
    assert read(folder).cases[0].tags == {"dy": "1,5", "dx": "2"}


def test_a_case_without_a_mask_is_unlabelled(folder: Path) -> None:
    save(folder, "image,mask", "t1/a.png,wall/a.png", "t1/b.png,")
    data = build(folder)
    assert [case.has_masks for case in data.cases] == [True, False]
    assert data.cases[1].read()[1] is None
    assert data.cases[1].patient is None


def test_paths_below_a_root_above_the_table(folder: Path) -> None:
    (folder / "lists").mkdir()
    save(folder / "lists", "image,mask", "../t1/a.png,../wall/a.png", f"{folder}/t1/b.png,{folder}/wall/b.png")
    assert [case.name for case in read(folder / "lists", root=str(folder)).cases] == ["t1/a", "t1/b"]
    with pytest.raises(
        UserError, match=r"the column 'image' leads out of \S+lists: '\.\./t1/a\.png'\. .* \S+csv:3: 2 in all"
    ):
        build(folder / "lists")


def test_a_link_out_of_the_root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "x.png"
    outside.write_bytes((folder / "t1/a.png").read_bytes())
    (folder / "t1/x.png").symlink_to(outside)
    save(folder, "image,mask", "t1/x.png,wall/a.png")
    with pytest.raises(
        UserError, match=r"cases\.csv:2: the column 'image' leads out of .*: 't1/x\.png'\. Nothing outside"
    ):
        build(folder)


@pytest.mark.parametrize(
    ("lines", "more", "message"),
    [
        ([], {}, r"cases\.csv: is empty; its first line should name the columns"),
        (["image,mask"], {}, r"cases\.csv: has no rows below its header"),
        (["image mask", "t1/a.png wall/a.png"], {}, r"csv:1: its header has one column, 'image mask'; columns"),
        (["image,mask,mask", "a,b,c"], {}, r"csv:1: 2 columns are called 'mask'\. Rename one"),
        (["picture,mask", "a,b"], {}, r"csv:1: has no column 'image', which `image` names; it has 'picture', 'mask'\."),
        (["image,truth", "a,b"], {}, r"csv:1: has no column 'mask', which `mask` names; it has 'image', 'truth'\."),
        ([*LINES], {"patient": "who"}, r"csv:1: has no column 'who', which `patient` names"),
        ([*LINES], {"tags": ["scanner"]}, r"csv:1: has no column 'scanner', which `tags` names"),
        ([*LINES], {"name": "id"}, r"csv:1: has no column 'id', which `name` names"),
        ([*LINES], {"spacing_mm": ["dy", "dx"]}, r"csv:1: has no column 'dy', which `spacing_mm` names"),
        ([*LINES, "t1/d.png,wall/a.png,ann,,"], {}, r"csv:5: the column 'image' names a file that is not there: 't1/d"),
        (
            [LINES[0], *(f"t1/{n}.png,wall/a.png,,," for n in range(1, 9))], {},
            r"csv:2: the column 'image' names a file that is not there: 't1/1\.png'\. P.*and 3 more: 8 in all",
        ),
        ([*LINES, "t1/a.png,wall/a.png,ann,,"], {}, r"csv:5: the case 't1/a' again, as in \S+csv:2\."),
        ([*LINES, ",wall/a.png,ann,,"], {}, r"csv:5: the column 'image' names no image\."),
        ([*LINES, "t1,wall/a.png,ann,,"], {}, r"csv:5: the column 'image' names no file, but a folder .*: 't1'"),
        ([*LINES, "t1/a.png,wall/a.png"], {}, r"csv:5: has 2 cells, its header 5 cells\."),
        ([*LINES, '"t1/a.png,wall/a.png,ann,,'], {}, r"csv:5: not a line of a table: .* Is a quotation"),
        ([*LINES], {"name": "phase"}, r"csv:4: the column 'phase' gives no name"),
        ([*LINES], {"mask": {"wall": "mask", "cavity": "phase"}, "tags": []}, r"csv:4: has a mask in 'mask' only"),
        ([*LINES], {"mask": {}}, "mask: name at least one structure"),
        ([*LINES], {"mask": {"wall": "mask"}, "labels": {"wall": 1}}, "labels and background: belong to label maps"),
        ([*LINES], {"image": []}, "image: name at least one input"),
        ([*LINES], {"image": ["image", "mask"], "grey": False}, "grey: images of several inputs are grey each"),
        (["image,mask,dy,dx", "t1/a.png,wall/a.png,1,-1"], {"spacing_mm": ["dy", "dx"]}, r"its spacing must be"),
        (["image,mask,dy,dx", "t1/a.png,wall/a.png,1,x"], {"spacing_mm": ["dy", "dx"]}, r"got \['1', 'x'\]\."),
        (["image,mask,dy", "t1/a.png,wall/a.png,1"], {"spacing_mm": ["dy"]}, "spacing_mm: 1 columns; name"),
        (["image,mask,a\x1b", "t1/a.png,wall/a.png,1"], {}, r"csv:1: the column 'a\\x1b' contains a control character"),
        (["image,mask,a", "t1/a.png,wall/a.png,\x1b"], {}, r"csv:2: a cell contains a control character"),
        (["image,mask", "t1/a.nii.gz,wall/a.png"], {}, "not there: 't1/a.nii.gz"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table(folder: Path, lines: list[str], more: dict[str, Any], message: str) -> None:
    save(folder, *lines) if lines else (folder / "cases.csv").touch()
    with pytest.raises(UserError, match=message):
        read(folder, **more)


def vast(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes("image,mask,größe\n".encode("latin-1")), r"not a text file: .* as CSV in UTF-8"),
        (lambda path: path.write_bytes(b"PK\3\4\0\0"), r"not a text file: it contains a zero byte\. Save the"),
        (lambda path: os.mkfifo(path), "a pipe, not a regular file"),
        (lambda path: None, r"cases\.csv: no such file"),
        (vast, "1,099,511,627,776 bytes"),
        pytest.param(
            lambda path: path.write_text("image,mask\n" + "a,b\n" * 1_000_001),
            r"csv:\d+: tables are read up to 1,0",
            marks=pytest.mark.slow,
        ),
        (lambda path: path.write_text(",".join(map(str, range(10**6)))), "csv:1: tables are read up to"),
    ],
)  # fmt: skip
def test_files_that_are_no_table(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    make(tmp_path / "cases.csv")
    with pytest.raises(UserError, match=message):
        build(tmp_path)


def test_faults_of_several_kinds_are_raised_together(folder: Path) -> None:
    save(folder, *LINES, "t1/x.png,wall/a.png,ann,,", "t1/a.png,wall/a.png,,,", "t1/y.png,wall/y.png,,,")
    with pytest.raises(UserError, match=r"csv:5: .* \S+csv:7: 2 in all") as caught:
        build(folder)
    assert len(str(caught.value).splitlines()) == 2


def test_pixels_that_do_not_fit_are_named_by_their_file(folder: Path) -> None:
    cv2.imwrite(str(folder / "cavity/b.png"), MASK[:5])
    rows = [f"t1/{name}.png,wall/{name}.png,cavity/{name}.png" for name in "abc"]
    save(folder, "image,wall,cavity", *rows)
    with pytest.raises(UserError, match=r"cavity/b\.png: the mask has 5 x 10 pixels, .*wall/b\.png has 12 x 10"):
        read(folder, mask={"wall": "wall", "cavity": "cavity"})
    cv2.imwrite(str(folder / "t1/b.png"), GREY[:7])
    with pytest.raises(UserError, match=r"wall/b\.png: the mask has 12 x 10 pixels, its image has 7 x 10\."):
        read(folder, mask="wall")


def test_a_table_reads_volumes_of_tiff_and_names_those_it_cannot_read(folder: Path) -> None:
    assert cv2.imwritemulti(str(folder / "x.tif"), [GREY, GREY])
    assert cv2.imwritemulti(str(folder / "y.tif"), [MASK, MASK])
    save(folder, "image,mask", "x.tif,y.tif")
    assert read(folder).cases[0].image.shape == (1, 2, 12, 10)
    (folder / "x.tif").rename(folder / "x.mha")
    save(folder, "image,mask", "x.mha,y.tif")
    with pytest.raises(UserError, match=r"x\.mha: a MetaImage volume; convert it to NIfTI"):
        read(folder)


def nifti(path: Path, voxels: Any, spacing: float = 2.0) -> None:
    nibabel.Nifti1Image(voxels, np.diag([1.0, 1.5, spacing, 1.0])).to_filename(path)  # type: ignore[no-untyped-call]


def test_nifti_volumes_and_their_slices(folder: Path) -> None:
    voxels = np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3) - 20
    for name in "ab":
        nifti(folder / f"{name}.nii.gz", voxels)
        nifti(folder / f"{name}_gt.nii.gz", (voxels > 0).astype(np.uint8) + (voxels > 20))
    save(folder, "image,mask,patient,phase", "a.nii.gz,a_gt.nii.gz,ann,ED", "b.nii.gz,,bob,")
    data = build(folder, labels={"wall": 1, "cavity": 2})
    (first, second) = data.cases
    assert (first.name, first.patient, first.tags) == ("a", "ann", {"phase": "ED"})
    assert first.spacing_mm == (2.0, 1.5, 1.0)
    image, masks = first.read()
    assert (image.shape, image.dtype, masks.shape) == ((1, 3, 5, 4), np.int16, (2, 3, 5, 4))
    assert int(masks[1].sum()) == int((voxels > 20).sum())
    assert not second.has_masks
    slices = build(folder, labels={"wall": 1, "cavity": 2}, volumes=False)
    assert [case.name for case in slices.cases[:2]] == ["a/slice-001", "a/slice-002"]
    assert build(folder, labels={"wall": 1, "cavity": 2}, spacing_mm=[9.0, 1.0, 1.0]).cases[0].spacing_mm[0] == 9


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (lambda folder: nifti(folder / "b_gt.nii", np.zeros((4, 5, 3), np.uint8), 3.0), {}, "this mask does not lie"),
        (lambda folder: (folder / "b.nii").write_bytes(b"no"), {}, r"b\.nii: "),
        (lambda folder: save(folder, "image,mask", "a.nii,a_gt.nii", "t1/a.png,wall/a.png"), {}, "files and others"),
        (lambda folder: None, {"labels": {"wall": "#ff0000"}}, "labels: NIfTI label maps hold whole numbers, not"),
        (lambda folder: None, {"spacing_mm": [1.0, 1.0]}, "spacing_mm: of NIfTI volumes, three lengths"),
        (lambda folder: None, {"grey": False}, "grey: "),
    ],
)  # fmt: skip
def test_what_is_wrong_with_listed_volumes(
    folder: Path, change: Callable[[Path], Any], more: dict[str, Any], message: str
) -> None:
    for name in "ab":
        nifti(folder / f"{name}.nii", np.zeros((4, 5, 3), np.int16))
        nifti(folder / f"{name}_gt.nii", np.zeros((4, 5, 3), np.uint8))
    save(folder, "image,mask", "a.nii,a_gt.nii", "b.nii,b_gt.nii")
    change(folder)
    with pytest.raises(UserError, match=message):
        build(folder, **more)
