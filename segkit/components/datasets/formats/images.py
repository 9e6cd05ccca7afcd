"""Images of every kind of file that segkit reads, as one grey channel or as red, green and blue."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.components.datasets.formats import tiff
from segkit.components.datasets.formats.decoding import JPEG, PNG, decode_image, without_exif
from segkit.components.datasets.formats.dicom import parse_dicom
from segkit.components.datasets.formats.kinds import is_dicom, volume
from segkit.components.datasets.reading import read_bytes, size_text
from segkit.errors import UserError
from segkit.types import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

LUMA = (299, 587, 114)  # thousandths of red, green and blue (ITU-R BT.601)
HEAD = 4096  # bytes that are read of a file to see whether it may show colours
ROWS = 512  # converted at a time, which bounds the memory


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that was read.

    Attributes:
        pixels: (H, W), or red, green and blue (3, H, W); of a stack (1, D, H, W) or (3, D, H, W). uint8, uint16 or
            float32.
        spacing_mm: (row, column), if a DICOM file states it.
        coloured: whether the file shows colours; grey `pixels` are then their brightness.
    """

    pixels: Array
    spacing_mm: tuple[float, float] | None = None
    coloured: bool = False


def read_image(path: Path) -> Array:
    """Return an image (H, W), uint8, uint16 or float32, of a DICOM, PNG, TIFF, JPEG or BMP file.

    Colour becomes grey (0.299 red + 0.587 green + 0.114 blue), an alpha channel is dropped.

    Raises:
        UserError: the file is missing, damaged, of another kind or larger than 8192 x 8192; the message names it.
    """
    pixels = read_picture(path).pixels
    if pixels.ndim > 2:
        raise UserError(f"{path}: several images in one file; only files of one image are read. Split it first.")
    return pixels


def read_pictures(paths: Sequence[Path], *, grey: bool = True) -> Picture:
    """Return the image of several files, one an input, or of one file as `read_picture` does.

    Raises:
        UserError: as for `read_picture`; or they differ in size.
    """
    import numpy as np

    found = [read_picture(path, grey=grey) for path in paths]
    first = found[0].pixels
    if len(found) == 1:
        return found[0]
    for path, picture in zip(paths, found, strict=True):
        if picture.pixels.shape != first.shape:
            sizes = [size_text(part.shape[-2 if part.ndim == 2 else 1 :]) for part in (picture.pixels, first)]
            raise UserError(f"{path}: the image has {sizes[0]} pixels, {paths[0]} has {sizes[1]}.")
    several = np.concatenate if first.ndim == 4 else np.stack
    pixels: Array = several([picture.pixels for picture in found])
    spacing = next((picture.spacing_mm for picture in found if picture.spacing_mm), None)
    return Picture(pixels, spacing, coloured=any(picture.coloured for picture in found))


def read_picture(path: Path, *, grey: bool = True) -> Picture:
    """Return an image with its spacing and whether it was coloured; a TIFF of several pages is a volume.

    Args:
        path: a DICOM, PNG, TIFF, JPEG or BMP file.
        grey: one channel, as `read_image` gives; otherwise three, red, green and blue, equal in a grey file.

    Raises:
        UserError: as for `read_image`.
    """
    data = read_bytes(path)
    if is_dicom(path, data):
        image, spacing = parse_dicom(data, str(path))
        return Picture(image if grey else _thrice(image), spacing)
    pixels = decode_image(data, str(path)).pixels
    single = equal_channels(pixels)
    if single is not None and alpha_differs(pixels) and single.min() == single.max():
        raise UserError(f"{path}: its picture is in the alpha channel, which is not read. Save it as a grey image.")
    coloured = single is None
    if grey:
        found = plain(_luma(pixels) if single is None else single, str(path))
        return Picture(found[0] if len(found) == 1 else found[None], coloured=coloured)
    found = _thrice(plain(single, str(path))) if single is not None else plain(_first_three(pixels), str(path))
    return Picture(found[:, 0] if found.shape[1] == 1 else found, coloured=coloured)


def may_be_coloured(path: Path) -> bool:
    """Return whether an image's first bytes allow that it shows colours; True if they do not tell."""
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        if volume(path.name) or is_dicom(path, head):
            return False
        if head[:4] == PNG:
            return head[25] not in (0, 4)  # grey, grey with alpha
        if head[:4] in tiff.MARKS:
            page = next(tiff.directories(head))
            return page.get(tiff.PHOTOMETRIC) == tiff.PALETTE or page.get(tiff.SAMPLES, 1) > 2
        if head[:2] == JPEG:
            return JpegImageFile(io.BytesIO(without_exif(head))).mode != "L"
    except Exception:  # what is damaged, or not among the first bytes, is seen when the image is decoded
        return True
    return True


def alpha_differs(pixels: NDArray[Any]) -> bool:
    """Return whether some pixels (D, H, W, S) are more transparent than others."""
    return pixels.shape[-1] in (2, 4) and bool(pixels[..., -1].min() != pixels[..., -1].max())


def equal_channels(pixels: NDArray[Any]) -> Array | None:
    """Return the grey levels (D, H, W) of pixels whose colour channels are equal, None for others; alpha is ignored."""
    first: Array = pixels[..., 0]
    others = range(1, 1 if pixels.shape[-1] == 2 else min(3, pixels.shape[-1]))  # the last of 2 or 4 is alpha
    return first if all((pixels[..., other] == first).all() for other in others) else None


def _luma(colours: NDArray[Any]) -> Array:
    """Return the brightness (D, H, W) of colours (D, H, W, 3 or 4); integers stay integers."""
    import numpy as np

    whole = colours.dtype in (np.uint8, np.uint16)
    found: NDArray[Any] = np.empty(colours.shape[:3], colours.dtype if whole else np.float64)
    rows, colours = found.reshape(-1, colours.shape[2]), colours.reshape(-1, *colours.shape[2:])
    for top in range(0, len(rows), ROWS):
        part = colours[top : top + ROWS].astype(np.uint32 if whole else np.float64)
        weighed: Any = sum(part[..., i] * weight for i, weight in enumerate(LUMA))
        rows[top : top + ROWS] = (weighed + 500) // 1000 if whole else weighed / 1000
    return found


def _first_three(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return red, green and blue (3, D, H, W)."""
    import numpy as np

    return np.moveaxis(pixels[..., :3], -1, 0)


def _thrice(grey: Array) -> Array:
    """Return a grey image as red, green and blue."""
    import numpy as np

    return np.stack([grey] * 3)


def plain(pixels: NDArray[Any], name: str) -> Array:
    """Return pixels as uint8, uint16 or finite float32.

    Raises:
        UserError: some are not finite.
    """
    import numpy as np

    if pixels.dtype not in (np.uint8, np.uint16):
        with np.errstate(over="ignore"):
            pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise UserError(f"{name}: contains values that are not finite (NaN, infinity, or beyond 32 bits).")
    return np.ascontiguousarray(pixels)
