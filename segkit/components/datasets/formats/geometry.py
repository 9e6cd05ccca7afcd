"""Where the voxels of a file lie in the patient: the file's axes, the order in which arrays are read, and back.

Arrays are (D, H, W) in the orientation in which radiologists look at them: axial slices from inferior to superior, rows
from anterior to posterior, columns from the patient's right to the left; coronal slices from anterior to posterior and
sagittal ones from right to left, with rows from superior to inferior.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segkit.components.datasets.reading import size_text
from segkit.errors import UserError
from segkit.types import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

Slices = Literal["auto", "axial", "coronal", "sagittal"]

TOWARDS = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}  # (D, H, W); left, posterior, superior, ...
ACROSS = ("sagittal", "coronal", "axial")  # slices across the patient's axes x, y and z
CLEARLY = 1.2  # times the second largest spacing
SAME_PLACE = 0.05  # of the smallest spacing, at the corners of the volume: what writers of files round away
SAME_DIRECTION = 0.5  # degrees


@dataclass(frozen=True, eq=False)
class Geometry:
    """How the voxels of a file lie in the patient, and the order in which they are read.

    Attributes:
        path: the file.
        header: nibabel's, as in the file.
        shape: voxels along the file's three axes.
        inputs: volumes along a fourth axis; 1 without it.
        affine: (4, 4), from a voxel of the file to mm towards right, anterior and superior.
        lengths: between neighbouring voxels along the file's axes in mm.
        slices: "axial", "coronal" or "sagittal".
    """

    path: Path
    header: Any
    shape: tuple[int, int, int]
    inputs: int
    affine: NDArray[Any]
    lengths: tuple[float, float, float]
    slices: str

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The distance between neighbours along (slice, row, column)."""
        depth, row, column = (int(axis) for axis in self._back[:, 0])
        return self.lengths[depth], self.lengths[row], self.lengths[column]

    @property
    def depth(self) -> int:
        """The number of slices."""
        return self.shape[int(self._back[0, 0])]

    @property
    def disagreement(self) -> float:
        """The largest relative difference between the spacing in the header and the affine's."""
        import numpy as np

        return float(np.abs(np.linalg.norm(self.affine[:3, :3], axis=0) / self.lengths - 1).max())

    def orient(self, voxels: Array) -> Array:
        """Return the file's voxels (X, Y, Z) as (D, H, W), a view."""
        turned: Array = _orientations().apply_orientation(voxels, self._turn)
        return turned

    def restore(self, volume: Array) -> Array:
        """Return (D, H, W) along the file's axes (X, Y, Z), a view: the reverse of `orient`."""
        turned: Array = _orientations().apply_orientation(volume, self._back)
        return turned

    @functools.cached_property
    def _turn(self) -> NDArray[Any]:
        return _turn(self, back=False)

    @functools.cached_property
    def _back(self) -> NDArray[Any]:
        return _turn(self, back=True)


def _turn(file: Geometry, back: bool) -> NDArray[Any]:
    """Return nibabel's description of how the file's axes become (D, H, W), or `back`."""
    library = _orientations()
    ends = library.io_orientation(file.affine), library.axcodes2ornt(TOWARDS[file.slices])
    turn: NDArray[Any] = library.ornt_transform(*(reversed(ends) if back else ends))
    return turn


def _orientations() -> Any:
    """Return nibabel's module, which has no types."""
    from nibabel import orientations

    return orientations


def slices_of(
    slices: Slices, affine: NDArray[Any], shape: tuple[int, int, int], lengths: tuple[float, float, float]
) -> str:
    """Return across which of the patient's axes the slices lie; "auto" is the file's axis with one voxel, or with
    clearly the largest spacing, else "axial"."""
    if slices != "auto":
        return slices
    flat = [axis for axis in range(3) if shape[axis] == 1]
    first, second, _ = sorted(range(3), key=lambda axis: -lengths[axis])
    if len(flat) != 1 and lengths[first] < CLEARLY * lengths[second]:
        return "axial"
    return ACROSS[int(_orientations().io_orientation(affine)[flat[0] if len(flat) == 1 else first, 0])]


def check_agreement(image: Geometry, other: Geometry, what: str) -> None:
    """Raise unless the voxels of another file, e.g. `what` = "mask", lie where those of the image do.

    Raises:
        UserError: it names both files, and in what they differ.
    """
    differences = list(_differences(image, other))
    if differences:
        raise UserError(
            f"{other.path}: this {what} does not lie where its image does ({image.path}: {'; '.join(differences)}). "
            f"Resample the {what} onto the image, or, if only the header is wrong, copy the image's (`fslcpgeom`)."
        )


def _differences(one: Geometry, other: Geometry) -> Iterator[str]:
    """Yield in what the places of two files differ: of the first what it should be, then what it is."""
    import numpy as np

    if one.shape != other.shape:
        yield f"{size_text(one.shape)} voxels against {size_text(other.shape)}"
        return
    limit = SAME_PLACE * min(one.lengths)
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    corners[:, :3] *= np.array(one.shape) - 1
    apart = np.linalg.norm(((one.affine - other.affine) @ corners.T)[:3], axis=0)
    if apart.max() <= limit:
        return
    if not np.allclose(one.lengths, other.lengths, rtol=1e-2):
        yield f"spacing {_listed(one.lengths)} mm against {_listed(other.lengths)} mm"
    axes = [matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (one.affine, other.affine)]
    cosines = np.clip((axes[0] * axes[1]).sum(axis=0), -1, 1)
    angle = float(np.degrees(np.arccos(cosines)).max())
    if angle > SAME_DIRECTION:
        yield f"axes that run in other directions, by {angle:.0f} degrees"
    yield f"up to {apart.max():.3g} mm apart"


def _listed(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)
