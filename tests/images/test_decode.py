"""Decoding: every kind of file to upright RGB, as Pillow sees it; every broken one refused with a reason."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import (
    COMBINATIONS,
    bmp_with_alpha,
    clothing_photographs,
    encode,
    exif,
    in_mode,
    needs_clothing,
    picture,
)
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fgdd_fast.errors import ImageError
from fgdd_fast.images import decode
from fgdd_fast.images.decode import decode_image, decoding, read_file, read_image, upright_size
from fgdd_fast.images.headers import read_header

needs_gif = pytest.mark.skipif(
    tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 11), reason="OpenCV reads GIF from 4.11 on"
)


def pillow(content: bytes) -> NDArray[np.uint8]:
    """The picture upright and over white, as Pillow decodes it."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def difference(content: bytes) -> int:
    decoded, expected = decode_image(content), pillow(content)
    assert decoded.shape == expected.shape
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    return int(np.abs(decoded.astype(int) - expected).max())


@pytest.mark.parametrize("size", [(48, 32), (1, 1), (1, 300), (257, 1)])
@pytest.mark.parametrize(("name", "mode"), COMBINATIONS)
def test_every_format_and_mode_agrees_with_pillow(name: str, mode: str, size: tuple[int, int]) -> None:
    content = encode(in_mode(mode, *size), name)
    header, opened = read_header(content), Image.open(io.BytesIO(content))
    assert (header.width, header.height) == opened.size == size
    assert header.format.upper() == {"PPM": "PNM"}.get(name, name)
    assert header.has_alpha == opened.has_transparency_data
    assert (header.animated, header.orientation) == (False, 1)
    if name not in ("GIF", "WEBP"):
        assert header.bit_depth == {"1": 1, "I;16": 16}.get(mode, 8)
    if mode not in ("I;16", "YCbCr") and (name, mode) != ("GIF", "RGB"):
        assert difference(content) <= 1  # rounding of CMYK and of transparency


@needs_gif
def test_a_transparent_gif_is_laid_over_white() -> None:
    pixels = picture(channels=4)
    pixels[..., 3] = 255
    pixels[5:20, 10:30, 3] = 0
    content = encode(pixels, "GIF")
    assert (decode_image(content)[5:20, 10:30] == 255).all()
    assert difference(content) == 0


@pytest.mark.parametrize(
    ("name", "options", "levels"),
    [
        *(("JPEG", options, 3) for options in ({"progressive": True}, {"subsampling": 0}, {"quality": 100})),
        ("JPEG", {"restart_marker_blocks": 1}, 3),
        *(("TIFF", {"compression": name}, 0) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
        ("WEBP", {"lossless": True}, 0),
    ],
)
def test_every_kind_of_file_agrees_with_pillow(name: str, options: dict[str, Any], levels: int) -> None:
    assert difference(encode(picture(), name, **options)) <= levels


@pytest.mark.parametrize(
    ("name", "channels"), [("JPEG", 3), *((name, n) for name in ("PNG", "WEBP", "TIFF") for n in (3, 4))]
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(name: str, channels: int, orientation: int) -> None:
    options = {"lossless": True} if name == "WEBP" else {}
    content = encode(picture(channels=channels), name, exif=exif(orientation), **options)
    assert difference(content) <= 1


def test_a_transparent_colour_is_laid_over_white() -> None:
    content = encode(picture(), "PNG", transparency=tuple(int(level) for level in picture()[3, 4]))
    assert (decode_image(content)[3, 4] == 255).all()
    assert difference(content) == 0


def test_a_bitmap_with_alpha_is_laid_over_white() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 4), np.uint8)  # blue, green, red, alpha
    content = bmp_with_alpha(5, 4, pixels.tobytes())
    assert difference(content) <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_become_the_upper_8(suffix: str, channels: int) -> None:
    if suffix == ".ppm" and channels == 1:
        suffix = ".pgm"
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, channels), np.uint16)
    written, content = cv2.imencode(suffix, deep)
    assert written
    decoded = decode_image(content.tobytes()).astype(int)
    assert np.abs(decoded - (deep[..., ::-1] >> 8)).max() <= 1  # libtiff rounds


def test_16_bits_with_alpha_are_laid_over_white() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 30, 4), np.uint16)
    written, content = cv2.imencode(".png", deep)
    assert written
    colour, alpha = deep[..., 2::-1] / 65535, deep[..., 3:] / 65535
    expected = 255 * (colour * alpha + 1 - alpha)
    assert np.abs(decode_image(content.tobytes()) - expected).max() <= 2


def test_samples_of_32_bits_are_refused() -> None:
    with pytest.raises(ImageError, match="TIFF with samples of 32 bits"):
        decode_image(encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))


def test_bytes_after_the_end_of_a_jpeg_do_not_matter() -> None:
    content = encode(picture(), "JPEG")
    expected = decode_image(content)
    assert (decode_image(content + b"trailing bytes") == expected).all()
    assert (decode_image(content + content) == expected).all()


def test_an_mpo_gives_its_first_picture() -> None:
    first, second = Image.fromarray(picture()), Image.fromarray(picture()[::-1].copy())
    content = encode(first, "MPO", save_all=True, append_images=[second])
    assert difference(content) <= 3
    with pytest.raises(ImageError, match="truncated JPEG"):
        decode_image(content[: content.index(b"\xff\xd9") - 10])


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 2}, {"quality": 100, "subsampling": 0}])
def test_a_jpeg_that_lacks_its_end_marker_alone_is_read(options: dict[str, int]) -> None:
    for pixels in (picture(), np.full((32, 48, 3), 200, np.uint8)):
        content = encode(pixels, "JPEG", **options)
        whole = decode_image(content)
        assert (decode_image(content[:-2]) == whole).all()
        assert (decode_image(content[:-1]) == whole).all()
        for length in [*range(3, len(content) - 40, 23), *range(len(content) - 40, len(content) - 2)]:
            try:
                assert (decode_image(content[:length]) == whole).all()  # what is missing was filling
                assert length > len(content) - 5
            except ImageError as error:
                assert "JPEG" in error.problem  # noqa: PT017 - one of the two


def test_a_progressive_jpeg_cut_anywhere_is_refused() -> None:
    content = encode(picture(), "JPEG", progressive=True)
    for length in range(len(content)):
        with pytest.raises(ImageError):
            decode_image(content[:length])


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_other_files_cut_anywhere_are_refused(name: str) -> None:
    content = encode(picture(), name)
    for length in [*range(0, len(content) - 1, 37), len(content) - 1]:
        with pytest.raises(ImageError):
            decode_image(content[:length])


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP"])
def test_animations_are_refused(name: str) -> None:
    frames = [Image.fromarray(np.roll(picture(), shift, axis=1)) for shift in range(2)]
    content = encode(frames[0], name, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=f"(?i)animated {name}: it has more than one frame"):
        decode_image(content)


def test_too_many_pixels_are_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(encode(picture(), "PNG"))
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ImageError, match="too large: 30000 x 30000 pixels"):
        decode_image(bytes(content))
    with pytest.raises(ImageError, match="too large: 48 x 32 pixels"):
        decode_image(encode(picture(), "JPEG"), max_pixels=48 * 32 - 1)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_grey_tiff_with_alpha_is_laid_over_white(compression: str | None, orientation: int) -> None:
    content = encode(in_mode("LA", 37, 20), "TIFF", compression=compression, exif=exif(orientation))
    assert difference(content) <= 1
    predicted = encode(
        in_mode("LA", 37, 20), "TIFF", compression="tiff_lzw", tiffinfo={317: 2, 274: orientation}
    )
    assert difference(predicted) <= 1


def test_a_grey_tiff_in_another_form_is_refused() -> None:
    content = encode(in_mode("LA"), "TIFF")
    photometric = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert photometric in content
    with pytest.raises(ImageError, match="in a form that cannot be read"):
        decode_image(content.replace(photometric, struct.pack("<HHIHH", 262, 3, 1, 0, 0)))


@pytest.mark.parametrize(("mode", "key"), [("L", 85), ("1", 0), ("I;16", 85 * 257)])
def test_the_transparent_grey_is_laid_over_white(mode: str, key: int) -> None:
    levels = np.full((32, 48), 200, np.uint8)
    levels[5:9] = key if mode != "I;16" else 85
    image = Image.fromarray(levels) if mode != "1" else Image.fromarray(levels).convert("1")
    if mode == "I;16":
        image = Image.fromarray(levels.astype(np.uint16) * 257)
    decoded = decode_image(encode(image, "PNG", transparency=key))
    assert (decoded[5:9] == 255).all()
    assert (decoded[10] == (255 if mode == "1" else 200)).all()


def test_further_pages_of_a_tiff_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    decode._say_pages.cache_clear()
    pages = [Image.fromarray(picture()), Image.fromarray(picture()[::-1].copy())]
    content = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    for _ in range(2):
        assert (decode_image(content) == picture()).all()
    decode_image(encode(pages[0], "TIFF"))
    assert [record.message for record in caplog.records] == [
        "Some TIFF files have several pages: the first page of each is read"
    ]


def reason(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(path.parent) not in str(caught.value)
    return caught.value.problem


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("this is no picture")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "empty.jpg") == "empty file"
    assert reason(tmp_path / "text.jpg") == "not an image of a known format"
    assert reason(tmp_path / "folder.jpg") == "a folder, not a file"
    assert reason(tmp_path / "gone.jpg") == "cannot be read: No such file or directory"
    assert reason(tmp_path / "pipe.jpg") == "not a regular file"
    assert reason(tmp_path / "circle.jpg").startswith("cannot be read: Too many levels")


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "\udcff 🐱'.jpg"
    content = encode(picture(), "JPEG")
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert read_file(path).content == content
    assert read_file(path).sha256 == digest
    image = read_image(path)
    assert image.sha256 == digest
    assert (image.pixels == decode_image(content)).all()


@settings(max_examples=200)
@given(data=st.data(), form=st.sampled_from(COMBINATIONS), end=st.sampled_from([None, 60]))
def test_damaged_files_give_pixels_or_an_image_error(
    data: st.DataObject, form: tuple[str, str], end: int | None
) -> None:
    content = bytearray(encode(in_mode(form[1], 20, 10), form[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content[:end]) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = decode_image(bytes(content), max_pixels=10_000)
    except ImageError as error:
        assert error.problem  # noqa: PT017 - either outcome is right
    else:
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3
        assert pixels.dtype == np.uint8


def test_damaged_files_print_nothing_and_leave_opencv_as_it_was() -> None:
    """In a process of its own, since the noise would come from C."""
    content = encode(picture(), "TIFF", compression="tiff_lzw")
    script = (
        "import cv2, sys\nlogging = getattr(cv2.utils, 'logging', cv2)\nlevel = logging.getLogLevel()\n"
        "from fgdd_fast.images.decode import decode_image\n"
        "from fgdd_fast.errors import ImageError\n"
        "content = sys.stdin.buffer.read()\n"
        "for part in (content[: len(content) // 2], content[:-20]):\n"
        "    try:\n        decode_image(part)\n"
        "    except ImageError:\n        continue\n    sys.exit('decoded')\n"
        "assert logging.getLogLevel() == level > 0\n"
    )
    outcome = subprocess.run([sys.executable, "-c", script], input=content, capture_output=True, check=False)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, b"", b"")


@needs_clothing
def test_photographs_agree_with_pillow() -> None:
    for path in clothing_photographs(20):
        pixels = read_image(path).pixels
        expected = pillow(path.read_bytes())
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(int) - expected).max() <= 3


@pytest.mark.parametrize(
    ("size", "scale"), [((299, 267), 1), ((300, 267), 2), ((565, 567), 4), ((8007, 40), 4), ((1280, 1000), 8)]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_smaller_where_that_is_allowed(
    size: tuple[int, int], scale: int, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "LARGE", 80_000)
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "JPEG", exif=exif(orientation))
    width, height = size if orientation == 1 else size[::-1]
    assert upright_size(file.getvalue()) == (width, height)
    with decoding(file.getvalue(), reduced=True) as pixels:
        assert pixels.shape == (-(-height // scale), -(-width // scale), 3)
        shown = cv2.resize(pillow(file.getvalue()), pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(pixels.astype(int) - shown).max() <= 2
    assert decode_image(file.getvalue()).shape == (height, width, 3)


def test_what_is_no_jpeg_is_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "LARGE", 10)
    with decoding(encode(Image.new("RGB", (40, 30)), "PNG"), reduced=True) as pixels:
        assert pixels.shape == (30, 40, 3)
