"""Data that are wrong in one way each: one message that names the file and the remedy, and no traceback."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from segkit.cli import main
from segkit.recipe import toml
from tests.small import BASE, train
from tests.volumes import AFFINE, SHAPE, acdc, decathlon, grey, labels, nnunet, save
from tests.wrong_data import (
    CASES,
    Make,
    changed,
    cut,
    described,
    listed,
    moved,
    paint,
    pairs,
    pictures,
    series,
    stacks,
    table,
    with_nan,
    without,
    written,
)

NIFTI = {"images": "images/{patient}.nii.gz", "masks": "labels/{patient}.nii.gz"}
THREE = {"labels": {"a": 1, "b": 2, "c": 3}}
RESAMPLE = r"Resample the mask onto the image, or, if only the header is wrong, copy the image's"
LIKEWISE = r"Likewise \S+p2\.nii\.gz, \S+p3\.nii\.gz\."
ALL = r"The same holds for \S+p2\.nii\.gz, \S+p3\.nii\.gz: 3 in all\."
CSV: dict[str, Any] = {"table": {"file": "data/list.csv", "root": "data"}}
SETS = b"patient,set\np1,train\np2,validation\np3,test\n"
COLOURED = np.eye(20, 30, dtype=np.uint8)[..., None] * np.array([0, 0, 255], np.uint8)
CONTOUR = "patient01/P01contours-manual/P01-0000-icontour-manual.txt"

# What is wrong, the folder, and the message of `segkit check` on it.
CHECKED: list[tuple[str, Make, str]] = [
    ("masks of another shape",
     changed(pairs, lambda root: [save(root / f"labels/{n}.nii.gz", labels(0, (6, 5, 3))) for n in CASES]),
     rf"labels/p1\.nii\.gz: this mask does not lie .* 6 x 5 x 4 voxels against 6 x 5 x 3\)\. {RESAMPLE}.*{LIKEWISE}"),
    ("masks elsewhere", changed(pairs, moved), rf"labels/p1\.nii\.gz: .*up to 30 mm apart\)\. {RESAMPLE}.*{LIKEWISE}"),
    ("a mask of another spacing",
     changed(pairs, lambda root: save(root / "labels/p1.nii.gz", labels(0), AFFINE * [2, 2, 1, 1])),
     rf"spacing 1\.5 x 1\.5 x 8 mm against 3 x 3 x 8 mm.*\)\. {RESAMPLE}"),
    ("NaN", changed(pairs, with_nan), r"3 times: holds voxels that are not finite.*\(2 of 120\)\. Replace.*p3\.nii"),
    ("a time series",
     changed(pairs, lambda root: [save(root / f"images/{n}.nii.gz", grey(1, (*SHAPE, 5))) for n in CASES]),
     r"3 times: holds several volumes, .*\(6 x 5 x 4 x 5\)\. Split it into files.* \S+images/p3\.nii\.gz\."),
    ("an empty volume",
     changed(pairs, lambda root: save(root / "images/p1.nii.gz", grey(1), dim=[3, 6, 5, 0, 1, 1, 1, 1])),
     r"images/p1\.nii\.gz: a damaged NIfTI file: its header states no shape .*Export it again\."),
    ("a file that is cut off", changed(pairs, lambda root: cut(root / "images/p1.nii.gz", 200)),
     r"images/p1\.nii\.gz: a damaged NIfTI file: it is cut off\. Copy or download it again\."),
    ("a PNG called NIfTI",
     changed(pairs, lambda root: paint(root / "x.png", COLOURED).rename(root / "images/p1.nii.gz")),
     r"images/p1\.nii\.gz: not a NIfTI file, but a PNG picture\. Convert it, or leave it out\."),
    ("no whole numbers", changed(pairs, lambda root: save(root / "labels/p1.nii.gz", np.float32(labels(0)) / 2)),
     r"labels/p1\.nii\.gz: holds values that are not whole numbers \(59 of 120\)\. A label map holds whole numbers"),
    ("values below 0", changed(pairs, lambda root: save(root / "labels/p1.nii.gz", grey(0))),
     r"labels/p1\.nii\.gz: holds values that are no labels \(-995 to 994\)\. A label map holds whole numbers"),
    ("a mask without image", without(pairs, "images/p2.nii.gz"),
     r"labels/p2\.nii\.gz: a mask without image \(which matches 'images/\{patient\}\.nii\.gz'\)\. Add the image"),
    ("an input missing", without(lambda root: pairs(root, inputs=("_t1", "_t2")), "images/p2_t2.nii.gz"),
     r"images/p2_t1\.nii\.gz: its case has no file for images\.t2 \(images/\{patient\}_t2\.nii\.gz\)\. Add it, or"),
    ("inputs of different size",
     changed(lambda root: pairs(root, inputs=("_t1", "_t2")),
             lambda root: save(root / "images/p2_t2.nii.gz", grey(0, (6, 6, 4)))),
     r"images/p2_t2\.nii\.gz: this input does not lie .*6 x 5 x 4 voxels against 6 x 6 x 4\)\. Resample the input"),
    ("17 structures",
     changed(pairs, lambda root: save(root / "labels/p1.nii.gz", np.uint8(np.arange(120) % 18).reshape(SHAPE))),
     r"the masks hold 18 values, and at most 16 structures are read: name those that count in `labels`"),
    ("a phase that is no number", changed(acdc, lambda root: (root / "patient001/Info.cfg").write_text("ED: first\n")),
     r"patient001/Info\.cfg: a phase is no number of a frame \(ED: 'first'\)\. Write e\.g\. ED: 1\."),
    ("volumes without masks", lambda root: save(root / "a.nii.gz", grey(0)),
     r"data: 1 NIfTI volume, but none that the name .*Name masks case1_seg\.nii\.gz beside case1\.nii\.gz, or"),
    ("dataset.json missing", without(nnunet, "dataset.json"),
     r"data/dataset\.json: no such file\. Name the folder of one data set, which holds dataset\.json and imagesTr"),
    ("dataset.json damaged", changed(nnunet, lambda root: cut(root / "dataset.json", 60)),
     r"data/dataset\.json: damaged"),
    ("dataset.json without labels", lambda root: described(root, labels=None),
     r'data/dataset\.json: damaged: "labels" must give the value of each structure, as \{"background": 0'),
    ("dataset.json without inputs", lambda root: described(root, channel_names=None),
     r'data/dataset\.json: damaged: "channel_names" \(or "modality"\) must name the inputs, as \{"0": "CT"\}'),
    ("a region with the background", lambda root: described(root, labels={"background": 0, "whole": [0, 1]}),
     r"data/dataset\.json: damaged: the label 'whole' must be a whole number .*, or a list of them without 0"),
    ("an unknown file ending", lambda root: described(root, file_ending=".mha"),
     r"data/dataset\.json: files that end with '\.mha' are not read\. Convert them to one of \.nii, \.nii\.gz"),
    ("parts that are not annotated", lambda root: described(root, labels={"background": 0, "a": 1, "ignore": 2}),
     r'data/dataset\.json: has the label "ignore": .* Use complete masks, or leave out the cases and the label\.'),
    ("cases without the second input",
     without(lambda root: nnunet(root, 3), "imagesTr/case0_0001.nii.gz", "imagesTr/case1_0001.nii.gz"),
     r"2 times: its case lacks some of the 2 inputs .*Add the missing files.*case1_0000\S+$"),
    ("no folder of label maps", without(nnunet, "labelsTr"),
     r"labelsTr: no file is called CASE\.nii\.gz, and training needs label maps\. There is no such folder\."),
    ("4-D images with other inputs",
     changed(lambda root: decathlon(root, 3, 2), lambda root: listed(root, modality={"0": "T1", "1": "T2", "2": "x"})),
     r"3 times: holds 2 inputs, where the data have 3 inputs: T1, T2, x\. Correct.*_003\.nii\.gz\."),
    ("a listed file that is not there", without(lambda root: decathlon(root, 3), "imagesTr/hippocampus_002.nii.gz"),
     r"hippocampus_002\.nii\.gz: is not there, though dataset\.json lists it\. Add it, or take it out"),
    ("a value that dataset.json lacks",
     changed(lambda root: decathlon(root, 3), lambda root: listed(root, labels={"0": "background", "1": "a"})),
     r"3 times: holds unexpected values \(2\)\. Known are 0 \(none\), 1 \(a\)\. Correct the mask, or the labels in"),
    ("a table of files that are not there",
     lambda root: table(root, *(f"images/{name}.png,masks/p1/1.png," for name in "xyz")),
     r"list\.csv:5: the column 'image' names a file that is not there: 'images/x\.png'\. Paths are .*csv:7\."),
    ("a table that leads out of its folder",
     lambda root: paint(table(root, "../out.png,masks/p1/1.png,p1").parent / "out.png", COLOURED),
     r"list\.csv:5: the column 'image' leads out of \S+data: '\.\./out\.png'\. Nothing outside is read: copy the data"),
    ("a line twice", lambda root: table(root, "images/p1/1.png,masks/p1/1.png,p1"),
     r"list\.csv:5: the case 'images/p1/1' again, as in \S+csv:2\. Names must be unique\."),
    ("a stack of other pages than its mask",
     changed(stacks, lambda root: cv2.imwritemulti(str(root / "masks/p1.tif"), [COLOURED[..., 2]] * 3)),
     r"masks/p1\.tif: the mask has 3 x 20 x 30 pixels, its image has 4 x 20 x 30\."),
    ("a mask in colours", changed(pictures, lambda root: paint(root / "masks/p1/1.png", COLOURED)),
     r"masks/p1/1\.png: a mask in colours, where others have grey levels\."),
    ("a damaged contour",
     changed(lambda root: series(root, 0, 8, 16), lambda root: (root / CONTOUR).write_text("1 2\nx\n")),
     r"P01-0000-icontour-manual\.txt:2: 'x' is not a point; a line must be `x y`, in pixels\."),
    ("DICOM without masks",
     without(lambda root: series(root, 0, 8),
             *(f"patient0{n}/P0{n}{part}" for n in (1, 2) for part in ("contours-manual", "list.txt"))),
     r"data: 6 DICOM images, but no masks and no contours.* Convert each series and its masks to NIfTI \(dcm2niix\)"),
    ("MetaImage", lambda root: written(root / "a.mha"),
     r"data: 1 MetaImage volume; convert it to NIfTI, e\.g\. SimpleITK\.WriteImage\(SimpleITK\.ReadImage\("),
]  # fmt: skip

# What is wrong, the folder, the recipe's dataset, and the message of `segkit run`.
READ: list[tuple[str, Make, dict[str, Any], str]] = [
    ("a value of no structure", pairs, {"nifti": {**NIFTI, "labels": {"a": 1, "b": 2}}},
     rf"labels/p1\.nii\.gz: holds unexpected values \(3\)\. .*Add them to `labels`, or to `background`.*{ALL}"),
    ("several values without names", pairs, {"nifti": NIFTI},
     rf"p1\.nii\.gz: holds more values .*\(0, 1, 2, 3\)\. For several structures name their values: labels = .*{ALL}"),
    ("two files of a case", changed(pairs, lambda root: save(root / "images/p1.nii", grey(3))),
     {"nifti": {**NIFTI, **THREE, "images": "images/{patient}.nii*"}},
     r"images/p1\.nii\.gz: a second file of one case, beside \S+images/p1\.nii\. Which counts\? Remove one\."),
    ("a structure without mask", changed(pairs, lambda root: save(root / "wall/p1.nii.gz", labels(0))),
     {"nifti": {**NIFTI, "masks": {"wall": "wall/{patient}.nii.gz", "cavity": "labels/{patient}.nii.gz"}}},
     r"p2\.nii\.gz: its case has no file for masks\.wall .*where a structure is absent, an empty mask\..*: 2 in all"),
    ("masks of other names",
     changed(pairs, lambda root: [(root / f"labels/{n}.nii.gz").rename(root / f"labels/x{n}.nii.gz") for n in CASES]),
     {"nifti": NIFTI | THREE}, r"xp1\.nii\.gz: a mask without image .*Add the image, or remove it\..*: 3 in all\."),
    ("a pattern without fields", pairs, {"nifti": {"images": "images/p1.nii.gz", "masks": "labels/p1.nii.gz"}},
     r"images: 'images/p1\.nii\.gz' must be a path below `root` with at least one field, e\.g\. \{patient\}\.nii\.gz"),
    ("patterns of other fields", pairs, {"nifti": {**NIFTI, "masks": "labels/{case}.nii.gz"}},
     r"masks: 'labels/\{case\}\.nii\.gz' must have the fields of images = "),
    ("a pattern that nothing matches", pairs, {"nifti": {**NIFTI, "images": "image/{patient}.nii.gz"}},
     r"no file matches images = 'image/\{patient\}\.nii\.gz'\. It holds images/p1\.nii\.gz, .* and 1 more\."),
    ("17 structures named", pairs, {"nifti": NIFTI | {"labels": {f"s{number}": number for number in range(1, 18)}}},
     r"labels: names 17 channels; at most 16 are read\. Leave some out; .*count their values as `background`"),
    ("a table without column", lambda root: table(root, header="image,truth,patient"), CSV,
     r"list\.csv:1: has no column 'mask', which `mask` names; it has 'image', 'truth', 'patient'\."),
    ("lines of other length", lambda root: table(root, "images/p1/1.png,masks/p1/1.png"), CSV,
     r"list\.csv:5: has 2 cells, its header 3 cells\."),
    ("a table in another encoding",
     changed(table, lambda root: (root / "list.csv").write_bytes("image,mask,größe\n".encode("latin-1"))), CSV,
     r"list\.csv: not a text file: byte 13 cannot be decoded\. Save the table as CSV in UTF-8\."),
    ("a colour of no structure", changed(pictures, lambda root: paint(root / "masks/p1/1.png", COLOURED)),
     {"image_folder": {"labels": {"a": "#ffffff"}}},
     r"masks/p1/1\.png: holds unexpected values \(#ff0000\)\. Known are #000000 \(none\), #ffffff"),
    ("a level of no structure", pictures, {"image_folder": {"labels": {"a": 1}}},
     r"masks/p1/1\.png: holds unexpected values \(255\)\. Known are 0 \(none\), 1 \(a\)\. Add .*: 3 in all\."),
    ("masks of another size",
     changed(pictures, lambda root: [paint(root / f"masks/{n}/1.png", COLOURED[:9, :, 2]) for n in CASES]),
     {"image_folder": {"labels": {"a": 255}}},
     r"masks/p1/1\.png: the mask has 9 x 30 pixels, its image has 20 x 30\. The same holds .*: 3 in all\."),
    ("NIfTI for image_folder",
     changed(pairs, lambda root: (root / "labels").rename(root / "masks")), {"image_folder": {}},
     r"data/images: contains no images\. It contains NIfTI volumes; the datasets nifti and nnunet read NIfTI"),
    ("a series that lacks a slice", lambda root: series(root, 0, 8, 24), {"rvsc": {"volumes": True}},
     r"2 volumes left out, whose slices do not lie evenly: .* 8 mm from P01-0000\.dcm .* 16 mm\. Is a slice missing\?"),
    ("slices at one place", lambda root: series(root, 0, 8, 8), {"rvsc": {"volumes": True}},
     r"P01-0020\.dcm and \S+P01-0040\.dcm lie at one position\. Remove one of them\."),
]  # fmt: skip

# What is wrong, the folder, what a recipe says, and the message of `segkit run`, which may come from a trial.
TRAINED: list[tuple[str, Make, dict[str, Any], str]] = [
    ("a window upside down", pairs, {"intensity": {"window": {"low": 240, "high": -160}}},
     r"intensity\.window: low must be below high, got low = 240 and high = -160"),
    ("CLAHE after zscore", pairs, {"intensity": "zscore", "transforms": {"train": [{"CLAHE": {}}], "eval": []}},
     r'transforms\.train: CLAHE takes 8-bit images, and gets float32: set intensity = "percentile"'),
    ("slices of different size in a batch",
     changed(pairs, lambda root: (save(root / "images/p1.nii.gz", grey(0, (8, 8, 4))),
                                  save(root / "labels/p1.nii.gz", labels(0, (8, 8, 4))))), {},
     r"slice \d: . x . pixels after the transforms, .*add RandomCrop, PadIfNeeded or Resize to transforms\.train"),
    ("a patient in two sets", changed(pairs, lambda root: written(root / "sets.csv", SETS + b"p1,test\n")),
     {"split": {"file": "data/sets.csv"}},
     r"split\.file: data/sets\.csv:5: patient p1 is in the test set, but in the train set on line 2\."),
    ("a set of nobody", changed(pairs, lambda root: written(root / "sets.csv", SETS.replace(b"p3", b"p9"))),
     {"split": {"file": "data/sets.csv"}}, r"split: nifti has no patient or case called p9 \(nearest: p3\)\."),
    ("an empty test set", pairs, {"split": {"validation": 0.34, "test": []}},
     r"split\.test: must be a number, or a list of at least 1 value, got an empty list"),
    ("too few patients for a test set", pairs, {"split": {"validation": 0.5, "test": 0.5}},
     r"nifti: 1 patient outside of the test set cannot be split into 2 groups: training and validation"),
    ("a network for volumes", pairs, {"model": {"unet3d": {}}}, r"model\.unet3d: no such model\. Did you mean 'unet'"),
    ("regions as classes", nnunet, {"data": {"nnunet": {"root": "data"}}, "channels": "exclusive"},
     r'case0: its channels overlap, but the recipe says channels = "exclusive"\. Use "independent"\.'),
]  # fmt: skip


def call(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of a command that is run in a folder."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["segkit", *command.split()])
    with pytest.raises(SystemExit, match=r"^\d+$") as ended:
        main()
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return int(ended.value.code or 0), out, err


def test_there_are_enough_of_them() -> None:
    assert len(CHECKED) + len(READ) + len(TRAINED) >= 40


@pytest.mark.parametrize(("make", "message"), [row[1:] for row in CHECKED], ids=[row[0] for row in CHECKED])
def test_check_names_file_and_remedy(
    tmp_path: Path, make: Make, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "data")
    status, out, err = call("check data", tmp_path, monkeypatch, capsys)
    faults = [line for line in out.splitlines() if line.startswith("fault")]
    assert (status, len(faults), err) == (1, 1, "")
    assert re.search(message, faults[0]), faults[0]


@pytest.mark.parametrize(
    ("make", "tables", "message", "statuses"),
    [
        *((make, {"data": {name: {"root": "data", **given}}}, message, (2,))
          for _, make, ((name, given),), message in ((*row[:2], row[2].items(), row[3]) for row in READ)),
        *((*row[1:], (1, 2)) for row in TRAINED),
    ],
    ids=[row[0] for row in (*READ, *TRAINED)],
)  # fmt: skip
def test_run_names_file_and_remedy(
    tmp_path: Path,
    make: Make,
    tables: dict[str, Any],
    message: str,
    statuses: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(tmp_path / "data")
    plain = {"loss": {"dice": {}}, "transforms": {"train": [], "eval": []}, "train": {**BASE["train"], "epochs": 1}}
    data = {"data": {"nifti": {"root": "data", **NIFTI, **THREE}}}
    (tmp_path / "recipe.toml").write_text(toml.dumps({**BASE, **plain, **data, **tables}), encoding="utf-8")
    status, out, err = call("run recipe.toml --jobs 1", tmp_path, monkeypatch, capsys)
    said = err.splitlines() or [line for line in out.splitlines() if line.startswith("failed: ")]
    assert status in statuses
    assert len(said) <= 2
    assert re.search(message, said[0]), said


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with data of one input and of two, and a network trained on the first."""
    folder = tmp_path_factory.mktemp("trained")
    pairs(folder / "one")
    pairs(folder / "two", inputs=("_t1", "_t2"))
    for name in CASES:
        paint(folder / f"rgb/{name}.png", np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    data = {"nifti": {"root": str(folder / "one"), **NIFTI, **THREE}}
    plain = "transforms={ train = [], eval = [] }"
    train(folder / "runs/tiny", f"data={toml.format_value(data)}", plain, "train.epochs=1", "model.unet.widths=[2]")
    return folder


CHECKPOINT = "runs/tiny/only/seed-1/best.safetensors"
TWO = {"t1": "images/{patient}_t1.nii.gz", "t2": "images/{patient}_t2.nii.gz"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (f"eval {CHECKPOINT} --set data.nifti.root=two --set data.nifti.images={toml.format_value(TWO)}",
         r"best\.safetensors: takes image, but the data has t1, t2\. Both must have"),
        (f"eval {CHECKPOINT} --set data.nifti.labels.d=4",
         r"best\.safetensors: predicts a, b, c, but the data has a, b, c, d\. Both must"),
        (f"eval {CHECKPOINT} --set data.nifti.root=gone", "gone: no such folder"),
    ],
)  # fmt: skip
def test_a_checkpoint_says_what_it_was_trained_on(
    command: str, message: str, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.replace(" = ", "=").replace(", ", ",").replace("{ ", "{").replace(" }", "}")
    status, _, err = call(words, trained, monkeypatch, capsys)
    assert status == 2
    assert re.search(message, err), err
