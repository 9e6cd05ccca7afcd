"""The cases of a data set as training and evaluation need them: slices of images and bit maps, mapped into memory.

A store is a folder of four files, or the same arrays in memory: `images.bin`, the slices one after another as (H, W),
or (H, W, I) of several inputs, of uint8 or float32; `bits.bin`, their masks as bit maps (H, W) of uint8 or uint16;
`moments.npy`, what statistics need of each slice; and `index.json`, which is written last.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from segkit import files
from segkit.components.datasets.case import MOST_CHANNELS
from segkit.data.pipeline import Bits, Image, labels_of
from segkit.data.transform_faults import TransformError
from segkit.errors import UserError
from segkit.files import explain_os_errors
from segkit.types import Array, Mask

FORMAT = 1
INDEX, IMAGES, BITS, MOMENTS = "index.json", "images.bin", "bits.bin", "moments.npy"
LEVELS = 256
RELEASE_EVERY = 256  # images
RELEASE = getattr(mmap, "MADV_DONTNEED", None)


class Slices:
    """Images and bit maps by number.

    Attributes:
        folder: where they lie; None in memory.
        inputs: I, of the images.
        labels: the values in each bit map, in order.
        dtype: of the images, "uint8" or "float32".
        bounds: the least and the greatest value of all images.
    """

    def __init__(
        self, index: Mapping[str, Any], images: Array, bits: Array, moments: Array, folder: Path | None
    ) -> None:
        self.folder, self.inputs = folder, int(index["inputs"])
        self.labels = [tuple(found) for found in index["labels"]]
        self._places = [tuple(place) for place in index["places"]]  # height, width, beginnings of image and bit map
        self._errors: dict[int, str] = {int(number): text for number, text in index["errors"].items()}
        self._maps: list[mmap.mmap] = []
        self._touched = 0
        self._index, self._images, self._bits, self.moments = index, images, bits, moments
        self.dtype = images.dtype.name
        self.bounds = float(index["bounds"][0]), float(index["bounds"][1])

    def __len__(self) -> int:
        return len(self._places)

    def __reduce__(self) -> Any:  # a process maps the files itself
        if self.folder is not None:
            return Slices.open, (self.folder,)
        return Slices, (self._index, self._images, self._bits, self.moments, None)

    @classmethod
    def open(cls, folder: Path) -> Slices:
        """Map the files of a folder that `Writer` has written.

        Raises:
            OSError, ValueError: it is not there, or damaged.
        """
        index = json.loads((folder / INDEX).read_bytes())
        if index.get("format") != FORMAT:
            raise ValueError(f"{folder}: of another format")
        (images, first), (bits, second) = (_mapped(folder / name, index[name]) for name in (IMAGES, BITS))
        found = cls(index, images, bits, np.load(folder / MOMENTS, mmap_mode="r", allow_pickle=False), folder)
        found._maps = [mapped for mapped in (first, second) if mapped is not None]
        return found

    @property
    def size(self) -> int:
        """The bytes that all images and bit maps take on a device, where bit maps of uint16 are int32."""
        return int(self._images.nbytes + self._bits.nbytes * (1 if self._bits.dtype == np.uint8 else 2))

    def shape(self, number: int) -> tuple[int, int]:
        """Return height and width of a slice."""
        height, width, _, _ = self._places[number]
        return height, width

    def check(self, number: int) -> None:
        """Raise TransformError if a transform failed on an image."""
        if number in self._errors:
            raise TransformError(self._errors[number])

    def image(self, number: int) -> Image:
        """Return an image, (H, W) or (H, W, I), read-only.

        Raises:
            TransformError: a transform failed on it.
        """
        self.check(number)
        self._touched += 1
        if self._touched % RELEASE_EVERY == 0 and RELEASE is not None:  # what was read stays in the system's cache
            for mapped in self._maps:
                mapped.madvise(RELEASE)
        height, width, at, _ = self._places[number]
        flat = self._images[at : at + height * width * self.inputs]
        return flat.reshape((height, width) if self.inputs == 1 else (height, width, self.inputs))

    def bits(self, number: int) -> Bits:
        """Return a bit map (H, W), read-only: bit c of a pixel for channel c."""
        height, width, _, at = self._places[number]
        return self._bits[at : at + height * width].reshape(height, width)  # type: ignore[return-value]

    def mean_std(self, numbers: Sequence[int]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of all pixels of some slices, for each input; a deviation of 0 is 1."""
        found = [_mean_std(self.moments[list(numbers), place]) for place in range(self.inputs)]
        return tuple(mean for mean, _ in found), tuple(std or 1.0 for _, std in found)


def _mapped(path: Path, described: Sequence[Any]) -> tuple[Array, mmap.mmap | None]:
    """Return the array in a file, and its map."""
    kind, count = np.dtype(str(described[0])), int(described[1])
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size != count * kind.itemsize:
            raise ValueError(f"{path}: cut off")
        if not count:
            return np.empty(0, kind), None
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, kind), mapped


def _mean_std(moments: NDArray[Any]) -> tuple[float, float]:
    """Return mean and deviation from histograms (N, 256), or from (N, 3): count, mean, squared deviations of each."""
    if moments.shape[1] == LEVELS:
        counts = moments.sum(axis=0, dtype=np.int64)
        levels = np.arange(LEVELS)
        mean = float((counts * levels).sum() / counts.sum())
        return mean, float((counts * (levels - mean) ** 2).sum() / counts.sum()) ** 0.5
    count, means, squares = moments.T
    mean = float((count * means).sum() / count.sum())
    return mean, float((squares + count * (means - mean) ** 2).sum() / count.sum()) ** 0.5


class Writer:
    """Writes the files of `Slices`, into an existing folder or into memory."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._files: dict[str, IO[bytes]] = {}
        for name in (IMAGES, BITS):
            self._files[name] = io.BytesIO() if folder is None else open(folder / name, "wb")  # noqa: SIM115
        self._kinds: dict[str, str] = {}
        self._ends = {IMAGES: 0, BITS: 0}
        self._places: list[tuple[int, int, int, int]] = []
        self._labels: list[tuple[int, ...]] = []
        self._moments: list[Array] = []
        self._errors: dict[int, str] = {}
        self._inputs = 1
        self._bounds = math.inf, -math.inf

    def add(self, name: str, images: Array, bits: Array, error: str = "") -> int:
        """Add slices, images (S, H, W) or (S, H, W, I) and bit maps (S, H, W); return the first one's number.

        Args:
            name: of their case, for messages.
            images, bits: the arrays.
            error: why the images cannot be used; raised when one is asked for.
        """
        first, pixels = len(self._places), images.shape[1] * images.shape[2]
        self._inputs = images.shape[3] if images.ndim == 4 else 1
        for number, (image, found) in enumerate(zip(images, bits, strict=True), first):
            at = (
                self._ends[IMAGES] + (number - first) * pixels * self._inputs,
                self._ends[BITS] + (number - first) * pixels,
            )
            self._places.append((*image.shape[:2], *at))
            self._labels.append(labels_of(found))
            self._moments.append(_moments(image, self._inputs))
            if error:
                self._errors[number] = error
        self._bounds = min(self._bounds[0], float(images.min())), max(self._bounds[1], float(images.max()))
        self._write(name, IMAGES, images)
        self._write(name, BITS, bits)
        return first

    def _write(self, name: str, file: str, array: Array) -> None:
        kind = self._kinds.setdefault(file, array.dtype.name)
        if array.dtype.name != kind:
            raise UserError(
                f"{name}: its image is {array.dtype.name}, those before it are {kind}: images of one data set must "
                'have one depth. Set intensity = "percentile" or "minmax", which give 8 bits for every depth.'
            )
        with explain_os_errors(self.folder or Path(file)):
            self._files[file].write(np.ascontiguousarray(array).data)
        self._ends[file] += array.size

    def labels(self, first: int) -> list[tuple[int, ...]]:
        """Return the values in each bit map from a slice on."""
        return self._labels[first:]

    def close(self) -> Slices:
        """Write the rest and return the slices."""
        index: dict[str, Any] = {"format": FORMAT, "inputs": self._inputs, "places": self._places}
        index |= {"labels": self._labels, "errors": self._errors, "bounds": self._bounds}
        index |= {name: [self._kinds.get(name, "uint8"), self._ends[name]] for name in (IMAGES, BITS)}
        moments = np.stack(self._moments)
        if self.folder is None:
            images, bits = (np.frombuffer(self._files[n].getvalue(), self._kinds[n]) for n in (IMAGES, BITS))  # type: ignore
            return Slices(index, images, bits, moments, None)
        with explain_os_errors(self.folder):
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())  # else a power failure may leave zeros behind an index that is whole
                file.close()
            np.save(self.folder / MOMENTS, moments, allow_pickle=False)
        files.write_text(self.folder / INDEX, json.dumps(index))
        return Slices.open(self.folder)

    def abandon(self) -> None:
        """Close the files; what could not be written has been said, or is not needed any more."""
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk: closing tries to write again
                file.close()


def _moments(image: Array, inputs: int) -> Array:
    """Return the histogram (I, 256) of an 8-bit image; of others (I, 3): count, mean, sum of squared deviations."""
    planes: Any = [image] if inputs == 1 else [image[..., place] for place in range(inputs)]
    if image.dtype == np.uint8:
        return np.stack([np.bincount(plane.ravel(), minlength=LEVELS) for plane in planes]).astype(np.uint32)
    found = [plane.astype(np.float64) for plane in planes]
    return np.array([(plane.size, plane.mean(), ((plane - plane.mean()) ** 2).sum()) for plane in found])


def pack_masks(masks: NDArray[Any], name: str = "masks") -> Bits:
    """Return masks (C, ...) as a bit map (...): uint8 for up to 8 channels, else uint16.

    Raises:
        UserError: more than 16 channels.
    """
    if masks.ndim < 3 or not 1 <= len(masks) <= MOST_CHANNELS:
        raise UserError(f"{name}: masks must be 1 to {MOST_CHANNELS} channels of (rows, columns), got {masks.shape}.")
    kind = np.uint8 if len(masks) <= 8 else np.uint16
    bits = np.zeros(masks.shape[1:], kind)
    for channel, mask in enumerate(masks):
        bits |= mask.astype(bool).astype(kind) << kind(channel)
    return bits


def unpack_masks(bits: Array, channels: int) -> Mask:
    """Return a bit map (...) as masks (C, ...)."""
    masks: Mask = np.empty((channels, *bits.shape), bool)
    for channel, mask in enumerate(masks):  # one at a time: those of a volume may be large
        np.not_equal(np.bitwise_and(bits, 1 << channel), 0, out=mask)
    return masks
