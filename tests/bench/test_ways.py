"""Every way along a path gives the same answer, whole and stage by stage, for the same images."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import tiny_pipeline
import tiny_references as tiny
from image_files import CLOTHING, clothing_photographs, needs_clothing
from numpy.typing import NDArray

pytest.importorskip("torch")

import torch

from fgdd_bench.harness.subject import Subject
from fgdd_bench.harness.ways import Answer, PathName, Task, Way
from fgdd_bench.ours.small_networks import open_product
from fgdd_bench.references.fair import open_fair
from fgdd_bench.references.published import open_published
from fgdd_fast.errors import DataError, FgddError, SettingsError, TeacherError
from fgdd_fast.images.dataset import SourceImage

OPEN: dict[str, Callable[[PathName, Task, Subject], Way]] = {
    "product": open_product,
    "published": open_published,
    "fair": open_fair,
    "compiled": partial(open_fair, compile=True),
}
STAGES: dict[str, dict[PathName, Sequence[str]]] = {
    "product": {
        "decode": ["read", "decode", "preprocess"],
        "foreground": ["read", "decode", "preprocess", "saliency", "write"],
        "teacher": ["read", "decode", "preprocess", "teacher", "write"],
        "compose": ["read", "decode", "preprocess", "compose", "write"],
    },
    "reference": {
        "decode": ["read", "decode", "preprocess"],
        "foreground": ["read", "decode", "preprocess", "saliency"],
        "teacher": ["read", "decode", "preprocess", "teacher"],
        "compose": ["read", "decode", "preprocess", "compose", "write"],
    },
}
PATHS: tuple[PathName, ...] = ("decode", "foreground", "teacher", "compose")
TASK = replace(tiny.TASK, batch=5)  # of 12 images: the last batch is not whole
every_path = pytest.mark.parametrize("path", PATHS)
every_way = pytest.mark.parametrize("column", OPEN)


@dataclass(frozen=True)
class Opened:
    """All ways along all paths."""

    images: tuple[SourceImage, ...]
    subject: Subject
    ways: dict[tuple[PathName, str], Way]

    def run(self, path: PathName, column: str) -> Answer:
        return self.ways[path, column].run(self.images)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """`torch.compile` gives the network back: making kernels would take longer than all of these tests."""
    folder = tmp_path_factory.mktemp("ways")
    data = tiny.squares(folder)
    subject = tiny.subject(folder, composition=tiny.composition(data))
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(torch, "compile", lambda network, **_: network)
        ways = {
            (path, column): stack.enter_context(OPEN[column](path, TASK, subject))
            for path in PATHS
            for column in OPEN
        }
        yield Opened(data.images, subject, ways)


def difference(one: Any, other: Any) -> NDArray[np.float64]:
    return np.abs(np.asarray(one, float) - np.asarray(other, float))


@pytest.mark.parametrize(("column", "largest", "mean"), [("published", 40, 1.5), ("fair", 1, 0.5)])
def test_tiles_are_alike(opened: Opened, column: str, largest: float, mean: float) -> None:
    tiles = opened.run("decode", "product")["tiles"]
    assert (tiles.shape, tiles.dtype) == ((12, 4, 24, 24, 3), np.uint8)
    apart = difference(opened.run("decode", column)["tiles"], tiles)
    assert apart.max() <= largest
    assert apart.mean() <= mean


@pytest.mark.parametrize(("column", "tolerance"), [("published", 0.2), ("fair", 0.1)])
def test_losses_are_alike_and_choose_the_same_crops(opened: Opened, column: str, tolerance: float) -> None:
    losses, others = (opened.run("teacher", name)["losses"] for name in ("product", column))
    assert losses.shape == others.shape == (12, 4)
    assert np.ptp(losses) > 10 * tolerance
    assert difference(losses, others).max() < tolerance
    best = others[:, 1:].argmin(axis=1)
    regret = losses[np.arange(12), 1 + best] - losses[:, 1:].min(axis=1)
    assert regret.max() < tolerance / 2


@pytest.mark.parametrize("column", ["published", "fair"])
def test_occupancies_and_masks_are_alike(opened: Opened, column: str) -> None:
    found, other = (opened.run("foreground", name) for name in ("product", column))
    assert other["masks"].shape == found["masks"].shape == (12, 24, 24)
    assert other["masks"].dtype == found["masks"].dtype == np.uint8
    assert other["occupancy"].dtype == found["occupancy"].dtype == np.float32
    assert np.ptp(found["occupancy"]) > 0.1
    assert difference(found["occupancy"], other["occupancy"]).max() < 0.01
    assert np.mean((found["masks"] >= 128) != (other["masks"] >= 128)) < 0.02


@pytest.mark.parametrize(("column", "mean"), [("published", 1.5), ("fair", 0.5)])
def test_mosaics_are_alike(opened: Opened, column: str, mean: float) -> None:
    mosaics = opened.run("compose", "product")["mosaics"]
    assert (mosaics.shape, mosaics.dtype) == ((6, 32, 32, 3), np.uint8)
    assert np.std(mosaics.mean(axis=(1, 2, 3))) > 1
    assert difference(opened.run("compose", column)["mosaics"], mosaics).mean() < mean


@every_path
def test_what_is_compiled_answers_as_what_is_not(opened: Opened, path: PathName) -> None:
    """The filling of the last batch, too, must not be seen."""
    fair, compiled = opened.run(path, "fair"), opened.run(path, "compiled")
    assert fair.keys() == compiled.keys()
    for name in fair:
        assert difference(fair[name], compiled[name]).max() < 0.02


@every_way
@pytest.mark.parametrize("path", ["decode", "foreground", "teacher"])
def test_answers_are_in_the_order_of_the_images(opened: Opened, path: PathName, column: str) -> None:
    way = opened.ways[path, column]
    whole, backwards = way.run(opened.images), way.run(opened.images[::-1])
    for name in whole:
        assert difference(whole[name], backwards[name][::-1]).max() < 0.02
        assert difference(whole[name], backwards[name]).max() > 0.02


@every_way
@every_path
def test_stages_cover_all_images(opened: Opened, path: PathName, column: str) -> None:
    way = opened.ways[path, column]
    stages = way.stages(opened.images)
    kind = "product" if column == "product" else "reference"
    assert [stage.name for stage in stages] == STAGES[kind][path]
    for stage in stages:
        assert stage.calls * stage.images >= (24 if path == "compose" else len(opened.images))
        assert 1 <= stage.threads <= TASK.threads
        for index in range(stage.calls):
            stage.run(index)
    assert way.column == column
    assert way.load_seconds > 0
    assert way.arithmetic
    assert way.text_encodings is None


@every_way
@every_path
def test_a_damaged_image_is_named_and_others_go_on(opened: Opened, path: PathName, column: str) -> None:
    way, (first, *others) = opened.ways[path, column], opened.images
    content = first.path.read_bytes()
    first.path.write_bytes(content[: len(content) // 2])
    try:
        with pytest.raises(DataError, match=first.source):
            way.run(opened.images)
        with pytest.raises(DataError):
            way.stages(opened.images)
    finally:
        first.path.write_bytes(content)
    answer = way.run(opened.images if path == "compose" else others)
    assert all(len(array) == (6 if path == "compose" else 11) for array in answer.values())


@pytest.mark.parametrize("column", ["fair", "compiled"])
@every_path
def test_closing_ends_every_process(opened: Opened, path: PathName, column: str) -> None:
    before = set(multiprocessing.active_children())
    way = OPEN[column](path, TASK, opened.subject)
    missing = SourceImage("red/missing.png", "red", opened.images[0].root)
    with pytest.raises(FgddError) as caught:  # its traceback, which is kept, refers to what was at work
        way.run([missing])
    assert set(multiprocessing.active_children()) > before
    way.close()
    assert set(multiprocessing.active_children()) == before
    way.close()
    assert "Traceback" not in str(caught.value)


@every_way
def test_a_path_says_what_it_needs(opened: Opened, column: str) -> None:
    empty = Subject(classes=opened.subject.classes, runtime=opened.subject.runtime)
    for path, missing in (("foreground", "foreground model"), ("teacher", "teacher"), ("compose", "mosaics")):
        with pytest.raises(SettingsError, match=f"needs .*{missing}"):
            OPEN[column](path, TASK, empty)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="'all' is not one of"):
        OPEN[column]("all", TASK, opened.subject)
    with pytest.raises(TeacherError, match="sock"):
        OPEN[column]("teacher", TASK, replace(opened.subject, classes=("sock",)))
    with pytest.raises(SettingsError, match="tiles of 200 pixels"):
        OPEN[column]("teacher", replace(TASK, tile_size=200), opened.subject)


@needs_clothing
@pytest.mark.parametrize("column", ["published", "fair"])
def test_photographs_are_seen_alike(opened: Opened, column: str) -> None:
    photographs = [
        SourceImage(str(path.relative_to(CLOTHING)), tiny_pipeline.CLASSES[place % 3], CLOTHING)
        for place, path in enumerate(clothing_photographs(7))
    ]
    tiles, others = (
        opened.ways["decode", name].run(photographs)["tiles"].astype(float) for name in ("product", column)
    )
    assert difference(tiles, others).mean() < (3 if column == "published" else 0.5)
    losses, others = (opened.ways["teacher", name].run(photographs)["losses"] for name in ("product", column))
    assert np.corrcoef(losses.flat, others.flat)[0, 1] > 0.99
