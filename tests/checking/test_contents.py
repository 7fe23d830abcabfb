"""What files hold: 12 bits in 16, several pages, turned pictures with masks, damaged and odd images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_files import encode, exif
from odd_data import codes, numbered, only, picture, put, put_pictures
from PIL import Image

import fgdd_fast


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return put_pictures(tmp_path / "data", {"cat": numbered(4), "dog": numbered(4)})


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize(("bits", "dark"), [(12, True), (14, True), (16, False)])
def test_few_bits_in_sixteen_are_said(data: Path, suffix: str, bits: int, dark: bool) -> None:
    grey = picture(1)[..., 0].astype(np.uint16)
    put(data / f"cat/deep{suffix}", (grey << (bits - 8)) | 1)
    found = fgdd_fast.check_data(data, needs="files")
    assert codes(found) == ["sixteen-bit"] * dark
    if dark:
        assert f"use {bits} of them" in only(found, "sixteen-bit").message
        assert only(found, "sixteen-bit").files == (f"cat/deep{suffix}",)


def test_a_tiff_of_several_pages_is_said(data: Path) -> None:
    pages = [Image.fromarray(picture(seed)) for seed in range(3)]
    pages[0].save(data / "cat/pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(data / "cat/page.tif")
    found = only(fgdd_fast.check_data(data, needs="files"), "several-pages")
    assert (found.severity, found.files) == ("note", ("cat/pages.tif",))
    assert "3 in all" in found.message


def turned(file: Path, orientation: int, size: tuple[int, int]) -> None:
    image = Image.fromarray(picture(orientation)).resize(size)
    file.write_bytes(encode(image, "JPEG", exif=exif(orientation)))


def test_masks_of_images_before_they_were_turned_are_told_where_the_aspect_tells(data: Path) -> None:
    masks = data.parent / "masks"
    sizes = {
        "sideways": (6, (80, 60)),
        "square": (6, (64, 64)),
        "flipped": (3, (80, 60)),
        "upright": (1, (80, 60)),
    }
    for name, (orientation, size) in sizes.items():
        turned(data / f"cat/{name}.jpg", orientation, size)
        put(masks / f"cat/{name}.png", np.full(size[::-1], 255, np.uint8))
    found = list(fgdd_fast.check_data(data, needs="files", foreground=f"masks:{masks}"))
    assert [(each.code, each.severity, each.files) for each in found] == [
        ("masks", "error", ("cat/sideways.jpg",)),
        ("masks", "warning", ("cat/flipped.jpg", "cat/square.jpg")),
    ]
    assert f"stored-masks:{masks}" in found[0].advice
    assert fgdd_fast.check_data(data, needs="files") == ()
    put(masks / "cat/sideways.png", np.full((80, 60), 255, np.uint8))  # drawn on the upright image
    found = list(fgdd_fast.check_data(data, needs="files", foreground=f"masks:{masks}"))
    assert [each.severity for each in found] == ["warning"]


def test_images_that_cannot_be_decoded_are_counted_by_reason(data: Path) -> None:
    (data / "cat/empty.jpg").touch()
    (data / "dog/empty.png").touch()
    (data / "dog/text.png").write_bytes(b"<html>")
    found = [each for each in fgdd_fast.check_data(data) if each.code == "damaged"]
    assert [each.files for each in found] == [("cat/empty.jpg", "dog/empty.png"), ("dog/text.png",)]
    assert "empty file" in found[0].message


def test_images_smaller_than_a_tile_and_those_far_out_of_their_class_are_named(tmp_path: Path) -> None:
    data = put_pictures(tmp_path / "data", {"cat": numbered(20)})
    put(data / "cat/tiny.png", picture(99, 40))
    put(data / "cat/black.png", np.full((128, 128, 3), 1, np.uint8))
    found = fgdd_fast.check_data(data)
    assert only(found, "small").files == ("cat/tiny.png",)
    odd = {
        each.message.split(" far ")[1].split()[0]: each.files for each in found if each.code == "odd-looks"
    }
    assert odd == dict.fromkeys(("darker", "plainer", "blurrier"), ("cat/black.png",))
    assert "small" not in codes(fgdd_fast.check_data(data, size=64))
