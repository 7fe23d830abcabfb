from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from tiny_labels import label, make_out

from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.errors import DataError, SettingsError, TeacherError
from fgdd_fast.labels.training_views import default_batch
from fgdd_fast.models.network import Runtime, Teacher
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.students.inputs.labelled_images import read_validation, read_whole
from fgdd_fast.students.inputs.opening import TrainingOptions, open_training

ASKED = TrainingOptions()
RUNTIME = Runtime("cpu", "fp32", 1)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


def open_teacher(bundle: Bundle, size: int) -> Teacher:
    return Teacher(bundle, RUNTIME, view="resize", tile_size=size, batch=4)


def test_validation_cuts_the_centre_of_what_is_resized_as_rded_does(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 13, 3)).astype(np.uint8)
    write(tmp_path / "a" / "1.png", pixels)
    found = read_validation(tmp_path, ["a"], 7)  # to which belongs a shorter side of 8
    assert np.array_equal(found.images, pixels[None, :7, 3:10])
    wide = cv2.resize(pixels, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    write(tmp_path / "a" / "1.png", wide)
    assert np.array_equal(read_validation(tmp_path, ["a"], 7).images, found.images)


@pytest.mark.parametrize(
    ("classes", "problem"),
    [
        (("blue", "green"), "it has 'red'"),
        (("blue", "green", "Red"), "it has 'red', and it lacks 'Red'"),
    ],
)
def test_validation_images_of_other_classes_are_refused_by_name(
    tmp_path: Path, classes: tuple[str, ...], problem: str
) -> None:
    tiny.write_squares(tmp_path, 1)
    with pytest.raises(DataError, match=problem):
        read_validation(tmp_path, classes, 16)


def test_classes_without_validation_images_are_said_and_the_others_judged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.write_squares(tmp_path, 2)
    found = read_validation(tmp_path, ("pink", "red", "blue", "green"), 16)
    assert np.bincount(found.labels, minlength=4).tolist() == [0, 2, 2, 2]
    assert "lacks 1 of 4 classes, which are not judged: 'pink'" in caplog.text


def test_validation_images_of_12_bits_are_read_as_the_data_set_was(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    pixels[0] = 255
    write(tmp_path / "a" / "1.png", pixels)
    eight = read_validation(tmp_path, ["a"], 14).images
    write(tmp_path / "a" / "1.png", pixels.astype(np.uint16) << 4)
    assert (read_validation(tmp_path, ["a"], 14, sixteen_bit="scale").images == eight).all()
    assert read_validation(tmp_path, ["a"], 14).images.max() == 15


def test_images_that_cannot_be_read_are_skipped_and_listed(tmp_path: Path) -> None:
    tiny.write_squares(tmp_path, 3)
    (tmp_path / "green" / "01.png").write_bytes(b"not an image")
    for found in (read_validation(tmp_path, tiny.CLASSES, 16), read_whole(tmp_path, 16)):
        assert [item.source for item in found.skipped] == ["green/01.png"]
        assert np.bincount(found.labels).tolist() == [3, 2, 3]
        assert len(found.images) == len(found.sources) == len(found.hashes) == 8
    for file in ("00", "02"):
        (tmp_path / "green" / f"{file}.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="Not one image of the class 'green'"):
        read_validation(tmp_path, tiny.CLASSES, 16)


def test_real_images_to_learn_from_are_resized_whole(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png", np.repeat(np.uint8([[[0] * 3] * 8, [[200] * 3] * 8]), 2, axis=0))
    found = read_whole(tmp_path, 4)
    assert found.images[0, :, :, 0].tolist() == [[0] * 4] * 2 + [[200] * 4] * 2


@pytest.fixture
def out(workplace: Path) -> Path:
    """A distilled set of two mosaics a class, with 2 x 2 tiles of 8 pixels."""
    return make_out(workplace)


def labelled(out: Path, **options: Any) -> None:
    result = label(out, **{"student_batch": None, **options})
    assert result.exit_code == 0, result.output


def test_a_distilled_set_is_opened_with_its_own_size_and_rdeds_batch(out: Path) -> None:
    opened = open_training(out, ASKED, has_teacher=True)
    training, distilled = opened.training, open_distilled(out)
    assert (opened.labels, opened.epochs, opened.resize) == ("online", 300, "area")
    assert np.array_equal(training.images, distilled.read_all())
    assert np.array_equal(training.labels, distilled.labels)
    assert training.classes == tiny.CLASSES
    assert (training.views.size, training.views.factor) == (16, 2)
    assert training.views.batch == default_batch(3, 2)
    tiles = [tile for image in distilled.manifest.images for tile in image.tiles]
    assert opened.sources == {tile.sha256 for tile in tiles}


def test_stored_and_online_labels_are_the_same(out: Path) -> None:
    labelled(out, epochs=2, size=12, student_batch=4, seed=5)
    stored = open_training(out, ASKED, has_teacher=False)
    assert (stored.labels, stored.epochs) == ("stored", 2)
    asked = replace(ASKED, size=12, batch=4, seed=5)
    with closing(open_teacher(tiny.teacher_bundle(out.parent), 12)) as teacher:
        online = open_training(out, asked, has_teacher=True)
        assert (online.labels, online.training.soft) == ("online", None)
        for epoch in range(2):
            (views, kept), (drawn, given) = (
                source.epoch(epoch) for source in (stored.training, online.with_teacher(teacher))
            )
            for name in ("image", "tiles", "box", "flip", "partner", "patch"):
                assert np.array_equal(getattr(views, name), getattr(drawn, name))
            assert np.abs(kept - given).max() <= 2**-10 * np.abs(given).max()  # stored in 16 bits


@pytest.mark.parametrize(
    ("asked", "advice"),
    [({"size": 8}, "--size"), ({"batch": 3}, "--student-batch"), ({"epochs": 3}, "--epochs 3")],
)
def test_what_stored_labels_cannot_give_is_refused(out: Path, asked: dict[str, Any], advice: str) -> None:
    labelled(out, epochs=2)
    options = replace(ASKED, **asked)
    with pytest.raises(SettingsError, match="stored labels") as refusal:
        open_training(out, options, has_teacher=False)
    assert advice in refusal.value.advice
    assert open_training(out, options, has_teacher=True).labels == "online"


def test_stored_labels_without_epochs_are_refused(out: Path) -> None:
    labelled(out, epochs=0)
    with pytest.raises(DataError, match="of whole images and tiles alone"):
        open_training(out, ASKED, has_teacher=False)


def test_a_folder_of_images_has_hard_labels(workplace: Path) -> None:
    opened = open_training(workplace / "data", replace(ASKED, size=10), has_teacher=False)
    assert (opened.labels, opened.epochs, opened.stored) == ("hard", 300, None)
    assert opened.training.images.shape == (24, 10, 10, 3)
    assert opened.training.views.factor == 1
    assert opened.training.origin == "hard labels"
    with pytest.raises(SettingsError, match="no stored labels"):
        open_training(workplace / "data", replace(ASKED, labels="stored"), has_teacher=True)
    with pytest.raises(TeacherError):
        open_training(workplace / "data", replace(ASKED, labels="online"), has_teacher=False)
