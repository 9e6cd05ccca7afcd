"""The example dataset plugin, on a tree laid out like the published one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

import segkit
from segkit import plugins
from segkit.checks.data import check_data
from segkit.errors import UserError
from tests.fresh_plugins import EXAMPLES, fresh
from tests.rvsc_like import arrays

__all__ = ["fresh"]

TABLE = """PatientID,OriginalID,Gender,Age,Pathology
SCD0000101,SC-HF-I-1,Male,50,HF-I
SCD0000201,SC-HF-I-2,Female,60,HF-I
"""
SIZE = (40, 48)
CENTRE, INNER, OUTER = (24.0, 18.0), 6.0, 10.0  # x and y, and radii


@pytest.fixture(autouse=True)
def load(fresh: Path) -> None:
    """Load the plugin."""
    assert plugins.load([EXAMPLES / "sunnybrook.py"], entry_points=False) == []


def read(root: Path, **parameters: Any) -> Any:
    """Return the dataset, its arrays read."""
    return arrays(segkit.datasets.build("sunnybrook", {"root": str(root), **parameters}))


def distance(size: tuple[int, int] = SIZE) -> np.ndarray[Any, Any]:
    rows, columns = np.mgrid[: size[0], : size[1]]
    found: np.ndarray[Any, Any] = np.hypot(columns - CENTRE[0], rows - CENTRE[1])
    return found


def write_image(path: Path, *, shift: int = 0, size: tuple[int, int] = SIZE, positions: bool = False) -> None:
    """Write a bright disc in a darker ring, signed 16 bits as published, moved by `shift` columns.

    With `positions`, slices of twenty frames, numbered from 1, lie 10 mm apart, the first one highest.
    """
    away = np.roll(distance(size), shift, axis=1)
    image = (100 + 400 * (away < INNER) + 100 * (away < OUTER)).astype("<i2")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, UID("1.2.3")
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.Rows, file.Columns = size
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 1
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.PixelSpacing = ["1.25", "1.5"]
    if positions:
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        file.ImagePositionPatient = [0, 0, -10 * ((int(path.stem[-4:]) - 1) // 20)]
    file.PixelData = image.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)


def write_contour(path: Path, radius: float) -> None:
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    lines = [f"{CENTRE[0] + radius * np.cos(a):.2f} {CENTRE[1] + radius * np.sin(a):.2f}" for a in angles]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def series(root: Path, patient: str, name: str, frames: Sequence[int], **options: Any) -> None:
    folder = root / f"SCD_IMAGES_{patient[-4:-2]}" / patient / name
    for frame in frames:
        write_image(folder / f"IM-0003-{frame:04d}.dcm", **options)


def contours(root: Path, original: str, inner: Sequence[int], outer: Sequence[int]) -> Path:
    folder = root / "scd_manualcontours" / "SCD_ManualContours" / original / "contours-manual" / "IRCCI-expert"
    for kind, frames, radius in (("i", inner, INNER), ("o", outer, OUTER), ("p1", inner, 1.0)):
        for frame in frames:
            write_contour(folder / f"IM-0001-{frame:04d}-{kind}contour-manual.txt", radius)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two patients as published: the second folder of contours has a zero that the table has not."""
    root = tmp_path / "scd"
    root.mkdir()
    (root / "scd_patientdata.csv").write_text(TABLE, encoding="utf-8-sig")
    series(root, "SCD0000101", "CINESAX_300", [48, 49, 60])
    series(root, "SCD0000101", "CINELAX_301", [48, 60])
    series(root, "SCD0000201", "CINESAX_4", [20])
    contours(root, "SC-HF-I-01", [48, 60], [48])
    contours(root, "SC-HF-I-02", [20], [20])
    (root / "notes.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    return root


def test_reads_labelled_frames_as_the_table_links_them(tree: Path) -> None:
    data = read(tree)
    assert (data.name, data.channels) == ("sunnybrook", ("wall", "cavity"))
    assert [(case.name, case.patient) for case in data.cases] == [
        ("SCD0000101/IM-0003-0048", "SCD0000101"),
        ("SCD0000201/IM-0003-0020", "SCD0000201"),
    ]
    case = data.cases[0]
    assert case.spacing_mm == (1.25, 1.5)
    assert case.image.shape == SIZE
    away = distance()
    for mask, truth in zip(case.masks, ((away < OUTER) & (away >= INNER), away < INNER), strict=True):
        assert np.count_nonzero(mask != truth) <= 24  # pixels on the line
    assert data.notes == ("1 frame left out, which lack an inner or an outer contour: SCD0000101/IM-0003-0060.",)


def test_the_cavity_alone_takes_end_systole_along(tree: Path) -> None:
    data = read(tree, structures=["cavity"])
    assert [case.name[-4:] for case in data.cases] == ["0048", "0060", "0020"]
    assert data.channels == ("cavity",)
    assert data.notes == ()


def test_the_phase_is_told_by_the_frame_of_the_cycle(tree: Path) -> None:
    data = read(tree, structures=["cavity"])
    assert [(case.name[-4:], case.tags["phase"]) for case in data.cases] == [
        ("0048", "ES"), ("0060", "ED"), ("0020", "ED"),
    ]  # fmt: skip


def test_volumes_are_the_labelled_slices_of_a_phase(tree: Path) -> None:
    folder = tree / "SCD_IMAGES_01/SCD0000101/CINESAX_300"
    for path in folder.iterdir():
        path.unlink()
    series(tree, "SCD0000101", "CINESAX_300", [20, 40, 60, 48, 68], positions=True)
    contours(tree, "SC-HF-I-01", [20, 40, 60, 48, 68], [20, 40, 60])
    data = read(tree, structures=["cavity"], volumes=True)
    assert [(case.name, case.image.shape) for case in data.cases] == [
        ("SCD0000101/ED", (1, 3, *SIZE)), ("SCD0000101/ES", (1, 2, *SIZE)), ("SCD0000201/ED", (1, 1, *SIZE)),
    ]  # fmt: skip
    assert [case.spacing_mm for case in data.cases] == [(10, 1.25, 1.5), (10, 1.25, 1.5), None]
    assert data.cases[0].files[0].name == "IM-0003-0060.dcm"  # the lowest


def test_patients_whose_images_are_not_here_are_left_out_with_a_note(tree: Path) -> None:
    (tree / "SCD_IMAGES_02").rename(tree.parent / "elsewhere")
    data = read(tree)
    assert {case.patient for case in data.cases} == {"SCD0000101"}
    assert data.notes[0] == "1 patient with contours, but without images here: SCD0000201."


def test_takes_the_series_that_has_the_frames(tree: Path) -> None:
    series(tree, "SCD0000101", "CINESAX_200", [48])
    assert read(tree).cases[0].name == "SCD0000101/IM-0003-0048"


def test_takes_the_series_in_which_the_contours_lie(tree: Path) -> None:
    series(tree, "SCD0000101", "CINESAX_200", [48, 60], size=(16, 16))
    assert read(tree).cases[0].image.shape == SIZE


@pytest.mark.parametrize("name", ["CINESAX_200", "CINESAX_400"])
def test_takes_the_series_with_the_stronger_edges(tree: Path, name: str) -> None:
    series(tree, "SCD0000101", name, [48, 60], shift=9)
    assert read(tree).cases[0].image[18, 24] == 600


def test_refuses_series_that_fit_alike_and_takes_the_one_named(tree: Path) -> None:
    series(tree, "SCD0000101", "CINESAX_200", [48, 60])
    with pytest.raises(UserError, match=r"fit several series about equally well: CINESAX_200 \(.*\), CINESAX_300"):
        read(tree)
    assert len(read(tree, series={"SCD0000101": "CINESAX_200"}).cases) == 2
    with pytest.raises(UserError, match=r"has no series CINESAX_9\. Here are: CINELAX_301, CINESAX_200, CINESAX_300"):
        read(tree, series={"SCD0000101": "CINESAX_9"})


def test_states_of_each_series_why_it_does_not_fit(tree: Path) -> None:
    folder = tree / "SCD_IMAGES_01/SCD0000101"
    (folder / "CINESAX_300/IM-0003-0060.dcm").unlink()
    series(tree, "SCD0000101", "CINESAX_200", [48, 60], size=(16, 16))
    with pytest.raises(UserError, match="its contours fit none of its series") as caught:
        read(tree)
    first, *rest = str(caught.value).splitlines()
    assert first == f"{folder.resolve()}: its contours fit none of its series."
    assert any(re.search(r"CINESAX_200: .*icontour-manual\.txt:\d+: .* lies outside the image", line) for line in rest)
    assert "  CINESAX_300: 1 frame not there: 0060." in rest


def test_the_problems_of_all_patients_are_raised_together_and_found_by_check(tree: Path) -> None:
    (tree / "SCD_IMAGES_01/SCD0000101/CINESAX_300/IM-0003-0060.dcm").unlink()
    (tree / "SCD_IMAGES_02/SCD0000201/CINESAX_4/IM-0003-0020.dcm").write_bytes(b"no DICOM")
    with pytest.raises(UserError, match="SCD0000101: its contours fit none of its series") as caught:
        read(tree)
    assert re.search(r"CINESAX_300: 1 frame not there: 0060\.\n.*SCD0000201: its contours fit none", str(caught.value))
    faults = [finding for finding in check_data(tree).findings if finding.kind == "fault"]
    assert [Path(str(finding.place)).name for finding in faults] == ["SCD0000101", "SCD0000201"]
    assert "IM-0003-0020.dcm: not a DICOM file" in faults[1].text


def test_a_frame_that_two_files_claim_is_refused(tree: Path) -> None:
    write_image(tree / "SCD_IMAGES_01/SCD0000101/CINESAX_300/IM-0004-0048.dcm")
    with pytest.raises(UserError, match=r"CINESAX_300: 1 frame there twice: 0048"):
        read(tree)


def test_an_inner_contour_that_leaves_the_outer_one_is_noted(tree: Path) -> None:
    folder = tree / "scd_manualcontours/SCD_ManualContours/SC-HF-I-02/contours-manual/IRCCI-expert"
    path = folder / "IM-0001-0020-icontour-manual.txt"
    moved = [f"{float(line.split()[0]) - 8} {line.split()[1]}" for line in path.read_text().splitlines()]
    path.write_text("\n".join(moved))
    data = read(tree)
    (note,) = (note for note in data.notes if "inner contour" in note)
    outside = int(note.partition("by ")[2].split()[0])
    assert f"SCD0000201/IM-0003-0020 ({outside} pixels)" in note
    wall, cavity = data.cases[1].masks
    alone = data.cases[0].masks
    assert outside == int(cavity.sum()) - (int(alone.sum()) - int(wall.sum()))  # what of the cavity took no wall away
    assert 20 < outside < int(cavity.sum())


def test_check_knows_the_published_layout_and_reads_it_by_the_plugin(tree: Path) -> None:
    report = check_data(tree)
    facts = report.facts
    assert (report.layout, facts["images"], facts["patients"], facts["structures"]) == (
        "sunnybrook", "2", "2", "wall (in 2), cavity (in 2)",
    )  # fmt: skip
    assert report.recipe.partition("\n")[2] == f'[data.sunnybrook]\nroot = "{tree}"\n'
    assert [str(finding) for finding in report.findings if finding.kind == "note"] == [
        "1 frame left out, which lack an inner or an outer contour: SCD0000101/IM-0003-0060."
    ]


@pytest.mark.parametrize("part", ["", "scd_manualcontours", "SCD_IMAGES_01"])
def test_a_part_of_it_or_its_reader_missing_is_reported(tree: Path, part: str) -> None:
    found = [str(finding) for finding in check_data(tree / part).findings]
    assert part == "" or "no patient table is here" in found[0]
    segkit.datasets.restore({name: segkit.datasets[name] for name in segkit.datasets.names() if name != "sunnybrook"})
    report = check_data(tree / part)
    assert (report.layout, report.facts) == ("sunnybrook", {})
    assert report.recipe.startswith("[data.sunnybrook]\nroot = ")
    (finding,) = report.findings
    assert finding.kind == "warning"
    assert "the plugin sunnybrook.py reads: it is not loaded. Put it" in finding.text


def test_a_damaged_table(tree: Path) -> None:
    (tree / "scd_patientdata.csv").write_text("PatientID,OriginalID\n" + "x" * 200_000 + ",SC-HF-I-1\n")
    with pytest.raises(UserError, match=r"scd_patientdata\.csv:\d+: not a CSV table: field larger than field limit"):
        read(tree)


def test_swapped_contours_are_refused(tree: Path) -> None:
    folder = tree / "scd_manualcontours/SCD_ManualContours/SC-HF-I-01/contours-manual/IRCCI-expert"
    write_contour(folder / "IM-0001-0048-icontour-manual.txt", OUTER + 2)
    with pytest.raises(UserError, match=r"0048-icontour-manual\.txt: encloses more than the outer contour .*swapped"):
        read(tree)


@pytest.mark.parametrize(
    "table, message",
    [
        ("PatientID,OriginalID\nSCD0000201,SC-HF-I-2\n", "the patient table has no OriginalID SC-HF-I-1"),
        (TABLE + "SCD0000301,SC-HF-I-01\n", r"scd_patientdata\.csv:4: SC-HF-I-1 or SCD0000301 is here twice"),
        (TABLE + "SCD0000101,SC-HF-I-3\n", r"scd_patientdata\.csv:4: SC-HF-I-3 or SCD0000101 is here twice"),
        ("Patient,Original\n", "no patient table is here"),
    ],
)
def test_mistakes_of_the_table_are_named(tree: Path, table: str, message: str) -> None:
    (tree / "scd_patientdata.csv").write_text(table, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read(tree)


def test_links_out_of_the_folder_are_not_followed(tree: Path) -> None:
    outside = tree.parent / "outside"
    (tree / "SCD_IMAGES_01/SCD0000101/CINESAX_300").rename(outside)
    (tree / "SCD_IMAGES_01/SCD0000101/CINESAX_300").symlink_to(outside)
    with pytest.raises(UserError, match="a link out of"):
        read(tree)


def test_structures_name_each_channel_once(tree: Path) -> None:
    with pytest.raises(UserError, match="must name at least one channel"):
        read(tree, structures=["wall", "wall"])
    with pytest.raises(UserError, match="no such folder"):
        read(tree / "nowhere")
