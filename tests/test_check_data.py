"""`segkit check DATA`: counts, kinds, what is wrong, and recipe lines that really read the folder."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import segkit
from segkit import UserError
from segkit.checks.data import DataReport, check_data
from segkit.testing.findings import Finding, count_kinds, grouped
from tests.all_cases import read_all
from tests.rvsc_like import patient, square


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


def read(report: DataReport) -> Any:
    """Build the dataset from the lines of recipe."""
    ((name, parameters),) = tomllib.loads(report.recipe)["data"].items()
    return read_all(segkit.datasets.build(name, parameters))


def texts(report: DataReport) -> str:
    return "\n".join(str(finding) for finding in report.findings)


def test_images_and_masks_in_folders_of_any_name(folder: Path) -> None:
    report = check_data(folder)
    assert report.layout == "image_folder"
    facts = report.facts
    assert (facts["images"], facts["patients"]) == ("4", "2")
    assert facts["sizes"] == "20 x 30 (4)"
    assert facts["mask levels"] == "0 (in 4), 1 (in 4), 2 (in 4)"
    assert report.findings == []
    assert len(read(report).cases) == 4
    assert read(report).channels == ("structure_1", "structure_2")


def test_every_fault_is_named_not_only_the_first(folder: Path) -> None:
    (folder / "pictures/p0/broken.png").write_bytes(b"\x89PNG")
    (folder / "labels/p0/broken.png").write_bytes((folder / "labels/p0/0.png").read_bytes())
    for name in ("pictures", "labels"):
        (folder / f"{name}/p0/again.png").write_bytes((folder / f"{name}/p0/0.png").read_bytes())
    (folder / "pictures/p0/bare.png").write_bytes((folder / "pictures/p0/0.png").read_bytes())
    (folder / "labels/p1/alone.png").write_bytes((folder / "labels/p0/0.png").read_bytes())
    cv2.imwrite(str(folder / "labels/p1/2.png"), np.zeros((5, 5), np.uint8))
    cv2.imwrite(str(folder / "labels/p1/3.png"), np.arange(600, dtype=np.uint16).reshape(20, 30))
    found = texts(check_data(folder))
    for expected in (
        "broken.png: a damaged image", "bare.png: has no mask", "alone.png: has no image",
        "the same image 2 times", "the mask has 5 x 5 pixels, its image has 20 x 30",
        "holds 600 levels: not a label map",
    ):  # fmt: skip
        assert expected in found


def test_real_data_in_the_challenges_layout() -> None:
    root = Path(os.environ.get("SEGKIT_TEST_DATA", Path(__file__).parents[2] / "shared/data")) / "sunnybrook"
    if not root.is_dir():
        pytest.skip(f"no real data: {root} is not there; name the folder that holds it by SEGKIT_TEST_DATA")
    report = check_data(root)
    assert report.layout == "rvsc"
    facts = report.facts
    assert (facts["images"], facts["patients"]) == ("28", "3")
    assert facts["spacing"] == "1.36719 x 1.36719 mm (18), 1.2891 x 1.2891 mm (10)"
    assert report.findings == []
    assert len(read(report).cases) == 28


def test_a_folder_of_no_known_layout(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    report = check_data(tmp_path)
    assert (report.layout, report.recipe) == ("unknown", "")
    assert "no known layout: no images (PNG, TIFF, JPEG, BMP, DICOM), but 1 .txt." in texts(report)
    with pytest.raises(UserError, match="no such folder"):
        check_data(tmp_path / "nowhere")


def write(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def pictures(root: Path, *names: str, masks: str = "masks", images: str = "images") -> None:
    """Write images of grey noise and masks of 0 and 255."""
    random = np.random.default_rng(0)
    for name in names:
        write(root / images / name, random.integers(0, 255, (20, 30), dtype=np.uint8))
        write(root / masks / name, np.uint8(255) * (random.random((20, 30)) > 0.5))


def test_names_of_masks_may_end_in_a_word(tmp_path: Path) -> None:
    pictures(tmp_path, "ISIC_1.png", "ISIC_2.png", images="Training_Input", masks="Training_GroundTruth")
    for number in (1, 2):
        mask = tmp_path / f"Training_GroundTruth/ISIC_{number}.png"
        mask.rename(mask.with_name(f"ISIC_{number}_segmentation.png"))
    report = check_data(tmp_path)
    assert (report.layout, report.facts["images"]) == ("image_folder", "2")
    assert len(read(report).cases) == 2


def test_faults_of_one_kind_are_one_line(tmp_path: Path) -> None:
    names = [f"p{number // 20:02}/{number:03}.png" for number in range(60)]
    pictures(tmp_path, *names)
    for name in names:
        write(tmp_path / "masks" / name, np.dstack([np.eye(20, 30, dtype=np.uint8) * 255] * 3))
    report = check_data(tmp_path)
    assert report.findings == []  # RGB with equal channels is grey
    assert len(read(report).cases) == 60
    for name in names:
        mask = np.eye(20, 30, dtype=np.uint8) * np.arange(20, dtype=np.uint8)[:, None]
        write(tmp_path / "masks" / name, np.dstack([mask, mask * 2, mask * 0]))
    report = check_data(tmp_path)
    assert len(report.findings) == 60
    (line,) = grouped(report.findings)
    assert line.startswith("fault, 60 times: a mask of 20 colours. Save it with one grey level per structure")
    assert line.endswith("masks/p00/004.png and 55 more.")
    assert count_kinds(report.findings) == "60 faults, 0 notes"


def test_what_reading_refuses_is_a_fault(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "b.png")
    write(tmp_path / "images/a.tif", np.zeros((20, 30), np.uint8))
    (tmp_path / "masks/b.png").unlink()
    write(tmp_path / "masks/b.jpg", np.kron(np.eye(2, 3, dtype=np.uint8), np.full((10, 10), 255, np.uint8)))
    found = {Path(str(finding.place)).name: finding.text for finding in check_data(tmp_path).findings}
    assert re.fullmatch(r"has the name of \S+a\.png\. Which one counts\? Remove the other\.", found["a.tif"])
    assert found["b.jpg"].endswith("not a label map. Was it scaled, or saved as JPEG?")


def test_findings_are_grouped_by_kind() -> None:
    found = [
        Finding("note", "left out.", "z"),
        Finding("warning", "astray.", "frame 1", "230 pixels"),
        Finding("fault", "holds 13 levels.", "a.png"),
        Finding("warning", "astray.", "frame 2", "518 pixels"),
        Finding("fault", "holds 99 levels.", "b.png"),
    ]
    assert list(grouped(found)) == [
        "fault, 2 times, e.g. a.png: holds 13 levels. Likewise b.png.",
        "warning, 2 times: astray. At frame 1 (230 pixels), frame 2 (518 pixels).",
        "note: z: left out.",
    ]
    assert count_kinds(found) == "2 faults, 2 warnings, 1 note"
    assert count_kinds(found[:1]) == "0 faults, 1 note"


def test_patients_that_cannot_be_identified_are_a_warning_that_says_what_to_do(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"anna{number // 3}_slice{number % 3}.png" for number in range(9)))
    report = check_data(tmp_path)
    (finding,) = report.findings
    assert finding.kind == "warning"
    assert finding.text.startswith("9 of 9 cases have no patient: they are split case by case.")
    assert "Give each patient a folder of images" in finding.text
    assert '# patient = "^([^_]+)_"  # 3 patients, e.g. anna0 of anna0_slice0? If so, use this line.' in report.recipe
    report.recipe = report.recipe.replace("# patient", "patient")
    assert {case.patient for case in read(report).cases} == {"anna0", "anna1", "anna2"}


def test_sets_are_no_patients(tmp_path: Path) -> None:
    pictures(tmp_path, "train/1.png", "train/2.png", "val/3.png")
    assert "the folders train, val are read as patients" in texts(check_data(tmp_path))
    pictures(tmp_path / "one", "ann/1.png", "ann/2.png")
    assert "all images are of one patient, ann" in texts(check_data(tmp_path / "one"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "is empty."),
        ([".DS_Store"], "is empty, but for 1 hidden file."),
        (["a/.keep"], "holds 1 folder, but no files."),
        (
            ["a/1.txt", "b.csv", "c.txt"],
            "no known layout: no images (PNG, TIFF, JPEG, BMP, DICOM), but 2 .txt, 1 .csv.",
        ),
        (
            ["1.nii", "2.nii.gz"],
            "2 NIfTI volumes, but none that the name of its file or folder shows to be the mask of another. Name masks",
        ),
        (["scan/1.mha"], "1 MetaImage volume; convert it to NIfTI, e.g. SimpleITK.WriteImage("),
        (
            ["training/patient001/Info.cfg", "training/patient001/patient001_frame01.nii.gz"],
            "the layout of ACDC (patient001/patient001_frame01.nii.gz): 1 NIfTI volume, but none that",
        ),
        (["1.png", "1_mask.png"], "images and masks are in one folder (1_mask is a mask): put the masks into another."),
        (["a/1.png", "b/1.png"], "a and b hold files of the same names. Which are masks? Call that folder masks."),
        (["1.dcm", "notes.txt"], "1 DICOM image, but no masks and no contours (PXXcontours-manual)."),
        (
            ["1.png"],
            "masks of the same names. Lay them out as images/PATIENT/1.png and masks/PATIENT/1.png, each mask named as "
            "its image; or list images and masks in a CSV, for the dataset table; or write a reader",
        ),
    ],
)
def test_folders_that_nothing_reads_are_named(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    report = check_data(tmp_path)
    (finding,) = report.findings
    assert (report.layout, report.recipe, finding.kind) == ("unknown", "", "fault")
    assert message in finding.text
    assert not any("inf" in text or text == "0" for text in report.facts.values())


def test_nothing_readable_is_no_fact(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(b"\x89PNG")
    report = check_data(tmp_path)
    assert report.facts == {"mask levels": "none"}
    assert report.recipe == ""
    (line,) = grouped(report.findings)
    assert "fault, 2 times: a damaged image: cut off. At " in line


def test_masks_that_show_nothing_or_no_whole_levels(tmp_path: Path) -> None:
    pictures(tmp_path, "p/1.tif", "q/2.tif")
    for name in ("p/1.tif", "q/2.tif"):
        write(tmp_path / "masks" / name, np.zeros((20, 30), np.uint8))
    report = check_data(tmp_path)
    assert texts(report) == "every mask is empty."
    assert len(read(report).cases) == 2
    write(tmp_path / "masks/p/1.tif", np.full((20, 30), 0.5, np.float32))
    assert "holds values that are not whole numbers" in texts(check_data(tmp_path))


def test_coloured_images_and_masks_are_read_by_the_lines_of_recipe(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pictures(tmp_path, "p/1.png", "q/2.png")
    wall, cavity = (0, 0, 255), (0, 255, 0)  # in OpenCV's order
    for name in ("p/1.png", "q/2.png"):
        write(tmp_path / "images" / name, random.integers(0, 255, (20, 30, 3), dtype=np.uint8))
        mask = np.full((20, 30, 3), 255, np.uint8)
        mask[3:9, 3:9], mask[11:15, 3:9] = wall, cavity
        write(tmp_path / "masks" / name, mask)
    report = check_data(tmp_path)
    assert count_kinds(report.findings) == "0 faults, 1 note"
    assert report.facts["mask colours"] == "#00ff00 (in 2), #ff0000 (in 2), #ffffff (in 2)"
    data = read(report)
    assert data.inputs == ("red", "green", "blue")
    assert [int(mask.sum()) for mask in data.cases[1].masks] == [24, 36]
    write(tmp_path / "masks/p/1.png", np.eye(25, 30, dtype=np.uint8)[..., None] * np.array([0, 0, 255], np.uint8))
    assert "masks/p/1.png: the mask has 25 x 30 pixels, its image has 20 x 30." in texts(check_data(tmp_path))
    write(tmp_path / "masks/p/1.png", np.eye(20, 30, dtype=np.uint8))
    assert "masks/q/2.png: a mask in colours, where others have grey levels." in texts(check_data(tmp_path))


def test_folders_of_further_inputs_are_suggested(tmp_path: Path) -> None:
    for images in ("T1", "T2"):
        pictures(tmp_path, "p/1.png", "q/2.png", images=images)
    report = check_data(tmp_path)
    line = '# images = { t1 = "T1", t2 = "T2" }  # 2 inputs of the same names? Then use this line.'
    assert line in report.recipe.splitlines()
    report.recipe = report.recipe.replace('images = "T1"\n', "").replace("# images", "images")
    assert read(report).inputs == ("t1", "t2")


def test_stacks_are_read_by_the_lines_of_recipe(tmp_path: Path) -> None:
    for name in ("p/1.tif", "q/2.tif"):
        for folder in ("images", "masks"):
            (tmp_path / folder / name).parent.mkdir(parents=True)
            pages = list(np.random.default_rng(ord(name[0])).integers(0, 2, (4, 20, 30), dtype=np.uint8))
            assert cv2.imwritemulti(str(tmp_path / folder / name), pages)
    report = check_data(tmp_path)
    assert report.findings == []
    assert report.facts["sizes"] == "4 x 20 x 30 (2)"
    assert read(report).cases[0].image.shape == (1, 4, 20, 30)
    assert cv2.imwritemulti(str(tmp_path / "masks/q/2.tif"), pages[:3])
    assert "2.tif: the mask has 3 x 20 x 30 pixels, its image has 4 x 20 x 30." in texts(check_data(tmp_path))


def test_coloured_images_are_noted_and_several_pairs_are_a_warning(tmp_path: Path) -> None:
    for number in (1, 2):
        pictures(tmp_path, f"{number}.png", f"{number}b.png", images=f"p{number}/images", masks=f"p{number}/masks")
    write(tmp_path / "p1/images/1.png", np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    report = check_data(tmp_path)
    assert Finding("note", "coloured images: red, green and blue become three inputs; grey = true makes one.") in (
        report.findings
    )
    assert "1 more pair of folders, which the lines below leave out: p2/images with p2/masks" in texts(report)


def test_what_cannot_be_looked_at_is_a_fault_and_the_rest_is_read(tmp_path: Path) -> None:
    pictures(tmp_path, "p/1.png", "q/2.png")
    (tmp_path / "images/p/bad\n.png").touch()
    (tmp_path / "images/q/loop").symlink_to(tmp_path)
    report = check_data(tmp_path)
    assert report.facts["images"] == "2"
    assert "images/p: the name 'bad\\n.png' contains a control character. Rename it." in texts(report)
    assert f"images/q/loop: a link to {tmp_path}, which is read already. Remove the link." in texts(report)


def test_frames_whose_inner_contour_leaves_the_outer_one(tmp_path: Path) -> None:
    folder = patient(tmp_path, 1, [20, 40])
    (folder / "P01contours-manual/P01-0040-icontour-manual.txt").write_text(square(12, 3, 20, 11))
    report = check_data(tmp_path)
    astray, _ = report.findings  # and one patient only
    assert astray.kind == "note"
    assert "the inner contour leaves the outer one, by 32 pixels" in astray.text
    assert astray.text.endswith("patient01/P01-0040 (32 pixels).")


def test_empty_pictures_of_several_patients_are_one_line(folder: Path) -> None:
    for name in ("p0/0", "p1/2", "p1/3"):
        cv2.imwrite(str(folder / f"pictures/{name}.png"), np.full((20, 30), 9, np.uint8))
    report = check_data(folder)
    (line,) = grouped(report.findings)
    assert line.startswith("warning, 3 times: an empty image: a single grey level.")


def test_the_same_picture_under_two_patients_names_is_a_fault(folder: Path) -> None:
    (folder / "pictures/p1/2.png").write_bytes((folder / "pictures/p0/0.png").read_bytes())
    (finding,) = check_data(folder).findings
    assert finding.kind == "fault"
    assert finding.text.startswith("the same image 2 times")
