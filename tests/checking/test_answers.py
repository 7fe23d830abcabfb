"""What models say: doubted labels, easy classes, nothing found, names that the teacher does not know."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from odd_data import codes, only, put

import fgdd_fast
from fgdd_fast.checking.asking import cross_validated
from fgdd_fast.errors import BundleError
from fgdd_fast.runtime.choose import RuntimeOptions

CPU = RuntimeOptions(device="cpu", threads=2)


def test_a_label_that_features_doubt_is_named_and_the_image_stays(workplace: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    data = workplace / "data"
    shutil.copy(data / "red/07.png", data / "blue/wrong.png")
    (data / "red/07.png").unlink()
    for name in ("tiny-backbone", "tiny-teacher"):
        tiny.backbone_bundle(workplace)
        tiny.teacher_bundle(workplace, features=True)
        found = fgdd_fast.check_data(data, teacher=workplace / f"{name}.onnx", runtime=CPU)
        doubted = only(found, "wrong-label")
        assert (doubted.severity, doubted.files) == ("warning", ("blue/wrong.png",))
        assert "blue/wrong.png as 'red'" in doubted.message
        assert "a classifier fitted on the others" in doubted.message
    assert len(fgdd_fast.open_data(data).images) == 24


def test_a_teacher_without_features_says_itself_what_it_doubts(workplace: Path) -> None:
    data = workplace / "data"
    shutil.move(data / "red/07.png", data / "blue/wrong.png")
    found = fgdd_fast.check_data(data, teacher=workplace / "tiny-teacher.onnx", runtime=CPU)
    assert "by the teacher" in only(found, "wrong-label").message
    assert only(found, "wrong-label").files == ("blue/wrong.png",)


def test_losses_that_carry_no_order_are_said_by_class(workplace: Path) -> None:
    for place in range(8):
        pixels = np.zeros((40, 40, 3), np.uint8)
        pixels[..., 0] = 240 + place  # BGR
        put(workplace / f"data/blue/{place:02}.png", pixels)
    found = fgdd_fast.check_data(workplace / "data", teacher=workplace / "tiny-teacher.onnx", runtime=CPU)
    easy = [each for each in found if each.code == "too-easy"]
    said = {each.files: each.message for each in easy}
    assert "'blue' is below 0.001 for 8 of 8" in said["blue",]
    assert all("8 of 8" not in message for files, message in said.items() if files != ("blue",))


def test_every_image_is_judged_by_a_classifier_that_did_not_see_it() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 40)).astype(np.float32)  # learned by heart, they say everything
    labels = rng.integers(0, 2, 60)
    names = [f"{place}" for place in range(60)]
    shares = cross_validated(features, labels, names, 2)
    assert shares is not None
    assert 0.2 < (shares.argmax(axis=1) == labels).mean() < 0.8
    assert shares.sum(axis=1) == pytest.approx(1)
    assert cross_validated(features[:6], np.array([0, 0, 0, 0, 0, 1]), [*"abcdef"], 2) is None


def test_classes_of_few_images_are_learned_from_and_not_judged() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    labels = np.array([0] * 10 + [2] * 10 + [4] * 3)  # of five classes, two of which have no image
    features = (np.eye(5)[labels] + rng.normal(scale=0.1, size=(23, 5))).astype(np.float32)
    shares = cross_validated(features, labels, [f"{place}" for place in range(23)], 5)
    assert shares is not None
    assert (shares.argmax(axis=1) == labels).all()
    assert (shares[20:, 4] == 1).all()
    assert (shares[:20, 4] > 0).all()
    assert not shares[:, [1, 3]].any()


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("Blue", "GREEN", "red"), "says 'Blue' for 'blue', 'GREEN' for 'green'"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), "does not know 'blue', 'green', 'red'"),
    ],
)
def test_names_that_the_teacher_does_not_know_are_said_with_the_way_out(
    workplace: Path, classes: tuple[str, ...], said: str
) -> None:
    tiny.teacher_bundle(workplace, classes)
    found = fgdd_fast.check_data(workplace / "data", teacher=workplace / "tiny-teacher.onnx", needs="files")
    assert codes(found) == ["teacher-names"]
    assert said in found[0].message
    assert "fgdd-fast teacher rename" in found[0].advice


def test_classes_in_which_nothing_is_found_are_said_loudly(workplace: Path) -> None:
    data = workplace / "data"
    grey = np.full((40, 40, 3), tiny.GREY, np.uint8)
    for name, count in (("blue", 8), ("green", 5), ("red", 1)):
        for place in range(count):
            cv2.imwrite(str(data / name / f"{place:02}.png"), grey + place)
    found = fgdd_fast.check_data(
        data, foreground=str(workplace / "tiny-foreground.onnx"), store=workplace / "store", runtime=CPU
    )
    nothing = {each.files[0]: each for each in found if each.code == "nothing-found"}
    assert [nothing[name].severity for name in tiny.CLASSES] == ["error", "warning", "note"]
    assert "found in none of 8 images of 'blue'" in nothing["blue"].message
    assert "found in 3 of 8 images of 'green'" in nothing["green"].message


def test_a_bundle_that_is_no_teacher_is_refused(workplace: Path) -> None:
    with pytest.raises(BundleError, match="not a teacher"):
        fgdd_fast.check_data(workplace / "data", teacher=workplace / "tiny-foreground.onnx")
