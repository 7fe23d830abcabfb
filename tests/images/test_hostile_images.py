"""Files that promise another size than they have, or more than memory holds, are refused before decoding."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from image_files import encode, picture

from fgdd_fast.errors import ImageError
from fgdd_fast.images.decode import decode_image
from fgdd_fast.images.headers import read_header


def test_channels_and_depth_count_for_the_limit() -> None:
    written, deep = cv2.imencode(".png", np.zeros((32, 48, 4), np.uint16))
    assert written
    with pytest.raises(ImageError, match=r"too large: 48 x 32 pixels, 0\.0 MB once decoded"):
        decode_image(deep.tobytes(), max_pixels=48 * 32)
    assert decode_image(deep.tobytes(), max_pixels=48 * 32 * 3).shape == (32, 48, 3)


def test_a_few_bytes_that_promise_a_huge_jpeg_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({}, {"progressive": True}):
        content = bytearray(encode(picture(), "JPEG", **options))
        place = content.index(b"\xff\xc2" if options else b"\xff\xc0") + 5
        content[place : place + 4] = struct.pack(">HH", 13_000, 13_000)
        monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
        with pytest.raises(ImageError, match="bytes cannot hold 13000 x 13000 pixels"):
            decode_image(bytes(content))


def test_the_emptiest_jpeg_is_read() -> None:
    content = encode(np.zeros((1024, 1024, 3), np.uint8), "JPEG", quality=1, optimize=True, progressive=True)
    assert decode_image(content).max() <= 1


def tiff_of_two_sizes(first: int, second: int) -> bytes:
    """A TIFF that gives its side as a signed number first, and as an unsigned one next."""
    sides = [(256, 9, first), (256, 4, second), (257, 9, first), (257, 4, second)]
    rest = [
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 4, first),
        (279, 4, first**2),
    ]
    rows = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in (*sides, *rest)]
    rows.append(struct.pack("<HHII", 279, 4, 1, first**2))
    pixels = bytes(first**2)
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels
    return head + struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4)


def test_no_decoder_is_given_a_size_that_the_header_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    tiff = tiff_of_two_sizes(40, 8)
    shown = cv2.imdecode(np.frombuffer(tiff, np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown is None or shown.shape == (40, 40)
    body = encode(picture(), "WEBP")[12:]
    late = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (7).to_bytes(3, "little") * 2
    webp = b"RIFF" + struct.pack("<I", 4 + len(body) + len(late)) + b"WEBP" + body + late
    assert (read_header(webp).width, read_header(webp).height) == (48, 32)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    for content in (tiff, webp):
        with pytest.raises(ImageError, match=r"no size in it|too large"):
            decode_image(content, max_pixels=8 * 8)


def test_a_picture_of_another_size_than_its_header_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ImageError, match="damaged PNG: it says 48 x 32 pixels, and has 9 x 9"):
        decode_image(encode(picture(), "PNG"))
