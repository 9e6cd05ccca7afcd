"""The challenge's layout: what is read, what is refused, and that every refusal names the file."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segkit
from segkit import UserError
from segkit.checks.data import check_data
from segkit.components.datasets.cine import phases_of
from tests.rvsc_like import arrays, patient, square


def read(root: Path, **more: Any) -> Any:
    """Return the dataset, its arrays read."""
    return arrays(segkit.datasets.build("rvsc", {"root": str(root), **more}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    patient(tmp_path, 1, [20, 40], spacing=(0.75, 0.8))
    patient(tmp_path, 2, [20], shape=(30, 44))  # landscape, and of another size
    return tmp_path


def contour(root: Path, kind: str = "i", frame: int = 20) -> Path:
    return root / f"patient01/P01contours-manual/P01-{frame:04d}-{kind}contour-manual.txt"


def test_labelled_frames_of_every_patient(root: Path) -> None:
    data = read(root)
    assert data.channels == ("wall", "cavity")
    assert [case.name for case in data.cases] == ["patient01/P01-0020", "patient01/P01-0040", "patient02/P02-0020"]
    assert [case.patient for case in data.cases] == ["patient01", "patient01", "patient02"]
    assert [case.image.shape for case in data.cases] == [(40, 30), (40, 30), (30, 44)]
    assert data.cases[0].spacing_mm == (0.75, 0.8)
    wall, cavity = data.cases[0].masks
    assert int(cavity.sum()) == 64  # 8 x 8 pixels within (10..18, 12..20)
    assert int(wall.sum()) == 14 * 14 - 64
    assert not (wall & cavity).any()


def test_filled_contours_as_structures(root: Path) -> None:
    data = read(root, structures=["endocardium", "epicardium"])
    inner, outer = data.cases[0].masks
    assert (int(inner.sum()), int(outer.sum())) == (64, 196)
    assert (outer | inner == outer).all()


def test_the_list_says_which_contours_count(root: Path) -> None:
    path = root / "patient01/P01list.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:2]) + "\n")
    data = read(root)
    assert Counter(case.patient for case in data.cases) == {"patient01": 1, "patient02": 1}
    assert any("2 contour files left out, not named in a list" in note for note in data.notes)
    path.unlink()
    assert len(read(root).cases) == 3  # without a list, all


@pytest.mark.parametrize(
    "text",
    [
        square(12, 10, 20, 18, "\r\n"), "\ufeff" + square(12, 10, 20, 18), square(12, 10, 20, 18).replace(" ", ", "),
        square(12, 10, 20, 18).replace(" ", ";"), "10,0 12,0\n18,0 12,0\n18,0 20,0\n10,0 20,0\n",
        square(12, 10, 20, 18, "\n\n"),
    ],
    ids=["crlf", "bom", "commas", "semicolons", "decimal commas", "empty lines"],
)  # fmt: skip
def test_ways_to_write_a_contour(root: Path, text: str) -> None:
    before = read(root).cases[0].masks
    contour(root).write_text(text, encoding="utf-8")
    assert np.array_equal(read(root).cases[0].masks, before)


def test_a_line_that_crosses_itself_is_filled(root: Path) -> None:
    contour(root).write_text("10 12\n18 20\n18 12\n10 20\n")
    assert 20 < int(read(root).cases[0].masks[1].sum()) < 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no points"),
        ("10 10\n", r"1 different point; a contour needs three"),
        ("10 10\n10 10\n12 12\n", r"2 different points;"),
        ("10 10\nten ten\n12 12\n", r":2: 'ten ten' is not a point"),
        ("10 10\n1e999 3\n12 12\n", r":2: .*is not a point"),
        ("10 10\n400 10\n10 400\n", r"outside|beyond"),
        ("\0\0\0", "not a text file"),
        ("9" * 500 + "\n", "a line of"),
    ],
)
def test_contours_that_are_none(root: Path, text: str, message: str) -> None:
    contour(root).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read(root)
    assert "P01-0020-icontour-manual.txt" in str(caught.value)


def test_swapped_contours_are_noticed(root: Path) -> None:
    inner, outer = contour(root), contour(root, "o")
    inside, outside = inner.read_text(), outer.read_text()
    inner.write_text(outside)
    outer.write_text(inside)
    with pytest.raises(UserError, match=r"encloses more than the outer contour .* swapped"):
        read(root)


def test_an_inner_contour_that_leaves_the_outer_one_is_noted_and_read_as_drawn(root: Path) -> None:
    assert read(root).notes == ()
    contour(root).write_text(square(12, 3, 20, 11))  # 8 x 8 pixels, of which the columns 3 to 6 lie outside
    contour(root, frame=40).write_text(square(0, 0, 5, 6))  # 30 pixels, all of them outside
    data = read(root)
    (note,) = data.notes
    assert note.startswith("in 2 frames the inner contour leaves the outer one, by 62 pixels in all.")
    assert "These pixels are cavity, not wall, and the wall is open there" in note
    assert note.endswith("patient01/P01-0020 (32 pixels), patient01/P01-0040 (30 pixels).")
    wall, cavity = data.cases[0].masks
    assert (int(cavity.sum()), int(wall.sum())) == (64, 196 - 32)
    assert not (wall & cavity).any()


def test_contours_that_touch_are_no_fault(root: Path) -> None:
    contour(root).write_text(square(10, 6, 23, 21))  # 13 of its 195 pixels lie outside
    assert "(13 pixels)" in read(root).notes[0]
    contour(root).write_text("8 10\n20 10\n20 22\n8 22\n8 16\n6 16\n6 15\n8 15\n")  # 1 of 146
    assert read(root).notes == ()


def test_a_folder_that_a_link_leads_back_to(root: Path) -> None:
    (root / "again").symlink_to(root)
    with pytest.raises(UserError, match=r"again: a link to .*, which is read already\. Remove the link"):
        read(root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (r".\P01\..\..\..\etc\passwd", r"P01list.txt:1: .*leads out of the data's folder"),
        ("/etc/passwd", r"P01list.txt:1: "),
        (r".\P01\P01contours-manual\P01-0777-icontour-manual.txt", r"P01list.txt:1: .* is not in .*patient01"),
        (r".\P01\holiday.txt", r"P01list.txt:1: .*is not a contour file"),
    ],
)
def test_lists_that_lead_elsewhere(root: Path, line: str, message: str) -> None:
    (root / "patient01/P01list.txt").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        read(root)


def test_links_out_of_the_folder_are_not_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "x.txt"
    elsewhere.write_text(contour(root).read_text())
    contour(root).unlink()
    contour(root).symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"a link out of .*Nothing outside is read"):
        read(root)


def test_an_image_that_is_missing_or_damaged(root: Path) -> None:
    image = root / "patient01/P01dicom/P01-0020.dcm"
    data = image.read_bytes()
    image.write_bytes(data[:-10])
    with pytest.raises(UserError, match=r"P01-0020.dcm: cut off"):
        read(root)
    image.unlink()
    with pytest.raises(UserError, match=r"its image p01-0020.dcm is not in"):
        read(root)


def test_frames_that_lack_a_contour_are_noted(root: Path) -> None:
    contour(root, "o").unlink()
    path = root / "patient01/P01list.txt"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "0020-ocontour" not in line))
    data = read(root)
    assert len(data.cases) == 2
    assert any("which lack an inner or an outer contour: patient01/p01-0020" in note for note in data.notes)
    assert len(read(root, structures=["endocardium"]).cases) == 3


def test_the_problems_of_all_files_are_raised_together(root: Path) -> None:
    contour(root).write_text("10 10\nten ten\n12 12\n")
    contour(root, frame=40).unlink()
    (root / "patient02/P02dicom/P02-0020.dcm").write_bytes(b"no DICOM")
    with pytest.raises(UserError, match=r"P01list\.txt:3: P01-0040-icontour-manual\.txt is not in") as caught:
        read(root)
    lines = str(caught.value).splitlines()
    assert [len(lines), "P02-0020.dcm: not a DICOM file" in lines[1], ":2: 'ten ten' is not a point" in lines[2]] == [
        3, True, True,
    ]  # fmt: skip
    assert {str(finding) for finding in check_data(root).findings if finding.kind == "fault"} == set(lines)


def test_very_many_problems_of_one_kind_are_one_line(tmp_path: Path) -> None:
    patient(tmp_path, 1, range(30))
    for path in (tmp_path / "patient01/P01dicom").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"its image p01-0000\.dcm is not in") as caught:
        read(tmp_path)
    assert str(caught.value).endswith("P01-0004-icontour-manual.txt and 25 more: 30 in all.")
    faults = [finding for finding in check_data(tmp_path).findings if finding.kind == "fault"]
    assert len(faults) == 30


def test_folders_that_hold_no_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="contains no patient"):
        read(tmp_path)


def test_one_patient_twice(root: Path) -> None:
    patient(root / "more", 1, [20])
    with pytest.raises(UserError, match="one patient twice"):
        read(root)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 20, 40, 8, 28], ["ED", "ED", "ED", "ES", "ES"]),  # the challenge's
        ([59, 79, 48, 68], ["ED", "ED", "ES", "ES"]),  # counted from 1, end diastole as the last of the cycle before
        ([1, 21, 9, 30], ["ED", "ED", "ES", "ES"]),  # end systole a frame later in one slice
        ([20], ["ED"]),
        ([20, 28, 35], []),  # the last at neither
        ([20, 27, 28], []),  # two frames of one slice
        (list(range(30)), []),
    ],
)
def test_phases_by_number(numbers: list[int], expected: list[str]) -> None:
    assert phases_of(numbers) == dict(zip(numbers if expected else [], expected, strict=True))


def test_the_phase_is_a_tag_where_numbers_tell_it(tmp_path: Path) -> None:
    patient(tmp_path, 1, [0, 20, 8, 28])
    patient(tmp_path, 2, [3, 4])
    data = read(tmp_path)
    assert [dict(case.tags) for case in data.cases] == [
        {"phase": "ED"}, {"phase": "ED"}, {"phase": "ES"}, {"phase": "ES"}, {}, {},
    ]  # fmt: skip


def placed(frame: int, gap: float = 9.5) -> dict[str, Any]:
    """Return the header of a frame of a stack that begins at the apex, 20 frames a slice."""
    return {"ImagePositionPatient": [3, 4, -gap * (frame // 20)], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}


def test_volumes_are_the_labelled_slices_of_a_phase_by_position(tmp_path: Path) -> None:
    patient(tmp_path, 1, [20, 40, 60, 28, 48], header=placed, spacing=(0.75, 0.8))
    slices = {case.name[-4:]: case for case in read(tmp_path).cases}
    data = read(tmp_path, volumes=True)
    assert [(case.name, case.patient, case.tags["phase"]) for case in data.cases] == [
        ("patient01/ED", "patient01", "ED"), ("patient01/ES", "patient01", "ES"),
    ]  # fmt: skip
    for case, names in zip(data.cases, (["0060", "0040", "0020"], ["0048", "0028"]), strict=True):
        assert case.spacing_mm == pytest.approx((9.5, 0.75, 0.8))
        assert np.array_equal(case.image, [[slices[name].image for name in names]])
        assert np.array_equal(case.masks, np.stack([slices[name].masks for name in names], axis=1))
        assert len(case.files) == 3 * len(names)


def test_volumes_without_positions_follow_the_numbers(tmp_path: Path) -> None:
    folder = patient(tmp_path, 1, [100, 20, 60], SliceThickness=7)
    (folder / "P01list.txt").unlink()
    slices = {case.name[-4:]: case for case in read(tmp_path).cases}
    (case,) = read(tmp_path, volumes=True).cases
    assert case.spacing_mm == (7, 1.25, 1.5)
    assert np.array_equal(case.image, [[slices[name].image for name in ("0020", "0060", "0100")]])


def test_a_volume_that_lacks_a_slice_is_left_out_with_a_note(tmp_path: Path) -> None:
    patient(tmp_path, 1, [20, 40, 60, 100, 28, 48], header=placed)
    data = read(tmp_path, volumes=True)
    assert [case.name for case in data.cases] == ["patient01/ES"]
    (note,) = data.notes
    assert note.startswith("1 volume left out, whose slices do not lie evenly: patient01/ED: slices at unequal")
    assert "19 mm from P01-0100.dcm to P01-0060.dcm, elsewhere 9.5 mm" in note
    patient(tmp_path / "other", 2, [20, 40, 60, 100], header=placed)
    with pytest.raises(
        UserError, match=r": no volume\. 1 volume left out, whose slices do not lie evenly: patient02/ED"
    ):
        read(tmp_path / "other", volumes=True)


@pytest.mark.parametrize(
    ("frames", "header", "message"),
    [
        ([3, 4], placed, r"^patient01: its frames' numbers do not say which are at end diastole .*patient01/P01-0003"),
        ([20, 40], lambda frame: placed(20), r"^patient01/ED: 2 frames at each of 1 position: a time series"),
        (
            [20, 40],
            lambda frame: placed(frame) | {"spacing": (frame / 20, 1)},
            r"its pixel spacing is \([12]\.0, 1\.0\), that of .*Keep the files of one volume together",
        ),
    ],
)
def test_frames_that_make_no_volume(tmp_path: Path, frames: list[int], header: Any, message: str) -> None:
    patient(tmp_path, 1, frames, header=header)
    with pytest.raises(UserError, match=message):
        read(tmp_path, volumes=True)


def test_slices_are_listed_without_their_pixels(root: Path) -> None:
    image = root / "patient01/P01dicom/P01-0020.dcm"
    image.write_bytes(image.read_bytes()[:-10])
    data = segkit.datasets.build("rvsc", {"root": str(root)})
    assert [case.has_masks for case in data.cases] == [True] * 3
    assert data.cases[0].spacing_mm == (0.75, 0.8)
    with pytest.raises(UserError, match=r"P01-0020.dcm: cut off"):
        data.cases[0].read()


def test_real_images() -> None:
    root = Path(os.environ.get("SEGKIT_TEST_DATA", Path(__file__).parents[2] / "shared/data")) / "sunnybrook"
    if not root.is_dir():
        pytest.skip(f"no real data: {root} is not there; name the folder that holds it by SEGKIT_TEST_DATA")
    data = read(root)
    assert Counter(case.patient for case in data.cases) == {"patient01": 9, "patient02": 9, "patient03": 10}
    assert {case.image.shape for case in data.cases} == {(256, 256)}
    for case in data.cases:
        wall, cavity = case.masks
        assert case.spacing_mm is not None
        area = float(cavity.sum()) * case.spacing_mm[0] * case.spacing_mm[1] / 100
        assert 1 < area < 60  # cm2 of a left ventricle
        inside, ring = case.image[cavity].mean(), case.image[wall].mean()
        assert inside > ring  # blood is brighter than muscle: masks lie where the heart is
        assert case.tags == {"phase": "ED"}
    volumes = read(root, volumes=True)
    assert [(case.name, case.image.shape) for case in volumes.cases] == [
        ("patient01/ED", (1, 9, 256, 256)), ("patient02/ED", (1, 9, 256, 256)), ("patient03/ED", (1, 10, 256, 256)),
    ]  # fmt: skip
    assert [round(case.spacing_mm[0], 3) for case in volumes.cases if case.spacing_mm] == [10, 10, 8]
