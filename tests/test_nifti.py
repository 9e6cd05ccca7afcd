"""NIfTI: files of any orientation read and written back, folders by patterns, and what is refused."""

from __future__ import annotations

import gzip
import itertools
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import segkit
from segkit import UserError
from segkit.components.datasets import Dataset
from segkit.components.datasets.formats.nifti_files import read_geometry, read_labels, read_voxels
from segkit.components.datasets.formats.nifti_writing import write_label_map, write_probabilities
from segkit.components.datasets.reading import DatasetError, merged
from segkit.recipe.model import Recipe
from tests.volumes import AFFINE, SHAPE, acdc, compressed, decompressed, grey, labels, load, save

RECIPES = Path(__file__).parents[1] / "recipes"
TURNS = [
    np.array([[sign * (axis == place) for place in order] for axis, sign in enumerate(signs)])
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]  # rows are x, y, z of the patient, columns the file's axes
ACDC = {
    "images": "{patient}/{patient}_frame{frame}.nii.gz",
    "masks": "{patient}/{patient}_frame{frame}_gt.nii.gz",
    "labels": {"rv": 1, "wall": 2, "cavity": 3},
}


def read(root: Path, **more: Any) -> Dataset:
    found: Dataset = segkit.datasets.build("nifti", {"root": str(root), **more})
    return found


def problems_of(root: Path, **more: Any) -> list[str]:
    """Return the messages of a folder that is refused, when it is listed or when its cases are read."""
    try:
        data = read(root, **more)
    except DatasetError as error:
        return list(error.problems)
    except UserError as error:
        return [str(error)]
    found = []
    for case in data.cases:
        try:
            case.read()
        except UserError as error:
            found.append(str(error))
    return found


def rotation(degrees: float) -> Any:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(angle / 2), -np.sin(angle / 2)], [0, np.sin(angle / 2), np.cos(angle / 2)]])
    return turn @ tilt


@pytest.mark.parametrize("slices", ["axial", "coronal", "sagittal"])
def test_every_orientation_is_read_alike_and_written_back(tmp_path: Path, slices: Any) -> None:
    """One volume of the patient, stored along each of 48 orders and directions of axes, oblique ones too."""
    zooms = (2.0, 1.0, 0.75)
    seen = None
    for number, turn in enumerate(TURNS):
        start = np.where(turn.sum(axis=1) > 0, 0, np.array(SHAPE) - 1)  # the patient's voxel at the file's origin
        index = np.indices([SHAPE[int(np.abs(turn[:, axis]).argmax())] for axis in range(3)])
        world = np.einsum("ij,jxyz->ixyz", turn, index) + start[:, None, None, None]
        stored = (world[0] * 100 + world[1] * 10 + world[2]).astype(np.int16)
        tilt, affine = rotation(25 * (number % 2)), np.eye(4)
        affine[:3, :3] = tilt @ np.diag(zooms) @ turn
        affine[:3, 3] = tilt @ (np.array(zooms) * start) + [5, -7, 11]
        path = save(tmp_path / f"{number}.nii", stored, affine)
        geometry = read_geometry(path, slices)
        found = geometry.orient(read_voxels(geometry))
        seen = found if seen is None else seen
        assert np.array_equal(found, seen)
        assert sorted(geometry.spacing_mm) == pytest.approx(sorted(zooms), rel=1e-6)
        again = tmp_path / f"{number}-again.nii.gz"
        write_label_map(again, found.astype(np.uint16), geometry)
        image = load(again)
        assert np.array_equal(np.asanyarray(image.dataobj), stored)
        assert np.array_equal(image.affine, load(path).affine)
    assert seen is not None
    right, front, top = SHAPE[0] - 1, SHAPE[1] - 1, SHAPE[2] - 1  # voxels of the patient
    first = {"axial": (right, front, 0), "coronal": (right, front, top), "sagittal": (right, front, top)}[slices]
    last = {"axial": (0, 0, top), "coronal": (0, 0, 0), "sagittal": (0, 0, 0)}[slices]
    assert seen[0, 0, 0] == np.dot(first, (100, 10, 1))
    assert seen[-1, -1, -1] == np.dot(last, (100, 10, 1))
    steps = [int(seen[1, 0, 0] - seen[0, 0, 0]), int(seen[0, 1, 0] - seen[0, 0, 0]), int(seen[0, 0, 1] - seen[0, 0, 0])]
    assert steps == {"axial": [1, -10, -100], "coronal": [-10, -1, -100], "sagittal": [-100, -1, -10]}[slices]


@pytest.mark.parametrize("slices", ["axial", "coronal", "sagittal"])
def test_spacing_belongs_to_the_axes_of_the_array(tmp_path: Path, slices: Any) -> None:
    geometry = read_geometry(save(tmp_path / "a.nii", grey(), np.diag([2.0, 3.0, 5.0, 1])), slices)
    assert geometry.spacing_mm == {"axial": (5, 3, 2), "coronal": (3, 5, 2), "sagittal": (2, 5, 3)}[slices]
    assert geometry.depth == {"axial": 4, "coronal": 5, "sagittal": 6}[slices]


@pytest.mark.parametrize(
    "zooms, shape, slices",
    [
        ((1, 1, 1), SHAPE, "axial"), ((1, 1, 8), SHAPE, "axial"), ((1, 5, 1), SHAPE, "coronal"),
        ((3, 1, 2), SHAPE, "sagittal"), ((1.1, 1, 1), SHAPE, "axial"), ((1, 1, 1), (6, 1, 4), "coronal"),
        ((1, 1, 9), (1, 5, 4), "sagittal"),
    ],
)  # fmt: skip
def test_auto_slices(tmp_path: Path, zooms: Any, shape: Any, slices: str) -> None:
    path = save(tmp_path / "a.nii", grey(shape=shape), np.diag([*zooms, 1]))
    assert read_geometry(path).slices == slices


def test_the_header_is_kept(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.nii.gz", grey(), sform_code=2, qform_code=1, xyzt_units=2, scl_slope=2, scl_inter=7,
        descrip=b"a scanner", cal_max=900,
    )  # fmt: skip
    geometry = read_geometry(path)
    truth = labels(most=1).astype(bool)
    write_label_map(tmp_path / "b.nii.gz", geometry.orient(truth), geometry)
    probability = np.random.default_rng(1).random(SHAPE, np.float32)
    write_probabilities(tmp_path / "c.nii", geometry.orient(probability), geometry)
    before = load(path)
    for name, kind, values in (("b.nii.gz", np.uint8, truth), ("c.nii", np.float32, probability)):
        after = load(tmp_path / name)
        assert after.get_data_dtype() == kind
        assert np.array_equal(after.get_fdata(), values)
        assert after.header.get_slope_inter() in ((1.0, 0.0), (None, None))
        for key in ("pixdim", "sform_code", "qform_code", "xyzt_units", "srow_x", "quatern_b", "qoffset_x", "descrip"):
            assert np.array_equal(after.header[key], before.header[key]), key
    assert np.array_equal(read_labels(read_geometry(tmp_path / "b.nii.gz")), truth)


def test_nifti_2_big_endian_and_wrong_endings(tmp_path: Path) -> None:
    voxels = grey()
    two: Any = nibabel.Nifti2Image(voxels, AFFINE)  # type: ignore[no-untyped-call]
    nibabel.save(two, tmp_path / "two.nii")
    header: Any = nibabel.Nifti1Header(endianness=">")  # type: ignore[no-untyped-call]
    header.set_data_dtype(np.int16)
    big: Any = nibabel.Nifti1Image(voxels.astype(">i2"), AFFINE, header)  # type: ignore[no-untyped-call]
    nibabel.save(big, tmp_path / "big.nii")
    (tmp_path / "plain.nii.gz").write_bytes((tmp_path / "two.nii").read_bytes())
    for name in ("two.nii", "big.nii", "plain.nii.gz"):
        geometry = read_geometry(tmp_path / name)
        found = read_voxels(geometry)
        assert found.dtype == np.int16
        assert np.array_equal(found, voxels)
        write_label_map(tmp_path / "out.nii", geometry.orient(labels()), geometry)
        image = load(tmp_path / "out.nii")
        assert np.array_equal(np.asanyarray(image.dataobj), labels())
        assert np.array_equal(image.affine, AFFINE)


@pytest.mark.parametrize(
    "stored, kind",
    [
        (np.array([0, 255], np.uint8), "uint8"), (np.array([-5, 7], np.int16), "int16"),
        (np.array([0, 65535], np.uint16), "uint16"), (np.array([-128, 1], np.int8), "int16"),
        (np.array([-1, 30000], np.int32), "int16"), (np.array([0, 60000], np.int32), "uint16"),
        (np.array([-1, 60000], np.int32), "float32"), (np.array([0, 2**40], np.int64), "float32"),
        (np.array([0.5, -1e9]), "float32"), (np.array([0.25, 1], np.float32), "float32"),
    ],
)  # fmt: skip
def test_values_as_stored(tmp_path: Path, stored: Any, kind: str) -> None:
    found = read_voxels(read_geometry(save(tmp_path / "a.nii", stored.reshape(2, 1, 1))))
    assert found.dtype == kind
    assert np.array_equal(found.ravel(), stored.astype(kind))


def test_scaling_is_applied(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", grey(), scl_slope=0.5, scl_inter=-1024)
    found = read_voxels(read_geometry(path))
    assert found.dtype == np.float32
    assert np.array_equal(found, grey() * 0.5 - 1024)
    assert np.array_equal(read_voxels(read_geometry(save(path, grey(), scl_slope=0, scl_inter=9))), grey())
    doubled = save(tmp_path / "m.nii", labels().astype(np.int16) * 2, scl_slope=0.5, scl_inter=0)
    assert np.array_equal(read_labels(read_geometry(doubled)), labels())


@pytest.mark.parametrize("unit, scale", [(0, 1), (1, 1000), (2, 1), (3, 0.001), (10, 1)])
def test_units_of_length(tmp_path: Path, unit: int, scale: float) -> None:
    geometry = read_geometry(save(tmp_path / "a.nii", grey(), xyzt_units=unit))
    assert geometry.spacing_mm == pytest.approx((8 * scale, 1.5 * scale, 1.5 * scale))
    assert geometry.affine[2, 2] == pytest.approx(8 * scale)


def test_a_plane_and_a_trailing_axis(tmp_path: Path) -> None:
    plane = save(tmp_path / "plane.nii", grey(shape=(6, 5)), np.diag([1.0, 2, 3, 1]), pixdim=[1, 1, 2, 0, 0, 0, 0, 0])
    geometry = read_geometry(plane)
    assert geometry.orient(read_voxels(geometry)).shape == (1, 5, 6)
    assert geometry.spacing_mm[1:] == (2, 1)
    write_label_map(tmp_path / "out.nii", np.ones((1, 5, 6), np.uint8), geometry)
    assert load(tmp_path / "out.nii").shape == (6, 5)
    long = read_geometry(save(tmp_path / "long.nii", grey(shape=(*SHAPE, 1))))
    assert (long.shape, long.inputs, read_voxels(long).shape) == (SHAPE, 1, SHAPE)


def test_acdc(tmp_path: Path) -> None:
    data = read(acdc(tmp_path), **ACDC)
    assert (data.channels, data.inputs) == (("rv", "wall", "cavity"), ("image",))
    assert [(case.name, case.patient) for case in data.cases] == [
        (f"patient00{number}/frame{frame}", f"patient00{number}") for number in (1, 2) for frame in ("01", "12")
    ]
    assert [dict(case.tags) for case in data.cases[:2]] == [
        {"frame": "01", "phase": "ED", "group": "DCM"}, {"frame": "12", "phase": "ES", "group": "DCM"},
    ]  # fmt: skip
    case = data.cases[0]
    image, masks = case.read()
    assert masks is not None
    assert (image.shape, str(image.dtype), masks.shape, str(masks.dtype)) == (
        (1, 4, 5, 6),
        "int16",
        (3, 4, 5, 6),
        "bool",
    )
    assert case.spacing_mm == (8, 1.5, 1.5)
    assert [path.name for path in case.files] == ["patient001_frame01.nii.gz", "patient001_frame01_gt.nii.gz"]
    # the affine runs to left, posterior and superior: (X, Y, Z) is (D, H, W) reversed
    assert np.array_equal(image[0], grey(2).transpose(2, 1, 0))
    assert np.array_equal(masks[1], labels(2).transpose(2, 1, 0) == 2)
    assert data.notes == (
        "2 NIfTI files left out, which no pattern matches: patient001/patient001_4d.nii.gz, "
        "patient002/patient002_4d.nii.gz.",
    )


def test_slices_as_cases(tmp_path: Path) -> None:
    whole, apart = (read(acdc(tmp_path), **ACDC, volumes=volumes) for volumes in (True, False))
    assert len(apart.cases) == 16
    case = apart.cases[5]
    assert (case.name, case.patient, case.spacing_mm) == ("patient001/frame12/slice-002", "patient001", (1.5, 1.5))
    assert case.tags["phase"] == "ES"
    image, masks = case.read()
    volume, truth = whole.cases[1].read()
    assert masks is not None
    assert truth is not None
    assert image.shape == (5, 6)
    assert np.array_equal(image, volume[0, 1])
    assert np.array_equal(masks, truth[:, 1])
    assert apart.conclude is not None
    assert apart.conclude() == ()
    assert np.array_equal(case.read()[0], image)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda one: one.read()[0], apart.cases))
    assert np.array_equal(np.stack(found).reshape(4, 4, 5, 6), np.concatenate([one.read()[0] for one in whole.cases]))


def test_several_inputs_and_a_file_a_structure(tmp_path: Path) -> None:
    for number in (2, 10):
        save(tmp_path / f"p{number}/t1.nii", grey(number))
        save(tmp_path / f"p{number}/t2.nii", grey(number + 1).astype(np.float32) / 2)
        save(tmp_path / f"p{number}/edema.nii", (labels(number) > 0).astype(np.uint8) * 255)
        save(tmp_path / f"p{number}/core.nii", (labels(number) > 1).astype(np.uint8))
    data = read(
        tmp_path, images={"t1": "{patient}/t1.nii", "t2": "{patient}/t2.nii"},
        masks={"edema": "{patient}/edema.nii", "core": "{patient}/core.nii"},
    )  # fmt: skip
    assert (data.channels, data.inputs) == (("edema", "core"), ("t1", "t2"))
    assert [case.name for case in data.cases] == ["p2", "p10"]
    image, masks = data.cases[0].read()
    assert masks is not None
    assert (image.shape, str(image.dtype)) == ((2, 4, 5, 6), "float32")
    assert np.array_equal(image[1], grey(3).transpose(2, 1, 0) / 2)
    assert np.array_equal(masks.sum(axis=(1, 2, 3)), [(labels(2) > 0).sum(), (labels(2) > 1).sum()])


def test_the_pattern_that_spells_more_out_wins(tmp_path: Path) -> None:
    for name in ("a", "b_gt"):
        save(tmp_path / f"{name}_scan.nii", grey())
        save(tmp_path / f"{name}.nii", labels(most=1))
    data = read(tmp_path, images="{patient}_scan.nii", masks="{patient}.nii")
    assert [case.patient for case in data.cases] == ["a", "b_gt"]
    assert data.channels == ("foreground",)


def test_regions_overlap_and_values_may_be_background(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", grey())
    save(tmp_path / "a_gt.nii", labels())
    where = {"images": "{patient}.nii", "masks": "{patient}_gt.nii"}
    _, masks = read(tmp_path, **where, labels={"whole": [1, 2, 3], "core": 3}).cases[0].read()
    assert masks is not None
    assert (masks[1] <= masks[0]).all()
    assert masks[0].sum() == (labels() > 0).sum()
    _, masks = read(tmp_path, **where, labels={"core": 3}, background=[1, 2]).cases[0].read()
    assert masks is not None
    assert masks.sum() == (labels() == 3).sum()


def test_images_without_masks(tmp_path: Path) -> None:
    root = acdc(tmp_path)
    (root / "patient002/patient002_frame12_gt.nii.gz").unlink()
    data = read(root, **ACDC)
    assert [case.has_masks for case in data.cases] == [True, True, True, False]
    assert data.cases[3].read()[1] is None
    assert "1 image without masks, neither trained on nor evaluated: patient002/frame12." in data.notes


def test_spacing_of_the_recipe(tmp_path: Path) -> None:
    data = read(acdc(tmp_path, 1), **ACDC, spacing_mm=[10.0, 1.0, 2.0], slices="axial")
    assert data.cases[0].spacing_mm == (10, 1, 2)


def test_a_header_that_contradicts_itself_is_noted(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", grey(), pixdim=[1, 1, 1, 1, 1, 1, 1, 1], qform_code=0, sform_code=1)
    save(tmp_path / "a_gt.nii", labels(most=1))
    data = read(tmp_path, images="{patient}.nii", masks="{patient}_gt.nii")
    assert data.notes == ("1 header with another spacing (pixdim, which counts) than the affine's: a.",)


def test_slices_that_lie_differently_are_noted(tmp_path: Path) -> None:
    for name, zooms in (("a", (1, 1, 8)), ("b", (8, 1, 1)), ("c", (8, 1, 1))):
        save(tmp_path / f"{name}.nii", grey(), np.diag([*zooms, 1.0]))
        save(tmp_path / f"{name}_gt.nii", labels(most=1), np.diag([*zooms, 1.0]))
    data = read(tmp_path, images="{patient}.nii", masks="{patient}_gt.nii")
    assert data.notes == ("Slices lie differently: 2 sagittal volumes, 1 axial volume. `slices` makes them alike.",)


def test_the_recipe_of_acdc_reads_its_layout(tmp_path: Path) -> None:
    recipe = Recipe.load(RECIPES / "examples" / "acdc.toml", sets=[f"data.nifti.root={acdc(tmp_path)}"])
    data = recipe.data()
    assert len(data.cases) == 4
    assert {case.tags["phase"] for case in data.cases} == {"ED", "ES"}
    assert all(case.has_masks and case.read()[0].shape == (1, 4, 5, 6) for case in data.cases)


# what is refused -----------------------------------------------------------------------------------------------------

GT = "{patient}_gt.nii.gz"


def pair(root: Path) -> Path:
    save(root / "a.nii.gz", grey())
    save(root / "a_gt.nii.gz", labels(most=1))
    return root


def shifted(millimetres: float) -> Any:
    affine = AFFINE.copy()
    affine[0, 3] += millimetres
    return affine


def flipped() -> Any:
    return AFFINE @ np.diag([-1.0, 1, 1, 1])


def nan() -> Any:
    voxels = grey().astype(np.float32)
    voxels[0, 0, :2] = np.nan, np.inf
    return voxels


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def broken(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # the checksum's
    path.write_bytes(data)


WRONG: list[tuple[str, Any, str]] = [
    ("other shape", lambda r: save(r / "a_gt.nii.gz", labels(shape=(6, 5, 3), most=1)),
     r"a_gt.nii.gz: this mask does not lie where .*a.nii.gz: 6 x 5 x 4 voxels against 6 x 5 x 3\)\. Resample the mask"),
    ("other place", lambda r: save(r / "a_gt.nii.gz", labels(most=1), shifted(3)), r"a_gt.nii.gz: .*up to 3 mm apart"),
    ("other direction", lambda r: save(r / "a_gt.nii.gz", labels(most=1), flipped()), "by 180 degrees"),
    ("other spacing", lambda r: save(r / "a_gt.nii.gz", labels(most=1), AFFINE @ np.diag([1, 1, 0.5, 1])),
     "spacing 1.5 x 1.5 x 8 mm against 1.5 x 1.5 x 4 mm"),
    ("unexpected value", lambda r: save(r / "a_gt.nii.gz", labels(most=4)),
     r"a_gt.nii.gz: holds more values than 0 and 1.* \(0, 1, 2, 3, 4\)\. For several .* labels ="),
    ("fractions", lambda r: save(r / "a_gt.nii.gz", labels(most=1) * 0.5),
     r"a_gt.nii.gz: holds values that are not whole numbers \(\d+ of 120\)"),
    ("an image as mask", lambda r: save(r / "a_gt.nii.gz", grey()), "a_gt.nii.gz: holds values that are no labels"),
    ("NaN", lambda r: save(r / "a.nii.gz", nan()), r"a.nii.gz: holds voxels that are not.*\(2 of 120\).*Replace"),
    ("NaN in a mask", lambda r: save(r / "a_gt.nii.gz", nan()), r"a_gt.nii.gz: holds voxels that are not finite"),
    ("time series", lambda r: save(r / "a.nii.gz", grey(shape=(*SHAPE, 7))),
     r"a.nii.gz: holds several volumes, .* \(6 x 5 x 4 x 7\)\. Split it"),
    ("vectors", lambda r: save(r / "a.nii.gz", grey(shape=(*SHAPE, 1, 3))), "a.nii.gz: holds several volumes"),
    ("complex", lambda r: save(r / "a.nii.gz", grey().astype(np.complex64)),
     "a.nii.gz: holds voxels of type complex64, which are not read"),
    ("colours", lambda r: save(r / "a.nii.gz", np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
     "a.nii.gz: holds colours, which are not read"),
    ("unknown type", lambda r: save(r / "a.nii.gz", grey(), datatype=999), "a.nii.gz: a damaged NIfTI file"),
    ("cut off", lambda r: cut(r / "a.nii.gz", 150), "a.nii.gz: a damaged NIfTI file: it is cut off.*again"),
    ("without its end", lambda r: cut(r / "a.nii.gz", -4), "a.nii.gz: a damaged NIfTI file: it is cut off"),
    ("wrong checksum", lambda r: broken(r / "a.nii.gz"), "a.nii.gz: damaged: it cannot be decompressed"),
    ("too large", lambda r: save(r / "a.nii.gz", grey(), dim=[3, 2000, 2000, 2000, 1, 1, 1, 1]),
     "a.nii.gz: too large: more than 1,073,741,824 voxels"),
    ("no shape", lambda r: save(r / "a.nii.gz", grey(), dim=[3, 6, -5, 4, 1, 1, 1, 1]), "its header states no shape"),
    ("nine axes", lambda r: save(r / "a.nii.gz", grey(), dim=[9, 6, 5, 4, 1, 1, 1, 1]), "its header states no shape"),
    ("no offset", lambda r: save(r / "a.nii.gz", grey(), vox_offset=np.nan), "no voxels can begin there"),
    ("no spacing", lambda r: save(r / "a.nii.gz", grey(), pixdim=[1, 0, 1, 1, 0, 0, 0, 0]),
     r"a.nii.gz: its spacing must be three lengths above 0 \(0 x 1 x 1\)\. Write the true spacing"),
    ("negative spacing", lambda r: save(r / "a.nii.gz", grey(), pixdim=[1, 1, -2, 1, 0, 0, 0, 0]), r"1 x -2 x 1"),
    ("unknown unit", lambda r: save(r / "a.nii.gz", grey(), xyzt_units=5), "in an unknown unit 5"),
    ("singular", lambda r: save(r / "a.nii.gz", grey(), srow_z=[0, 0, 0, 0], sform_code=1),
     "a.nii.gz: its affine is singular.*Write a true one"),
    ("no rotation", lambda r: save(r / "a.nii.gz", grey(), quatern_b=9, qform_code=1, sform_code=0),
     "a.nii.gz: its affine is singular"),
    ("no NIfTI", lambda r: (r / "a.nii.gz").write_bytes(b"\x89PNG" + bytes(400)),
     "a.nii.gz: not a NIfTI file, but a PNG picture"),
    ("empty", lambda r: (r / "a.nii.gz").write_bytes(b""), "a.nii.gz: not a NIfTI file, but an empty file"),
    ("Analyze", lambda r: save(r / "a.nii.gz", grey(), magic=b""), "a.nii.gz: not a NIfTI file, but an Analyze file"),
    ("in two files", lambda r: save(r / "a.nii.gz", grey(), magic=b"ni1"), "voxels lie in another file"),
    ("no image", lambda r: save(r / "b_gt.nii.gz", labels(most=1)), "b_gt.nii.gz: a mask without image"),
    ("a pipe", lambda r: os.mkfifo(r / "b.nii.gz"), "b.nii.gz: a pipe"),
    ("a link out", lambda r: (r / "b.nii.gz").symlink_to("/etc/passwd"), "b.nii.gz: a link out of"),
]  # fmt: skip


@pytest.mark.parametrize("make, match", [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_files(tmp_path: Path, make: Any, match: str) -> None:
    make(pair(tmp_path))
    found = problems_of(tmp_path, images="{patient}.nii.gz", masks=GT)
    assert len(found) == 1
    with pytest.raises(UserError, match=match):
        raise UserError(found[0])
    assert "\n" not in found[0]


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"labels": {"a": 1, "b": 1}}, "each a value, or values, of its own"),
    ({"labels": {}}, "labels: .*at least one structure"),
    ({"labels": {"a": 1}, "background": [1]}, "background: 1 is a structure"),
    ({"background": [1]}, "background: belongs to `labels`"),
    ({"labels": {"all": 1}}, "labels: .*name of the mean"),
    ({"labels": {"a": 0}}, "labels.a"),
    ({"masks": {"a": GT}, "labels": {"a": 1}}, "labels and background: belong to label maps"),
    ({"masks": {}}, "masks: name at least one structure"),
    ({"images": "{patient}.nii.gz", "masks": "{name}_gt.nii.gz"}, "must have the fields of images"),
    ({"images": "{patient}.nii.gz", "masks": "{patient}.nii.gz"}, "masks: has the pattern of images"),
    ({"images": "{patient.nii.gz"}, "is not a field"),
    ({"images": "{patient}{frame}.nii.gz"}, "no text stands before"),
    ({"images": "image.nii.gz"}, "at least one field"),
    ({"images": "../{patient}.nii.gz"}, "must be a path below `root`"),
    ({"images": "{patient}.mha"}, r"no file matches images = '\{patient\}.mha'. It holds a.nii.gz, a_gt.nii.gz"),
    ({"masks": "{patient}_seg.nii.gz"}, "no file matches masks = "),
    ({"images": "{patient}*.nii.gz"}, "no text stands before"),
    ({"slices": "oblique"}, "oblique"),
    ({"root": "/nowhere"}, "/nowhere: no such folder"),
]


@pytest.mark.parametrize("settings, match", SETTINGS, ids=lambda value: str(value)[:40])
def test_wrong_settings(tmp_path: Path, settings: dict[str, Any], match: str) -> None:
    given = {"root": str(pair(tmp_path)), "images": "{patient}.nii.gz", "masks": GT, **settings}
    with pytest.raises(UserError, match=match):
        segkit.datasets.build("nifti", given)


def test_known_and_unknown_values_are_named(tmp_path: Path) -> None:
    root = pair(tmp_path)
    save(root / "a_gt.nii.gz", labels(most=4))
    settings: dict[str, Any] = {"images": "{patient}.nii.gz", "masks": GT, "labels": {"a": 1, "b": [1, 2]}}
    (found,) = problems_of(root, **settings)
    assert found == (
        f"{root}/a_gt.nii.gz: holds unexpected values (3, 4). Known are 0 (none), 1 (a), 1 and 2 (b). Add them to "
        "`labels`, or to `background` if they are none."
    )


def test_two_files_for_one_case_and_a_missing_structure(tmp_path: Path) -> None:
    for name in ("x/a.nii", "y/a.nii", "x/a_l.nii", "x/a_r.nii", "x/b.nii", "x/b_l.nii"):
        save(tmp_path / name, grey() if "_" not in name else labels(most=1))
    found = problems_of(tmp_path, images="*/{patient}.nii", masks={"l": "*/{patient}_l.nii", "r": "*/{patient}_r.nii"})
    assert len(found) == 2
    assert "y/a.nii: a second file of one case, beside" in found[0]
    assert "x/b.nii: its case has no file for masks.r (*/{patient}_r.nii)" in found[1]


def test_a_structure_of_several_values(tmp_path: Path) -> None:
    root = pair(tmp_path)
    save(root / "a_gt.nii.gz", labels(most=2))
    (found,) = problems_of(root, images="{patient}.nii.gz", masks={"a": GT})
    assert "a_gt.nii.gz: holds several values, though it is the mask of one structure (1, 2)" in found


def test_a_file_of_two_patterns(tmp_path: Path) -> None:
    save(tmp_path / "a_b.nii", grey())
    (found,) = problems_of(tmp_path, images="{patient}_b.nii", masks="a_{patient}.nii")
    assert "a_b.nii: matches both images = '{patient}_b.nii' and masks = 'a_{patient}.nii'" in found


def test_faults_of_one_kind_are_one_line(tmp_path: Path) -> None:
    for number in range(9):
        save(tmp_path / f"{number}.nii", grey(shape=(*SHAPE, number + 2)))
        save(tmp_path / f"{number}_gt.nii", labels(most=1))
    (found,) = merged(problems_of(tmp_path, images="{patient}.nii", masks="{patient}_gt.nii"))
    assert found.startswith(f"{tmp_path}/0.nii: holds several volumes")
    assert found.endswith("4.nii and 4 more: 9 in all.")


def test_a_phase_that_is_no_number(tmp_path: Path) -> None:
    root = acdc(tmp_path, 1)
    (root / "patient001/Info.cfg").write_text("ED: first\n", encoding="utf-8")
    (found,) = problems_of(root, **ACDC)
    assert "Info.cfg: a phase is no number of a frame (ED: 'first'). Write e.g. ED: 1." in found


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    """A megabyte that inflates to a gigabyte, behind a header of a few voxels."""
    path = save(tmp_path / "a.nii.gz", grey())
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(decompressed(save(tmp_path / "b.nii.gz", grey())))
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        assert np.array_equal(read_voxels(read_geometry(path)), grey())
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_memory_is_not_taken_for_what_a_file_cannot_hold(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", grey(), dim=[3, 1000, 1000, 1000, 1, 1, 1, 1])
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"a.nii.gz: a damaged NIfTI file: it is cut off"):
            read_voxels(read_geometry(path))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_are_one_message(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    good = decompressed(save(tmp_path / "a.nii", grey()))
    for _ in range(60):
        data = bytearray(good)
        for at in random.integers(0, 352, random.integers(1, 8)):
            data[at] = random.integers(256)
        path = tmp_path / "b.nii.gz"
        path.write_bytes(
            compressed(path, bytes(data)[: random.integers(1, len(data)) if random.random() < 0.2 else None])
        )
        try:
            geometry = read_geometry(path)
            found = geometry.orient(read_voxels(geometry))
            assert found.size == np.prod(geometry.shape)
        except UserError as error:
            assert str(error).startswith(str(path))  # noqa: PT017
