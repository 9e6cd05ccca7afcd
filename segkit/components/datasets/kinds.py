"""The kind of a file, by its first bytes or by its name."""

from __future__ import annotations

import contextlib
import zlib

VOLUME_SUFFIXES = {
    ".nii": "NIfTI", ".nii.gz": "NIfTI", ".mha": "MetaImage", ".mhd": "MetaImage", ".nrrd": "NRRD", ".mgz": "MGH",
    ".mgh": "MGH", ".mnc": "MINC",
}  # fmt: skip
VOLUMES = "this version reads 2-D images (PNG, TIFF, JPEG, BMP, DICOM): convert the slices to one of them"
MARKS = (
    (0, b"\x89PNG", "a PNG picture"), (0, b"\xff\xd8\xff", "a JPEG picture"), (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (0, b"GIF8", "a GIF picture"), (8, b"WEBP", "a WebP picture"), (4, b"jP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"), (4, b"ftyp", "a HEIF picture or a film"),
    (0, b"II+\0", "a BigTIFF picture"), (0, b"MM\0+", "a BigTIFF picture"), (0, b"8BPS", "a Photoshop document"),
    (0, b"%PDF", "a PDF document"), (0, b"\x93NUMPY", "a NumPy array"), (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"MATLAB ", "a MATLAB file"), (0, b"PK\3\4", "a ZIP archive"), (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"), (0, b"Rar!", "a RAR archive"), (257, b"ustar", "a TAR archive"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file (`git lfs pull` fetches it)"),
    (0, b"\x80\x02", "a pickle"), (0, b"\x7fELF", "a program"), (0, b"<", "an HTML, SVG or XML file"),
)  # fmt: skip


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


def volume(name: str) -> str | None:
    """Return the kind of volume that a file's name indicates, None for other files."""
    return next((kind for suffix, kind in VOLUME_SUFFIXES.items() if name.lower().endswith(suffix)), None)
