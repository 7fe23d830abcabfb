"""Stored labels: what the teacher says of exactly these views, and refused for anything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from tiny_labels import IMAGES, SIZE, edit_index, label, make_out

from fgdd_fast.errors import DataError, TeacherError
from fgdd_fast.images.resize import resize
from fgdd_fast.images.tiles import teacher_view
from fgdd_fast.labels.index import read_index, serialise
from fgdd_fast.labels.stored import StoredLabels, open_labels
from fgdd_fast.labels.teacher import check_predictions
from fgdd_fast.labels.training_views import draw_epoch, render
from fgdd_fast.output.distilled import open_distilled


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = make_out(tmp_path_factory.mktemp("labelled"))
    result = label(out, epochs=3, size=12)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def out(labelled: Path, tmp_path: Path) -> Path:
    for file in labelled.parent.glob("tiny-teacher.*"):
        shutil.copy(file, tmp_path)
    return Path(shutil.copytree(labelled, tmp_path / "out"))


def teacher_logits(pictures: np.ndarray) -> np.ndarray:
    """The tiny teacher's logits: the mean blue, green and red of a picture, times 0.1."""
    return pictures.astype(np.float64).mean(axis=(1, 2))[:, ::-1] * 0.1


def test_labels_of_images_and_tiles_are_the_teachers(labelled: Path) -> None:
    distilled = open_distilled(labelled)
    labels = open_labels(distilled)
    np.testing.assert_allclose(labels.mosaics(), teacher_logits(np.array(distilled.read_all())), atol=0.02)
    assert labels.tiles().shape == (IMAGES, 4, len(tiny.CLASSES))
    for index in range(IMAGES):
        padded = [teacher_view(tile, "pad", tiny.SIDE, (0, 0, 0)) for tile in distilled.tiles(index)]
        np.testing.assert_allclose(labels.tiles()[index], teacher_logits(np.stack(padded)), atol=0.005)
    assert labels.mosaics().dtype == labels.tiles().dtype == np.float32


def test_labels_of_views_are_the_teachers(labelled: Path) -> None:
    distilled = open_distilled(labelled)
    labels = open_labels(distilled)
    assert labels.classes == tiny.CLASSES == distilled.manifest.classes
    assert labels.epochs == 3
    recipe = labels.recipe
    assert recipe is not None
    assert (recipe.size, recipe.factor, recipe.batch, recipe.seed, recipe.cutmix) == (12, 2, 4, 0, True)
    for epoch in range(3):
        views, logits = labels.epoch(epoch)
        drawn = draw_epoch(recipe, IMAGES, SIZE, epoch)
        assert all(
            np.array_equal(getattr(views, name), getattr(drawn, name)) for name in views.__annotations__
        )
        shown = [resize(view, (16, 16), "area") for view in render(distilled.read_all(), views, recipe)]
        np.testing.assert_allclose(logits, teacher_logits(np.stack(shown)), atol=0.02)


@pytest.mark.parametrize("folder", ["out", "asked"])
def test_an_index_is_written_as_version_0_1_wrote_it(folder: str) -> None:
    path = Path(__file__).parents[1] / "written_by_0_1" / folder / "labels" / "labels.json"
    assert serialise(read_index(path)) == path.read_bytes()


@pytest.mark.parametrize("index", [-1, 3, 99])
def test_an_epoch_that_is_not_there(labelled: Path, index: int) -> None:
    with pytest.raises(DataError, match=f"no epoch {index}: .* have 3"):
        open_labels(open_distilled(labelled)).epoch(index)


def refused(out: Path, *words: str) -> None:
    with pytest.raises(DataError) as caught:
        open_labels(open_distilled(out))
    for word in words:
        assert word in str(caught.value)
    assert caught.value.advice


def change_a_pixel(out: Path) -> None:
    file = out / "images/green/green_00001.png"
    pixels = cv2.imread(str(file))
    pixels[0, 0] ^= 1
    cv2.imwrite(str(file), pixels)


def change_the_manifest(out: Path) -> None:
    manifest = json.loads((out / "manifest.json").read_bytes())
    manifest["settings"]["seed"] = 9
    (out / "manifest.json").write_text(json.dumps(manifest))


def in_the_index(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda out: edit_index(out, change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda out: shutil.rmtree(out / "labels"), ["no stored labels", "fgdd-fast label OUT"]),
        (in_the_index(lambda data: data["images"].pop()), ["another data set", "of 5 images", "there are 6"]),
        (change_a_pixel, ["1 of 6", "are not what was labelled", "images/green/green_00001.png"]),
        (change_the_manifest, ["manifest", "changed since"]),
        (in_the_index(lambda data: data["classes"].reverse()), ["classes of the manifest in another order"]),
        (
            in_the_index(lambda data: data.update(classes=["blue", "green", "yellow"])),
            ["other classes than the manifest"],
        ),
        (lambda out: (out / "labels/epoch-00002.safetensors").unlink(), ["epoch-00002", "cannot be read"]),
        (
            in_the_index(lambda data: (data.update(epochs=30), data["files"].pop("epoch-00001.safetensors"))),
            ["2 of 30 epochs are there", "goes on"],
        ),
    ],
)
def test_labels_of_something_else_are_refused(
    out: Path, change: Callable[[Path], object], words: list[str]
) -> None:
    change(out)
    refused(out, *words)


def test_another_teacher(out: Path) -> None:
    edit_index(out, lambda data: data["teacher"].update(sha256="0" * 64, name="stranger"))
    refused(out, "another teacher, stranger", "names tiny-teacher")
    edit_index(out, lambda data: data["teacher"].update(other=True))
    assert open_labels(open_distilled(out)).teacher.name == "stranger", "asked for when they were made"


@pytest.mark.parametrize("file", ["images.safetensors", "epoch-00001.safetensors"])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-1], "is truncated or changed"),
        (lambda content: b"", "is truncated or changed: it has 0 of"),
        (lambda content: content[:-1] + bytes([content[-1] ^ 1]), "is corrupted"),
        (lambda content: content + b"\0", "is truncated or changed"),
    ],
)
def test_a_damaged_file(out: Path, file: str, damage: Callable[[bytes], bytes], words: str) -> None:
    path = out / "labels" / file
    path.write_bytes(damage(path.read_bytes()))
    found_at_once = words != "is corrupted"  # the content is compared when it is read
    labels = None if found_at_once else open_labels(open_distilled(out))
    with pytest.raises(DataError, match=f"{file} {words}") as caught:
        read(labels or open_labels(open_distilled(out)), file)
    assert "makes anew what is damaged" in caught.value.advice
    assert label(out, size=12).exit_code == 0
    assert open_labels(open_distilled(out)).epochs == 3


def read(labels: StoredLabels, file: str) -> None:
    labels.mosaics() if "images" in file else labels.epoch(1)


def test_a_file_damaged_after_opening(out: Path) -> None:
    labels = open_labels(open_distilled(out))
    path = out / "labels" / "epoch-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="is corrupted"):
        labels.epoch(2)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        labels.epoch(2)


def test_a_file_that_holds_something_else(out: Path) -> None:
    def exchange(data: dict[str, Any]) -> None:
        data["files"]["epoch-00000.safetensors"] = data["files"]["images.safetensors"]

    edit_index(out, exchange)
    shutil.copy(out / "labels/images.safetensors", out / "labels/epoch-00000.safetensors")
    labels = open_labels(open_distilled(out))
    with pytest.raises(DataError, match="holds something else"):
        labels.epoch(0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data.update(format=2), "has format 2"),
        (lambda data: data.pop("format"), "format"),
        (lambda data: data.pop("images"), "images"),
        (lambda data: data.update(images=["x"]), "SHA-256"),
        (lambda data: data.update(images=7), "images must be a list"),
        (lambda data: data.update(epochs=-1), "-1"),
        (lambda data: data.update(epochs=True), "True"),
        (lambda data: data.update(epochs=10**12), "epochs"),
        (lambda data: data.update(classes=["blue", "blue"]), "twice"),
        (lambda data: data["teacher"].update(other="no"), "'no'"),
        (lambda data: data["views"].update(compression="zip"), "zip"),
        (lambda data: data["views"].update(size=0), "size"),
        (lambda data: data.update(tile_view="mirror"), "mirror"),
        (lambda data: data.update(files={"../manifest.json": {}}), "that of a file of labels"),
        (lambda data: data["files"]["images.safetensors"].pop("bytes"), "bytes"),
    ],
)
def test_an_index_that_is_none(out: Path, change: Callable[[dict[str, Any]], object], words: str) -> None:
    edit_index(out, change)
    refused(out, "labels.json", words)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000])
def test_an_index_of_nonsense(out: Path, content: bytes) -> None:
    (out / "labels/labels.json").write_bytes(content)
    refused(out, "labels.json")


CLASSES = ("coat", "hat", "shoe")


LABELS = np.repeat(np.arange(3), 4)


def check(mosaics: np.ndarray, tiles: np.ndarray) -> None:
    """Check a teacher with these predictions; of each image's tiles, it says the same."""
    check_predictions(mosaics, np.stack([tiles] * 4, axis=1), LABELS, CLASSES, "t")


GUESSES = np.array([0, 1, 2, 2, 1, 0, 2, 0, 0, 0, 1, 2])


def test_a_teacher_that_guesses_is_refused() -> None:
    with pytest.raises(TeacherError, match=r"no better than guessing on tiles: .* of 48 tiles"):
        check(np.zeros_like(LABELS) + (LABELS == 0), GUESSES)


@pytest.mark.parametrize("known", ["images", "tiles"])
def test_a_teacher_need_not_know_both_images_and_tiles(known: str) -> None:
    swapped = np.array([1, 0, 2])[LABELS]
    check(*((LABELS, swapped) if known == "images" else (swapped, LABELS)))


def test_too_few_to_tell_is_said(caplog: pytest.LogCaptureFixture) -> None:
    few = np.array([0, 1])
    check_predictions(few, few[:, None], few, CLASSES, "t")
    assert "Too few images to tell" in caplog.text
