"""`fgdd-fast stream` from its sources to OUT, with networks small enough to see through."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_pipeline as tiny
from click.testing import CliRunner, Result
from tiny_distillation import assert_refused, contents

import fgdd_fast
from fgdd_engines.factory import open_engine
from fgdd_fast.cli import main
from fgdd_fast.errors import DataError, FgddError
from fgdd_fast.images.crops import candidate_boxes
from fgdd_fast.output.manifest import Manifest
from fgdd_fast.runtime.choose import RuntimeOptions
from fgdd_fast.streaming.budgets import Budgets, memory_used
from fgdd_fast.streaming.run import Streamed
from fgdd_fast.streaming.sources import Frame

RUNTIME = RuntimeOptions(device="cpu", threads=2)


def options(folder: Path, **more: Any) -> dict[str, Any]:
    """The settings of a small stream."""
    plain = {"teacher": folder / "tiny-teacher.onnx", "ipc": 1, "factor": 2, "size": 16, "crops": 3}
    return {**plain, **more}


def stream(folder: Path, source: Any = None, out: str = "stream", **more: Any) -> Streamed:
    given = {"once": True, **options(folder, **more)}
    source = folder / "data" if source is None else source
    return fgdd_fast.stream(source, folder / out, runtime=RUNTIME, **given)


def command(folder: Path, *arguments: object, **more: Any) -> list[str]:
    given = options(folder, device="cpu", threads=2, **more)
    named = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    return [*map(str, ["stream", *arguments, *named])]


def run(folder: Path, *arguments: object, input: bytes | None = None, **more: Any) -> Result:
    return CliRunner().invoke(main, command(folder, *arguments, **more), input=input)


def pairs(data: Path) -> Iterator[tuple[str, bytes]]:
    """The images of a folder in a random order."""
    files = sorted(data.rglob("*.png"))
    return (
        (file.relative_to(data).as_posix(), file.read_bytes()) for file in random.Random(1).sample(files, 24)
    )


def tiles(manifest: Manifest) -> list[tuple[Any, ...]]:
    return [
        (image.file, tile.sha256, tile.box, tile.kind, tile.threshold, tile.loss)
        for image in manifest.images
        for tile in image.tiles
    ]


@pytest.fixture
def crops_by_content(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`distill` draws candidate crops by content as well, as streams do."""
    hashes = {
        file.relative_to(workplace / "data").as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (workplace / "data").rglob("*.png")
    }

    def by_content(source: str, *size: int, **drawn: int) -> Any:
        return candidate_boxes(hashes[source], *size, **drawn)

    monkeypatch.setattr("fgdd_fast.measurement.missing.candidate_boxes", by_content)


@pytest.mark.usefixtures("crops_by_content")
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"ipc": 4},  # more tiles than images
        {"foreground": "tiny-foreground.onnx", "ipc": "4,red=1", "format": "jpg"},
        {
            "foreground": "tiny-foreground.onnx",
            "rule": "mean",
            "ranking": "whole-first",
            "keep_foreground": 0.5,
        },
    ],
)
def test_a_stream_in_any_order_is_the_data_set_of_its_folder(workplace: Path, asked: dict[str, Any]) -> None:
    if "foreground" in asked:
        asked = {**asked, "foreground": str(workplace / asked["foreground"])}
    store = {"store": workplace / "store"}
    given = options(workplace, **asked)
    _, expected = fgdd_fast.distill(
        workplace / "data", workplace / "batch", runtime=RUNTIME, **given, **store
    )
    streamed = stream(workplace, pairs(workplace / "data"), **asked).written.manifest
    assert tiles(streamed) == tiles(expected)
    mosaics = {
        name: hash for name, hash in contents(workplace / "batch").items() if name.startswith("images")
    }
    assert contents(workplace / "stream").items() >= mosaics.items()
    assert streamed.thresholds == expected.thresholds
    assert streamed.further_crops == expected.further_crops
    verified = fgdd_fast.verify(workplace / "stream", workplace / "data")
    assert verified.sound
    assert verified.remade == len(tiles(streamed))
    fgdd_fast.write_report(workplace / "stream")


def test_a_folder_that_grows_is_followed_through_kills_until_somebody_stops_it(workplace: Path) -> None:
    shutil.move(workplace / "data" / "red", workplace / "red")
    out = workplace / "out"
    words = command(workplace, workplace / "data", out, checkpoint=0.01, fps=40)
    draw = random.Random(0)
    for stop in (signal.SIGKILL, signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen([sys.executable, "-m", "fgdd_fast", *words], stderr=subprocess.PIPE)
        assert process.stderr is not None
        for line in process.stderr:
            # The last one may have nothing left to write, and says no more then than that it is under way.
            told = b"OUT has" in line or (stop == signal.SIGINT and b"Streaming: " in line)
            if told and (stop == signal.SIGKILL or (out / "images" / "red").exists()):
                break
        time.sleep(draw.uniform(0, 0.2))
        process.send_signal(stop)
        said = process.stderr.read()
        assert process.wait() == (-9 if stop == signal.SIGKILL else 130)
        assert (b"goes on from there" in said) == (stop == signal.SIGINT)
        process.stderr.close()
        assert fgdd_fast.verify(out, workplace / "data").sound
        if (workplace / "red").exists() and stop == signal.SIGKILL:
            shutil.move(workplace / "red", workplace / "data" / "red")
    assert stream(workplace, out="out").counts["frames"] == 24
    stream(workplace, out="whole")
    assert contents(out) == contents(workplace / "whole")
    assert not list(workplace.glob(".out*"))


def jpegs(count: int) -> list[bytes]:
    """Photographs of one class after another, without the marker of their end, as some cameras send them."""
    return [
        cv2.imencode(".jpg", cv2.cvtColor(tiny.square(name, 0.5, seed=seed), cv2.COLOR_RGB2BGR))[1].tobytes()[
            :-2
        ]
        for seed in range(count)
        for name in tiny.CLASSES
    ]


def test_images_on_standard_input_are_labelled_by_the_teacher_and_marked(workplace: Path) -> None:
    piped = b"".join(struct.pack(">I", len(each)) + each for each in jpegs(6))
    result = run(workplace, "-", workplace / "out", input=piped, confident=0.5)
    assert result.exit_code == 0, result.output
    manifest = fgdd_fast.open_distilled(workplace / "out").manifest
    assert manifest.classes == tiny.CLASSES
    assert manifest.settings.items() >= {"labels": "teacher", "confident": 0.5}.items()
    for image in manifest.images:
        numbers = [int(tile.source.removeprefix("frame-")) for tile in image.tiles]
        assert {tiny.CLASSES[number % 3] for number in numbers} == {image.class_name}
    cut = run(workplace, "-", workplace / "cut", input=piped[:-9], confident=0.5)
    assert_refused(cut, "Standard input holds no image", "four bytes")
    assert len(fgdd_fast.open_distilled(workplace / "cut")) == 3  # what came before is there
    assert_refused(
        run(workplace, "-", workplace / "no", input=piped, confident=1), "No class has enough images"
    )


def test_a_video_is_taken_once_and_frames_that_repeat_are_dropped(workplace: Path) -> None:
    video = cv2.VideoWriter(str(workplace / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (80, 60))
    for seed in range(8):
        for name in tiny.CLASSES:
            for _ in range(2):
                video.write(cv2.cvtColor(tiny.square(name, 0.2 + seed / 12, seed=seed), cv2.COLOR_RGB2BGR))
    video.release()
    asked = {"source": workplace / "film.avi", "confident": 0.4, "factor": 1, "near_duplicates": 2}
    first = stream(workplace, **asked)
    assert first.counts["nearly the same as a frame shortly before"] >= 24
    assert first.written.manifest.classes == tiny.CLASSES
    (workplace / "stream" / "report.html").touch()
    assert stream(workplace, **asked).counts == first.counts
    assert (workplace / "stream" / "report.html").exists()  # nothing came, and OUT is as it was
    assert stream(workplace, out="few", every=6, **asked).counts["frames"] == 8


class FakeCamera:
    """Gives some frames as fast as they are taken, and then nothing."""

    opened = 0

    def __init__(self, address: int) -> None:
        assert address == 0
        type(self).opened += 1
        self._left = 30 if self.opened < 3 else 0

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def grab(self) -> bool:
        time.sleep(0.005)
        self._left -= 1
        return self._left >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        name = tiny.CLASSES[self._left % 3]
        return True, tiny.square(name, 0.5, seed=self._left)[..., ::-1].copy()

    def release(self) -> None:
        pass


def test_a_camera_that_stops_is_opened_anew_and_then_told_of(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cv2.VideoCapture", FakeCamera)
    with pytest.raises(DataError, match="The camera 0 stopped"):
        stream(workplace, "camera:0", confident=0.5, near_duplicates=0, patience=0.15, fps=100)
    assert FakeCamera.opened == 2 + 3
    assert fgdd_fast.open_distilled(workplace / "stream").manifest.classes == tiny.CLASSES


def test_within_memory_one_inference_finds_the_foreground_at_a_time_and_the_same(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    spied = lambda bundle, **given: opened.append(given["one_stream"]) or open_engine(bundle, **given)  # noqa: E731
    monkeypatch.setattr("fgdd_fast.models.network.open_engine", spied)
    foreground = {"foreground": str(workplace / "tiny-foreground.onnx")}
    free, held = stream(workplace, **foreground), stream(workplace, out="held", memory=2000, **foreground)
    assert opened == [False, False, True, False]
    assert tiles(free.written.manifest) == tiles(held.written.manifest)


def test_budgets_are_held(workplace: Path) -> None:
    with pytest.raises(FgddError, match="1 MiB of memory are too little"):
        stream(workplace, memory=1)
    budgets = Budgets(memory=(memory_used() >> 20) + 50, fps=None, live=True)
    assert budgets.admit(Frame("small", pixels=np.zeros((100, 100, 3), np.uint8)))
    assert not budgets.admit(Frame("large", pixels=np.zeros((5000, 5000, 3), np.uint8)))
    assert budgets.dropped == 1
    begin = time.monotonic()
    assert stream(workplace, out="slow", fps=50).counts["dropped"] == 0
    assert time.monotonic() - begin > 23 / 50


@pytest.mark.parametrize("labels", [r"name:^(\w+)-", "list.csv"])
def test_classes_come_from_names_or_from_a_list(workplace: Path, labels: str) -> None:
    flat = workplace / "flat"
    flat.mkdir()
    rows = []
    for file in (workplace / "data").rglob("*.png"):
        name = f"{file.parent.name}-{file.name}"
        shutil.copy(file, flat / name)
        rows.append(f"{name},{file.parent.name}\n")
    (flat / "else.png").write_bytes(b"")
    (flat / "puce-1.png").write_bytes(b"")
    (workplace / "list.csv").write_text("".join(rows) + "puce-1.png,puce\n")
    asked = labels if labels.startswith("name:") else str(workplace / labels)
    streamed = stream(workplace, flat, labels=asked)
    assert streamed.written.manifest.classes == tiny.CLASSES
    reasons = {item.source: item.reason for item in streamed.written.manifest.skipped}
    assert reasons == {
        "else.png": "no class is known",
        "puce-1.png": "a class that the teacher does not know",
    }


def test_what_cannot_be_done_is_said(workplace: Path) -> None:
    data, out = workplace / "data", workplace / "out"
    assert_refused(run(workplace, workplace / "nothing", out), "no folder and no video", "camera:0")
    assert_refused(run(workplace, data, out, ranking="stratified"), "'stratified' cannot be done on a stream")
    assert_refused(run(workplace, data, out, labels="name:["), "no regular expression")
    assert run(workplace, data, out, "--once").exit_code == 0
    assert_refused(run(workplace, data, out, "--once", ipc=2), "another ipc: 1, not 2", "--overwrite")
    assert run(workplace, data, out, "--once", "--overwrite", ipc=2).exit_code == 0


@pytest.mark.parametrize("ipc", [1, 4])
def test_boards_that_are_merged_have_the_tiles_of_one_that_saw_everything(workplace: Path, ipc: int) -> None:
    for file in (workplace / "data").rglob("*.png"):  # each board sees half of the images, and both a few
        for number, name in enumerate(("one", "two")):
            if int(file.stem) % 2 == number or int(file.stem) < 2:
                target = workplace / f"data-{name}" / file.parent.name / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    asked: dict[str, Any] = {"foreground": workplace / "tiny-foreground.onnx", "ipc": ipc}
    for name in ("one", "two"):
        try:
            stream(workplace, workplace / f"data-{name}", name, **asked)
        except DataError:
            assert ipc == 4  # a board alone has too few images for so many mosaics
    together = stream(workplace, **asked).written.manifest
    for name in ("one", "two"):
        shutil.rmtree(workplace / f"data-{name}")
    outs = [str(workplace / name) for name in ("one", "two")]
    result = CliRunner().invoke(main, ["merge", *outs, "-o", str(workplace / "merged")])
    assert result.exit_code == 0, result.output
    merged = fgdd_fast.open_distilled(workplace / "merged").manifest
    assert tiles(merged) == tiles(together)
    assert {tile.source.split("/")[0] for image in merged.images for tile in image.tiles} == {"one", "two"}
    assert merged.settings["merged"] == "one, two"


def test_what_cannot_be_merged_is_said(workplace: Path) -> None:
    stream(workplace, out="one")
    stream(workplace, out="two", seed=1)
    (workplace / "three").mkdir()
    one, two, three = (workplace / name for name in ("one", "two", "three"))
    for outs, words in (
        ((one, two), "another seed"),
        ((one, three), "There are no candidates"),
        ((one, one), "at least two folders"),
    ):
        with pytest.raises(FgddError, match=words):
            fgdd_fast.merge(outs, workplace / "merged")
    assert not list(workplace.glob("merged*"))
