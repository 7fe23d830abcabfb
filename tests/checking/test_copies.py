"""The same picture more than once, and what is left out for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest
from odd_data import codes, numbered, only, picture, put, put_pictures

import fgdd_fast
from fgdd_fast.errors import DataError, SettingsError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return put_pictures(tmp_path / "data", {"cat": numbered(4), "dog": numbered(4)})


def resaved(file: Path, copy: Path) -> None:
    """Save an image again, smaller, as a JPEG."""
    small = cv2.resize(cv2.imread(str(file)), None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    put(copy, small)


def test_the_same_file_in_a_class_and_in_two_is_told_from_names_and_bytes(data: Path) -> None:
    shutil.copy(data / "cat/photo-a.png", data / "cat/photo-z.png")
    shutil.copy(data / "cat/photo-b.png", data / "dog/photo-z.png")
    found = fgdd_fast.check_data(data, needs="files")
    assert codes(found) == ["same-image", "two-classes"]
    assert only(found, "same-image").groups == (("cat/photo-a.png", "cat/photo-z.png"),)
    both = only(found, "two-classes")
    assert (both.severity, both.groups) == ("error", (("cat/photo-b.png", "dog/photo-z.png"),))
    assert found[0] is both


def test_files_that_only_begin_and_end_alike_are_not_the_same(data: Path) -> None:
    content = bytearray(put(data / "cat/big.png", picture(1, 900), ".bmp").read_bytes())
    content[len(content) // 2] ^= 1
    (data / "cat/other.png").write_bytes(content)
    assert "same-image" not in codes(fgdd_fast.check_data(data, needs="files"))


def test_nearly_the_same_images_are_told_by_their_pixels(data: Path) -> None:
    resaved(data / "cat/photo-a.png", data / "cat/again.jpg")
    resaved(data / "cat/photo-b.png", data / "dog/again.jpg")
    assert fgdd_fast.check_data(data, needs="files") == ()
    found = fgdd_fast.check_data(data, near=4)
    assert only(found, "near-image").groups == (("cat/again.jpg", "cat/photo-a.png"),)
    assert only(found, "near-two-classes").groups == (("cat/photo-b.png", "dog/again.jpg"),)
    assert "--near-duplicates 4" in only(found, "near-image").advice


def test_the_same_picture_in_four_formats_is_named_once(data: Path) -> None:
    for suffix in (".jpg", ".webp", ".tif"):
        put(data / f"cat/photo-a{suffix}", cv2.imread(str(data / "cat/photo-a.png")))
    found = only(fgdd_fast.check_data(data, near=2), "near-image")
    assert [len(group) for group in found.groups] == [4]
    assert "3 images are nearly the same" in found.message


def test_leaks_are_counted_named_and_left_out_when_asked(data: Path) -> None:
    held = put_pictures(data.parent / "held", {"cat": numbered(3), "dog": numbered(3)})
    shutil.copy(data / "cat/photo-a.png", held / "cat/leak.png")
    resaved(data / "dog/photo-b.png", held / "dog/near.jpg")
    found = fgdd_fast.check_data(data, held, near=4)
    leak, near = only(found, "leak"), only(found, "near-leak")
    assert leak.files == ("cat/photo-a.png", f"{held}/cat/leak.png")
    assert "1 of 8 validation images is also in DATA" in leak.message
    assert near.files == ("dog/photo-b.png", f"{held}/dog/near.jpg")

    opened = fgdd_fast.open_data(data, validation=held, exclude_leaks=True)
    assert len(opened.images) == 7
    assert [(item.source, item.reason) for item in opened.skipped] == [
        ("cat/photo-a.png", "among the held-out images: same bytes as cat/leak.png")
    ]
    assert codes(fgdd_fast.check_data(opened, held, needs="files")) == []
    opened = fgdd_fast.open_data(data, validation=held, exclude_leaks=True, near=4)
    assert [item.source for item in opened.skipped] == ["cat/photo-a.png", "dog/photo-b.png"]
    assert opened.skipped[1].reason == "among the held-out images: near-duplicate of dog/near.jpg"
    assert len(fgdd_fast.open_data(data, validation=held).images) == 8


def test_leaks_that_leave_nothing_or_that_nothing_tells_are_refused(data: Path) -> None:
    with pytest.raises(DataError, match="Every image of the class 'cat'"):
        fgdd_fast.open_data(data, validation=data, exclude_leaks=True)
    with pytest.raises(SettingsError, match="held-out"):
        fgdd_fast.open_data(data, exclude_leaks=True)
    found = only(fgdd_fast.check_data(data, data), "leak")
    assert "8 of 8 validation images are also in DATA" in found.message
