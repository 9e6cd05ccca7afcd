"""Predictions: images among files and folders, and files that lie where the image does, without losing a pixel."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
import tifffile
import torch
from torch import nn

import segkit
from segkit import UserError
from segkit.cli import main
from segkit.components.datasets.conventions import label_values
from segkit.components.datasets.finding import Found, find_scans
from segkit.components.datasets.formats.dicom_series import affine_of, find_series
from segkit.components.datasets.formats.nifti_files import read_geometry
from segkit.data.cache import DataCache
from segkit.device import choose
from segkit.evaluation.outputs import Outputs, sheet, shown_slices
from segkit.evaluation.predictor import Predictor
from segkit.evaluation.rows import Row
from tests.rvsc_like import dicom
from tests.small import recipe, train
from tests.test_dicom_series import write as write_series
from tests.volumes import acdc, load, nnunet, save

WALL, CAVITY = 40, 90  # grey levels
ORIENTATIONS = ("LPS", "RAS", "PIR", "ASL", "RSP", "IPL")
NIFTI = (
    'data={nifti={root="x", images="{patient}_im.nii.gz", masks="{patient}_gt.nii.gz", labels={wall=3, cavity=300}}}'
)


class Bands(nn.Module):
    """Channel c is where input c (or the only one) has the level c of a list."""

    def __init__(self, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels, dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 5 * (0.5 - (image - self.levels[:, None, None]).abs())


def predictor(
    *sets: str,
    inputs: tuple[str, ...] = ("image",),
    channels: tuple[str, ...] = ("wall", "cavity"),
    overlap: bool = False,
    trained_on_overlap: bool = False,
) -> Predictor:
    """Return a model that knows its structures by their grey levels."""
    made = recipe("transforms.eval=[]", "intensity='none'", *(sets or (NIFTI,)))
    levels = (WALL, WALL if overlap else CAVITY)[: len(channels)]
    unit = {"mean": [0.0] * len(inputs), "std": [1.0] * len(inputs)}
    meta = {"inputs": list(inputs), "overlapping": trained_on_overlap, "normalization": unit, "threads": 1}
    return Predictor(Bands(levels).eval(), made, channels, meta, choose("cpu", "float32"), {})


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_a_checkpoint_computes_as_deterministically_as_its_training(deterministic: str) -> None:
    """Torch interpolates by other code on a GPU where it has to be deterministic."""
    model, before = predictor(NIFTI, f"train.deterministic={deterministic}"), torch.backends.cudnn.benchmark
    with model.as_trained():
        assert torch.are_deterministic_algorithms_enabled() is (deterministic == "true")
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark is before


def found_by(model: Predictor, *given: Path, out: Path = Path("nowhere")) -> Found:
    return find_scans(given, Outputs(model, out).conventions(), out)


def written(model: Predictor, given: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Return what was written of the images, by name."""
    outputs = Outputs(model, out, **options)
    found = find_scans([given], outputs.conventions(), out)
    assert not found.problems
    made = {}
    for scan in found.scans:
        opened = scan.read()
        made[scan.name] = outputs.write(scan.name, opened, model.infer(opened.image, opened.spacing_mm))
    return made


def levels(seed: int, shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(seed).choice(np.array([0, WALL, CAVITY], np.int16), shape)


def oriented(voxels: Any, codes: str, affine: Any) -> tuple[Any, Any]:
    """Return voxels and affine with axes that run as the codes say."""
    image: Any = nibabel.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]
    start = nibabel.orientations.io_orientation(affine)  # type: ignore[no-untyped-call]
    end = nibabel.orientations.axcodes2ornt(codes)  # type: ignore[no-untyped-call]
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(start, end))  # type: ignore[no-untyped-call]
    return np.asarray(turned.dataobj), turned.affine


def oblique() -> Any:
    """Return an affine that is rotated by 20 degrees about x, with 1.5 x 1.25 x 8 mm."""
    cosine, sine = np.cos(0.35), np.sin(0.35)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[-1, 0, 0], [0, -cosine, -sine], [0, -sine, cosine]]) @ np.diag([1.5, 1.25, 8])
    affine[:3, 3] = 10, 20, -30
    return affine


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_label_map_lies_voxel_by_voxel_where_its_image_does(tmp_path: Path, codes: str, ending: str) -> None:
    voxels, affine = oriented(levels(1, (7, 6, 3)), codes, oblique())
    path = save(tmp_path / f"in/scan{ending}", voxels, affine, xyzt_units=2, descrip=b"kept")
    sizes = written(predictor(), path, tmp_path / "out")["scan"].sizes
    image, found = load(path), load(tmp_path / f"out/scan{ending}")
    assert found.shape == image.shape
    assert np.array_equal(found.affine, image.affine)
    assert nibabel.aff2axcodes(found.affine) == tuple(codes)  # type: ignore[no-untyped-call]
    assert found.header.get_zooms() == image.header.get_zooms()
    assert (found.header["xyzt_units"], found.header["descrip"]) == (2, b"kept")
    for name in ("sform_code", "qform_code"):
        assert found.header[name] == image.header[name]
    labels = np.asarray(found.dataobj)
    assert np.array_equal(labels, np.where(voxels == WALL, 3, np.where(voxels == CAVITY, 300, 0)))
    assert labels.dtype == np.uint16  # as 300 needs
    assert sizes == {"wall": (voxels == WALL).sum(), "cavity": (voxels == CAVITY).sum()}
    assert json.loads((tmp_path / "out/labels.json").read_text()) == {"wall": 3, "cavity": 300}


def test_parts_are_measured_with_the_spacing_of_the_training(tmp_path: Path) -> None:
    voxels = np.zeros((9, 8, 4), np.int16)
    voxels[0:2, 0:2, 0] = voxels[6, 5, 2] = WALL
    path = save(tmp_path / "in/scan.nii.gz", voxels, np.diag([1.5, 1.25, 8, 1]))  # 0.015 ml a voxel
    small = "evaluation.postprocess=[{remove_small={size=0.05,unit='ml'}}]"
    for sets, size in (((), 4), (("data.nifti.spacing_mm=[8,4,4]",), 5), (("data.nifti.spacing_mm=[1,1,1]",), 0)):
        assert written(predictor(NIFTI, small, *sets), path, tmp_path / "out")["scan"].sizes["wall"] == size
    flat = predictor(NIFTI, small.replace("ml", "mm2"))
    cv2.imwrite(str(tmp_path / "flat.png"), voxels[..., 0].astype(np.uint8))
    with pytest.raises(UserError, match="remove_small: unit: the data state no spacing"):
        written(flat, tmp_path / "flat.png", tmp_path / "out")
    assert flat.segment(voxels[..., 0], (0.1, 0.2))[0].sum() == 4
    write_series(tmp_path / "series", np.zeros((3, 6, 5), np.uint16))
    assert found_by(flat, tmp_path / "series").scans[0].read().spacing_mm == pytest.approx((2.5, 1.25, 1.5))


def test_where_masks_overlap_each_structure_has_one_and_no_label_map_is_left(tmp_path: Path) -> None:
    voxels = levels(2, (7, 6, 3))
    path = save(tmp_path / "in/scan.nii.gz", voxels)
    assert not written(predictor(), path, tmp_path / "out")["scan"].overlapping
    result = written(predictor(overlap=True), path, tmp_path / "out")["scan"]
    assert (result.overlapping, result.target) == (True, str(tmp_path / "out/scan-*.nii.gz"))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "labels.json", "scan-cavity.nii.gz", "scan-overlay.png", "scan-wall.nii.gz",
    ]  # fmt: skip
    for name in ("wall", "cavity"):
        mask = load(tmp_path / f"out/scan-{name}.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        assert np.array_equal(np.asarray(mask.dataobj), voxels == WALL)
    written(predictor(), path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("scan-wall*"))


def test_a_model_whose_training_masks_overlap_gives_every_image_one_mask_a_structure(tmp_path: Path) -> None:
    path = save(tmp_path / "in/scan.nii.gz", levels(2, (7, 6, 3)))
    assert written(predictor(trained_on_overlap=True), path, tmp_path / "out")["scan"].overlapping


def test_probabilities_lie_where_the_image_does(tmp_path: Path) -> None:
    voxels, affine = oriented(levels(3, (7, 6, 3)), "PIR", oblique())
    path = save(tmp_path / "in/scan.nii.gz", voxels, affine)
    written(predictor(), path, tmp_path / "out", probabilities=True)
    for name, level in (("wall", WALL), ("cavity", CAVITY)):
        found = load(tmp_path / f"out/scan-{name}-probability.nii.gz")
        assert (found.get_data_dtype(), np.array_equal(found.affine, load(path).affine)) == (np.float32, True)
        assert np.array_equal(np.asarray(found.dataobj) >= 0.5, voxels == level)
    cv2.imwrite(str(tmp_path / "flat.png"), levels(3, (9, 8)).astype(np.uint8))
    written(predictor(), tmp_path / "flat.png", tmp_path / "out", probabilities=True)
    flat: Any = tifffile.imread(tmp_path / "out/flat-wall-probability.tif")
    assert (flat.dtype, flat.shape) == (np.float32, (9, 8))
    assert np.array_equal(flat >= 0.5, levels(3, (9, 8)) == WALL)


def test_a_dicom_series_becomes_nifti_where_the_series_lies(tmp_path: Path) -> None:
    pixels = levels(4, (4, 6, 5)).astype(np.uint16)
    files = write_series(tmp_path / "in/series", pixels)
    found = written(predictor(), tmp_path / "in", tmp_path / "out")
    assert list(found) == ["series"]
    image = load(tmp_path / "out/series.nii.gz")
    assert image.shape == (5, 6, 4)
    assert np.allclose(image.affine, affine_of(find_series(files)[0]), atol=1e-4)
    assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    assert image.header.get_zooms() == pytest.approx((1.5, 1.25, 2.5), abs=1e-5)
    labels = np.asarray(image.dataobj).T
    assert np.array_equal(labels == 3, pixels == WALL)
    assert np.array_equal(labels == 300, pixels == CAVITY)
    assert list(written(predictor(), tmp_path / "in/series", tmp_path / "two")) == ["series"]
    assert [scan.name for scan in found_by(predictor(), *files).scans] == ["series"]  # as a shell lists them


def test_a_sheared_dicom_series_keeps_its_shear(tmp_path: Path) -> None:
    shifted = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    files = write_series(
        tmp_path / "tilted", levels(4, (4, 6, 5)).astype(np.uint16),
        lambda index: shifted | {"ImagePositionPatient": [0, 0.5 * index, 3 * index]},
    )  # fmt: skip
    written(predictor(), tmp_path / "tilted", tmp_path / "out")
    assert np.allclose(load(tmp_path / "out/tilted.nii.gz").affine, affine_of(find_series(files)[0]), atol=1e-4)


def test_dicom_images_that_make_no_volume_are_predicted_one_by_one(tmp_path: Path) -> None:
    pixels = levels(4, (3, 6, 5)).astype(np.uint16)
    write_series(tmp_path / "gap", pixels, lambda index: {"ImagePositionPatient": [0, 0, [0, 1, 5][index]],
                                                         "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]})  # fmt: skip
    found = found_by(predictor(), tmp_path / "gap")
    assert [scan.name for scan in found.scans] == ["001", "002", "003"]
    (note,) = found.notes
    assert "slices at unequal distances" in note
    assert note.endswith("Its images are predicted one by one.")
    for number in range(3):
        path = tmp_path / f"xrays/IM{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(dicom(pixels[0], SeriesInstanceUID="1.2.3", InstanceNumber=number))
    result = written(predictor(), tmp_path / "xrays", tmp_path / "out")
    assert list(result) == ["IM0", "IM1", "IM2"]
    labels: Any = cv2.imread(str(tmp_path / "out/IM0.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(labels == 3, pixels[0] == WALL)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".dcm"])
def test_a_picture_has_a_png_of_its_size(tmp_path: Path, ending: str) -> None:
    pixels = levels(5, (9, 8)).astype(np.uint8)
    path = tmp_path / f"in/a{ending}"
    path.parent.mkdir()
    path.write_bytes(dicom(pixels) if ending == ".dcm" else cv2.imencode(ending, pixels)[1].tobytes())
    written(predictor("data={image_folder={root='x', labels={wall=7, cavity=8}}}"), path, tmp_path / "out")
    labels: Any = cv2.imread(str(tmp_path / "out/a.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(labels, np.where(pixels == WALL, 7, np.where(pixels == CAVITY, 8, 0)))
    overlay: Any = cv2.imread(str(tmp_path / "out/a-overlay.png"))
    assert overlay.shape == (18, 16, 3)


def test_one_structure_without_a_value_is_white_in_pictures_and_1_in_volumes(tmp_path: Path) -> None:
    model = predictor("data={image_folder={root='x'}}", channels=("foreground",))
    pixels = levels(6, (7, 6, 3))
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), pixels[..., 0].astype(np.uint8))
    save(tmp_path / "in/b.nii", pixels)
    written(model, tmp_path / "in", tmp_path / "out")
    picture: Any = cv2.imread(str(tmp_path / "out/a.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(picture, (pixels[..., 0] == WALL) * 255)
    assert np.array_equal(np.asarray(load(tmp_path / "out/b.nii").dataobj), pixels == WALL)
    assert not (tmp_path / "out/labels.json").exists()


def test_a_stack_has_a_stack_of_its_pages(tmp_path: Path) -> None:
    pages = levels(7, (4, 9, 8)).astype(np.uint8)
    (tmp_path / "stack.tif").write_bytes(cv2.imencodemulti(".tif", list(pages))[1].tobytes())
    written(predictor(), tmp_path / "stack.tif", tmp_path / "out", probabilities=True)
    assert np.array_equal(tifffile.imread(tmp_path / "out/stack.tif") == 300, pages == CAVITY)
    assert np.array_equal(tifffile.imread(tmp_path / "out/stack-wall-probability.tif") >= 0.5, pages == WALL)


SEVERAL = (
    'data={nifti={root="x", images={t1="{patient}/t1.nii.gz", t2="{patient}/t2.nii.gz"}, masks="{patient}/gt.nii.gz"}}'
)


def test_inputs_come_together_by_patterns_numbers_folders_or_in_one_file(tmp_path: Path) -> None:
    one, two = levels(8, (7, 6, 3)), levels(9, (7, 6, 3))
    inputs = ("t1", "t2")
    for patient in ("ann", "bob"):
        save(tmp_path / f"patterns/{patient}/t1.nii.gz", one)
        save(tmp_path / f"patterns/{patient}/t2.nii.gz", two)
        save(tmp_path / f"patterns/{patient}/gt.nii.gz", one)
        save(tmp_path / f"numbers/{patient}_0000.nii.gz", one)
        save(tmp_path / f"numbers/{patient}_0001.nii.gz", two)
        save(tmp_path / f"whole/{patient}.nii.gz", np.stack([one, two], axis=-1))
        for name, voxels in (("t1", one), ("t2", two)):
            (tmp_path / f"folders/{name}").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / f"folders/{name}/{patient}.png"), voxels[..., 0].astype(np.uint8))
    for name, sets in (
        ("patterns", SEVERAL), ("numbers", SEVERAL), ("whole", SEVERAL),
        ("folders", "data={image_folder={root='x', images={t1='t1', t2='t2'}, labels={wall=1, cavity=2}}}"),
    ):  # fmt: skip
        model = predictor(sets, inputs=inputs)
        sizes = {case: found.sizes for case, found in written(model, tmp_path / name, tmp_path / f"{name}-out").items()}
        if name == "whole":
            assert load(tmp_path / "whole-out/ann-wall.nii.gz").shape == one.shape
        part = slice(1) if name == "folders" else slice(None)
        expected = {"wall": (one[..., part] == WALL).sum(), "cavity": (two[..., part] == CAVITY).sum()}
        assert sizes == {"ann": expected, "bob": expected}, name


def test_an_image_of_other_inputs_says_what_the_model_takes(tmp_path: Path) -> None:
    path = save(tmp_path / "one.nii.gz", levels(1, (7, 6, 3)))
    model = predictor(SEVERAL, inputs=("t1", "t2"))
    (scan,) = found_by(model, path).scans
    with pytest.raises(
        UserError, match=r"one\.nii\.gz: is an image of 1 input; the model takes 2 inputs: t1, t2\. Give"
    ):
        scan.read()
    (scan,) = found_by(predictor(), save(tmp_path / "four.nii.gz", levels(1, (7, 6, 3, 2)))).scans
    with pytest.raises(UserError, match=r"four\.nii\.gz: holds several volumes"):
        scan.read()
    for index in (0, 2):
        save(tmp_path / f"gap/a_{index:04d}.nii.gz", levels(1, (7, 6, 3)))
    (problem,) = found_by(model, tmp_path / "gap").problems
    assert "takes 2 inputs: t1, t2 (its files are a_0000.nii.gz, a_0002.nii.gz)" in str(problem)
    grey = np.zeros((8, 8), np.uint8)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    (scan,) = found_by(predictor(inputs=("t1", "t2", "flair")), tmp_path / "grey.png").scans
    with pytest.raises(UserError, match=r"grey\.png: is an image of 1 input; the model takes 3 inputs: t1, t2, flair"):
        scan.read()
    write_series(tmp_path / "series")
    (scan,) = found_by(model, tmp_path / "series").scans
    with pytest.raises(UserError, match=r"series: is an image of 1 input; the model takes 2 inputs"):
        scan.read()


def test_files_that_make_no_image_say_why(tmp_path: Path) -> None:
    (tmp_path / "brain.mha").touch()
    (scan,) = found_by(predictor(), tmp_path / "brain.mha").scans
    with pytest.raises(UserError, match=r"brain\.mha: a MetaImage volume, which is not read\. Convert it to NIfTI"):
        scan.read()
    pixels = levels(1, (9, 8)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a_0000.png"), pixels)
    model = predictor(SEVERAL, inputs=("t1", "t2"))
    save(tmp_path / "a_0001.nii.gz", levels(1, (9, 8, 1)))
    (scan,) = found_by(model, tmp_path / "a_0000.png", tmp_path / "a_0001.nii.gz").scans
    with pytest.raises(UserError, match=r"a_0001\.nii\.gz: NIfTI, though other inputs of its image are not"):
        scan.read()
    cv2.imwrite(str(tmp_path / "a_0001.png"), pixels[1:])
    (scan,) = found_by(model, tmp_path / "a_0000.png", tmp_path / "a_0001.png").scans
    with pytest.raises(UserError, match=r"a_0001\.png: the image has 8 x 8 pixels, \S+a_0000\.png has 9 x 8"):
        scan.read()
    (problem,) = found_by(model, tmp_path / "a_0000.png", tmp_path / "a_0001.png", tmp_path / "a_0001.nii.gz").problems
    assert "a_0001.nii.gz: a second file of one image, beside" in str(problem)
    film = tmp_path / "film.dcm"
    film.write_bytes(dicom(pixels, frames=[pixels.tobytes()] * 3, NumberOfFrames=3))
    found = found_by(predictor(), film)
    assert not found.scans
    assert [str(problem) for problem in found.problems] == [
        f"{film}: 3 frames without positions, nor a distance between them: a film, not a volume. Leave it out, or "
        "export its frames one by one."
    ]


def test_an_enhanced_dicom_file_is_a_volume(tmp_path: Path) -> None:
    pixels = levels(4, (3, 6, 5)).astype(np.uint16)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/ct.dcm").write_bytes(dicom(pixels.reshape(-1, 5), Rows=6, NumberOfFrames=3, SpacingBetweenSlices=4))
    written(predictor(), tmp_path / "in", tmp_path / "out")
    image = load(tmp_path / "out/ct.nii.gz")
    assert image.header.get_zooms() == (1.5, 1.25, 4)
    assert np.array_equal(np.asarray(image.dataobj).T == 300, pixels == CAVITY)


def test_a_flat_nifti_file_stays_flat(tmp_path: Path) -> None:
    pixels = levels(4, (9, 8))
    path = save(tmp_path / "flat.nii.gz", pixels)
    written(predictor(), path, tmp_path / "out")
    image = load(tmp_path / "out/flat.nii.gz")
    assert image.shape == (9, 8)
    assert np.array_equal(image.affine, load(path).affine)
    assert np.array_equal(np.asarray(image.dataobj) == 3, pixels == WALL)


def test_a_model_of_colours_takes_pictures_in_colours_and_grey_ones(tmp_path: Path) -> None:
    colours = np.stack([np.full((8, 8), level, np.uint8) for level in (1, 2, 3)], axis=-1)
    cv2.imwrite(str(tmp_path / "a.png"), colours[..., ::-1])
    cv2.imwrite(str(tmp_path / "b.png"), colours[..., 0])
    model = predictor("data={image_folder={root='x'}}", inputs=("red", "green", "blue"))
    first, second = (scan.read() for scan in found_by(model, tmp_path).scans)
    assert first.image[:, 0, 0].tolist() == [1, 2, 3]
    assert second.image[:, 0, 0].tolist() == [1, 1, 1]
    assert not first.coloured
    (scan,) = found_by(predictor(), tmp_path / "a.png").scans
    assert scan.read().coloured  # and turned into grey
    (scan,) = found_by(model, save(tmp_path / "c.nii.gz", levels(1, (7, 6, 3)))).scans
    with pytest.raises(UserError, match=r"takes 3 inputs: red, green, blue\. Give pictures in colours"):
        scan.read()


def test_numbered_pictures_in_colours_are_images_of_their_own(tmp_path: Path) -> None:
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"ISIC_{number:04d}.png"), levels(number, (8, 8, 3)).astype(np.uint8))
    found = found_by(predictor(inputs=("red", "green", "blue")), tmp_path)
    assert [scan.name for scan in found.scans] == ["ISIC_0000", "ISIC_0001", "ISIC_0002", "ISIC_0003"]
    assert not found.problems


def test_masks_and_what_matches_no_pattern_are_left_out_of_folders(tmp_path: Path) -> None:
    root = acdc(tmp_path / "acdc")
    pattern = "{patient}/{patient}_frame{frame}"
    model = predictor(f'data={{nifti={{root="x", images="{pattern}.nii.gz", masks="{pattern}_gt.nii.gz"}}}}')
    found = found_by(model, root)
    assert [scan.name for scan in found.scans] == [
        f"patient00{patient}/patient00{patient}_frame{frame}" for patient in (1, 2) for frame in ("01", "12")
    ]
    assert [note.partition(": ")[2].partition(": ")[0] for note in found.notes] == [
        "2 images left out, which no pattern of the recipe matches", "4 masks left out", "2 non-image files left out",
    ]  # fmt: skip
    inner = found_by(model, root / "patient001")
    assert [scan.name for scan in inner.scans] == ["patient001_frame01", "patient001_frame12"]
    assert not inner.problems
    listing = nnunet(tmp_path / "nnunet", inputs=1)
    found = found_by(predictor("data={nnunet={root='x'}}"), listing)
    assert [scan.name for scan in found.scans] == ["imagesTr/case0", "imagesTr/case1"]
    assert found.notes == [f"{listing}: only imagesTr/ is searched."]


def test_folders_are_searched_and_mirrored_and_earlier_results_left_out(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "b/c/d/2.png", "b/c/d/e/3.png", "10.png", "9.png", "out/9.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), np.zeros((8, 8), np.uint8))
    found = found_by(predictor(), tmp_path / "in", tmp_path / "in/9.png", out=tmp_path / "in/out")
    assert [scan.name for scan in found.scans] == ["a/1", "b/c/d/2", "b/1", "9", "10"]
    deep = tmp_path / "deep/1/2/3/4/5"
    deep.mkdir(parents=True)
    (deep.parents[3] / "notes.txt").touch()
    with pytest.raises(
        UserError, match=r"deep: contains no images down to 4 levels of folders\. It holds 1/notes\.txt"
    ):
        found_by(predictor(), tmp_path / "deep")


@pytest.mark.parametrize(
    "names", [("a.png", "a.tif"), ("a.png", "a-wall.png"), ("a.png", "A.bmp"), ("a.png", "a-overlay.png")]
)
def test_images_whose_results_would_overwrite_each_other_are_not_predicted(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8), np.uint8))
    found = found_by(predictor(), tmp_path)
    assert len(found.scans) == 1
    (problem,) = found.problems
    assert "its results would overwrite those of" in str(problem)


def test_a_link_out_of_a_folder_is_a_problem(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "outside.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "in/b.png").symlink_to(tmp_path / "outside.png")
    found = found_by(predictor(), tmp_path / "in")
    assert [scan.name for scan in found.scans] == ["a"]
    assert "b.png: a link out of" in str(found.problems[0])


@pytest.mark.parametrize(
    ("reader", "labels", "channels", "values"),
    [
        ("nifti", {"wall": 3, "cavity": 300}, ("wall", "cavity"), (3, 300)),
        ("nifti", {"edema": 2, "whole": (1, 2, 4)}, ("edema", "whole"), None),
        ("nifti", {"liver": (1, 2), "spleen": 3}, ("liver", "spleen"), (1, 2)),
        ("nnunet", {"liver": (4,), "spleen": 3}, ("liver", "spleen"), (4, 3)),
        ("image_folder", {"a": (255, 0, 0), "b": (0, 0, 255)}, ("a", "b"), (1, 2)),
        ("image_folder", {"a": "#ff0000", "b": "#00ff00"}, ("a", "b"), (1, 2)),
        ("table", {"a": 255}, ("a",), (255,)),
        ("table", None, ("a",), None),
        ("rvsc", None, ("endocardium", "epicardium"), (1, 2)),
        ("nifti", {"other": 3, "names": 4}, ("wall", "cavity"), (1, 2)),
    ],
)
def test_label_maps_have_the_values_of_the_recipe(
    reader: str, labels: Any, channels: tuple[str, ...], values: tuple[int, ...] | None
) -> None:
    assert label_values(reader, {"labels": labels}, channels) == values


def test_an_overlay_of_a_volume_shows_slices_with_a_structure() -> None:
    masks = np.zeros((1, 40, 6, 5), bool)
    assert shown_slices(masks) == [20]
    masks[0, 7, 1, 1] = True
    assert shown_slices(masks) == [7]
    masks[0, 10:30] = True
    assert shown_slices(masks) == [7, 11, 14, 17, 19, 21, 24, 27, 29]
    pictures = [np.full((2, 3, 3), number, np.uint8) for number in range(1, 6)]
    made = sheet(pictures)
    assert made.shape == (4, 9, 3)
    assert made[::2, ::3, 0].tolist() == [[1, 2, 3], [4, 5, 0]]


def test_slices_are_cases_of_their_own_if_they_were_in_the_training() -> None:
    images = np.stack([np.full((8, 8), 100, np.float32), np.full((8, 8), 1000, np.float32)])
    images[:, 0] = 0
    for volumes, expected in (("true", [False, True]), ("false", [True, True])):
        model = predictor(NIFTI.replace("labels=", f"volumes={volumes}, labels="), "intensity='minmax'")
        found = model.infer(images[None])
        assert found.mask.shape == (2, 2, 8, 8)
        same = [np.array_equal(found.probability[:, n], model.predict(plane)) for n, plane in enumerate(images)]
        assert same == expected


def test_a_predictor_takes_inputs_by_their_names_and_refuses_others() -> None:
    model = predictor(SEVERAL, inputs=("t1", "t2"))
    one, two = levels(1, (9, 8)), levels(2, (9, 8))
    expected = np.stack([one == WALL, two == CAVITY])
    assert np.array_equal(model.segment({"t2": two, "t1": one}), expected)
    assert np.array_equal(model.segment(np.stack([one, two])), expected)
    with pytest.raises(UserError, match="the model's inputs are t1, t2; got t1, flair"):
        model.segment({"t1": one, "flair": two})
    with pytest.raises(UserError, match=r"takes 2 inputs \(t1, t2\); an image of shape \(9, 8\) has 1"):
        model.segment(one)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in an empty folder; return exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["segkit", *words])
        with pytest.raises(SystemExit, match=r"^\d+$") as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def disc(number: int, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return a bright ring around a brighter disc, and its label map."""
    random = np.random.default_rng(number)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - shape[0] / 2 - random.uniform(-3, 3), columns - shape[1] / 2 - random.uniform(-3, 3))
    flat = np.where(distance < 5, 2, np.where(distance < 9, 1, 0)).astype(np.uint8)
    labels = np.broadcast_to(flat if len(shape) == 2 else flat[..., None], shape)
    return (random.normal(300, 40, shape) + 200 * labels).astype(np.int16), labels


def dice(one: Any, other: Any) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_bad_files_are_reported_at_the_end_in_one_line_a_kind(run: Run, tmp_path: Path) -> None:
    for number in range(6):
        voxels = np.zeros((8, 8, 2), np.float32)
        voxels[0, 0, 0] = np.nan if number else 1
        save(tmp_path / f"in/{number}.nii.gz", voxels)
    for name in ("a", "b"):
        (tmp_path / f"in/{name}.png").write_bytes(b"\x89PNG")
    train(tmp_path / "run", "train.epochs=1")
    checkpoint = "run/only/seed-1/best.safetensors"
    status, out, err = run("predict", checkpoint, "in", "--out", "found")
    assert (status, len(out.splitlines())) == (2, 1)
    assert out.startswith("in/0.nii.gz: wall ")
    first, pictures, of_nan, *rest = err.splitlines()
    assert not rest
    assert first == "error: 7 of 8 images could not be predicted; the others are done:"
    assert pictures == "  in/a.png: a damaged image: cut off. The same holds for in/b.png: 2 in all."
    assert of_nan.startswith("  in/1.nii.gz: holds voxels that are not finite")
    assert of_nan.endswith("The same holds for in/2.nii.gz, in/3.nii.gz, in/4.nii.gz, in/5.nii.gz: 5 in all.")
    for out_folder in ("in", "./in/../in"):
        status, _, err = run("predict", checkpoint, "in", "--out", out_folder)
        assert (status, err.startswith("error: --out in")) == (2, True)
    assert len(list((tmp_path / "in").iterdir())) == 8


def test_a_terminal_shows_how_many_are_done(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        save(tmp_path / f"in/{number}.nii.gz", levels(number, (8, 8, 2)))
    train(tmp_path / "run", "train.epochs=1")
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True)
    monkeypatch.setenv("TERM", "xterm")
    status, out, _ = run("predict", "run/only/seed-1/best.safetensors", "in", "--out", "found")
    assert status == 0
    assert all(f"in/{number}.nii.gz: wall " in out for number in range(3))
    assert "3/3" in out


def test_data_whose_reader_is_missing_say_nothing_of_names(tmp_path: Path) -> None:
    outputs = Outputs(replace(predictor(), missing={"data": "a plugin"}), tmp_path)
    assert (outputs.conventions().images, outputs.values) == ((), (1, 2))


VALUES = {"wall": 4, "cavity": 9}
LABELS = "labels={wall=4, cavity=9}"
PATTERNS = 'images="images/{patient}/a.nii.gz", masks="masks/{patient}/a.nii.gz"'


def predicted(run: Run, tmp_path: Path, data: str, ending: str) -> tuple[list[Row], dict[str, Any], dict[str, Any]]:
    """Train on `data`, and predict its images; return the rows and masks of the evaluation, and files by patient."""
    assert train(tmp_path / "run", f"data={data}", "channels='exclusive'")[-1].kind == "finished"
    checkpoint = tmp_path / "run/only/seed-1/best.safetensors"
    status, out, err = run("predict", str(checkpoint), "data", "--out", "found")
    assert (status, len(out.splitlines())) == (0, len(ORIENTATIONS)), err
    rows = [row for row in segkit.evaluate(checkpoint) if row.metric == "dice"]
    assert any(row.value > 0.3 for row in rows)
    model = segkit.load(checkpoint)
    found = DataCache(None).read(model.recipe.data, model.recipe.intensity)
    cases = [number for number, case in enumerate(found.cases) if case.name in {row.case for row in rows}]
    masks: dict[str, Any] = {}

    def keep(place: int, truth: Any, mask: Any) -> None:
        masks[found.cases[cases[place]].name] = mask

    model.evaluator(found, cases).run(model.model, [], on_case=keep)
    files = {str(row.patient): tmp_path / f"found/images/{row.patient}/a{ending}" for row in rows}
    return rows, masks, files


def volumes(root: Path) -> dict[str, Any]:
    """Write volumes and label maps of all orientations; return the label maps by patient."""
    truths = {}
    for number, codes in enumerate(ORIENTATIONS):
        image, labels = disc(number, (30, 28, 3))
        save(root / f"images/p{number}/a.nii.gz", *oriented(image, codes, oblique()))
        truths[f"p{number}"], affine = oriented(np.array([0, 4, 9], np.uint8)[labels], codes, oblique())
        save(root / f"masks/p{number}/a.nii.gz", truths[f"p{number}"], affine)
    return truths


def test_dice_of_predicted_volumes_is_that_of_the_evaluation(run: Run, tmp_path: Path) -> None:
    truths = volumes(tmp_path / "data")
    rows, masks, files = predicted(
        run, tmp_path, f'{{nifti={{root="{tmp_path}/data", {PATTERNS}, {LABELS}}}}}', ".nii.gz"
    )
    for row in rows:
        found = np.asarray(load(files[row.patient]).dataobj)
        value = VALUES[row.channel]
        assert dice(found == value, truths[row.patient] == value) == pytest.approx(row.value, abs=1e-6)
        oriented_mask = read_geometry(files[row.patient]).orient(found) == value
        assert np.array_equal(oriented_mask, masks[row.case][list(VALUES).index(row.channel)])


def test_predicted_volumes_hold_the_slices_of_the_evaluation(run: Run, tmp_path: Path) -> None:
    volumes(tmp_path / "data")
    data = f'{{nifti={{root="{tmp_path}/data", {PATTERNS}, {LABELS}, volumes=false}}}}'
    rows, masks, files = predicted(run, tmp_path, data, ".nii.gz")
    for row in rows:
        geometry = read_geometry(files[row.patient])
        found = geometry.orient(np.asarray(load(files[row.patient]).dataobj))
        index = int(row.case.rpartition("-")[2]) - 1
        mask = masks[row.case][list(VALUES).index(row.channel)]
        assert np.array_equal(found[index] == VALUES[row.channel], mask)


def test_dice_of_predicted_pictures_is_that_of_the_evaluation(run: Run, tmp_path: Path) -> None:
    truths = {}
    for number in range(len(ORIENTATIONS)):
        image, labels = disc(number, (30, 28))
        grey, truths[f"p{number}"] = image.clip(0).astype(np.uint16), np.array([0, 4, 9], np.uint8)[labels]
        for part, pixels in (("images", grey), ("masks", truths[f"p{number}"])):
            is_dicom = part == "images" and number % 2
            path = tmp_path / f"data/{part}/p{number}/a{'.dcm' if is_dicom else '.png'}"
            path.parent.mkdir(parents=True)
            path.write_bytes(dicom(pixels) if is_dicom else cv2.imencode(".png", pixels)[1].tobytes())
    rows, masks, files = predicted(run, tmp_path, f'{{image_folder={{root="{tmp_path}/data", {LABELS}}}}}', ".png")
    for row in rows:
        found: Any = cv2.imread(str(files[row.patient]), cv2.IMREAD_UNCHANGED)
        value = VALUES[row.channel]
        assert dice(found == value, truths[row.patient] == value) == pytest.approx(row.value, abs=1e-6)
        assert np.array_equal(found == value, masks[row.case][list(VALUES).index(row.channel)])
