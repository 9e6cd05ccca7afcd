"""NIfTI files in the geometry of another file, or in one that an affine gives."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.components.datasets.formats.geometry import Geometry
from segkit.components.datasets.formats.nifti_files import HEADER
from segkit.files import write_bytes
from segkit.types import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 3  # of compression; higher ones take many times longer for little


def write_label_map(path: Path, labels: Array, geometry: Geometry) -> None:
    """Write a label map or mask (D, H, W) of uint8, uint16 or bool that lies where the voxels of `geometry` do.

    Affine, orientation, units and whatever else the header says are kept; extensions of the header are not.

    Raises:
        UserError: the file cannot be written.
    """
    _write(path, labels.view("uint8") if labels.dtype == bool else labels, geometry)


def write_probabilities(path: Path, probabilities: Array, geometry: Geometry) -> None:
    """Write probabilities (D, H, W) as float32, as `write_label_map` does."""
    import numpy as np

    _write(path, probabilities.astype(np.float32, copy=False), geometry)


def write_placed(path: Path, volume: Array, affine: NDArray[Any]) -> None:
    """Write a volume (D, H, W) whose affine (4, 4) leads from (column, row, slice) to mm.

    Raises:
        UserError: the file cannot be written.
    """
    import numpy as np
    from nibabel.nifti1 import Nifti1Header

    voxels: NDArray[Any] = np.transpose(volume)
    header: Any = Nifti1Header(endianness="<")  # type: ignore[no-untyped-call]
    header.set_data_shape(voxels.shape)
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=1)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):  # a quaternion holds no shear
        header.set_qform(affine, code=1)
    _save(path, voxels, header)


def _write(path: Path, volume: Array, geometry: Geometry) -> None:
    voxels = geometry.restore(volume)
    if voxels.shape != geometry.shape:
        raise ValueError(f"{volume.shape} voxels do not fit {geometry.path}, whose slices are {geometry.slices}")
    header = geometry.header.as_byteswapped("<")
    plane = int(header["dim"][0]) == 2
    header["dim"][:] = [2 if plane else 3, *geometry.shape, 1, 1, 1, 1]
    header["cal_min"] = header["cal_max"] = 0  # the window in which the image is shown
    _save(path, voxels, header)


def _save(path: Path, voxels: Array, header: Any) -> None:
    header.set_data_dtype(voxels.dtype)
    header.set_slope_inter(1, 0)
    start = HEADER[int(header["sizeof_hdr"])]
    header["vox_offset"] = start
    body = voxels.astype(voxels.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
    data = header.binaryblock.ljust(start, b"\0") + body
    write_bytes(path, gzip.compress(data, LEVEL, mtime=0) if path.name.lower().endswith(".gz") else data)
