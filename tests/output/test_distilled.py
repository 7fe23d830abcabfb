"""Mosaics, and a distilled data set read back; whatever does not belong to it is refused."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from record_strategies import make_record, quick
from tiny_distillation import distill
from tiny_distilled import write_distilled

from fgdd_fast.errors import DataError
from fgdd_fast.images.resize import Pixels
from fgdd_fast.output.distilled import open_distilled, split_tiles
from fgdd_fast.output.mosaic import arrange, compose, encode
from fgdd_fast.selection.records import Tile
from fgdd_fast.selection.select import select
from fgdd_fast.selection.thresholds import parse_rule


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_distilled(tmp_path / "out")
    return tmp_path / "out"


def change_manifest(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((out / "manifest.json").read_bytes())
    change(data)
    (out / "manifest.json").write_text(json.dumps(data))


def test_what_distill_wrote_is_read(workplace: Path) -> None:
    assert distill(workplace, ipc=2, size=24, factor=2).exit_code == 0
    found = open_distilled(workplace / "out")

    assert (len(found), found.size, found.factor, found.tile_size) == (6, 24, 2, 12)
    assert found.manifest.classes == tiny.CLASSES
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    files = sorted((workplace / "out" / "images").rglob("*.png"))
    assert [found.path(index) for index in range(6)] == files
    everything = found.read_all()
    assert everything.dtype == np.uint8
    for index, file in enumerate(files):
        pixels = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        assert (found.read(index) == pixels).all()
        assert (everything[index] == pixels).all()
        assert (compose(list(found.tiles(index)), 2) == pixels).all()
        assert found.content(index) == file.read_bytes()
        assert found.file_size(index) == file.stat().st_size
    assert found.hashes() == tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


@pytest.mark.parametrize(("most", "held"), [(2 * 768, 2), (767, 0), (2**30, 4)])
def test_images_beyond_a_limit_are_read_again(out: Path, most: int, held: int) -> None:
    distilled = open_distilled(out)
    expected = [distilled.read(index) for index in range(len(distilled))]
    images = pickle.loads(pickle.dumps(distilled.read_all(most)))
    assert images.shape == np.array(expected).shape
    assert np.array_equal(images, expected)
    shutil.rmtree(out / "images")
    for index in range(held):
        assert np.array_equal(images[index], expected[index])
    for index in range(held, len(expected)):
        with pytest.raises(DataError, match="cannot be used"):
            images[index]


@given(factor=st.integers(1, 5), side=st.integers(1, 7), seed=st.integers(0, 99))
def test_tiles_are_cut_as_they_were_joined(factor: int, side: int, seed: int) -> None:
    shape = (factor**2, side, side, 3)
    tiles: Pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    cut = split_tiles(compose(list(tiles), factor), factor)
    assert (cut == tiles).all()
    assert cut.flags.c_contiguous


def test_hidden_files_and_stored_labels_are_no_images(out: Path) -> None:
    (out / "images" / ".DS_Store").write_text("x")
    (out / "images" / "cat" / "._cat_00000.png").write_text("x")
    (out / "labels").mkdir()
    (out / "labels" / "labels.json").write_text("x")
    assert len(open_distilled(out)) == 4


@pytest.mark.parametrize(
    "foreign",
    ["images/cat/cat_00002.png", "images/cat/notes.txt", "images/dog.png", "images/bird/", "images/cat/a/"],
)
def test_what_the_manifest_does_not_list_is_refused(out: Path, foreign: str) -> None:
    path = out / foreign
    if foreign.endswith("/"):
        path.mkdir()
    else:
        path.write_bytes((out / "images" / "cat" / "cat_00000.png").read_bytes())
    with pytest.raises(DataError, match="does not list") as caught:
        open_distilled(out)
    assert repr(foreign.rstrip("/")) in caught.value.problem


def test_a_missing_image_is_refused(out: Path) -> None:
    (out / "images" / "dog" / "dog_00001.png").rename(out / "images" / "dog" / "dog_00002.png")
    with pytest.raises(DataError, match=r"lacks 1 of its 4 images: 'images/dog/dog_00001\.png'"):
        open_distilled(out)


@pytest.mark.parametrize("instead", ["nothing", "a file"])
def test_a_missing_folder_of_images_is_refused(out: Path, instead: str) -> None:
    (out / "images").rename(out / "elsewhere")
    if instead == "a file":
        (out / "images").write_text("x")
    with pytest.raises(DataError, match="images"):
        open_distilled(out)


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no size": (lambda data: data["settings"].pop("size"), r"settings\.size"),
    "size as text": (lambda data: data["settings"].update(size="16"), r"settings\.size"),
    "factor 0": (lambda data: data["settings"].update(factor=0), r"settings\.factor"),
    "factor true": (lambda data: data["settings"].update(factor=True), r"settings\.factor"),
    "factor 4": (lambda data: data["settings"].update(factor=4), "has 4 tiles, and settings.factor is 4"),
    "size 15": (lambda data: data["settings"].update(size=15), "no 2 equal tiles"),
    "no images": (lambda data: data["images"].clear(), "lists no image"),
    "twice": (lambda data: data["images"].append(data["images"][0]), r"lists 'images/cat/.*' 2 times"),
}


@pytest.mark.parametrize("change", CONTRADICTIONS)
def test_a_manifest_that_contradicts_itself_is_refused(out: Path, change: str) -> None:
    edit, problem = CONTRADICTIONS[change]
    change_manifest(out, edit)
    with pytest.raises(DataError, match=problem) as caught:
        open_distilled(out)
    assert "manifest.json contradicts itself" in caught.value.problem


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "empty"),
    "truncated": (lambda content: content[: len(content) // 2], "PNG"),
    "no image": (lambda content: b"This is text, and no picture.", "image"),
    "another size": (
        lambda content: cv2.imencode(".png", np.zeros((12, 16, 3), np.uint8))[1].tobytes(),
        "16 x 12 pixels, and its manifest says 16 x 16",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_image_is_named(out: Path, damage: str) -> None:
    change, problem = DAMAGES[damage]
    path = out / "images" / "dog" / "dog_00000.png"
    path.write_bytes(change(path.read_bytes()))
    found = open_distilled(out)
    assert found.read(0).shape == (16, 16, 3)
    for read in (lambda: found.read(2), lambda: found.tiles(2), found.read_all):
        with pytest.raises(DataError, match=problem) as caught:
            read()
        assert str(path) in caught.value.problem


def test_an_image_that_went_away_is_named(out: Path) -> None:
    found = open_distilled(out)
    path = found.path(3)
    path.unlink()
    for read in (lambda: found.read(3), lambda: found.file_size(3), lambda: found.content(3), found.hashes):
        with pytest.raises(DataError, match="No such file") as caught:
            read()
        assert str(path) in caught.value.problem


def ranked_tiles(count: int) -> tuple[Tile, ...]:
    records = [make_record(f"{rank:04}", crops=(float(rank),)) for rank in range(count)]
    return select(records, parse_rule("always-patch"), count, 0).tiles


@quick
@given(st.integers(1, 6), st.integers(1, 4))
def test_every_tile_is_used_once(ipc: int, factor: int) -> None:
    tiles = ranked_tiles(ipc * factor**2)
    mosaics = arrange(tiles, ipc, factor)
    assert len(mosaics) == ipc
    for cell in range(factor**2):
        for mosaic in mosaics:
            assert mosaic.tiles[cell] == tiles[cell * ipc + mosaic.index]


@pytest.mark.parametrize("count", [0, 11, 13])
def test_another_number_of_tiles_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="need 12 tiles"):
        arrange(ranked_tiles(12)[:count] if count < 12 else ranked_tiles(13), ipc=3, factor=2)
    with pytest.raises(ValueError, match="needs"):
        compose([np.zeros((5, 5, 3), np.uint8)] * count, factor=2)


def test_jpeg_is_close_and_keeps_full_colour_resolution() -> None:
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    pixels = np.dstack([ramp, ramp[::-1], 255 - ramp])
    pixels[:, 31:] = (255, 0, 0)  # a seam of colour inside a chroma block
    with Image.open(io.BytesIO(encode(pixels, "jpg"))) as image:
        assert image.format == "JPEG"
        assert [component[1:3] for component in image.layer] == [(1, 1)] * 3, "4:4:4"
        error = np.abs(np.asarray(image, np.int16) - pixels)
    assert error.mean() < 3
