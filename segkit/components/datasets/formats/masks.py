"""Masks in picture files: their levels or colours, and what palettes say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.components.datasets.formats.decoding import Colour, Decoded, decode_image
from segkit.components.datasets.formats.dicom import parse_dicom
from segkit.components.datasets.formats.images import alpha_differs, equal_channels, plain
from segkit.components.datasets.formats.kinds import is_dicom
from segkit.components.datasets.reading import read_bytes
from segkit.components.datasets.structures import label_map
from segkit.errors import UserError
from segkit.types import Array

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLACK = (0, 0, 0)
Palette = dict[int, Colour]  # red, green, blue by level


class ColouredMaskError(UserError):
    """A mask holds colours where grey levels are expected."""


def read_levels(path: Path) -> tuple[Array, Palette]:
    """Return a mask's levels (H, W), of a stack (D, H, W), and their colours if they are the indices of a palette.

    Colours with equal channels and opaque alpha count as grey. A palette of colours that begins with a single black is
    one of labels, as other tools write them: its indices are the levels. A palette of grey levels makes a grey image.

    Raises:
        ColouredMaskError: the mask holds colours.
        UserError: as for `read_picture`; or it holds transparency, in which a mask may hide, or no whole numbers.
    """
    found = _decoded(path)
    labels = _indices(found, str(path))
    if labels is not None:
        return labels
    grey = equal_channels(found.pixels)
    if grey is None:
        palette = " in a palette that is not one of labels (black, then other colours)" if found.palette else ""
        raise ColouredMaskError(
            f"{path}: a mask of {_count_colours(found.pixels)} colours{palette}. Save it with one grey level per "
            'structure, or say which structure has which colour: labels = { wall = "#ff0000", cavity = "#00ff00" }.'
        )
    return _one_or_stack(label_map(plain(grey, str(path)), path)), {}


def read_colours(path: Path) -> NDArray[Any]:
    """Return the colours 0xrrggbb of a mask, (H, W) or (D, H, W).

    Raises:
        UserError: as for `read_levels`.
    """
    import numpy as np

    pixels: NDArray[Any] = _decoded(path).pixels
    if pixels.dtype != np.uint8:
        raise UserError(f"{path}: a mask of {pixels.dtype} samples; colours as labels have 8 bits each.")
    return _one_or_stack(_codes(pixels if pixels.shape[-1] > 2 else pixels[..., :1].repeat(3, axis=-1)))


def _decoded(path: Path) -> Decoded:
    data = read_bytes(path)
    if is_dicom(path, data):
        return Decoded(parse_dicom(data, str(path))[0][None, ..., None])
    found = decode_image(data, str(path))
    if _indices(found, str(path)) is None and alpha_differs(found.pixels):
        raise UserError(f"{path}: a partly transparent mask. Save it without alpha, with one grey level per structure.")
    return found


def _one_or_stack(pages: NDArray[Any]) -> Array:
    found: Array = pages[0] if len(pages) == 1 else pages
    return found


def _indices(found: Decoded, name: str) -> tuple[Array, Palette] | None:
    """Return the indices (H, W) of a palette of labels, and the colours of 0 and those that occur; None for others."""
    import numpy as np

    palette = found.palette
    grey = all(red == green == blue for red, green, blue in palette)
    if found.indices is None or grey or palette[0] != BLACK or palette[1:2] == (BLACK,):
        return None
    levels = np.unique(found.indices).tolist()
    if levels[-1] >= len(palette):
        raise UserError(f"{name}: a damaged image: index {levels[-1]} of a palette of {len(palette)} colours.")
    return _one_or_stack(found.indices), {level: palette[level] for level in (0, *levels)}


def _codes(colours: NDArray[Any]) -> NDArray[Any]:
    """Return one number a colour, 0xrrggbb."""
    import numpy as np

    red, green, blue = (colours[..., part].astype(np.uint32) for part in range(3))
    return (red << 16) | (green << 8) | blue


def _count_colours(pixels: NDArray[Any]) -> int:
    import numpy as np

    flat = pixels[..., :3].reshape(-1, 3)
    return len(np.unique(flat if flat.dtype != np.uint8 else _codes(flat), axis=0))


def agree(palettes: Iterable[tuple[Path, Palette]]) -> None:
    """Raise if a level has two colours in the palettes of a data set's masks, and so may be two structures.

    Raises:
        UserError: the message names both files.
    """
    known: dict[int, tuple[Colour, Path]] = {}
    for path, colours in palettes:
        for level, colour in colours.items():
            before, other = known.setdefault(level, (colour, path))
            if before != colour:
                raise UserError(
                    f"{path}: its palette gives index {level} another colour than that of {other}: is it the same "
                    "structure? Save all masks with one palette, or with one grey level per structure."
                )
