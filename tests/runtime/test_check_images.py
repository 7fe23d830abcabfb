"""The images on which an export is checked: drawn, or photographs of every class in turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_pipeline as tiny

from fgdd_fast.errors import DataError
from fgdd_fast.images.dataset import scan
from fgdd_fast.runtime import sample_images
from fgdd_fast.runtime.sample_images import check_images, separate_samples
from fgdd_fast.synthetic.scenes import NAMES


def test_drawn_scenes_have_several_shapes_of_canvas_and_ask_for_what_can_be_drawn() -> None:
    images = check_images(None, 6, {})
    assert len(images) == 6
    assert len({image.pixels.shape for image in images}) > 3
    assert {image.image.class_name for image in images} <= set(NAMES)
    again = check_images(None, 6, {})
    assert all((one.pixels == other.pixels).all() for one, other in zip(images, again, strict=True))


def test_photographs_come_from_the_classes_in_turn(tmp_path: Path) -> None:
    data = tiny.write_squares(tmp_path / "data", 3)
    images = check_images(data, 5, {})
    assert [image.image.class_name for image in images[:3]] == sorted(tiny.CLASSES)
    assert len({image.image.source for image in images}) == 5
    assert all(image.pixels.dtype == np.uint8 for image in images)


def test_two_samples_share_no_image_and_hold_no_large_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_images, "LARGEST", 1000)
    data = scan(tiny.write_squares(tmp_path / "data", 4))
    one, other = separate_samples(data, 9, without={"red/00.png", "red/01.png"})
    names = [image.image.source for image in (*one, *other)]
    assert (len(one), len(other), len(set(names))) == (5, 5, 10)
    assert not {"red/00.png", "red/01.png"} & {*names}
    assert {image.image.class_name for image in one} == {*tiny.CLASSES}
    assert all(500 < image.pixels[..., 0].size <= 1000 for image in one)
    assert [len(part) for part in separate_samples(data, 2)] == [2, 2]


def test_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    data = tiny.write_squares(tmp_path / "data", 2)
    for broken in sorted(data.rglob("00.png")):
        broken.write_bytes(b"no image")
    assert {Path(image.image.source).name for image in check_images(data, 9, {})} == {"01.png"}


def test_a_folder_without_readable_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="No image"):
        check_images(tmp_path, 4, {})


def test_prompts_replace_names(tmp_path: Path) -> None:
    data = tiny.write_squares(tmp_path / "data", 1)
    images = check_images(data, 9, {tiny.CLASSES[0]: ("tabby cat", "tabby")})
    assert sorted(image.image.class_name for image in images) == sorted((*tiny.CLASSES[1:], "tabby cat"))
