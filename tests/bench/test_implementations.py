"""Every implementation of a path gives the same answer, whole and stage by stage, for the same images."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_convolutions
import tiny_references as tiny
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("PIL", reason="Pillow is not installed")

from fgdd_bench.harness import opening  # noqa: E402
from fgdd_bench.harness.implementation import Answer, Implementation, Name, PathName  # noqa: E402
from fgdd_bench.harness.opening import ImplementationOpener  # noqa: E402
from fgdd_bench.harness.subject import Subject, Task, choose_originals  # noqa: E402
from fgdd_export.tile.bundle import make_cropped_graph  # noqa: E402
from fgdd_fast.errors import DataError, FgddError, SettingsError, TeacherError  # noqa: E402
from fgdd_fast.images.dataset import SourceImage  # noqa: E402
from fgdd_fast.images.decode import read_image  # noqa: E402
from fgdd_fast.images.headers import read_header  # noqa: E402
from fgdd_fast.images.tiles import tile_pixels  # noqa: E402
from fgdd_fast.models.network import Runtime  # noqa: E402

NAMES: tuple[Name, ...] = ("ours", "published", "fair", "compiled")
PATHS: tuple[PathName, ...] = ("decode", "foreground", "teacher", "compose", "all")
READING = ["read", "decode", "preprocess"]
COMPOSING = [*READING, "compose", "write"]
STAGES: dict[str, dict[PathName, Sequence[str]]] = {
    "ours": {
        "decode": READING,
        "foreground": [*READING, "saliency", "write"],
        "teacher": [*READING, "teacher", "write"],
        "compose": COMPOSING,
        "all": [*READING, "saliency", "preprocess", "teacher", "write", *COMPOSING],
    },
    "reference": {
        "decode": READING,
        "foreground": [*READING, "saliency"],
        "teacher": [*READING, "teacher"],
        "compose": COMPOSING,
        "all": [*READING, "saliency", *READING, "teacher", *COMPOSING],
    },
}
TASK = replace(tiny.TASK, batch=5)  # of 12 images: the last batch is not whole
every_path = pytest.mark.parametrize("path", PATHS)
everyone = pytest.mark.parametrize("name", NAMES)


@dataclass(frozen=True)
class Opened:
    """All implementations of all paths."""

    images: tuple[SourceImage, ...]
    subject: Subject
    opener: ImplementationOpener
    all: dict[tuple[PathName, Name], Implementation]

    def run(self, path: PathName, name: Name) -> Answer:
        return self.all[path, name].run(self.images)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """`torch.compile` gives the network back: making kernels would take longer than all of these tests."""
    folder = tmp_path_factory.mktemp("implementations")
    data = tiny.squares(folder)
    subject = tiny.subject(folder, plan=tiny.plan(data))
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(torch, "compile", lambda network, **_: network)
        patch.setattr(opening, "CANDIDATES", {"cpu": (TASK.batch,)})
        patch.setattr(opening, "TRIALS", 1)
        originals = choose_originals(data, 12, 0)[0]
        opener = ImplementationOpener(task=TASK, subject=subject, originals=originals)
        opened = {
            (path, name): stack.enter_context(opener.open(path, name)) for path in PATHS for name in NAMES
        }
        yield Opened(tuple(original.image for original in originals), subject, opener, opened)


def difference(one: Any, other: Any) -> NDArray[np.float64]:
    return np.abs(np.asarray(one, float) - np.asarray(other, float))


@pytest.mark.parametrize(("name", "largest", "mean"), [("published", 40, 1.5), ("fair", 1, 0.5)])
def test_tiles_are_alike(opened: Opened, name: Name, largest: float, mean: float) -> None:
    tiles = opened.run("decode", "ours")["tiles"]
    assert (tiles.shape, tiles.dtype) == ((12, 4, 24, 24, 3), np.uint8)
    apart = difference(opened.run("decode", name)["tiles"], tiles)
    assert apart.max() <= largest
    assert apart.mean() <= mean


@pytest.mark.parametrize(("name", "tolerance"), [("published", 0.2), ("fair", 0.1)])
def test_losses_are_alike_and_choose_the_same_crops(opened: Opened, name: Name, tolerance: float) -> None:
    losses, others = (opened.run("teacher", one)["losses"] for one in ("ours", name))
    assert losses.shape == others.shape == (12, 4)
    assert np.ptp(losses) > 10 * tolerance
    assert difference(losses, others).max() < tolerance
    best = others[:, 1:].argmin(axis=1)
    regret = losses[np.arange(12), 1 + best] - losses[:, 1:].min(axis=1)
    assert regret.max() < tolerance / 2


@pytest.mark.parametrize("name", ["published", "fair"])
def test_occupancies_and_masks_are_alike(opened: Opened, name: Name) -> None:
    found, other = (opened.run("foreground", one) for one in ("ours", name))
    assert other["masks"].shape == found["masks"].shape == (12, 24, 24)
    assert other["masks"].dtype == found["masks"].dtype == np.uint8
    assert other["occupancy"].dtype == found["occupancy"].dtype == np.float32
    assert np.ptp(found["occupancy"]) > 0.1
    assert difference(found["occupancy"], other["occupancy"]).max() < 0.01
    assert np.mean((found["masks"] >= 128) != (other["masks"] >= 128)) < 0.02


@pytest.mark.parametrize(("name", "mean"), [("published", 1.5), ("fair", 0.5)])
def test_mosaics_are_alike(opened: Opened, name: Name, mean: float) -> None:
    mosaics = opened.run("compose", "ours")["mosaics"]
    assert (mosaics.shape, mosaics.dtype) == ((6, 32, 32, 3), np.uint8)
    assert np.std(mosaics.mean(axis=(1, 2, 3))) > 1
    assert difference(opened.run("compose", name)["mosaics"], mosaics).mean() < mean


@every_path
def test_what_is_compiled_answers_as_what_is_not(opened: Opened, path: PathName) -> None:
    """The filling of the last batch, too, must not be seen."""
    fair, compiled = opened.run(path, "fair"), opened.run(path, "compiled")
    assert fair.keys() == compiled.keys()
    for key in fair:
        assert difference(fair[key], compiled[key]).max() < 0.02


@everyone
@pytest.mark.parametrize("path", ["decode", "foreground", "teacher"])
def test_answers_are_in_the_order_of_the_images(opened: Opened, path: PathName, name: Name) -> None:
    way = opened.all[path, name]
    whole, backwards = way.run(opened.images), way.run(opened.images[::-1])
    for key in whole:
        assert difference(whole[key], backwards[key][::-1]).max() < 0.02
        assert difference(whole[key], backwards[key]).max() > 0.02


@everyone
@every_path
def test_stages_cover_all_images(opened: Opened, path: PathName, name: Name) -> None:
    way = opened.all[path, name]
    stages = way.stages(opened.images)
    kind = "ours" if name == "ours" else "reference"
    assert [stage.name for stage in stages] == STAGES[kind][path]
    for stage in stages:
        assert stage.calls * stage.images >= (24 if path == "compose" else len(opened.images))
        assert 1 <= stage.threads <= TASK.threads
        for index in range(stage.calls):
            stage.run(index)
    assert way.name == name
    assert way.load_seconds > 0
    assert way.arithmetic
    assert way.text_encodings is None


def test_the_whole_is_what_its_parts_are(opened: Opened) -> None:
    for name in NAMES:
        whole = opened.run("all", name)
        assert difference(whole["occupancy"], opened.run("foreground", name)["occupancy"]).max() < 1e-6
        assert difference(whole["losses"], opened.run("teacher", name)["losses"]).max() < 1e-6
        assert (whole["mosaics"].shape, whole["kept"].shape) == ((3, 48, 48, 3), (12, 3))
        assert difference(whole["kept"], opened.run("all", "ours")["kept"]).mean() < 0.02
    settings = opened.all["all", "ours"].settings  # type: ignore[attr-defined]
    assert (str(settings.rule), settings.selection.keep_foreground) == ("quantile:0.3", 0.7)  # the defaults


@everyone
@every_path
def test_a_damaged_image_is_named_and_others_go_on(opened: Opened, path: PathName, name: Name) -> None:
    one, (first, *_) = opened.all[path, name], opened.images
    content = first.path.read_bytes()
    first.path.write_bytes(content[: len(content) // 2])
    try:
        with pytest.raises(DataError, match=first.source):
            one.run(opened.images)
        with pytest.raises(DataError):
            one.stages(opened.images)
    finally:
        first.path.write_bytes(content)
    assert one.run(opened.images)


@pytest.mark.parametrize("name", ["fair", "compiled"])
@pytest.mark.parametrize("path", ["decode", "teacher", "compose"])
def test_closing_ends_every_process(opened: Opened, path: PathName, name: Name) -> None:
    before = set(multiprocessing.active_children())
    one = opened.opener.open(path, name)
    missing = SourceImage("red/missing.png", "red", opened.images[0].root)
    with pytest.raises(FgddError) as caught:  # its traceback, which is kept, refers to what was at work
        one.run([missing])
    assert set(multiprocessing.active_children()) > before
    one.close()
    assert set(multiprocessing.active_children()) == before
    one.close()
    assert "Traceback" not in str(caught.value)


@everyone
def test_a_path_says_what_it_needs(opened: Opened, name: Name) -> None:
    def opener(subject: Subject, task: Task = TASK) -> ImplementationOpener:
        return replace(opened.opener, subject=subject, task=task, batches={})

    empty = opener(Subject(classes=opened.subject.classes, runtime=opened.subject.runtime))
    needed: dict[PathName, str] = {
        "foreground": "foreground model",
        "teacher": "teacher",
        "compose": "mosaics",
    }
    for path, missing in needed.items():
        with pytest.raises(SettingsError, match=f"needs .*{missing}"):
            empty.open(path, name)
    with pytest.raises(TeacherError, match="sock"):
        opener(replace(opened.subject, classes=("sock",))).open("teacher", name)
    with pytest.raises(SettingsError, match="tiles of 200 pixels"):
        opener(opened.subject, replace(TASK, size=400)).open("teacher", name)


def test_small_tiles_are_enlarged_by_everyone(opened: Opened) -> None:
    task = replace(TASK, size=24, view="resize")  # tiles of 12 pixels for a teacher of 48
    opener = replace(opened.opener, task=task, batches={("teacher", "fair"): 4})
    losses = {}
    for name in ("ours", "published", "fair"):
        with opener.open("teacher", name) as one:
            losses[name] = one.run(opened.images)["losses"]
            assert one.stages(opened.images)
    assert difference(losses["ours"], opened.run("teacher", "ours")["losses"]).max() > 0.1
    for name in ("published", "fair"):
        assert difference(losses["ours"], losses[name]).max() < 0.2


def test_cells_are_the_tiles_of_the_plan_in_either_format(opened: Opened, tmp_path: Path) -> None:
    plan, root = opened.subject.given_plan(), opened.images[0].root
    expected = [
        [tile_pixels(read_image(root / tile.source).pixels, tile.box, 16, "area") for tile in mosaic.tiles]
        for _, mosaic in plan.mosaics
    ]
    for name, tolerance in (("ours", 0), ("published", 6), ("fair", 0.5)):  # mean grey levels
        mosaics = opened.run("compose", name)["mosaics"].astype(float)  # type: ignore[arg-type]
        for mosaic, tiles in zip(mosaics, expected, strict=True):
            cells = mosaic.reshape(2, 16, 2, 16, 3).swapaxes(1, 2).reshape(4, 16, 16, 3)
            assert np.abs(cells - np.array(tiles)).mean() <= tolerance
        jpeg = replace(plan, settings=replace(plan.settings, format="jpg"))
        subject = replace(opened.subject, plan=jpeg)
        with replace(opened.opener, subject=subject).open("compose", name) as lossy:  # type: ignore[arg-type]
            assert 0 < difference(lossy.run(opened.images)["mosaics"], mosaics).mean() < 4
            folder: Path = lossy.folder  # type: ignore[attr-defined]
            files = [file for file in folder.rglob("*") if file.is_file()]
            assert [read_header(file.read_bytes()).format for file in files] == ["JPEG"] * 6
        assert not folder.exists()
        with pytest.raises(SettingsError, match=r"such as .*\.png"):
            opened.all["compose", name].run(opened.images[1:])  # type: ignore[index]


def test_the_work_of_a_path_is_that_of_its_networks(opened: Opened) -> None:
    networks = {path: opened.opener.networks(path, opened.all[path, "ours"]) for path in PATHS}
    assert networks["decode"] == networks["compose"] == {}
    assert networks["all"] == {**networks["foreground"], **networks["teacher"]}
    half = tiny.SIDE // 2
    layers = half**2 * tiny.CHANNELS * (27 + tiny.CHANNELS)
    works = {stage: (found.samples, found.work.multiply_adds) for stage, found in networks["all"].items()}
    assert works["teacher"] == (1 + TASK.crops, layers + tiny.CHANNELS * 3)
    assert works["saliency"] == (1, layers + half**2 * tiny.CHANNELS)
    batches = [opened.opener.batch("teacher", name) for name in NAMES]
    assert batches == [1, 1, TASK.batch, TASK.batch]


def test_a_tile_form_does_less_work_and_decides_as_the_teacher(opened: Opened, tmp_path: Path) -> None:
    teacher = tiny_convolutions.inverted_residuals(tmp_path)
    size = tiny_convolutions.SIDE // 2
    assert make_cropped_graph(teacher, size) is not None
    classes = tiny_convolutions.CLASSES
    subject = Subject(classes=classes, runtime=lambda _: Runtime("cpu", "fp32", 1), teacher=teacher)
    opener = replace(opened.opener, subject=subject, task=replace(TASK, size=2 * size))
    with opener.open("teacher", "ours") as ours, opener.open_fp32("teacher") as reference:
        assert ours.arithmetic.endswith(", tiles")
        assert not reference.arithmetic.endswith("tiles")
        plain, tiled = (opener.networks("teacher", one)["teacher"] for one in (reference, ours))
    assert tiled.name == f"{plain.name}.tile{size}"
    assert tiled.work.multiply_adds < plain.work.multiply_adds
