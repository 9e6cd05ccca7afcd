"""Masks: the levels or colours of image files, and the structures that they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from segkit.components.datasets.case import flaw_of_channels
from segkit.components.datasets.decoding import Colour, Decoded, decode_image
from segkit.components.datasets.dicom import parse_dicom
from segkit.components.datasets.images import alpha_differs, equal_channels, is_dicom, plain
from segkit.components.datasets.reading import read_bytes
from segkit.errors import UserError, counted, first_few
from segkit.types import Array, Mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

Level = Annotated[int, Ge(1), Le(65535)]
Part = Annotated[int, Ge(0), Le(255)]
WrittenColour = tuple[Part, Part, Part] | str
Label = Level | WrittenColour
ONE_STRUCTURE = "foreground"
BLACK = (0, 0, 0)
Colours = dict[int, Colour]  # red, green, blue by level
HEX = re.compile(r"#[0-9a-fA-F]{6}")


class ColouredMaskError(UserError):
    """A mask holds colours where grey levels are expected."""


@dataclass(frozen=True)
class Labels:
    """What the levels or the colours of masks stand for.

    Attributes:
        channels: the structures.
        levels: the grey level of each, or `colours`; both empty for one structure of level 1 or 255.
        colours: red, green, blue of each.
        background: the colour of no structure.
    """

    channels: tuple[str, ...] = (ONE_STRUCTURE,)
    levels: tuple[int, ...] = ()
    colours: tuple[Colour, ...] = ()
    background: Colour = BLACK


def parse_labels(labels: Mapping[str, Label] | None, background: WrittenColour | None) -> Labels:
    """Return the labels that a recipe gives.

    Raises:
        UserError: they name no structure, or two of one level or colour, or levels and colours, or no colour.
    """
    if labels is None:
        if background is not None:
            raise UserError('background: counts only if labels are colours, e.g. labels = { wall = "#ff0000" }.')
        return Labels()
    if not labels:
        raise UserError(f"labels: {labels} must give at least one structure, and each a grey level of its own.")
    flaw = flaw_of_channels(tuple(labels))
    if flaw:
        raise UserError(f"labels: {flaw}.")
    levels = {name: label for name, label in labels.items() if isinstance(label, int)}
    if levels and len(levels) < len(labels):
        raise UserError("labels: give every structure a grey level, or every structure a colour.")
    if levels:
        if len(set(levels.values())) < len(levels):
            raise UserError(f"labels: {labels} must give at least one structure, and each a grey level of its own.")
        if background is not None:
            raise UserError("background: counts only if labels are colours; as a grey level it is always 0.")
        return Labels(tuple(levels), tuple(levels.values()))
    colours = [_colour(f"labels.{name}", label) for name, label in labels.items() if not isinstance(label, int)]
    ground = _colour("background", background) if background is not None else BLACK
    if len({ground, *colours}) <= len(colours):
        listed = ", ".join(f"{name} {as_hex(colour)}" for name, colour in zip(labels, colours, strict=True))
        raise UserError(f"labels: each structure needs a colour of its own, got background {as_hex(ground)}, {listed}.")
    return Labels(tuple(labels), (), tuple(colours), ground)


def _colour(name: str, written: WrittenColour) -> Colour:
    if not isinstance(written, str):
        return written
    if not HEX.fullmatch(written):
        raise UserError(f'{name}: {written!r} is no colour. Write "#ff0000", or [255, 0, 0].')
    return int(written[1:3], 16), int(written[3:5], 16), int(written[5:], 16)


def as_hex(colour: Colour) -> str:
    """Return a colour as a recipe may write it: "#rrggbb"."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def read_masks(path: Path, labels: Labels, palettes: dict[Path, Colours]) -> Mask:
    """Return the masks (C, H, W), of a stack (C, D, H, W), of a mask's file.

    Args:
        path: a PNG, TIFF, BMP, JPEG or DICOM file.
        labels: what its levels or colours stand for.
        palettes: receives the colours of its levels if they are the indices of a palette.

    Raises:
        UserError: as for `read_levels`; or it holds what no label stands for.
    """
    if labels.colours:
        return _by_colour(str(path), _read_colours(path), labels)
    levels, colours = read_levels(path, stacks=True)
    if colours:
        palettes[path] = colours
    return _by_level(str(path), levels, labels)


def read_levels(path: Path, *, stacks: bool = False) -> tuple[Array, Colours]:
    """Return a mask's levels (H, W), and their colours if they are the indices of a PNG's palette.

    With `stacks`, a TIFF of several pages is read too: (D, H, W).

    Colours with equal channels and opaque alpha count as grey. A palette of colours that begins with a single black is
    one of labels, as other tools write them: its indices are the levels. A palette of grey levels makes a grey image.

    Raises:
        ColouredMaskError: the mask holds colours.
        UserError: as for `read_image`; or it holds transparency, in which a mask may hide.
    """
    found = _decoded(path, stacks)
    labels = _indices(found, str(path))
    if labels is not None:
        return labels
    grey = equal_channels(found.pixels)
    if grey is None:
        colours = len(_unique_colours(found.pixels)[0])
        palette = " in a palette that is not one of labels (black, then other colours)" if found.palette else ""
        raise ColouredMaskError(
            f"{path}: a mask of {colours} colours{palette}. Save it with one grey level per structure, or say which "
            'structure has which colour: labels = { wall = "#ff0000", cavity = "#00ff00" }.'
        )
    return _one_or_stack(plain(grey, str(path))), {}


def _decoded(path: Path, stacks: bool = True) -> Decoded:
    data = read_bytes(path)
    if is_dicom(path, data):
        return Decoded(parse_dicom(data, str(path))[0][None, ..., None])
    found = decode_image(data, str(path), stacks=stacks)
    if _indices(found, str(path)) is None and alpha_differs(found.pixels):
        raise UserError(f"{path}: a partly transparent mask. Save it without alpha, with one grey level per structure.")
    return found


def _one_or_stack(pages: Array) -> Array:
    return pages[0] if len(pages) == 1 else pages


def _indices(found: Decoded, name: str) -> tuple[Array, Colours] | None:
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


def agree(palettes: Iterable[tuple[Path, Colours]]) -> None:
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


def _by_level(path: str, levels: Array, labels: Labels) -> Mask:
    """Return the masks of a mask's levels; without labels, of one structure of level 1 or 255."""
    import numpy as np

    found = set(np.unique(levels).tolist())
    if not labels.levels:
        if not (found <= {0, 1} or found <= {0, 255}):
            raise UserError(
                f"{path}: contains the levels {_listed(found)}; a mask of one structure holds 0 and 1, or 0 and 255. "
                "For several, name their levels: labels = { wall = 1, cavity = 2 }."
            )
        return np.stack([levels != 0])
    unexpected = found - {0, *labels.levels}
    if unexpected:
        known = ", ".join(f"{level} ({name})" for name, level in zip(labels.channels, labels.levels, strict=True))
        raise UserError(f"{path}: contains unexpected levels: {_listed(unexpected)}; known are 0 (none), {known}.")
    return np.stack([levels == level for level in labels.levels])


def _listed(levels: set[float]) -> str:
    return first_few((f"{level:g}" for level in sorted(levels)), 8)


def read_colours(path: Path) -> tuple[tuple[int, ...], list[tuple[Colour, int]]]:
    """Return the shape of a mask, (H, W) or (D, H, W), and its colours with the number of pixels that have each.

    Raises:
        UserError: as for `read_levels`.
    """
    pixels = _read_colours(path)
    colours, counts = _unique_colours(pixels)
    found = [(_split(int(code)), int(count)) for code, count in zip(colours, counts, strict=True)]
    return pixels.shape[1 if len(pixels) == 1 else 0 : 3], found


def _read_colours(path: Path) -> NDArray[Any]:
    """Return the colours (D, H, W, 3) of a mask."""
    import numpy as np

    pixels: NDArray[Any] = _decoded(path).pixels
    if pixels.dtype != np.uint8:
        raise UserError(f"{path}: a mask of {pixels.dtype} samples; colours as labels have 8 bits each.")
    return pixels[..., :3] if pixels.shape[-1] > 2 else pixels[..., :1].repeat(3, axis=-1)


def _codes(colours: NDArray[Any]) -> NDArray[Any]:
    """Return one number a colour, 0xrrggbb."""
    import numpy as np

    red, green, blue = (colours[..., part].astype(np.uint32) for part in range(3))
    return (red << 16) | (green << 8) | blue


def _split(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255


def _unique_colours(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    import numpy as np

    flat = pixels[..., :3].reshape(-1, 3)
    return np.unique(flat if flat.dtype != np.uint8 else _codes(flat), axis=0, return_counts=True)


def _by_colour(path: str, colours: NDArray[Any], labels: Labels) -> Mask:
    import numpy as np

    codes = _codes(colours)
    known = [_number(colour) for colour in (labels.background, *labels.colours)]
    found, counts = np.unique(codes, return_counts=True)
    others = [(int(count), int(code)) for code, count in zip(found, counts, strict=True) if code not in known]
    if others:
        shown = first_few(f"{as_hex(_split(code))} ({counted(count, 'pixel')})" for count, code in sorted(others)[::-1])
        names = ", ".join(f"{as_hex(one)} ({name})" for name, one in zip(labels.channels, labels.colours, strict=True))
        hint = " Many colours come from JPEG, or from smoothing: save masks as PNG." if len(others) > 8 else ""
        raise UserError(
            f"{path}: contains {counted(len(others), 'colour')} of no structure: {shown}; known are "
            f"{as_hex(labels.background)} (none), {names}.{hint}"
        )
    return np.stack([_one_or_stack(codes == code) for code in known[1:]])


def _number(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]
