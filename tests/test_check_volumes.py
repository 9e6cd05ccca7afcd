"""`segkit check` on folders of volumes, tables and scans: the lines that it prints read them."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import segkit
from segkit.checks.data import DataReport, check_data
from segkit.checks.volumes import guess_volumes
from segkit.testing.findings import grouped
from tests.all_cases import read_all
from tests.rvsc_like import dicom
from tests.volumes import AFFINE, acdc, decathlon, grey, labels, nnunet, save

NAMES = ("a", "b", "c")


def parameters(report: DataReport) -> dict[str, Any]:
    """Return the parameters of the reader that the lines of recipe name."""
    ((name, found),) = tomllib.loads(report.recipe)["data"].items()
    assert name == report.layout
    return dict(found)


def read(report: DataReport) -> Any:
    return read_all(segkit.datasets.build(report.layout, parameters(report)))


def texts(report: DataReport) -> list[str]:
    return list(grouped(report.findings))


# The files, with {} for the case's name; the patterns of images and masks.
LAYOUTS: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "mask beside image": (("{}.nii.gz", "{}_seg.nii.gz"), "{patient}.nii.gz", "{patient}_seg.nii.gz"),
    "mask with a number": (("{}.nii", "{}-label-1.nii"), "{patient}.nii", "{patient}-label-1.nii"),
    "two folders": (("images/{}.nii.gz", "labels/{}.nii.gz"), "images/{patient}.nii.gz", "labels/{patient}.nii.gz"),
    "two folders, other names": (
        ("ct/{}_ct.nii.gz", "masks/{}_mask.nii"), "ct/{patient}_ct.nii.gz", "masks/{patient}_mask.nii",
    ),
    "two folders of patients": (
        ("images/{}/scan.nii.gz", "labels/{}/scan.nii.gz"),
        "images/{patient}/scan.nii.gz", "labels/{patient}/scan.nii.gz",
    ),
    "folders in a patient's": (
        ("{}/images/x.nii.gz", "{}/masks/x.nii.gz"), "{patient}/images/x.nii.gz", "{patient}/masks/x.nii.gz",
    ),
    "BraTS": (
        ("{}/{}_flair.nii.gz", "{}/{}_t1.nii.gz", "{}/{}_seg.nii.gz"),
        {"flair": "{patient}/{patient}_flair.nii.gz", "t1": "{patient}/{patient}_t1.nii.gz"},
        "{patient}/{patient}_seg.nii.gz",
    ),
    "a folder an input": (
        ("T1/{}.nii.gz", "T2/{}.nii.gz", "truth/{}.nii.gz"),
        {"t1": "T1/{patient}.nii.gz", "t2": "T2/{patient}.nii.gz"}, "truth/{patient}.nii.gz",
    ),
    "names of their own": (("{}/t2.nii.gz", "{}/gt.nii.gz"), "{patient}/t2.nii.gz", "{patient}/gt.nii.gz"),
    "a folder of centres": (
        ("north/{}/t2.nii.gz", "north/{}/gt.nii.gz", "south/{}x/t2.nii.gz", "south/{}x/gt.nii.gz"),
        "{group}/{patient}/t2.nii.gz", "{group}/{patient}/gt.nii.gz",
    ),
    "a name that sounds like a mask": (
        ("segthor_{}/ct.nii.gz", "segthor_{}/gt.nii.gz"), "{patient}/ct.nii.gz", "{patient}/gt.nii.gz",
    ),
    "LiTS": (
        ("all/volume-1{}.nii", "all/segmentation-1{}.nii"),
        "all/volume-{patient}.nii", "all/segmentation-{patient}.nii",
    ),
    "BTCV": (
        ("img/img000{}.nii.gz", "label/label000{}.nii.gz"), "img/img{patient}.nii.gz", "label/label{patient}.nii.gz",
    ),
    "KiTS": (
        ("case_{}/imaging.nii.gz", "case_{}/segmentation.nii.gz"),
        "{patient}/imaging.nii.gz", "{patient}/segmentation.nii.gz",
    ),
    "visits": (
        ("p{}/p{}_visit1.nii", "p{}/p{}_visit1_seg.nii", "p{}/p{}_visit2.nii", "p{}/p{}_visit2_seg.nii"),
        "{patient}/{patient}_visit{visit}.nii", "{patient}/{patient}_visit{visit}_seg.nii",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "images", "masks"), LAYOUTS.values(), ids=LAYOUTS)
def test_patterns_are_found_and_read(tmp_path: Path, files: tuple[str, ...], images: Any, masks: str) -> None:
    for number, name in enumerate(NAMES):
        for index, file in enumerate(files):
            is_mask = any(word in file for word in ("_seg", "segmentation", "label", "mask", "truth", "gt."))
            path, seed = tmp_path / file.replace("{}", name), 10 * number + index
            save(path, labels(seed) if is_mask else grey(seed))
    report = check_data(tmp_path)
    found = parameters(report)
    assert (found["images"], found["masks"]) == (images, masks)
    assert found["labels"] == {"structure_1": 1, "structure_2": 2, "structure_3": 3}
    assert [finding for finding in report.findings if finding.kind == "fault"] == []
    cases = read(report).cases
    assert len(cases) == int(report.facts["images"])
    assert all(case.labelled and case.patient for case in cases)


def test_one_wrong_case_hides_neither_the_others_nor_their_faults(tmp_path: Path) -> None:
    for number, name in enumerate("abcdef"):
        save(tmp_path / f"{name}.nii", grey(number))
        save(tmp_path / f"{name}_seg.nii", labels(number))
    (tmp_path / "a.nii").unlink()
    save(tmp_path / "b_seg.nii", labels(0), AFFINE * 2)
    for name in "cd":
        save(tmp_path / f"{name}.nii", np.full((6, 5, 4), np.nan, np.float32))
    report = check_data(tmp_path)
    assert report.facts["images"] == "2"
    assert parameters(report)["images"] == "{patient}.nii"
    assert [re.sub(r"[^\s(]*/", "", text).partition(" (")[0] for text in texts(report)] == [
        "fault: a_seg.nii: a mask without image",
        "fault: b_seg.nii: this mask does not lie where its image does",
        "fault, 2 times: holds voxels that are not finite",
    ]


def test_a_picture_that_is_no_mask_is_one_fault_of_a_table(tmp_path: Path) -> None:
    random, rows = np.random.default_rng(0), ["image,mask"]
    for number in range(3):
        for name, most in (("x", 200), ("m", 2 if number else 90)):
            assert cv2.imwrite(str(tmp_path / f"{name}{number}.png"), random.integers(0, most, (9, 9), dtype=np.uint8))
        rows.append(f"x{number}.png,m{number}.png")
    (tmp_path / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    (fault, warning) = texts(check_data(tmp_path))
    assert re.fullmatch(r"fault: \S+m0\.png: holds \d+ levels: not a label map\. Was it scaled, .*", fault)
    assert "2 of 2 cases have no patient" in warning


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        save(tmp_path / f"data/{name}.nii", grey(number))
        save(tmp_path / f"data/{name}_seg.nii", labels(number, most=1))
    save(tmp_path / "secret.nii", labels(0, most=7))
    (tmp_path / "data/a_seg.nii").unlink()
    (tmp_path / "data/a_seg.nii").symlink_to(tmp_path / "secret.nii")
    report = check_data(tmp_path / "data")
    assert report.facts["mask levels"] == "0 (in 2), 1 (in 2)"
    assert any("a_seg.nii: a link out of" in text for text in texts(report))


def test_acdc_says_which_frames_are_of_which_phase(tmp_path: Path) -> None:
    report = check_data(acdc(tmp_path / "ACDC/training", 3).parent)
    assert parameters(report)["images"] == "training/{patient}/{patient}_frame{frame}.nii.gz"
    assert report.facts["tag phase"] == "ED (3), ES (3)"
    assert report.facts["spacing"] == "8 x 1.5 x 1.5 mm (6)"
    assert report.facts["in the cache"] == "about 0.0 MB with 8 bits a value"
    assert report.facts["mask levels"] == "0 (in 6), 1 (in 6), 2 (in 6), 3 (in 6)"
    assert texts(report) == [
        "note: 3 NIfTI files left out, which no pattern matches: training/patient001/patient001_4d.nii.gz, "
        "training/patient002/patient002_4d.nii.gz, training/patient003/patient003_4d.nii.gz."
    ]


def test_structures_and_inputs_of_dataset_json(tmp_path: Path) -> None:
    report = check_data(nnunet(tmp_path / "raw/Dataset001", 3).parent)
    assert parameters(report) == {"root": str(tmp_path / "raw/Dataset001")}
    assert report.facts["inputs"] == "T1, T2"
    assert report.facts["structures"] == "whole (in 3), core (in 3), enhancing (in 3)"
    assert "exclusive" not in report.recipe  # regions overlap
    decathlon(tmp_path / "raw/Task04", 3)
    assert "1 more data sets" in texts(check_data(tmp_path / "raw"))[0]


def test_what_is_never_labelled_needs_no_names(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        save(tmp_path / f"images/{name}.nii.gz", grey(number))
        save(tmp_path / f"labels/{name}.nii.gz", 255 * labels(number, most=1))
    (tmp_path / "labels/c.nii.gz").unlink()
    report = check_data(tmp_path)
    assert set(parameters(report)) == {"root", "images", "masks"}
    assert (report.facts["without masks"], report.facts["structures"]) == ("1", "foreground (in 2)")
    assert texts(report) == ["note: 1 image without masks, neither trained on nor evaluated: c."]


def test_a_window_is_suggested_for_ct_alone(tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        save(tmp_path / f"{name}.nii", grey(number) - 100)
        save(tmp_path / f"{name}_seg.nii", labels(number))
    assert "# [intensity.window]  # values down to -1" in check_data(tmp_path).recipe
    for number, name in enumerate(NAMES):
        save(tmp_path / f"{name}.nii", grey(number) + 1000)
    assert "intensity.window" not in check_data(tmp_path).recipe


def test_a_table_wins_over_guesses(tmp_path: Path) -> None:
    rows = ["T1 file;T2 file;tumour mask;Patient ID;centre"]
    for number, name in enumerate(NAMES):
        for part in ("t1", "t2"):
            save(tmp_path / f"x/{name}{part}.nii.gz", grey(number + 10 * (part == "t2")))
        save(tmp_path / f"x/{name}_seg.nii.gz", labels(number, most=1))
        rows.append(f"x/{name}t1.nii.gz;x/{name}t2.nii.gz;x/{name}_seg.nii.gz;{name};{'NS'[number % 2]}")
    (tmp_path / "all.csv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "ages.csv").write_text("patient,age\na,3\n", encoding="utf-8")
    report = check_data(tmp_path)
    assert parameters(report) == {
        "file": str(tmp_path / "all.csv"), "image": ["T1 file", "T2 file"], "mask": "tumour mask",
        "patient": "Patient ID",
    }  # fmt: skip
    assert report.facts["tag centre"] == "N (2), S (1)"
    assert read(report).inputs == ("T1 file", "T2 file")


def test_a_table_of_sets_is_suggested(tmp_path: Path) -> None:
    sets = ("train", "train", "test")
    rows = ["image,mask,patient,set"]
    for number, (name, kind) in enumerate(zip(NAMES, sets, strict=True)):
        save(tmp_path / f"images/{name}.nii.gz", grey(number))
        save(tmp_path / f"labels/{name}.nii.gz", labels(number, most=1))
        rows.append(f"images/{name}.nii.gz,labels/{name}.nii.gz,{name},{kind}")
    assert "split" not in check_data(tmp_path).recipe
    challenge = tmp_path / "split.csv"
    challenge.write_text("patient,fold\na,1\nb,2\nc,1\n", encoding="utf-8")
    assert f'for folds. Use it, or they are drawn by lot\n# file = "{challenge}"\n' in check_data(tmp_path).recipe
    challenge.write_text("\n".join(rows), encoding="utf-8")
    report = check_data(tmp_path)
    assert report.layout == "table"
    suggested = report.recipe.partition("# [split]")[2].splitlines()
    assert suggested[0].endswith("for train, test. Use it, or they are drawn by lot")
    assert suggested[1:] == [f'# file = "{challenge}"']


def test_a_structure_that_no_mask_holds_is_warned_of(tmp_path: Path) -> None:
    root = nnunet(tmp_path / "raw", 3)
    text = (root / "dataset.json").read_text()
    document = json.loads(text)
    document["labels"]["lost"] = 9
    document.get("regions_class_order", []).append(9)
    (root / "dataset.json").write_text(json.dumps(document))
    assert "warning: no mask holds lost. Is its value right?" in texts(check_data(root))


def test_series_without_masks_are_described(tmp_path: Path) -> None:
    for index in range(4):
        place: dict[str, Any] = {
            "ImagePositionPatient": [0, 0, 5.0 * index],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        }
        pixels = np.full((20, 30), index, np.uint16)
        (tmp_path / f"IM{index}").write_bytes(dicom(pixels, SeriesInstanceUID="1.2", SliceThickness=5, **place))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out").symlink_to("/etc/hostname")
    report = check_data(tmp_path)
    assert (report.facts["series"], report.facts["sizes"]) == ("1", "4 x 20 x 30 (1)")
    assert report.facts["spacing"] == "5 x 1.25 x 1.5 mm (1)"
    assert any(
        "DICOM series, but no masks. Convert each series and its masks to NIfTI" in text for text in texts(report)
    )


@pytest.mark.parametrize(
    "files",
    [
        ["{a}_seg.nii", "{a}.nii"],  # braces would be fields
        ["{b}/a_seg.nii", "{b}/a.nii"],
        ["labels/a.nii"],
        ["img1.nii", "mask2.nii"],
        ["a_liver_seg.nii", "a_kidney_seg.nii"],
        ["seg.nii", "t1.nii"],  # no name could tell patients apart
        [],
    ],
)
def test_names_that_say_nothing_make_no_guess(files: list[str]) -> None:
    assert guess_volumes(Path("/x"), files) is None


def test_guessing_takes_no_longer_than_the_files_are_many() -> None:
    files = [f"images/case_{number:05}.nii.gz" for number in range(20_000)]
    files += [file.replace("images", "labels") for file in files]
    guess = guess_volumes(Path("/x"), files)
    assert guess is not None
    assert len(guess.masks) == 20_000
