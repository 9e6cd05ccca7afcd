"""DICOM series: files to volumes in the order of their positions, where a viewer shows them, or one message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset as Header

from segkit import UserError
from segkit.components.datasets.formats.dicom_series import Series, affine_of, find_series, read_series
from tests.rvsc_like import JPEG_2000, LOSSLESS_JPEG, dicom, lossless_jpeg

SHAPE = (4, 5, 6)  # slices, rows, columns
SPACING = (2.5, 1.25, 1.5)
VOLUME = np.arange(120, dtype=np.uint16).reshape(SHAPE) * 30
ACROSS, DOWN = np.array([0.8, 0.6, 0.0]), np.array([-0.36, 0.48, -0.8])
NORMAL = np.cross(ACROSS, DOWN)
CORNER = np.array([-30.5, 12.25, 101.0])


def position(index: float) -> Any:
    return CORNER + index * SPACING[0] * NORMAL


def header(index: float, **elements: Any) -> dict[str, Any]:
    return {
        "spacing": SPACING[1:], "SeriesInstanceUID": "1.2.840.1", "InstanceNumber": 1,
        "ImagePositionPatient": [round(float(part), 6) for part in position(index)],
        "ImageOrientationPatient": [*ACROSS.tolist(), *DOWN.tolist()],
    } | elements  # fmt: skip


def write(
    folder: Path, volume: Any = VOLUME, change: Callable[[int], dict[str, Any]] = lambda index: {}, **elements: Any
) -> list[Path]:
    """Write a volume of an oblique series, its files named in the reverse of the slices' order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, pixels in enumerate(volume):
        paths.append(folder / f"{len(volume) - index:03d}.dcm")
        paths[-1].write_bytes(dicom(pixels, **header(index, **(elements | change(index)))))
    return sorted(paths)


def only(files: list[Path]) -> Series:
    (series,) = find_series(files)
    return series


def test_slices_lie_in_the_order_of_their_positions(tmp_path: Path) -> None:
    series = only(write(tmp_path))
    assert [path.name for path in series.files] == ["004.dcm", "003.dcm", "002.dcm", "001.dcm"]
    volume, spacing = read_series(series)
    assert volume.dtype == np.uint16
    assert np.array_equal(volume, VOLUME)
    assert spacing == pytest.approx(SPACING, abs=1e-5)


def test_the_affine_places_every_voxel_where_its_slice_lies(tmp_path: Path) -> None:
    series = only(write(tmp_path))
    affine = affine_of(series)
    for index in np.ndindex(SHAPE):
        depth, row, column = index
        lps = position(depth) + ACROSS * column * SPACING[2] + DOWN * row * SPACING[1]
        assert affine @ [column, row, depth, 1] == pytest.approx([-lps[0], -lps[1], lps[2], 1], abs=1e-4)
    assert np.linalg.norm(affine[:3, :3], axis=0) == pytest.approx(SPACING[::-1], abs=1e-5)


def test_an_axial_series_of_a_supine_patient_runs_to_the_left_posterior_and_superior(tmp_path: Path) -> None:
    files = write(
        tmp_path,
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        change=lambda index: {"ImagePositionPatient": [-10, -20, 30 + 5 * index]},
    )
    affine = affine_of(only(files))
    assert affine.tolist() == [[-1.5, 0, 0, 10], [0, -1.25, 0, 20], [0, 0, 5, 30], [0, 0, 0, 1]]


def test_a_tilted_stack_keeps_its_shear(tmp_path: Path) -> None:
    files = write(tmp_path, change=lambda index: {"ImagePositionPatient": list(position(index) + DOWN * index)})
    series = only(files)
    assert series.spacing_mm == pytest.approx(SPACING, abs=1e-5)
    step = SPACING[0] * NORMAL + DOWN
    assert affine_of(series)[:3, 2] == pytest.approx([-step[0], -step[1], step[2]], abs=1e-5)


def test_one_slice_is_a_volume_as_thick_as_stated(tmp_path: Path) -> None:
    series = only(write(tmp_path, VOLUME[:1], SliceThickness=8, SpacingBetweenSlices=10))
    assert series.spacing_mm == (10, 1.25, 1.5)
    assert read_series(series)[0].shape == (1, 5, 6)
    assert np.linalg.norm(affine_of(series)[:3, 2]) == pytest.approx(10)


def test_without_positions_the_numbers_count(tmp_path: Path) -> None:
    files = write(
        tmp_path, ImagePositionPatient=None, SliceThickness=3, change=lambda index: {"InstanceNumber": 10 + index}
    )
    series = only(files)
    assert np.array_equal(read_series(series)[0], VOLUME)
    assert series.spacing_mm == (3, 1.25, 1.5)
    with pytest.raises(UserError, match=r"neither positions \(ImagePositionPatient\) nor numbers .* its 4 slices lie"):
        find_series(write(tmp_path, ImagePositionPatient=None))


def test_series_are_told_apart_by_uid_or_else_by_folder(tmp_path: Path) -> None:
    one = write(tmp_path / "mixed")
    other = [path.rename(path.with_name(f"b{path.name}")) for path in write(tmp_path / "b", SeriesInstanceUID="1.3")]
    (tmp_path / "DICOMDIR").write_bytes(b"index")
    found = find_series([*one, *other, tmp_path / "DICOMDIR"])
    assert [len(series.slices) for series in found] == [4, 4]
    bare = [path for name in "cd" for path in write(tmp_path / name, SeriesInstanceUID=None)]
    assert [series.name for series in find_series(bare)] == [str(tmp_path / "c"), str(tmp_path / "d")]


def test_slices_of_different_type_become_one(tmp_path: Path) -> None:
    whole = write(tmp_path / "a", change=lambda index: {"RescaleIntercept": -1024 if index else 0})
    volume, _ = read_series(only(whole))
    assert volume.dtype == np.int16
    assert np.array_equal(volume[1:], VOLUME[1:].astype(int) - 1024)
    broken = write(tmp_path / "b", change=lambda index: {"RescaleSlope": 0.5 if index else 1})
    volume, _ = read_series(only(broken))
    assert volume.dtype == np.float32
    assert np.array_equal(volume[1:], VOLUME[1:] * 0.5)


def missing(index: int) -> dict[str, Any]:
    return {"ImagePositionPatient": list(position(index + (index > 1)))}


def repeated(index: int) -> dict[str, Any]:
    return {"ImagePositionPatient": list(position(index // 2))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing, r"slices at unequal distances: 5 mm from 003\.dcm to 002\.dcm, elsewhere 2\.5 mm\. Is a slice miss"),
        (repeated, r"2 frames at each of 2 positions: a time series, or several echoes or phases in one\. Put the"),
        (
            lambda index: {"ImagePositionPatient": list(position(max(index, 1)))},
            r"00[34]\.dcm and .*00[34]\.dcm lie at one position\. Remove one of them",
        ),
        (
            lambda index: {"ImagePositionPatient": list(position(index) + ACROSS * 2 * (index == 1))},
            r"003\.dcm: lies 2 mm beside the line of the other slices",
        ),
        (
            lambda index: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]} if index == 2 else {},
            r"its 4 slices lie in 2 directions, so that they make no volume \(a localizer",
        ),
        (lambda index: {"spacing": (1.25, 1.5 + index / 10)}, r"its pixel spacing is \(1\.25, 1\.[5-8]\), that of "),
        (lambda index: {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, r"must be two perpendicular vectors"),
        (lambda index: {"ImageOrientationPatient": [0, 0, 0, 0, 1, 0]}, r"must be two unit vectors"),
        (lambda index: {"ImagePositionPatient": [1, 2]}, r"ImagePositionPatient must be 3 numbers, got \[1\.0, 2\.0\]"),
        (lambda index: {"SamplesPerPixel": 3} if index == 2 else {}, r"002\.dcm: not a grey image: 3 samples"),
        (lambda index: {"syntax": "1.2.840.10008.1.2.4.201"}, r"its compression .* is not supported"),
    ],
)
def test_what_is_no_volume_is_one_message(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_series(write(tmp_path, change=change))


def test_slices_of_different_size(tmp_path: Path) -> None:
    files = write(tmp_path)
    files[1].write_bytes(dicom(VOLUME[0, :4], **header(1)))
    with pytest.raises(UserError, match=r"slices of different size: 3 slices of 5 x 6, 1 slice of 4 x 6"):
        find_series(files)


def test_problems_of_all_series_are_collected(tmp_path: Path) -> None:
    good = write(tmp_path / "good")
    bad = write(tmp_path / "bad", change=missing, SeriesInstanceUID="1.3")
    (tmp_path / "text.dcm").write_text("no DICOM")
    problems: list[str] = []
    found = find_series([*good, *bad, tmp_path / "text.dcm"], problems)
    assert [series.name for series in found] == [str(tmp_path / "good")]
    assert len(problems) == 2
    assert f"{tmp_path / 'bad'}: slices at unequal distances" in problems[1]
    assert "text.dcm: not a DICOM file" in problems[0]


def test_listing_reads_headers_alone_and_damaged_pixels_are_found_on_reading(tmp_path: Path) -> None:
    files = write(tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:-5])
    series = only(files)
    with pytest.raises(UserError, match=r"003\.dcm: cut off: holds 55 of 60 bytes of pixels"):
        read_series(series)


def test_a_long_header_is_read_to_its_end(tmp_path: Path) -> None:
    files = write(tmp_path, VOLUME[:2], TextValue="long " * 30_000)
    assert only(files).spacing_mm == pytest.approx(SPACING, abs=1e-5)


def enhanced(positions: list[Any], **elements: Any) -> dict[str, Any]:
    """Return the elements of an enhanced file: positions by frame, spacing and orientation for all."""
    frames, shared = [], Header()
    for place in positions:
        group, plane = Header(), Header()
        plane.ImagePositionPatient = [float(part) for part in place]
        group.PlanePositionSequence = [plane]
        frames.append(group)
    measures, orientation, rescale = Header(), Header(), Header()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING[1:]), 9
    orientation.ImageOrientationPatient = [*ACROSS.tolist(), *DOWN.tolist()]
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1024
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [rescale]
    return {
        "spacing": None, "NumberOfFrames": len(positions), "PerFrameFunctionalGroupsSequence": frames,
        "SharedFunctionalGroupsSequence": [shared],
    } | elements  # fmt: skip


@pytest.mark.parametrize("compressed", [False, True])
def test_the_frames_of_an_enhanced_file_are_slices(tmp_path: Path, compressed: bool) -> None:
    order = [2, 0, 3, 1]
    path = tmp_path / "x.dcm"
    elements: dict[str, Any] = enhanced([position(index) for index in order])
    if compressed:
        elements |= {"syntax": LOSSLESS_JPEG, "frames": [lossless_jpeg(VOLUME[index]) for index in order]}
    path.write_bytes(dicom(VOLUME[order].reshape(-1, SHAPE[2]), **({"Rows": SHAPE[1]} | elements)))
    series = only([path])
    assert series.name == str(path)
    volume, spacing = read_series(series)
    assert volume.dtype == np.int16
    assert np.array_equal(volume, VOLUME.astype(int) - 1024)
    assert spacing == pytest.approx(SPACING, abs=1e-5)
    assert affine_of(series)[:3, 3] == pytest.approx([-CORNER[0], -CORNER[1], CORNER[2]], abs=1e-5)


def test_frames_without_positions_are_a_volume_if_their_distance_is_stated(tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    elements: dict[str, Any] = {"Rows": SHAPE[1], "NumberOfFrames": 4}
    path.write_bytes(dicom(VOLUME.reshape(-1, SHAPE[2]), SpacingBetweenSlices=4, **elements))
    volume, spacing = read_series(only([path]))
    assert np.array_equal(volume, VOLUME)
    assert spacing == (4, 1.25, 1.5)
    assert affine_of(only([path])).tolist() == [[-1.5, 0, 0, 0], [0, -1.25, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]]
    path.write_bytes(dicom(VOLUME.reshape(-1, SHAPE[2]), **elements))
    with pytest.raises(
        UserError, match=r"x\.dcm: 4 frames without positions, nor a distance between them: a film, not"
    ):
        find_series([path])


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"NumberOfFrames": 5}, r"5 x 6 pixels in 5 frames need 300 bytes; PixelData has 240"),
        ({"NumberOfFrames": 70_000}, r"70,000 frames of 5 x 6 pixels; files are read up to 4,096 frames"),
        ({"NumberOfFrames": 4000, "Rows": 8000}, r"4,000 frames of 8000 x 6 pixels; files are read up to"),
        (
            {"syntax": JPEG_2000, "frames": [b"a" * 20, b"b" * 20]},
            r"its 4 frames are in 2 fragments; only one for each frame is read",
        ),
    ],
)
def test_frames_that_are_not_as_many_as_stated(tmp_path: Path, elements: dict[str, Any], message: str) -> None:
    path = tmp_path / "x.dcm"
    given = {"Rows": SHAPE[1]} | enhanced([position(index) for index in range(4)]) | elements
    path.write_bytes(dicom(VOLUME.reshape(-1, SHAPE[2]), **given))
    with pytest.raises(UserError, match=message):
        read_series(only([path]))
