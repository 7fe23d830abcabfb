"""Headers of odd, broken and hostile files; test_decode.py has all that Pillow writes."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import bmp_with_alpha, encode, exif, picture
from PIL import Image

from fgdd_fast.errors import ImageError
from fgdd_fast.images.headers import Header, read_header


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(value: int) -> None:
    assert read_header(encode(picture(), "JPEG", exif=exif(value))).orientation == 1


def test_a_damaged_exif_block_is_upright() -> None:
    for block in (b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0nonsense"):
        assert read_header(encode(picture(), "JPEG", exif=block)) == Header("JPEG", 48, 32)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP"])
def test_an_animation_of_one_frame_is_none(name: str) -> None:
    assert not read_header(encode(picture(), name, save_all=True)).animated


def test_the_pages_of_a_tiff_are_no_animation() -> None:
    pages = [Image.fromarray(picture(48, 32)), Image.fromarray(picture(20, 10))]
    content = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert read_header(content) == Header("TIFF", 48, 32, pages=True)


def test_bitmaps() -> None:
    pixels = bytes(range(5 * 4 * 4))
    assert read_header(bmp_with_alpha(5, 4, pixels)) == Header("BMP", 5, 4, has_alpha=True)
    assert read_header(bmp_with_alpha(5, 4, pixels, mask=0)) == Header("BMP", 5, 4)
    os2 = (
        b"BM" + struct.pack("<IHHI", 26 + 16, 0, 0, 26) + struct.pack("<IHHHH", 12, 3, 2, 1, 24) + b"\0" * 24
    )
    assert read_header(os2) == Header("BMP", 3, 2)


def test_netpbm() -> None:
    assert read_header(b"P5 # two\n# comments\n3\t2\r255\n123456") == Header("PNM", 3, 2)
    assert read_header(b"P6\n3 2\n65535\n" + b"\0" * 36) == Header("PNM", 3, 2, 16)
    assert read_header(b"P4 3 2\n\0\0") == Header("PNM", 3, 2, 1)
    with pytest.raises(ImageError, match="values up to 99"):
        read_header(b"P5 3 2 99\n123456")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"this is no picture", "not an image of a known format"),
        (b"\0" * 100, "not an image of a known format"),
        (b"\xff\xd8\xff\xd9", "no picture in it"),
        (b"\xff\xd8\xff\xe0", "truncated JPEG"),
        (b"\x89PNG\r\n\x1a\n", "truncated PNG"),
        (b"GIF89a", "truncated GIF"),
        (b"GIF89a\1\0\1\0\0\0\0;", "no picture in it"),
        (b"GIF89a\1\0\1\0\0\0\0?", "unknown block"),
        (b"RIFF\4\0\0\0WEBP", "no picture in it"),
        (b"RIFF\xff\0\0\0WEBP", "truncated WebP"),
        (b"II*\0", "truncated TIFF"),
        (b"II*\0\x08\0\0\0\0\0", "no size in it"),
        (b"BM", "truncated BMP"),
        (b"P5 what", "no size in it"),
        (b"P5 0 7 255\n", "no pixels"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_header(content)


def test_an_embedded_thumbnail_does_not_hide_a_missing_end() -> None:
    thumbnail = encode(picture(8, 8), "JPEG")
    block = b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = encode(picture(), "JPEG")
    content = whole[:2] + block + whole[2:]
    assert read_header(content) == Header("JPEG", 48, 32)
    assert not read_header(content[:-2]).ended
    with pytest.raises(ImageError, match="truncated JPEG"):
        read_header(content[: len(content) - len(whole) + 2])


def check_calm(content: bytes) -> None:
    try:
        header = read_header(content)
    except ImageError as error:
        assert error.problem  # noqa: PT017 - either outcome is right
    else:
        assert header.width >= 1
        assert header.height >= 1


SIGNATURES = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"RIFF\x40\0\0\0WEBP",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"P5 ",
]


@settings(max_examples=200)
@given(signature=st.sampled_from([*SIGNATURES, b""]), rest=st.binary(max_size=300))
def test_any_bytes_give_a_header_or_an_image_error(signature: bytes, rest: bytes) -> None:
    check_calm(signature + rest)


HOSTILE = {
    "fill": b"\xff\xd8" + b"\xff" * 4_000_000,
    "markers": b"\xff\xd8" + b"\xff\x01" * 1_000_000,
    "escapes": b"\xff\xd8" + b"\xff\x00" * 2_000_000,
    "comments": b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xfe\0" * 500_000,
    "chunks": b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + b"\0\0\0\1" * 2 + b"\x08\2\0\0\0" + b"\0" * 4_000_000,
    "riff": b"RIFF\0\x09\x3d\0WEBP" + b"\0" * 4_000_000,
    "tags": b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 256, 4, 16, 8) * 65535,
    "spaces": b"P5" + b" " * 4_000_000,
    "hashes": b"P5 " + b"#\n" * 1_000_000,
    "hash": b"P5 " + b"#" * 2_000_000,
    "digits": b"P5 " + b"1" * 2_000_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bytes_take_bounded_time(kind: str) -> None:
    begin = time.process_time()
    check_calm(HOSTILE[kind])
    assert time.process_time() - begin < 5
