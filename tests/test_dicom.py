"""DICOM: read as stored, or refused in one message that names the file."""

from __future__ import annotations

import base64
import io
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit import UserError
from segkit.components.datasets.formats.dicom import parse_dicom
from tests.rvsc_like import BIG_ENDIAN, JPEG, JPEG_2000, JPEG_LS, LOSSLESS_JPEG, RLE, dicom, jpeg, lossless_jpeg, runs

PIXELS = np.arange(42, dtype=np.uint16).reshape(6, 7) * 90
LS_FRAME = base64.b64decode(  # PIXELS, by CharLS 2.4
    "/9j/9wALDAAGAAcBAREA/9oACAEBAAAAAI5nNYq85rEAABsOiyWCuVh0AAAbFUqFMpFEsi6lAnk4mkwsC6EslEkkEcri5kYikQhkIrD/2Q=="
)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", BIG_ENDIAN])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_levels_as_stored(syntax: str, kind: Any) -> None:
    pixels = (PIXELS % 250).astype(kind)
    image, spacing = parse_dicom(dicom(pixels, syntax=syntax), "x.dcm")
    assert image.dtype == kind
    assert np.array_equal(image, pixels)
    assert spacing == (1.25, 1.5)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
def test_lossless_compression_gives_the_same_pixels(kind: Any) -> None:
    pixels = (PIXELS % 250).astype(kind) - (kind == np.int16) * 50
    plain, _ = parse_dicom(dicom(pixels), "x.dcm")
    image, spacing = parse_dicom(dicom(pixels, syntax=RLE, frame=runs(pixels)), "x.dcm")
    assert image.dtype == plain.dtype
    assert np.array_equal(image, plain)
    assert spacing == (1.25, 1.5)
    if kind != np.int16:  # which Pillow does not write
        frame = jpeg(pixels, "JPEG2000", no_jp2=True, irreversible=False)
        image, _ = parse_dicom(dicom(pixels, syntax=JPEG_2000, frame=frame), "x.dcm")
        assert image.dtype == plain.dtype
        assert np.array_equal(image, plain)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_lossless_jpeg_of_every_predictor(predictor: int, kind: Any) -> None:
    pixels = np.random.default_rng(predictor).integers(0, np.iinfo(kind).max + 1, (13, 9)).astype(kind)
    pixels[0, :2] = 0, 1 << (8 * pixels.itemsize - 1)  # the largest difference has a code without further bits
    frame = lossless_jpeg(pixels, predictor)
    image, _ = parse_dicom(dicom(pixels, syntax="1.2.840.10008.1.2.4.57", frame=frame), "x.dcm")
    assert image.dtype == kind
    assert np.array_equal(image, pixels)


def test_lossless_jpeg_of_many_bytes_with_restarts_or_a_point_transform() -> None:
    pixels = np.random.default_rng(1).integers(0, 2**16, (220, 210)).astype(np.uint16)
    for options in ({}, {"rows": 21}):  # more bytes than are looked up at once
        data = dicom(pixels, syntax=LOSSLESS_JPEG, frame=lossless_jpeg(pixels, **options))
        assert np.array_equal(parse_dicom(data, "x.dcm")[0], pixels)
    data = dicom(PIXELS, syntax=LOSSLESS_JPEG, frame=lossless_jpeg(PIXELS, shift=3))
    assert np.array_equal(parse_dicom(data, "x.dcm")[0], PIXELS >> 3 << 3)


def test_lossless_jpeg_of_signed_values_and_of_unused_bits() -> None:
    signed = PIXELS.astype(np.int16) - 1000
    data = dicom(signed, syntax=LOSSLESS_JPEG, frame=lossless_jpeg(signed.view(np.uint16)))
    assert np.array_equal(parse_dicom(data, "x.dcm")[0], signed)
    frame = lossless_jpeg(PIXELS | 0xF000)
    data = dicom(PIXELS, syntax=LOSSLESS_JPEG, frame=frame, BitsStored=12, HighBit=11)
    assert np.array_equal(parse_dicom(data, "x.dcm")[0], PIXELS)


def test_jpeg_ls() -> None:
    image, _ = parse_dicom(dicom(PIXELS, syntax=JPEG_LS, frame=LS_FRAME), "x.dcm")
    assert image.dtype == np.uint16
    assert np.array_equal(image, PIXELS)


def test_lossy_compression_gives_what_pillow_decodes() -> None:
    pixels = np.add.outer(np.arange(24), np.arange(17)).astype(np.uint8) * 5
    frame = jpeg(pixels)
    image, _ = parse_dicom(dicom(pixels, syntax=JPEG, frame=frame), "x.dcm")
    assert np.array_equal(image, np.asarray(Image.open(io.BytesIO(frame))))
    assert np.abs(image.astype(int) - pixels).max() < 12


@pytest.mark.parametrize(
    ("syntax", "frame", "message"),
    [
        (JPEG, jpeg(np.zeros((600, 70), np.uint8)), "header states 6 x 7 pixels, .* hold 600 x 70 of mode L"),
        (JPEG, jpeg(np.zeros((6, 7, 3), np.uint8)), "6 x 7 of mode RGB"),
        (JPEG_2000, jpeg(np.zeros((600, 70), np.uint8), "JPEG2000", no_jp2=True), "hold 600 x 70 of mode L"),
        (RLE, runs(np.zeros((60, 70), np.uint16)), r"hold 2 segments of up to 4,200 bytes"),
        (RLE, runs(np.zeros((6, 7), np.uint8)), r"hold 1 segments of up to 42 bytes"),
        (RLE, runs(PIXELS)[:100], r"decoded RLE segment data doesn't match"),
        (LOSSLESS_JPEG, lossless_jpeg(np.zeros((60, 70), np.uint16)), "hold 60 x 70 of 16 bits in 1 component"),
        (LOSSLESS_JPEG, lossless_jpeg(np.zeros((6, 7), np.uint8)), "hold 6 x 7 of 8 bits in 1 component"),
        (LOSSLESS_JPEG, lossless_jpeg(PIXELS)[:-20], "cut off"),
        (LOSSLESS_JPEG, lossless_jpeg(PIXELS).replace(b"\0\x11\0", b"\0\x13\0"), "Huffman table"),
        (LOSSLESS_JPEG, jpeg(np.zeros((6, 7), np.uint8)), "another process than lossless"),
        (JPEG_LS, LS_FRAME.replace(b"\6\0\7", b"\x60\0\7"), "hold 96 x 7 of 12 bits in 1 component"),
        (JPEG_LS, LS_FRAME.replace(b"\x0b\x0c", b"\x0b\x08"), "hold 6 x 7 of 8 bits"),
        (JPEG_LS, LS_FRAME[:2] + b"\xff\xf8\0\x0b\4\4\0\0\xff\xff\0\0\xff\xff" + LS_FRAME[2:], "more than 16 bits"),
        (RLE, struct.pack("<16I", 2, 64, 64, *[0] * 13) + b"\x81\0" * 2**20, "134,217,728 bytes"),
    ],
    ids=[
        "size", "colour", "size of JPEG 2000", "size of RLE", "bits", "cut", "size of lossless", "bits of lossless",
        "cut lossless", "table", "process", "size of JPEG-LS", "bits of JPEG-LS", "large JPEG-LS", "bomb",
    ],
)  # fmt: skip
def test_compressed_pixels_that_are_not_as_many_as_stated(syntax: str, frame: bytes, message: str) -> None:
    data = dicom(PIXELS, syntax=syntax, frame=frame)
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"x\.dcm: damaged: .*{message}"):
        parse_dicom(data, "x.dcm")
    assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    tracemalloc.stop()


def test_every_cut_of_a_compressed_file_is_noticed() -> None:
    for syntax, frame in ((RLE, runs(PIXELS)), (LOSSLESS_JPEG, lossless_jpeg(PIXELS)), (JPEG_LS, LS_FRAME)):
        data = dicom(PIXELS, syntax=syntax, frame=frame)
        for length in range(0, len(data) - 8, 7):
            with pytest.raises(UserError, match=r"x\.dcm: "):
                parse_dicom(data[:length], "x.dcm")


def test_twelve_bits_in_sixteen() -> None:
    image, _ = parse_dicom(dicom(PIXELS | 0xF000, BitsStored=12, HighBit=11), "x.dcm")
    assert np.array_equal(image, PIXELS & 0xFFF)


@pytest.mark.parametrize(
    ("pixels", "slope", "intercept", "kind"),
    [
        (PIXELS, 1, 0, np.uint16),
        (PIXELS.astype(np.int16), 1, 0, np.uint16),
        (PIXELS.astype(np.int16) - 100, 1, 0, np.int16),
        (PIXELS, 1, -1024, np.int16),  # Hounsfield units of a CT
        (PIXELS, -8, 0, np.int16),
        (PIXELS, -9, 0, np.float32),  # down to -33210
        (PIXELS, 9, -100, np.float32),
        (PIXELS, 0.5, -3, np.float32),
        (PIXELS, 1, 0.5, np.float32),
    ],
)
def test_whole_values_become_int16_if_they_fit_else_float(
    pixels: Any, slope: float, intercept: float, kind: Any
) -> None:
    image, _ = parse_dicom(dicom(pixels, RescaleSlope=slope, RescaleIntercept=intercept), "x.dcm")
    assert image.dtype == kind
    assert np.array_equal(image, pixels.astype(float) * slope + intercept)


def test_slope_and_intercept_without_bounds() -> None:
    image, _ = parse_dicom(dicom(PIXELS * 0, RescaleSlope=1e300), "x.dcm")
    assert not image.any()
    with pytest.raises(UserError, match=r"x\.dcm: RescaleSlope 1e\+300 and RescaleIntercept 0 overflow"):
        parse_dicom(dicom(PIXELS, RescaleSlope=1e300), "x.dcm")


def test_inverted_images_are_turned() -> None:
    image, _ = parse_dicom(dicom(PIXELS, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11), "x.dcm")
    assert np.array_equal(image, 4095 - PIXELS)


def test_without_spacing() -> None:
    assert parse_dicom(dicom(PIXELS, spacing=None), "x.dcm")[1] is None


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"NumberOfFrames": 3}, "3 frames in one file; only files of one frame are read"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "not a grey image: 3 samples"),
        ({"BitsAllocated": 32}, "32 bits per pixel; only 8 and 16 are supported"),
        ({"HighBit": 3}, "do not start at the lowest bit"),
        ({"Rows": 20000}, "20000 x 7 pixels; images are read up to 8192 x 8192"),
        ({"Rows": None}, "Rows is missing"),
        ({"Rows": 5}, "5 x 7 pixels need 70 bytes; PixelData has 84"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"spacing": (0, 1)}, "PixelSpacing must be two lengths in mm above 0, got"),
        ({"syntax": "1.2.840.10008.1.2.4.201"}, r"its compression \('High-Throughput JPEG 2000.*Decompress it"),
        ({"syntax": JPEG_2000}, r"damaged: its pixels cannot be decoded \(not a JPEG 2000 file\)"),
    ],
)
def test_what_is_not_read_is_refused(elements: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"x\.dcm: .*{message}"):
        parse_dicom(dicom(PIXELS, **elements), "x.dcm")


@pytest.mark.parametrize("data", [b"", b"no", b"\0" * 200, b"hello" * 100, b"\x89PNG\r\n\x1a\n" + b"\0" * 200])
def test_files_of_another_kind(data: bytes) -> None:
    with pytest.raises(UserError, match=r"x\.dcm: "):
        parse_dicom(data, "x.dcm")


def test_every_cut_is_noticed() -> None:
    data = dicom(PIXELS)
    for length in range(0, len(data), 9):
        with pytest.raises(UserError, match=r"x\.dcm: "):
            parse_dicom(data[:length], "x.dcm")


def test_a_header_that_promises_much_takes_little() -> None:
    data = dicom(PIXELS, Rows=8192, Columns=8192)
    tracemalloc.start()
    with pytest.raises(UserError, match="8192 x 8192 pixels need 134,217,728 bytes"):
        parse_dicom(data, "x.dcm")
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()
