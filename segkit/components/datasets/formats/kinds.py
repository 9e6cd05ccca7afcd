"""What kind of file a path is, by its name or its first bytes, and what to do with kinds that are not read."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from segkit.components.datasets.reading import entries, is_folder
from segkit.errors import UserError, first_few

DICOM = (".dcm", ".dicom")
IMAGES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", *DICOM)
NIFTI = (".nii", ".nii.gz")
VOLUMES = {
    ".nii": "NIfTI", ".nii.gz": "NIfTI", ".mha": "MetaImage", ".mhd": "MetaImage", ".nrrd": "NRRD", ".mgz": "MGH",
    ".mgh": "MGH", ".mnc": "MINC",
}  # fmt: skip
READS_NIFTI = "the datasets nifti and nnunet read NIfTI (`segkit check FOLDER` prints the lines)"
CONVERT = """convert it to NIfTI, e.g. SimpleITK.WriteImage(SimpleITK.ReadImage("a.mha"), "a.nii.gz")"""
MARKS = (
    (0, b"\x89PNG", "a PNG picture"), (0, b"\xff\xd8\xff", "a JPEG picture"), (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"GIF8", "a GIF picture"), (8, b"WEBP", "a WebP picture"), (4, b"jP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"), (4, b"ftyp", "a HEIF picture or a film"),
    (0, b"II+\0", "a TIFF picture"), (0, b"MM\0+", "a TIFF picture"), (0, b"8BPS", "a Photoshop document"),
    (0, b"%PDF", "a PDF document"), (0, b"\x93NUMPY", "a NumPy array"), (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"MATLAB ", "a MATLAB file"), (0, b"PK\3\4", "a ZIP archive"), (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"), (0, b"Rar!", "a RAR archive"), (257, b"ustar", "a TAR archive"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file (`git lfs pull` fetches it)"),
    (0, b"\x80\x02", "a pickle"), (0, b"\x7fELF", "a program"), (0, b"<", "an HTML, SVG or XML file"),
)  # fmt: skip


def is_nifti(path: Path) -> bool:
    """Return whether a file is NIfTI by its name."""
    return path.name.lower().endswith(NIFTI)


def without_ending(name: str) -> str:
    """Return a file's name without the ending that tells its kind; other endings stay."""
    known = (ending for ending in (*sorted(VOLUMES, key=len, reverse=True), *IMAGES) if name.lower().endswith(ending))
    return name[: len(name) - len(next(known, ""))] or name


def is_named_dicom(path: Path) -> bool:
    """Return whether a file's name allows that it is DICOM: by its ending, or without one, as those from scanners."""
    return path.suffix.lower() in DICOM or path.suffix[1:].isdigit() or not path.suffix


def is_bare_dicom(path: Path) -> bool:
    """Return whether a file is DICOM and has no suffix, as those from scanners."""
    if path.suffix.lower() in DICOM or not is_named_dicom(path) or not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_dicom(path: Path, data: bytes) -> bool:
    """Return whether a file is DICOM by its name or its first bytes.

    Raises:
        UserError: it is a volume of another format by its name.
    """
    if kind := volume(path.name):
        raise UserError(f"{path}: a {kind} volume; {advice_on(kind)}.")
    return path.suffix.lower() in DICOM or data[128:132] == b"DICM"


def kind_of(data: bytes) -> str:
    """Return what the bytes of a file are, such as "a NIfTI volume" or "a text file"."""
    start = data[:4096]
    if start[:2] == b"\x1f\x8b":
        with contextlib.suppress(zlib.error):
            start = zlib.decompressobj(31).decompress(start, 512)
    if start[344:348] in (b"n+1\0", b"ni1\0") or start[4:8] in (b"n+2\0", b"ni2\0"):
        return "a NIfTI volume"
    if start[:4] == b"NRRD":
        return "a NRRD volume"
    if start[:10] in (b"ObjectType", b"NDims = 3\n", b"NDims = 2\n"):
        return "a MetaImage volume"
    for at, mark, kind in MARKS:
        if data[at : at + len(mark)] == mark:
            return kind
    if any((byte < 32 and byte not in b"\t\r\n\f") or byte == 127 for byte in start):
        return "of an unknown kind"
    return "a text file" if data else "an empty file"


def advice_on(kind: str) -> str:
    """Return what to do with a volume of a kind, such as "NIfTI", where images are expected."""
    return READS_NIFTI if "NIfTI" in kind else CONVERT


def volume(name: str) -> str | None:
    """Return the kind of volume that a file's name indicates, None for other files."""
    return next((kind for suffix, kind in VOLUMES.items() if name.lower().endswith(suffix)), None)


def describe_other_content(folder: Path, files: Sequence[str]) -> str:
    """Return what a folder without images holds, from the names of its files, and what to do."""
    kind = next((kind for name in files if (kind := volume(name))), None)
    if kind:
        return f"It contains {kind} volumes; {advice_on(kind)}."
    if files:
        return f"It contains {first_few(files)}. Images are PNG, TIFF, JPEG, BMP or DICOM files."
    folders = [entry.name for entry in entries(folder) if is_folder(entry)]
    return f"Name the one of its folders that contains them: {first_few(folders)}." if folders else "It is empty."
