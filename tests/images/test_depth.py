"""Pictures of fewer bits in samples of 16."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from image_files import encode, exif
from PIL import Image

from fgdd_fast.images.decode import decode_image, read_image
from fgdd_fast.images.depth import at_depth, read_image_at

GREY = np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)
GREY[0, 0] = 255
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
COLOUR[0, 0] = 255


def stored(pixels: np.ndarray, bits: int, suffix: str) -> bytes:
    """The bytes of an image whose 8 bits are the upper ones of so many, in 16."""
    deep = (pixels.astype(np.uint16) << 8 >> (16 - bits)) | 1
    return cv2.imencode(suffix, deep[..., ::-1] if deep.ndim == 3 else deep)[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_the_bits_in_use_become_eight(suffix: str, bits: int) -> None:
    content = stored(GREY, bits, suffix)
    pixels = decode_image(at_depth(content, "scale"))
    assert (pixels == GREY[..., None]).all()
    dark = decode_image(at_depth(content, "shift"))
    assert (dark == GREY[..., None] >> (16 - bits)).all()
    assert at_depth(content, "shift") is content


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colour_stays_in_order_and_transparency_as_it_is(suffix: str) -> None:
    assert (decode_image(at_depth(stored(COLOUR, 12, suffix), "scale")) == COLOUR).all()
    alpha = np.full((12, 16, 1), 65535, np.uint16)
    alpha[0] = 0
    deep = np.dstack([COLOUR[..., ::-1].astype(np.uint16) << 4, alpha])
    pixels = decode_image(at_depth(cv2.imencode(".png", deep)[1].tobytes(), "scale"))
    assert (pixels[0] == 255).all()
    assert (pixels[1:] == COLOUR[1:]).all()


def test_a_dark_picture_is_not_brightened_beyond_what_depths_there_are() -> None:
    deep = np.full((4, 4), 40, np.uint16)  # of 10 bits or more, or of 8
    pixels = decode_image(at_depth(cv2.imencode(".png", deep)[1].tobytes(), "scale"))
    assert (pixels == 40).all()


def test_other_images_stay_byte_by_byte(tmp_path: Path) -> None:
    for name in ("JPEG", "PNG", "WebP"):
        content = encode(Image.fromarray(COLOUR), name, exif=exif(6))
        assert at_depth(content, "scale") is content
    file = tmp_path / "deep.png"
    file.write_bytes(stored(GREY, 12, ".png"))
    scaled, plain = read_image_at(file, "scale"), read_image_at(file, "shift")
    assert scaled.sha256 == plain.sha256 == read_image(file).sha256
    assert scaled.pixels.max() == 255
    assert plain.pixels.max() == 15


def test_turned_pictures_are_upright() -> None:
    deep = (GREY.astype(np.uint16) << 4) | 1
    content = encode(Image.fromarray(deep), "PNG", exif=exif(6))
    assert (decode_image(at_depth(content, "scale")) == np.rot90(GREY, -1)[..., None]).all()
