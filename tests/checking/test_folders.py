"""Folders that are not what is meant, folders that are no class, files left aside."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from odd_data import codes, numbered, only, picture, put, put_pictures

import fgdd_fast
from fgdd_fast.errors import DataError

HEIC = b"\0\0\0\x18ftypheic" + b"\0" * 64


def test_an_ordinary_folder_has_nothing_odd(tmp_path: Path) -> None:
    put_pictures(tmp_path / "data", {"cat": numbered(6), "dog": numbered(6)})
    put_pictures(tmp_path / "held", {"cat": numbered(3), "dog": numbered(3)})
    assert fgdd_fast.check_data(tmp_path / "data", tmp_path / "held", ipc=1) == ()


@pytest.mark.parametrize("held", ["val", "Test"])
def test_the_parent_of_train_and_val_is_told_with_the_folder_that_is_meant(tmp_path: Path, held: str) -> None:
    put_pictures(tmp_path, {"train/cat": numbered(2), "train/dog": numbered(2), f"{held}/cat": numbered(2)})
    shutil.copy(tmp_path / "train/cat/photo-a.png", tmp_path / held / "cat/copy.png")
    assert [each.code for each in fgdd_fast.check_data(tmp_path)] == ["split-folders", "two-classes"]
    found = only(fgdd_fast.check_data(tmp_path, needs="names"), "split-folders")
    assert found.severity == "error"
    assert str(tmp_path / "train") in found.advice
    assert str(tmp_path / held) in found.advice
    assert codes(fgdd_fast.check_data(tmp_path / "train", needs="names")) == []


def test_one_folder_above_the_classes_is_told(tmp_path: Path) -> None:
    put_pictures(tmp_path, {"images/cat": numbered(2), "images/dog": numbered(2)})
    assert (
        str(tmp_path / "images")
        in only(fgdd_fast.check_data(tmp_path, needs="names"), "split-folders").advice
    )
    put_pictures(tmp_path, {"images": ["x.png"]})  # images of one class, some of which are in subfolders
    assert codes(fgdd_fast.check_data(tmp_path, needs="names")) == []


def test_folders_that_are_no_class_are_named_wherever_they_lie(tmp_path: Path) -> None:
    put_pictures(
        tmp_path, {"cat": numbered(2), "masks": numbered(2), "cat/@eaDir/photo-a.png": ["THUMB.png"]}
    )
    found = {each.files: each for each in fgdd_fast.check_data(tmp_path, needs="names")}
    assert {each.code for each in found.values()} == {"no-class"}
    assert "1 image" in found["cat/@eaDir/photo-a.png/THUMB.png",].message
    assert "--ignore 'masks'" in found["masks",].advice
    assert fgdd_fast.check_data(tmp_path, needs="names", ignore=["masks", "@eaDir"]) == ()


def test_empty_folders_are_an_error_until_they_are_left_out(tmp_path: Path) -> None:
    put_pictures(tmp_path, {"cat": numbered(2)})
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX/._photo-a.png").touch()
    assert only(fgdd_fast.check_data(tmp_path, needs="names"), "empty-class").severity == "error"
    found = only(fgdd_fast.check_data(tmp_path, needs="names", skip_empty=True), "empty-class")
    assert (found.severity, found.files) == ("note", ("__MACOSX",))
    assert fgdd_fast.check_data(tmp_path, needs="names", ignore=["__MACOSX"]) == ()


def test_what_cannot_be_read_is_a_line_for_each_format_with_the_way_out(tmp_path: Path) -> None:
    put_pictures(tmp_path, {"cat": numbered(2)})
    for name in ("1.heic", "2.HEIC", "3"):
        (tmp_path / "cat" / name).write_bytes(HEIC)
    (tmp_path / "cat/4.avif").touch()
    (tmp_path / "cat/5.jpg").write_bytes(HEIC)
    found = fgdd_fast.check_data(tmp_path, needs="files")
    unreadable = [each for each in found if each.code == "unreadable-format"]
    assert [each.message for each in unreadable] == [
        "1 image of the format .avif cannot be read",
        "3 images of the format .heic cannot be read",
    ]
    assert unreadable[1].files == ("cat/1.heic", "cat/2.HEIC", "cat/3")
    assert all("magick" in each.advice for each in unreadable)
    other = only(found, "other-format")
    assert (other.severity, other.files) == ("warning", ("cat/5.jpg",))
    assert "HEIC" in other.message


def test_images_are_taken_by_content_and_the_rest_is_listed(tmp_path: Path) -> None:
    put_pictures(tmp_path, {"cat": numbered(2)})
    for name in ("a.jfif", "b", "C.JPG"):
        put(tmp_path / "cat" / name, picture(ord(name[0])), ".jpg")
    put(tmp_path / "cat/d.jpg", picture(7), ".png")
    for name in ("notes.txt", "scan.tga", "more.txt"):
        (tmp_path / "cat" / name).write_bytes(b"text")
    (tmp_path / "cat/gone.png").symlink_to("nowhere")
    put(tmp_path / "stray.png", picture(8))
    found = fgdd_fast.check_data(tmp_path, needs="files")
    assert only(found, "other-format").files == ("cat/b", "cat/d.jpg")
    aside = only(found, "left-aside")
    assert aside.files == ("cat/more.txt", "cat/notes.txt", "cat/scan.tga")
    assert "2 .txt, 1 .tga" in aside.message
    assert only(found, "not-read").files == ("cat/gone.png",)
    assert only(found, "stray-images").files == ("stray.png",)
    assert codes(found) == ["left-aside", "not-read", "other-format", "stray-images"]


def test_a_class_of_one_image_gives_all_tiles_of_it(tmp_path: Path) -> None:
    put_pictures(tmp_path, {"cat": numbered(1), "dog": numbered(5)})
    assert only(fgdd_fast.check_data(tmp_path, needs="names"), "few-images").files == ("cat",)
    found = only(fgdd_fast.check_data(tmp_path, needs="names", ipc=2, factor=2), "few-images")
    assert found.files == ("cat", "dog")
    assert "8 tiles" in found.message


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no folder"):
        fgdd_fast.check_data(tmp_path / "nothing")
    put(tmp_path / "1.png", picture(0))
    found = only(fgdd_fast.check_data(tmp_path), "no-classes")
    assert "no class folders" in found.message
