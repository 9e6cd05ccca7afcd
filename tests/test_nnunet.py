"""Folders of nnU-Net and of the Medical Segmentation Decathlon, and what is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import segkit
from segkit import UserError
from segkit.checks.data import check_data
from segkit.components.datasets import Dataset
from segkit.components.datasets.reading import DatasetError
from segkit.recipe.model import Recipe
from tests.volumes import AFFINE, decathlon, grey, labels, nnunet, save

RECIPES = Path(__file__).parents[1] / "recipes"


def read(root: Path, **more: Any) -> Dataset:
    found: Dataset = segkit.datasets.build("nnunet", {"root": str(root), **more})
    return found


def change(root: Path, **changes: Any) -> None:
    """Change keys of the dataset.json, or take away those that are None."""
    path = root / "dataset.json"
    listing = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({k: v for k, v in listing.items() if v is not None}), encoding="utf-8")


def pictures(root: Path, colour: bool = False, **changes: Any) -> Path:
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)
    cv2.imwrite(str(root / "imagesTr/road_1_0000.png"), pixels[..., ::-1] if colour else pixels[..., 0])
    cv2.imwrite(str(root / "labelsTr/road_1.png"), (pixels[..., 0] > 99).astype(np.uint8))
    names = {"0": "R", "1": "G", "2": "B"} if colour else {"0": "photograph"}
    listing = {"channel_names": names, "labels": {"background": 0, "road": 1}, "file_ending": ".png", **changes}
    (root / "dataset.json").write_text(json.dumps(listing), encoding="utf-8")
    return root


def test_regions_and_inputs(tmp_path: Path) -> None:
    data = read(nnunet(tmp_path))
    assert (data.channels, data.inputs) == (("whole", "core", "enhancing"), ("T1", "T2"))
    assert [(case.name, case.patient) for case in data.cases] == [("case0", "case0"), ("case1", "case1")]
    image, masks = data.cases[1].read()
    assert masks is not None
    assert (image.shape, str(image.dtype), masks.shape) == ((2, 4, 5, 6), "int16", (3, 4, 5, 6))
    assert np.array_equal(image[1], grey(11).transpose(2, 1, 0))
    truth = labels(1).transpose(2, 1, 0)
    assert np.array_equal(masks, [truth > 0, truth > 1, truth == 3])
    assert data.cases[1].spacing_mm == (8, 1.5, 1.5)
    assert [path.name for path in data.cases[1].files] == ["case1_0000.nii.gz", "case1_0001.nii.gz", "case1.nii.gz"]


def test_slices_patients_and_other_structures(tmp_path: Path) -> None:
    root = nnunet(tmp_path)
    data = read(root, patient="case(.)", volumes=False, labels={"edema": 1, "core": [2, 3]})
    assert data.channels == ("edema", "core")
    assert [(case.name, case.patient) for case in data.cases[3:5]] == [
        ("case0/slice-004", "0"),
        ("case1/slice-001", "1"),
    ]
    image, masks = data.cases[4].read()
    assert masks is not None
    assert image.shape == (2, 5, 6)
    assert np.array_equal(masks[1], labels(1).transpose(2, 1, 0)[0] > 1)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    root = nnunet(tmp_path)
    (root / "labelsTr/case0.nii.gz").unlink()
    save(root / "imagesTs/case7_0000.nii.gz", grey())
    data = read(root)
    assert [case.has_masks for case in data.cases] == [False, True]
    assert any("imagesTs is not read" in note for note in data.notes)
    assert any("1 image without masks" in note and "case0" in note for note in data.notes)


@pytest.mark.parametrize("inputs", [1, 2])
def test_decathlon(tmp_path: Path, inputs: int) -> None:
    data = read(decathlon(tmp_path, inputs=inputs))
    assert data.channels == ("Anterior", "Posterior")
    assert data.inputs == (("MRI",) if inputs == 1 else ("MRI0", "MRI1"))
    assert [(case.name, case.patient) for case in data.cases] == [(f"hippocampus_00{n}",) * 2 for n in (1, 2)]
    image, masks = data.cases[1].read()
    assert masks is not None
    assert image.shape == (inputs, 4, 5, 6)
    stored = grey(1, (6, 5, 4, inputs) if inputs > 1 else (6, 5, 4)).reshape(6, 5, 4, inputs)
    assert np.array_equal(image, stored.transpose(3, 2, 1, 0))
    assert np.array_equal(masks[1], labels(1, most=2).transpose(2, 1, 0) == 2)


def test_first_version_of_nnunet(tmp_path: Path) -> None:
    """Its dataset.json lists CASE.nii.gz where the files are CASE_0000.nii.gz and so on."""
    root = decathlon(tmp_path, inputs=1)
    change(root, modality={"0": "T1", "1": "T2"})
    for path in list((root / "imagesTr").iterdir()):
        name = path.name.removesuffix(".nii.gz")
        path.rename(path.with_name(f"{name}_0000.nii.gz"))
        save(path.with_name(f"{name}_0001.nii.gz"), grey(99))
    data = read(root)
    assert data.inputs == ("T1", "T2")
    assert np.array_equal(data.cases[0].read()[0][1], grey(99).transpose(2, 1, 0))


def test_inputs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    assert read(nnunet(tmp_path, channel_names={"0": "noNorm", "1": "noNorm"})).inputs == ("noNorm-0", "noNorm-1")


def test_pictures(tmp_path: Path) -> None:
    image: Any
    case = read(pictures(tmp_path / "grey"), spacing_mm=[1.0, 0.5, 0.25]).cases[0]
    image, masks = case.read()
    assert case.spacing_mm == (0.5, 0.25)
    assert masks is not None
    assert (image.shape, masks.shape) == ((8, 9), (1, 8, 9))
    assert np.array_equal(masks[0], image > 99)
    picture = tmp_path / "grey/imagesTr/road_1_0000.png"
    picture.with_name("road_2_0000.png").write_bytes(picture.read_bytes())
    assert read(tmp_path / "grey").notes[0].startswith("1 image without masks")
    data = read(pictures(tmp_path / "colour", colour=True))
    coloured, _ = data.cases[0].read()
    assert (data.inputs, coloured.shape) == (("R", "G", "B"), (3, 8, 9))
    assert np.array_equal(coloured[0], image)


def test_inputs_of_pictures_called_by_their_colours_are_read_by_the_lines_of_check(tmp_path: Path) -> None:
    names = {"0": "red", "1": "green", "2": "blue"}
    report = check_data(pictures(tmp_path, colour=True, channel_names=names))
    assert (report.layout, tomllib.loads(report.recipe)) == ("nnunet", {"data": {"nnunet": {"root": str(tmp_path)}}})


def test_the_recipe_of_the_decathlon_reads_its_layout(tmp_path: Path) -> None:
    recipe = Recipe.load(RECIPES / "examples" / "decathlon.toml", sets=[f"data.nnunet.root={decathlon(tmp_path)}"])
    data = recipe.data()
    assert [case.has_masks for case in data.cases] == [True, True]
    image, _ = data.cases[0].read()
    assert image.shape == (1, 5, 4, 6)  # coronal


def other_mask(root: Path) -> None:
    save(root / "labelsTr/case0.nii.gz", labels(), AFFINE @ np.diag([1, 1, -1, 1]))


WRONG: list[tuple[str, Any, str]] = [
    ("no dataset.json", lambda r: (r / "dataset.json").unlink(), r"dataset.json: no such file.*it has: imagesTr, "),
    ("no JSON", lambda r: (r / "dataset.json").write_text("{"), "dataset.json: damaged: not valid JSON"),
    ("a list", lambda r: (r / "dataset.json").write_text("[]"), "dataset.json: damaged: it must be a table"),
    ("no inputs", lambda r: change(r, channel_names=None), 'dataset.json: damaged: "channel_names"'),
    ("a gap", lambda r: change(r, channel_names={"0": "a", "2": "b"}), "numbered from 0 without a gap, got 0, 2"),
    ("many inputs", lambda r: change(r, channel_names={str(n): "a" for n in range(99)}), "it names 99 inputs; at most"),
    ("no labels", lambda r: change(r, labels=None), 'damaged: "labels" must give the value'),
    ("a word as label", lambda r: change(r, labels={"background": 0, "a": 1.5}), "the label 'a' must be a whole"),
    ("background in a region", lambda r: change(r, labels={"a": [0, 1]}), "the label 'a' must be a whole number from"),
    ("nothing but background", lambda r: change(r, labels={"background": 0}), "name no structure beside"),
    ("one name twice", lambda r: change(r, labels={"0": "background", "1": "a", "2": "a"}), "each value a name of"),
    ("ignored parts", lambda r: change(r, labels={"background": 0, "a": 1, "ignore": 2}),
     'dataset.json: has the label "ignore": parts of the masks are not annotated'),
    ("other ending", lambda r: change(r, file_ending=".mha"), "files that end with '.mha' are not read. Convert"),
    ("no such files", lambda r: change(r, file_ending=".nii"), r"imagesTr: no file is called CASE_0000.nii\. The fol"),
    ("a missing input", lambda r: (r / "imagesTr/case0_0001.nii.gz").unlink(),
     r"case0_0000.nii.gz: its case lacks some of the 2 inputs of dataset.json, T1, T2 \(files _0000\)"),
    ("one more input", lambda r: save(r / "imagesTr/case0_0002.nii.gz", grey()), "files _0000, _0001, _0002"),
    ("no image", lambda r: save(r / "labelsTr/case9.nii.gz", labels()), "case9.nii.gz: a label map without image in"),
    ("no masks", lambda r: [path.unlink() for path in (r / "labelsTr").iterdir()],
     r"labelsTr: no file is called CASE.nii.gz, and training needs label maps\. The folder is empty"),
    ("other geometry", other_mask, "labelsTr/case0.nii.gz: this mask does not lie where its image does"),
    ("inputs of other shape", lambda r: save(r / "imagesTr/case0_0001.nii.gz", grey(shape=(6, 5, 3))),
     "case0_0001.nii.gz: this input does not lie where its image does.*6 x 5 x 4 voxels against 6 x 5 x 3"),
    ("unexpected value", lambda r: save(r / "labelsTr/case0.nii.gz", labels(most=5)),
     r"case0.nii.gz: holds unexpected values \(4, 5\)\. Known are 0 \(none\), 1 and 2 and 3 \(whole\).* Correct"),
    ("a time series", lambda r: save(r / "imagesTr/case0_0000.nii.gz", grey(shape=(6, 5, 4, 3))),
     "case0_0000.nii.gz: holds several volumes"),
    ("damage", lambda r: (r / "imagesTr/case0_0000.nii.gz").write_bytes(b"\x1f\x8b123"), "case0_0000.nii.gz: .*dama"),
    ("no list", lambda r: change(r, training={}), 'dataset.json: damaged: "training" must list'),
    ("a listed file is missing", lambda r: change(r, training=[{"image": "a.nii.gz", "label": "b.nii.gz"}]),
     "a.nii.gz: is not there, though dataset.json lists it"),
    ("a listed file is outside", lambda r: change(r, training=[{"image": "/etc/passwd", "label": "b.nii.gz"}]),
     "/etc/passwd: a link out of"),
]  # fmt: skip


@pytest.mark.parametrize("make, match", [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_folders(tmp_path: Path, make: Any, match: str) -> None:
    make(nnunet(tmp_path))
    with pytest.raises(UserError, match=match) as caught:
        [case.read() for case in read(tmp_path).cases]
    if isinstance(caught.value, DatasetError):
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"labels": {"a": 7}}, r"labels: 7 is no value of .*dataset.json. It has whole = \[1, 2, 3\]"),
        ({"patient": "("}, "patient: '\\(' is not a regular expression"),
        ({"patient": "x(.)"}, "case0_0000.nii.gz: patient = 'x\\(.\\)' finds no patient in 'case0'\\..*2 in all"),
    ],
)
def test_wrong_settings(tmp_path: Path, settings: Any, match: str) -> None:
    with pytest.raises(UserError, match=match):
        read(nnunet(tmp_path), **settings)


def test_a_4d_image_with_another_number_of_inputs(tmp_path: Path) -> None:
    root = decathlon(tmp_path, inputs=3)
    change(root, modality={"0": "a", "1": "b"})
    with pytest.raises(
        DatasetError, match=r"hippocampus_001.nii.gz: holds 3 inputs, where the data have 2 inputs: a, b\."
    ) as caught:
        read(root)
    assert len(str(caught.value).splitlines()) == 1


def test_pictures_that_do_not_fit(tmp_path: Path) -> None:
    root = pictures(tmp_path / "a")
    cv2.imwrite(str(root / "labelsTr/road_1.png"), np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match=r"road_1.png: the mask has 8 x 8 pixels, its image has 8 x 9"):
        read(root).cases[0].read()
    root = pictures(tmp_path / "b", channel_names={"0": "R", "1": "G", "2": "B"})
    image, _ = read(root).cases[0].read()
    assert np.array_equal(image[0], image[2])  # a grey file of three inputs
