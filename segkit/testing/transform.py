"""Try a transform: image and masks stay together, labels stay labels, the same seed gives the same result."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from segkit.data.fitting import Kind, example
from segkit.data.pipeline import Bits, Image, Pipeline
from segkit.data.samples import Samples, assemble
from segkit.data.store import Writer
from segkit.errors import UserError, sentence
from segkit.registry.component import Component
from segkit.testing.report import ExaminationEndedError, Report

Mask = NDArray[np.bool_]
SIZES = ((80, 96), (63, 50))
SQUARE = (80, 80)
LABELS = (4, 5, 12)  # with gaps, which a blend of two labels would fall into
SEEDS = 6
CONTRAST = 75  # of a shape that is bright by 150
DIFFERENT = 2  # grey levels of 255, or percent of the pixels of masks
TOGETHER, APART = 0.85, 0.5  # overlaps of image and mask: above, they agree; below, they do not


def examine_transform(report: Report, component: Component) -> None:
    """Try a transform; see the module."""
    report.build(component)
    with report.trying("put into a pipeline", needed=True):
        Pipeline([component])
    for size in SIZES:
        for dtype in (np.uint8, np.uint16):
            _keeps_types_and_labels(report, component, size, dtype)
    with report.trying("applied twice with one key"):
        _is_reproducible(report, component)
    with report.trying("applied to an image that shows its mask"):
        _stays_together(report, component)
    with report.trying("applied to other images"):
        _takes_other_images(report, component)
    if component.entry.traits["on_device"] is not None:
        _agrees_on_device(report, component)


def _shape(size: tuple[int, int]) -> Mask:
    """Return an L with a dot: no turn or reflection of it is itself."""
    mask = np.zeros(size, bool)
    height, width = size
    mask[height // 5 : height // 5 * 4, width // 5 : width // 5 * 2] = True
    mask[height // 5 * 3 : height // 5 * 4, width // 5 : width // 5 * 4] = True
    mask[height // 4 : height // 4 + height // 8, width // 5 * 3 : width // 5 * 3 + width // 8] = True
    return mask


def _pair(component: Component, size: tuple[int, int], dtype: type = np.uint8) -> tuple[Image, Bits]:
    """Return an image that a transform takes, and the bit map of overlapping masks."""
    grey = np.random.default_rng(0).normal(90, 20, size)
    mask = _shape(size)
    bits = np.where(mask, LABELS[0], 0)
    bits[size[0] // 2 :][mask[size[0] // 2 :]] = LABELS[1]
    bits[: size[0] // 3, : size[1] // 6] = LABELS[2]
    return _coloured(component, (grey + 80 * mask).clip(0, 255).astype(np.uint8)), bits.astype(dtype)


def _coloured(component: Component, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a grey image as a transform takes it: (H, W), or (H, W, 3) if it needs colour."""
    return np.stack([grey] * 3, axis=-1) if component.entry.traits["colour"] else grey


def _keeps_types_and_labels(report: Report, component: Component, size: tuple[int, int], dtype: type) -> None:
    """The pipeline itself checks the result."""
    image, bits = _pair(component, size, dtype)
    what = f"applied to an image {size} with {np.dtype(dtype).name} masks"
    try:
        for seed in range(SEEDS):
            pair = Pipeline([component])(image, bits, (seed, 0, 0))
            if 0 in pair[0].shape:
                report.fault(f"{what} it returns an empty image.")
                raise ExaminationEndedError
    except UserError as error:
        text, cause = _told(component, error)
        add = report.note if report.guessed and isinstance(cause, ValueError) else report.fault
        add(f"{what}: {text}", report.source.of_error(cause) if cause else None)
        raise ExaminationEndedError from None


def _told(component: Component, error: BaseException) -> tuple[str, BaseException | None]:
    """Return the message of a pipeline's error without the component's name, and the first cause."""
    cause = error.__cause__
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    text = re.sub(rf"^(image: )?transform {re.escape(component.name)}( \([^)]*\))?: ", "", str(error))
    return sentence(re.sub(r" To try it by itself: .*", "", text)), cause


def _is_reproducible(report: Report, component: Component) -> None:
    """The result depends on the key alone, not on the global generators or on earlier calls."""
    image, bits = _pair(component, SIZES[0])
    pipeline = Pipeline([component])
    results = []
    for _ in range(2):
        results.append([pipeline(image, bits, (seed, 0, 0)) for seed in range(SEEDS)])
        np.random.standard_normal()  # the next pass must not depend on it
    results.append([Pipeline([component])(image, bits, (seed, 0, 0)) for seed in range(SEEDS)])
    for again in results[1:]:
        pairs = zip(results[0], again, strict=True)
        if not all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in pairs):
            advice = "draw from `self.py_random` or `self.random_generator`, and keep nothing between calls"
            report.fault(f"the same seed gives different results: {advice}.")
            return
    report.check_side_effects(lambda: [Pipeline([component])(image, bits, (seed, 0, 0)) for seed in range(SEEDS)])


def _stays_together(report: Report, component: Component) -> None:
    """On an image that shows its own mask, the bright shape and the mask must stay in the same place."""
    pipeline, poor, moved, emptied = Pipeline([component]), 0, 0, 0
    for seed in range(SEEDS):
        mask = _shape(SQUARE)
        image = _coloured(component, np.where(mask, 200, 50).astype(np.uint8))
        after, bits = pipeline(image, mask.astype(np.uint8), (seed, 0, 0))
        overlap = _overlap(after, bits > 0)
        emptied += not bits.any() and int(after.max()) - int(after.min()) > CONTRAST
        poor += overlap < APART
        moved += overlap < TOGETHER and any(_overlap(after, other) > TOGETHER for other in _elsewhere(mask, bits > 0))
    text = "image and masks no longer match: in {} of {} tries {}. Apply the same geometry to both."
    if emptied == SEEDS:
        report.fault("it empties the masks, although the image still shows them: return them in `apply_to_mask`.")
    elif moved:
        report.fault(text.format(moved, SEEDS, "the image was moved and its mask was not, or differently"))
    elif poor > SEEDS // 2:
        report.fault(text.format(poor, SEEDS, "a bright shape is not where its mask is"))


def _takes_other_images(report: Report, component: Component) -> None:
    """Note whether images of several inputs, and float32 ones, are not taken."""
    inputs = 3 if component.entry.traits["colour"] else 1
    for what, kind in (("of several inputs", Kind(3)), ("of float32", Kind(inputs, "float32"))):
        image = example(kind)
        bits = _shape(image.shape[:2]).astype(np.uint8)
        try:
            found = Pipeline([component])(image, bits)[0]
        except UserError as error:
            text, cause = _told(component, error)
            report.note(f"it does not take images {what}: {text}", report.source.of_error(cause) if cause else None)
            continue
        if kind.dtype == "float32" and (found == found.round()).all():
            report.note("it rounds images of float32, which are from 0 to 1, to whole numbers.")


def _agrees_on_device(report: Report, component: Component) -> None:
    """What `on_device` gives on tensors of the CPU must be what the transform gives, for several inputs too."""
    from segkit.data.resident.drawing import forms_of

    image, bits = _pair(component, SIZES[0])
    images = [image]
    if image.ndim == 2:
        several: NDArray[np.uint8] = np.stack([image, 255 - image, image // 2], axis=-1, dtype=np.uint8)
        with contextlib.suppress(UserError):  # which the transform does not take
            Pipeline([component])(several, bits)
            images.append(several)
    _, lacking = forms_of(Pipeline([component]))
    if lacking:
        report.note(f"{lacking[0]}: `on_device` does not apply to that.")
        return
    for each in images:
        try:
            if not _compared_on_device(report, component, each, bits):
                return
        except UserError as error:
            text, cause = _told(component, error)
            report.fault(f"applied by its `on_device`: {text}", report.source.of_error(cause) if cause else None)
            return


def _compared_on_device(report: Report, component: Component, image: Image, bits: Bits) -> bool:
    """Compare on one image; return whether all is well."""
    import torch

    from segkit.data.resident.batches import Resident

    writer = Writer(None)
    writer.add("image", image[None], bits[None])
    samples = Samples(writer.close(), [0], ["image"], Pipeline([component]), [True])
    resident = Resident(samples, torch.device("cpu"), exclusive=False)
    inputs = "" if image.ndim == 2 else f" of {image.shape[2]} inputs"
    for draw in range(SEEDS):
        member = [(draw if draw else -SEEDS, 0)]  # a negative one looks at the masks
        expected, found = assemble(samples, 0, member), [part.numpy() for part in resident.batch(0, member)]
        if any(one.shape != other.shape for one, other in zip(expected, found, strict=True)):
            report.fault(f"`on_device` gives images {found[0].shape[1:]}, the transform {expected[0].shape[1:]}.")
            return False
        levels = float(np.abs(expected[0] - found[0]).mean())
        if levels > DIFFERENT or (expected[1] != found[1]).mean() > DIFFERENT / 100:
            report.fault(
                f"`on_device` gives other images{inputs} or masks than the transform: grey levels differ by "
                f"{levels:.1f} of 255 in the mean, masks in {(expected[1] != found[1]).mean():.1%} of the pixels."
            )
            return False
    members = [(draw, 0) for draw in range(SEEDS)]
    alone = [resident.batch(0, [member])[0] for member in members]
    if len({part.shape for part in alone}) > 1:
        return True  # samples of several sizes make no batch
    if torch.equal(resident.batch(0, members)[0], torch.cat(alone)):
        return True
    report.fault("`on_device` gives a sample another image if others are in its batch: compute each by itself.")
    return False


def _overlap(image: Image, mask: Mask) -> float:
    """Return the intersection over union of a mask with the image's bright or dark part, whichever is more."""
    image = image if image.ndim == 2 else image.mean(axis=2)
    if image.max() == image.min() or mask.all() or not mask.any():
        return 1.0  # nothing to compare
    bright = image > (int(image.max()) + int(image.min())) / 2
    return max(float((part & mask).sum() / (part | mask).sum()) for part in (bright, ~bright))


def _elsewhere(original: Mask, found: Mask) -> Iterator[Mask]:
    """Yield the masks turned, reflected and shifted, as far as they keep the size."""
    for mask in (original, found):
        turned = [np.rot90(mask, turns) for turns in range(4)]
        shifted = [np.roll(mask, way, (0, 1)) for way in ((-8, 0), (8, 0), (0, -8), (0, 8))]
        yield from (other for other in (*turned, *(t[:, ::-1] for t in turned), *shifted) if other.shape == found.shape)
