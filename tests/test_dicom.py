"""DICOM: read as stored, or refused in one message that names the file."""

from __future__ import annotations

import io
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segkit import UserError
from segkit.components.datasets.dicom import parse_dicom
from tests.rvsc_like import BIG_ENDIAN, JPEG, JPEG_2000, RLE, dicom, jpeg, runs

PIXELS = np.arange(42, dtype=np.uint16).reshape(6, 7) * 90


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
        (RLE, struct.pack("<16I", 2, 64, 64, *[0] * 13) + b"\x81\0" * 2**20, "134,217,728 bytes"),
    ],
    ids=["size", "colour", "size of JPEG 2000", "size of RLE", "bits", "cut", "bomb"],
)  # fmt: skip
def test_compressed_pixels_that_are_not_as_many_as_stated(syntax: str, frame: bytes, message: str) -> None:
    data = dicom(PIXELS, syntax=syntax, frame=frame)
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"x\.dcm: damaged: .*{message}"):
        parse_dicom(data, "x.dcm")
    assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    tracemalloc.stop()


def test_every_cut_of_a_compressed_file_is_noticed() -> None:
    data = dicom(PIXELS, syntax=RLE, frame=runs(PIXELS))
    for length in range(0, len(data) - 8, 7):
        with pytest.raises(UserError, match=r"x\.dcm: "):
            parse_dicom(data[:length], "x.dcm")


def test_twelve_bits_in_sixteen() -> None:
    image, _ = parse_dicom(dicom(PIXELS | 0xF000, BitsStored=12, HighBit=11), "x.dcm")
    assert np.array_equal(image, PIXELS & 0xFFF)


def test_negative_and_rescaled_values_become_float() -> None:
    signed = PIXELS.astype(np.int16) - 100
    image, _ = parse_dicom(dicom(signed), "x.dcm")
    assert image.dtype == np.float32
    assert np.array_equal(image, signed)
    image, _ = parse_dicom(dicom(PIXELS, RescaleSlope=0.5, RescaleIntercept=-3), "x.dcm")
    assert np.allclose(image, PIXELS * 0.5 - 3)


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
        ({"syntax": "1.2.840.10008.1.2.4.70"}, r"its compression \('JPEG Lossless.*Decompress it"),
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
