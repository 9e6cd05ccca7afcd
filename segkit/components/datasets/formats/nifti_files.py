"""NIfTI files: what the header says, voxels as stored, label maps.

Nothing is allocated before the header's numbers are within bounds and the file is large enough to hold them.
"""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from segkit.components.datasets.formats.decoding import DENSEST
from segkit.components.datasets.formats.geometry import Geometry, Slices, slices_of
from segkit.components.datasets.formats.kinds import kind_of
from segkit.components.datasets.reading import MOST_TEXT, size_text
from segkit.components.datasets.structures import label_map
from segkit.errors import UserError
from segkit.files import kind_of as kind_of_path
from segkit.files import unreadable
from segkit.types import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_VOXELS = 1024**3
GZIP = b"\x1f\x8b"
HEADER = {348: 352, 540: 544}  # bytes of a header of NIfTI-1 and -2, and where voxels may begin
ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # the code of the unit of length: unknown, metre, mm, micron


def read_geometry(path: Path, slices: Slices = "auto", *, several: bool = False) -> Geometry:
    """Return what the header of a NIfTI file says; voxels are not read.

    Args:
        path: a `.nii` or `.nii.gz` file.
        slices: across which of the patient's axes slices lie; "auto": the axis with clearly the largest spacing (1.2
            times the second), else axial.
        several: whether a fourth axis may hold several volumes, as inputs of one image.

    Raises:
        UserError: it is not NIfTI, damaged, too large, of colours or complex numbers, or its spacing cannot be used.
    """
    import numpy as np

    header = _header(path)
    count = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1 : 1 + max(0, min(count, 7))]]
    if not 2 <= count <= 7 or min(sizes) < 1:
        raise UserError(f"{path}: a damaged NIfTI file: its header states no shape ({sizes}). Export it again.")
    width, height, depth, *more = [*sizes, 1][: max(3, count)]
    while more and more[-1] == 1:
        more.pop()
    if len(more) > 1 or (more and not several):
        raise UserError(
            f"{path}: holds several volumes, a time series or several inputs, where one is expected "
            f"({size_text(sizes)}). Split it into files of one volume each, or leave it out by a narrower "
            "pattern."
        )
    if np.prod([float(size) for size in sizes]) > MOST_VOXELS:
        raise UserError(f"{path}: too large: more than {MOST_VOXELS:,} voxels ({size_text(sizes)}). Crop it.")
    _check_type(path, header)
    shape = (width, height, depth)
    lengths, affine = _places(path, header, shape, count)
    return Geometry(
        path, header, shape, more[0] if more else 1, affine, lengths, slices_of(slices, affine, shape, lengths)
    )


def _header(path: Path) -> Any:
    """Return nibabel's header of a file of one piece, not checked."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    with _opened(path) as file:
        data = file.read(max(HEADER))
    order = next((mark for mark, name in ORDERS.items() if int.from_bytes(data[:4], name) in HEADER), "<")
    size = int.from_bytes(data[:4], ORDERS[order])
    if size in HEADER and len(data) < size:
        raise _cut_off(path)
    magic = data[344:348] if size == 348 else data[4:8]
    if magic in (b"ni1\0", b"ni2\0"):
        raise UserError(f"{path}: a NIfTI header whose voxels lie in another file. Save both as one .nii.gz file.")
    if size not in HEADER or magic not in (b"n+1\0", b"n+2\0"):
        found = "an Analyze file" if size in HEADER else kind_of(data)
        raise UserError(f"{path}: not a NIfTI file, but {found}. Convert it, or leave it out.")
    kind: Any = Nifti1Header if size == 348 else Nifti2Header  # without types
    return kind(data[:size], order, check=False)


def _check_type(path: Path, header: Any) -> None:
    """Raise unless voxels are real numbers that can be read."""
    try:
        kind = header.get_data_dtype()
        header.get_slope_inter()
    except Exception as error:  # nibabel raises several kinds for codes that it does not know
        raise UserError(f"{path}: a damaged NIfTI file ({str(error)[:100]}). Export it again.") from None
    if kind.kind in "Vc" or kind.itemsize > 8 or kind.itemsize == 0:
        named = "colours" if kind.kind == "V" else f"voxels of type {kind.name}"
        raise UserError(f"{path}: holds {named}, which are not read. Save each part as a file of real numbers.")


def _places(
    path: Path, header: Any, shape: tuple[int, int, int], count: int
) -> tuple[tuple[float, float, float], NDArray[Any]]:
    """Return the spacing along the file's axes, and the affine, in mm."""
    import numpy as np

    plain = header.copy()
    plain["dim"][:4] = 3, *shape
    if count == 2:  # a single slice need not have a thickness
        plain["pixdim"][3] = abs(plain["pixdim"][3]) or 1
    if plain["pixdim"][0] not in (-1, 1):
        plain["pixdim"][0] = 1  # as the standard has it
    zooms = np.array(plain["pixdim"][1:4], float)
    scale = TO_MM.get(int(plain["xyzt_units"]) & 7)
    if not np.isfinite(zooms).all() or zooms.min() <= 0 or scale is None:
        unit = "" if scale else f", in an unknown unit {int(plain['xyzt_units']) & 7}"
        raise UserError(
            f"{path}: its spacing must be three lengths above 0 "
            f"({' x '.join(f'{zoom:g}' for zoom in zooms)}{unit}). Write the true spacing into the header, e.g. "
            "with nibabel's `set_zooms`."
        )
    with np.errstate(all="ignore"):
        try:
            affine = np.array(plain.get_best_affine(), float)
        except Exception:  # nibabel raises several kinds for a rotation that is none
            affine = np.full((4, 4), np.nan)
        axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        if not np.isfinite(affine).all() or not abs(np.linalg.det(axes)) > 1e-3:
            raise UserError(
                f"{path}: its affine is singular: the header does not say how voxels lie. Write a true one into it."
            )
    affine[:3] *= scale
    first, second, third = (float(zoom) * scale for zoom in zooms)
    return (first, second, third), affine


def read_voxels(file: Geometry) -> Array:
    """Return a file's voxels along its own axes, (X, Y, Z) or, of several inputs, (X, Y, Z, I), in its own units.

    uint8, uint16 and int16 as stored; other whole numbers become int16 or uint16 where they fit, all else float32.

    Raises:
        UserError: the file is damaged or cut off, or holds NaN or infinity.
    """
    import numpy as np

    raw = _raw(file)
    slope, inter = file.header.get_slope_inter()
    if (slope, inter) not in ((None, None), (1.0, 0.0)):
        small = raw.dtype.kind in "iu" and raw.dtype.itemsize <= 2  # these are exact in 32 bits
        with np.errstate(over="ignore", invalid="ignore"):
            raw = raw.astype(np.float32 if small else np.float64) * slope + inter
    if raw.dtype.kind in "iu":
        return _narrowed(raw)
    with np.errstate(over="ignore", invalid="ignore"):
        voxels = raw.astype(np.float32, copy=False)
    finite = np.isfinite(voxels)
    if not finite.all():
        raise UserError(
            f"{file.path}: holds voxels that are not finite (NaN, infinity, or beyond 32 bits) "
            f"({finite.size - int(finite.sum()):,} of {finite.size:,}). Replace them, e.g. by the value of the "
            "background."
        )
    return voxels


def _narrowed(raw: NDArray[Any]) -> Array:
    """Return whole numbers in the smallest of int16, uint16 and float32 that holds them; uint8 stays."""
    import numpy as np

    if raw.dtype in (np.uint8, np.uint16, np.int16):
        return raw
    lowest, highest = int(raw.min()), int(raw.max())
    for kind in (np.int16, np.uint16):
        if np.iinfo(kind).min <= lowest and highest <= np.iinfo(kind).max:
            return raw.astype(kind)
    return raw.astype(np.float32)


def read_labels(file: Geometry) -> Array:
    """Return a label map (X, Y, Z) along the file's axes, uint8 or uint16.

    Raises:
        UserError: as for `read_voxels`, or values are not whole numbers from 0 to 65,535.
    """
    return label_map(read_voxels(file), file.path)


def _raw(file: Geometry) -> NDArray[Any]:
    """Return the stored numbers, in the machine's byte order."""
    import numpy as np

    kind = file.header.get_data_dtype()
    shape = (*file.shape, file.inputs) if file.inputs > 1 else file.shape
    start = HEADER[int(file.header["sizeof_hdr"])]
    offset = float(file.header["vox_offset"]) or start
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    if not start <= offset <= MOST_TEXT << 4:
        raise UserError(f"{file.path}: a damaged NIfTI file: no voxels can begin there ({offset:g}). Export it again.")
    with _opened(file.path) as opened:
        if size > os.path.getsize(file.path) * (DENSEST if isinstance(opened, gzip.GzipFile) else 1):
            raise _cut_off(file.path)
        opened.seek(int(offset))
        data = opened.read(size)
        opened.read(1)  # compares the checksum if this is the end
    if len(data) < size:
        raise _cut_off(file.path)
    voxels = np.frombuffer(data, kind).reshape(shape, order="F")
    return voxels.astype(kind.newbyteorder("="), copy=False)


def _cut_off(path: Path) -> UserError:
    return UserError(f"{path}: a damaged NIfTI file: it is cut off. Copy or download it again.")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open a regular file, decompressed if it is compressed, whatever its name; damage is one message."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: {kind_of_path(path)}, not a regular file.")
        with path.open("rb") as raw:
            packed = raw.read(2) == GZIP
            raw.seek(0)
            yield gzip.GzipFile(fileobj=raw) if packed else raw
    except EOFError:
        raise _cut_off(path) from None
    except (gzip.BadGzipFile, zlib.error):
        raise UserError(f"{path}: damaged: it cannot be decompressed. Copy or download it again.") from None
    except (OSError, ValueError) as error:
        raise UserError(unreadable(path, error)) from None
