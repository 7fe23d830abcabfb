"""Decoding, and composing given mosaics: what every implementation of the latter shares, and ours of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np

from fgdd_bench.harness.implementation import Answer, Name, Stage, Step, StepByStep, as_stages
from fgdd_bench.harness.subject import Task, unusable, whole_and_crops
from fgdd_fast.errors import ImageError, SettingsError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import FileContent, decode_image, read_file, read_image
from fgdd_fast.images.resize import Pixels
from fgdd_fast.images.tiles import tile_pixels
from fgdd_fast.output.folder import write_image
from fgdd_fast.output.mosaic import Mosaic, compose, encode
from fgdd_fast.output.writing import write_mosaics
from fgdd_fast.parallel import ordered_map
from fgdd_fast.planning import MosaicSettings, Plan


@dataclass(frozen=True)
class Job:
    """A mosaic to compose: its class, its tiles row by row, and the image of each tile."""

    class_name: str
    mosaic: Mosaic
    images: tuple[SourceImage, ...]


@dataclass(frozen=True)
class Library:
    """What images are decoded, cut, joined and written with.

    Attributes:
        read: an image's file; called with None beside it, as a step is.
        decode: a picture from what was read.
        cut: a box of a picture as a tile of a size.
        join: tiles, row by row, to a canvas with so many along each side.
        write: a canvas into a folder as the mosaic of a job, in a format; returns the file.
    """

    read: Callable[[SourceImage, None], Any]
    decode: Callable[[SourceImage, Any], Any]
    cut: Callable[[Any, Box, int], Any]
    join: Callable[[Sequence[Any], int], Any]
    write: Callable[[Any, Path, Job, str], Path]

    def reading(self) -> tuple[Step, Step]:
        """Return the steps from an image to its picture."""
        return Step("read", self.read), Step("decode", self.decode)

    def tiles(self, task: Task, image: SourceImage, picture: Pixels) -> Pixels:
        """Return the whole image and its candidate crops as tiles, uint8 [1 + crops, tile, tile, 3]."""
        height, width = picture.shape[:2]
        boxes = whole_and_crops(image, width, height, task)
        return np.stack([self.cut(picture, box, task.tile_size) for box in boxes])


@dataclass(frozen=True)
class _Composer:
    """The steps from a job to its file; a reference's processes are sent them."""

    library: Library
    settings: MosaicSettings
    folder: Path

    def steps(self) -> tuple[Step, ...]:
        return (
            Step("read", self.read),
            Step("decode", self.decode),
            Step("preprocess", self.cut),
            Step("compose", self.join),
            Step("write", self.write),
        )

    def read(self, job: Job, _: None) -> list[Any]:
        return [self.library.read(image, None) for image in job.images]

    def decode(self, job: Job, contents: Sequence[Any]) -> list[Any]:
        return list(map(self.library.decode, job.images, contents))

    def cut(self, job: Job, pictures: Sequence[Any]) -> list[Any]:
        tiles = zip(pictures, job.mosaic.tiles, strict=True)
        return [self.library.cut(picture, tile.box, self.settings.tile_size) for picture, tile in tiles]

    def join(self, _: Job, tiles: Sequence[Any]) -> Any:
        return self.library.join(tiles, self.settings.factor)

    def write(self, job: Job, canvas: Any) -> Path:
        return self.library.write(canvas, self.folder, job, self.settings.format)


class Composing(StepByStep):
    """One way to compose the mosaics of a plan; they are written into a folder that closing removes.

    Args:
        name, arithmetic, run_all: see `StepByStep`.
        task: how many threads or processes.
        plan: the mosaics.
        library: what does it.
    """

    def __init__(
        self,
        name: Name,
        arithmetic: str,
        task: Task,
        plan: Plan,
        library: Library,
        run_all: Callable[[Callable[[Job], Path], Sequence[Job]], Iterable[Path]] = map,
    ) -> None:
        self._plan, self._threads = plan, task.threads
        temporary = TemporaryDirectory()
        self.folder = Path(temporary.name)
        steps = _Composer(library, plan.settings, self.folder).steps()
        super().__init__(name, arithmetic, steps, self._read_back, run_all)
        self.opened.callback(temporary.cleanup)

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`; one call makes one mosaic."""
        return as_stages(self.steps, self.items(images), images=self._plan.settings.factor**2)[0]

    def items(self, images: Sequence[SourceImage]) -> list[Job]:
        """Return the mosaics to compose; the images hold all of theirs."""
        by_source = {image.source: image for image in images}
        wanted = {tile.source for _, mosaic in self._plan.mosaics for tile in mosaic.tiles}
        if missing := wanted - by_source.keys():
            raise SettingsError(f"The mosaics take images that are not given, such as {min(missing)}")
        return [
            Job(name, mosaic, tuple(by_source[tile.source] for tile in mosaic.tiles))
            for name, mosaic in self._plan.mosaics
        ]

    def _read_back(self, files: Sequence[Path]) -> Answer:
        with ThreadPoolExecutor(self._threads, "read") as executor:
            return {"mosaics": np.stack([*executor.map(lambda file: read_image(file).pixels, files)])}


def _read_ours(image: SourceImage, _: None) -> FileContent:
    try:
        return read_file(image.path)
    except ImageError as error:
        raise unusable(image.source, error.problem) from error


def _decode_ours(image: SourceImage, file: FileContent) -> Pixels:
    try:
        return decode_image(file.content)
    except ImageError as error:
        raise unusable(image.source, error.problem) from error


def _write_ours(canvas: Pixels, folder: Path, job: Job, form: Any) -> Path:
    return folder / write_image(folder, job.class_name, job.mosaic.index, encode(canvas, form), form)


OURS = Library(_read_ours, _decode_ours, partial(tile_pixels, method="area"), compose, _write_ours)


def our_decoding(task: Task) -> StepByStep:
    """Return ours along `decode`: files are read, decoded once and cut into tiles on a pool of threads."""

    def run_all(work: Callable[[Any], Any], images: Sequence[SourceImage]) -> list[Any]:
        with ThreadPoolExecutor(task.threads, "decode") as executor:
            return list(ordered_map(executor, work, images, 4 * task.threads))

    steps = (*OURS.reading(), Step("preprocess", partial(OURS.tiles, task)))
    return StepByStep("ours", f"OpenCV {cv2.__version__}", steps, tiles_answer, run_all)


def tiles_answer(tiles: Sequence[Pixels]) -> Answer:
    """Return the answer of the path `decode`."""
    return {"tiles": np.stack(tiles)}


def our_mosaics(task: Task, plan: Plan) -> Composing:
    """Return ours along `compose`: a pool of threads."""

    def run_all(_: object, jobs: Sequence[Job]) -> list[Path]:
        paths = {image.source: image.path for job in jobs for image in job.images}
        written = write_mosaics(plan, paths, composing.folder, threads=task.threads)
        return [composing.folder / file for file, _, _ in written]

    composing = Composing("ours", "OpenCV", task, plan, OURS, run_all)
    return composing
