"""Pipeline: a recipe's transforms in order, on one image and its masks, with randomness keyed by the sample.

The image is (H, W), or (H, W, I) of several inputs, uint8 or float32; the masks are a bit map (H, W), uint8 or uint16,
bit c of a pixel for channel c.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segkit.data.fitting import GREY, Kind, example
from segkit.data.fitting import Image as Image
from segkit.data.resampling import displaces, follow_images
from segkit.data.transform_faults import TransformError, explained_failure, failure, is_albumentations
from segkit.errors import UserError
from segkit.registry.component import Component

Bits = NDArray[np.uint8] | NDArray[np.uint16]
Pair = tuple[Image, Bits]
Key = tuple[int, ...]


class Pipeline:
    """Transforms in order.

    Attributes:
        steps: the transforms, with their names, in order.

    Args:
        components: transforms as a recipe names them.
        exclusive: whether the channels are exclusive classes, which matters where masks are resampled.

    Raises:
        UserError: a transform cannot be built from its values; the message names it.
    """

    def __init__(self, components: Sequence[Component] = (), *, exclusive: bool = False) -> None:
        self.steps = [(component.name, component()) for component in components]
        for _, transform in self.steps:
            follow_images(transform, exclusive)
        self._random = random.Random(0)
        self._generator = np.random.Generator(np.random.PCG64(0))
        self._share_generators()

    def _share_generators(self) -> None:
        """Give all transforms the same two generators, so that reseeding them once suffices for a sample."""
        for _, transform in self.steps:
            transform.set_random_state(self._generator, self._random)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def names(self) -> tuple[str, ...]:
        """The transforms' names, in order."""
        return tuple(name for name, _ in self.steps)

    @property
    def custom(self) -> bool:
        """Whether a transform comes from a plugin, not from Albumentations."""
        return not all(is_albumentations(transform) for _, transform in self.steps)

    def __call__(
        self, image: Image, bits: Bits, key: Key = (0, 0, 0), *, name: str = "", labels: tuple[int, ...] | None = None
    ) -> Pair:
        """Transform an image and its masks; neither is changed in place.

        Args:
            image: (H, W) or (H, W, I), uint8 or float32.
            bits: (H, W) uint8 or uint16.
            key: (seed, draw, sample), and the try if it is not the first: all that the randomness depends on.
            name: the sample's, for messages.
            labels: the values in `bits`, if known.

        Raises:
            TransformError: a transform failed, changed a type, the inputs or one of the sizes alone, or made a label.
        """
        if not self.steps:
            return image, bits
        labels = labels_of(bits) if labels is None else labels
        try:
            done = self._run(image, bits, key)
            if has_new_labels(done[1], labels):
                self._run(image, bits, key, labels)  # again, to find out which transform did it
        except TransformError as error:
            raise TransformError(f"{name}: {error}" if name else str(error)) from error
        return done

    def _run(self, image: Image, bits: Bits, key: Key, labels: tuple[int, ...] | None = None) -> Pair:
        self.reseed(key)
        pair = image.copy(), bits.copy()
        for name, transform in self.steps:
            pair = _apply(name, transform, *pair)
            if labels is not None:
                _check_labels(name, transform, pair[1], labels)
        return pair

    def reseed(self, key: Key) -> None:
        """Set both generators to a state derived from the key by a hash, which is faster than seeding."""
        digest = hashlib.blake2b(",".join(map(str, key)).encode(), digest_size=48).digest()
        state, increment, seed = (int.from_bytes(digest[start : start + 16], "little") for start in (0, 16, 32))
        inner = {"state": state, "inc": increment | 1}
        self._generator.bit_generator.state = {
            "bit_generator": "PCG64", "state": inner, "has_uint32": 0, "uinteger": 0,
        }  # fmt: skip
        self._random.seed(seed)

    def settle(self, pair: Pair, name: str, most: int) -> tuple[Pair, int]:
        """Run the leading transforms, up to `most`, that draw no random number; return the result and their number.

        Plugins' transforms are never run, since they may draw from other generators.

        Args:
            pair: an image and its masks.
            name: of the pair, for messages.
            most: the largest number of transforms to run.

        Raises:
            TransformError: a transform failed on the pair.
        """
        count = 0
        for step, transform in self.steps[:most]:
            done = _settled(step, transform, pair, name) if is_albumentations(transform) else None
            if done is None:
                break
            pair, count = done, count + 1
        self._share_generators()
        return pair, count

    def after(self, count: int) -> Pipeline:
        """Return the pipeline of the transforms after the first `count`."""
        self._share_generators()
        rest = Pipeline()
        rest.steps, rest._random, rest._generator = self.steps[count:], self._random, self._generator
        return rest

    def check_eval(self, kind: Kind = GREY) -> None:
        """Check that the transforms suit evaluation of a kind of images.

        Raises:
            UserError: one is random, or moves pixels other than by scaling the whole image; the message names it.
        """
        import albumentations as a

        probe = _probe(kind)
        if self.custom and not self._repeats(probe):
            raise UserError(
                f"transforms.eval: one of {', '.join(self.names)} gives several results for one image: evaluation must "
                "not be random, and a transform draws from `self.py_random` or `self.random_generator` alone."
            )
        for name, transform in self.steps:
            if not isinstance(transform, (a.ImageOnlyTransform, a.NoOp, a.Resize, a.LongestMaxSize, a.SmallestMaxSize)):
                raise UserError(
                    f"transforms.eval: {name} moves pixels, but whole images are evaluated. Use it in transforms.train."
                )
            if displaces(transform):
                paired = isinstance(transform, a.Downscale)
                linear = "interpolation_pair = { downscale = 3, upscale = 1 }" if paired else "interpolation = 1"
                raise UserError(
                    f"transforms.eval: {name} samples the image by nearest neighbour, which moves all of it by up to "
                    f"half a pixel against the truth. Set {linear}."
                )
            if _settled(name, transform, probe, "transforms.eval") is None:
                raise UserError(
                    f"transforms.eval: {name} is random, but evaluation must not be. Set p = 1, and numbers for ranges."
                )
        self._share_generators()

    def _repeats(self, probe: Pair) -> bool:
        """Return whether the result is the same for any state of numpy's and Python's global generators."""
        kept, found = (np.random.get_state(), random.getstate()), []
        try:
            for seed in range(3):
                np.random.seed(seed)
                random.seed(seed)
                found.append(self(*probe)[0])
        finally:
            np.random.set_state(kept[0])
            random.setstate(kept[1])
        return all(np.array_equal(found[0], other) for other in found[1:])


def _probe(kind: Kind) -> Pair:
    """Return an image of many levels, and empty masks."""
    image = example(kind)
    return image, np.zeros(image.shape[:2], np.uint8)


def labels_of(bits: Bits) -> tuple[int, ...]:
    """Return the distinct values of a bit map, in order."""
    return tuple(np.flatnonzero(np.bincount(bits.ravel())).tolist())


def has_new_labels(bits: Bits, labels: tuple[int, ...]) -> bool:
    """Return whether a bit map holds a value other than 0 and `labels` (in order)."""
    if not labels or labels[-1] == len(labels) - (labels[0] == 0):  # without gaps, the greatest value suffices
        return int(bits.max()) > max(labels, default=0)
    table = _forbidden(labels, bits.dtype.itemsize)
    if bits.dtype == np.uint8:
        return cv2.countNonZero(cv2.LUT(bits, table)) > 0
    return bool(np.take(table, bits).any())


@functools.lru_cache(maxsize=4096)
def _forbidden(labels: tuple[int, ...], itemsize: int) -> NDArray[np.uint8]:
    table = np.ones(256**itemsize, np.uint8)
    table[[0, *labels]] = 0
    return table


def _apply(name: str, transform: Any, image: Image, bits: Bits) -> Pair:
    """Apply one transform and check what it returns."""
    try:
        done = transform(image=image, mask=bits)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise explained_failure(name, transform, error) from error
    new_image, new_bits = done["image"], done["mask"]
    for what, array in (("image", new_image), ("masks", new_bits)):
        if not isinstance(array, np.ndarray):
            raise failure(name, transform, f"must return the {what} as a numpy array, got {type(array).__name__}.")
    if image.ndim == 2 and new_image.shape[2:] == (1,):
        new_image = new_image[..., 0]
    if new_image.dtype != image.dtype or new_bits.dtype != bits.dtype:
        text = (
            f"must leave image and masks {image.dtype} and {bits.dtype}, got {new_image.dtype} and {new_bits.dtype}. "
            "segkit normalizes on the device."
        )
        raise failure(name, transform, text)
    if new_image.shape[2:] != image.shape[2:]:
        text = f"must leave the number of inputs as it is, got an image {new_image.shape} for {image.shape}."
        raise failure(name, transform, text)
    if new_image.ndim < 2 or new_image.shape[:2] != new_bits.shape:
        text = f"must leave image and masks of one size, got {new_image.shape} and {new_bits.shape}."
        raise failure(name, transform, text)
    return new_image, new_bits


def _check_labels(name: str, transform: Any, bits: Bits, labels: tuple[int, ...]) -> None:
    if has_new_labels(bits, labels):
        new = sorted(set(labels_of(bits)) - {0, *labels})
        raise failure(name, transform, f"gave the masks labels that were not there: {new}.")


class _ProbeRandom(random.Random):
    """A generator whose state is changed by random draws only, not by those between equal bounds."""

    def uniform(self, a: float, b: float) -> float:
        return a if a == b else super().uniform(a, b)

    def randint(self, a: int, b: int) -> int:
        return a if a == b else super().randint(a, b)


def _settled(name: str, transform: Any, pair: Pair, case: str) -> Pair | None:
    """Return the transformed pair, None if the transform drew a random number."""
    plain, generator = _ProbeRandom(0), np.random.Generator(np.random.PCG64(0))
    untouched = plain.getstate(), generator.bit_generator.state
    transform.set_random_state(generator, plain)
    image, bits = pair
    try:
        done = _apply(name, transform, image.copy(), bits.copy())
        _check_labels(name, transform, done[1], labels_of(bits))
    except TransformError as error:
        raise TransformError(f"{case}: {error}") from error
    return done if (plain.getstate(), generator.bit_generator.state) == untouched else None
