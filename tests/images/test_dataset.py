"""Scanning a folder of classes, and choosing a pool."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import DataSet, SourceImage, pool, scan
from fgdd_fast.images.file_kinds import SUFFIXES


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def sources(dataset: DataSet) -> list[str]:
    return [image.source for image in dataset.images]


def reasons(dataset: DataSet) -> dict[str, str]:
    return {item.source: item.reason for item in dataset.skipped}


def test_classes_and_images_are_found_and_sorted(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b/2.jpg",
        "b/10.jpg",
        "a/z.PNG",
        "a/sub/deeper/x.webp",
        "Z/i.gif",
        "a b/it's.tif",
        "é/🐱.bmp",
    )
    dataset = scan(tmp_path)
    assert dataset.classes == ("Z", "a", "a b", "b", "é")
    assert sources(dataset) == [
        "Z/i.gif", "a/sub/deeper/x.webp", "a/z.PNG", "a b/it's.tif", "b/10.jpg", "b/2.jpg", "é/🐱.bmp",
    ]  # fmt: skip
    assert [image.class_name for image in dataset.images] == ["Z", "a", "a", "a b", "b", "b", "é"]
    assert all(image.path.is_file() for image in dataset.images)
    assert dataset.skipped == ()


@pytest.mark.parametrize("suffix", [*sorted(SUFFIXES), ".JPG", ".Png"])
def test_every_readable_suffix_is_taken(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, f"a/x{suffix}")
    assert sources(scan(tmp_path)) == [f"a/x{suffix}"]


def test_hidden_names_and_other_files_are_ignored(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "a/1.jpg",
        "a/.DS_Store",
        "a/._1.jpg",
        "a/notes.txt",
        "a/.thumbs/1.jpg",
        ".git/x.jpg",
        "readme.md",
    )
    dataset = scan(tmp_path)
    assert dataset.classes == ("a",)
    assert sources(dataset) == ["a/1.jpg"]
    assert dataset.skipped == ()


def test_images_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.HEIC", "a/3.svg", "stray.png")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    assert reasons(scan(tmp_path)) == {
        "a/2.HEIC": "images of the format .heic cannot be read",
        "a/3.svg": "images of the format .svg cannot be read",
        "a/pipe.jpg": "not a regular file",
        "stray.png": "image outside every class folder",
    }


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    name = os.fsencode(tmp_path) + b"/a/\xff\xfe.jpg"
    Path(os.fsdecode(name)).touch()
    touch(tmp_path, "a/é.jpg")
    dataset = scan(tmp_path)
    assert sources(dataset) == ["a/é.jpg", "a/\udcff\udcfe.jpg"]
    assert dataset.images[1].path.is_file()


def test_links_are_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    touch(elsewhere, "more/2.jpg", "single.jpg", "whole/3.jpg")
    root = tmp_path / "data"
    touch(root, "a/1.jpg")
    (root / "a/folder").symlink_to(elsewhere / "more")
    (root / "a/file.jpg").symlink_to(elsewhere / "single.jpg")
    (root / "b").symlink_to(elsewhere / "whole")
    dataset = scan(root)
    assert sources(dataset) == ["a/1.jpg", "a/file.jpg", "a/folder/2.jpg", "b/3.jpg"]
    assert dataset.skipped == ()


def test_links_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/sub/2.jpg", "b/3.jpg")
    (tmp_path / "a/sub/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/top").symlink_to(tmp_path)
    (tmp_path / "a/itself.jpg").symlink_to(tmp_path / "a/itself.jpg")
    (tmp_path / "a/nowhere.jpg").symlink_to("missing")
    (tmp_path / "b/other").symlink_to(tmp_path / "a")
    (tmp_path / "whole").symlink_to(tmp_path)
    dataset = scan(tmp_path)
    assert dataset.classes == ("a", "b")
    assert sources(dataset) == ["a/1.jpg", "a/sub/2.jpg", "b/3.jpg", "b/other/1.jpg", "b/other/sub/2.jpg"]
    found = reasons(dataset)
    circles = {
        name
        for name, reason in found.items()
        if reason == "symbolic link to a folder that is searched already"
    }
    assert circles == {"a/sub/up", "a/top", "b/other/sub/up", "b/other/top"}
    assert found["a/nowhere.jpg"] == "symbolic link that leads nowhere"
    assert found["whole"] == "symbolic link to the data set itself"
    assert "a/itself.jpg" in found
    assert all(str(tmp_path) not in reason for reason in found.values())


def test_a_linked_folder_keeps_its_real_name(tmp_path: Path) -> None:
    touch(tmp_path, "a/z/deep/1.jpg")
    (tmp_path / "a/b").symlink_to(tmp_path / "a/z/deep")
    dataset = scan(tmp_path)
    assert sources(dataset) == ["a/z/deep/1.jpg"]
    assert list(reasons(dataset)) == ["a/b"]


def test_many_links_between_folders_are_searched_once(tmp_path: Path) -> None:
    folders = [tmp_path / "a" / str(i) for i in range(12)]
    for folder in folders:
        touch(folder, "x.jpg")
    for one in folders:
        for other in folders:
            (one / f"to-{other.name}").symlink_to(other)  # followed blindly, these are 12! paths
    dataset = scan(tmp_path)
    assert sources(dataset) == sorted(f"a/{i}/x.jpg" for i in range(12))
    assert len(dataset.skipped) == 144


def test_the_order_on_disk_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{c}/{d}/{i}.jpg" for c in "ab" for d in "cde" for i in range(4)), "x.heic", "y.jpg")
    for c in "ab":
        for name in "pqr":
            (tmp_path / c / name).symlink_to(tmp_path / "b")
    expected, listed = scan(tmp_path), os.scandir

    def shuffled(path: Path, dice: random.Random) -> Any:
        entries = sorted(listed(path), key=lambda entry: dice.random())
        return contextlib.nullcontext(iter(entries))

    for seed in range(5):
        dice = random.Random(seed)
        monkeypatch.setattr(os, "scandir", lambda path, dice=dice: shuffled(path, dice))
        assert scan(tmp_path) == expected


def test_an_unreadable_folder_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/1.jpg", "a/locked/2.jpg")
    listed, locked = os.scandir, tmp_path / "a/locked"

    def scandir(path: Path) -> Any:
        if Path(path) == locked:  # for root too
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    dataset = scan(tmp_path)
    assert sources(dataset) == ["a/1.jpg"]
    assert reasons(dataset) == {"a/locked": "folder cannot be read: Permission denied"}
    locked = tmp_path
    refused(tmp_path, "cannot be read: Permission denied")


def refused(root: Path, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        scan(root)
    assert caught.value.advice or "cannot be read" in problem


def test_what_is_no_folder_of_classes_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "holds no class folder")
    refused(tmp_path / "nothing", "There is no folder")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    refused(tmp_path / "circle", "cannot be read")
    (tmp_path / "circle").unlink()
    (tmp_path / "a").symlink_to("missing")
    refused(tmp_path, r"no class folder \('a' is left out: symbolic link that leads nowhere\)")
    touch(tmp_path, "1.jpg", "2.jpg", "x.zip")
    refused(tmp_path, r"holds images, such as '1\.jpg', but no class folders")
    refused(tmp_path / "x.zip", "is a file, not a folder")


def test_classes_without_images_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/notes.txt", "c/x.heic")
    with pytest.raises(DataError, match="2 class folders without images: 'b', 'c'"):
        scan(tmp_path)
    touch(tmp_path, "b/1.jpg")
    with pytest.raises(
        DataError, match=r"1 class folder without images: 'c' \('c/x\.heic' is left out: images of"
    ):
        scan(tmp_path)


def _dataset(names: list[str]) -> DataSet:
    images = tuple(SourceImage(name, name.split("/")[0], Path("data")) for name in names)
    return DataSet(Path("data"), tuple(sorted({image.class_name for image in images})), images, ())


NAMES = [f"{c}/{i:03}.jpg" for c in "abc" for i in range(40)]

GOLDEN_POOL = ["a/001.jpg", "a/010.jpg", "b/016.jpg", "b/039.jpg", "c/008.jpg", "c/028.jpg"]


@given(seed=st.integers(), small=st.integers(0, 50), large=st.integers(0, 50))
def test_a_larger_pool_contains_a_smaller_one(seed: int, small: int, large: int) -> None:
    small, large = sorted((small, large))
    dataset = _dataset(NAMES)
    less, more = pool(dataset, small, seed), pool(dataset, large, seed)
    assert set(less) <= set(more)
    assert len(more) == 3 * min(large, 40)
    assert list(more) == [image for image in dataset.images if image in set(more)]


def test_the_pool_depends_on_seed_and_name_only() -> None:
    dataset = _dataset(NAMES)
    chosen = pool(dataset, 10, 0)
    fewer = _dataset([name for name in NAMES if name.startswith("b")])
    assert pool(fewer, 10, 0) == tuple(image for image in chosen if image.class_name == "b")
    assert [pool(dataset, 10, seed) == chosen for seed in range(3)] == [True, False, False]
    assert [image.source for image in pool(dataset, 2, 0)] == GOLDEN_POOL


JPEG_HEAD = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\0" * 20
HEIC_HEAD = b"\0\0\0\x18ftypheic" + b"\0" * 20


@pytest.mark.parametrize("name", ["1.jfif", "1", "1.jpg_large", "1.heic", "1.tga", "1.txt"])
def test_an_image_is_one_by_its_content_whatever_its_suffix(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "a/0.jpg")
    (tmp_path / "a" / name).write_bytes(JPEG_HEAD)
    assert sources(scan(tmp_path)) == sorted(["a/0.jpg", f"a/{name}"])


def test_what_is_no_image_is_left_aside(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/notes.txt", "a/sub/data.csv", "a/.hidden")
    (tmp_path / "a/photo").write_bytes(HEIC_HEAD)
    (tmp_path / "a/raw.arw").write_bytes(b"II*\0" + b"\0" * 40)
    (tmp_path / "a/BMW.txt").write_bytes(b"BMW and others, a list of cars")
    (tmp_path / "a/P1.md").write_bytes(b"P1 is no bitmap")
    dataset = scan(tmp_path)
    assert sources(dataset) == ["a/1.jpg"]
    assert dataset.aside == ("a/BMW.txt", "a/P1.md", "a/notes.txt", "a/raw.arw", "a/sub/data.csv")
    assert reasons(dataset) == {"a/photo": "images of the format HEIC cannot be read"}


def test_patterns_leave_folders_and_files_out(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/1_mask.png", "a/@eaDir/1.jpg", "b/1.jpg", "b/drafts/2.jpg", "masks/1.png")
    touch(tmp_path, "a/drafts/2.jpg")
    dataset = scan(tmp_path, ignore=["masks/", "*_mask.png", "@eaDir", "b/drafts"])
    assert dataset.classes == ("a", "b")
    assert sources(dataset) == ["a/1.jpg", "a/drafts/2.jpg", "b/1.jpg"]
    assert reasons(dataset) == {
        "a/1_mask.png": "left out by --ignore *_mask.png",
        "a/@eaDir": "left out by --ignore @eaDir",
        "b/drafts": "left out by --ignore b/drafts",
        "masks": "left out by --ignore masks/",
    }
    refused(tmp_path / "b" / "drafts", "holds images")
    with pytest.raises(DataError, match="no class folder"):
        scan(tmp_path, ignore=["*"])


def test_empty_class_folders_are_left_out_when_asked(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "labels/1.txt")
    with pytest.raises(DataError, match="'labels'") as caught:
        scan(tmp_path)
    assert "--skip-empty" in caught.value.advice
    dataset = scan(tmp_path, skip_empty=True)
    assert (dataset.classes, dataset.empty) == (("a",), ("labels",))
    assert reasons(dataset) == {"labels": "class folder without images"}
    (tmp_path / "a/1.jpg").unlink()
    with pytest.raises(DataError, match="2 class folders without images"):
        scan(tmp_path, skip_empty=True)
