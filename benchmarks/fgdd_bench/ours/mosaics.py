"""Decoding, and composing given mosaics: what every implementation of the latter shares, and ours of both."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from fgdd_bench.harness.implementation import Answer, Implementation, Stage, Step, as_stages, run_steps
from fgdd_bench.harness.subject import Task, unusable, whole_and_crops
from fgdd_fast.errors import ImageError, SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import FileContent, decode_image, read_file, read_image
from fgdd_fast.images.resize import Pixels
from fgdd_fast.images.tiles import tile_pixels
from fgdd_fast.output.folder import write_image
from fgdd_fast.output.mosaic import Mosaic, compose, encode
from fgdd_fast.output.writing import write_mosaics
from fgdd_fast.parallel import ordered_map
from fgdd_fast.planning import Plan


def read_step(image: SourceImage, _: object = None) -> FileContent:
    """Read and hash an image's file."""
    try:
        return read_file(image.path)
    except ImageError as error:
        raise unusable(image.source, error.problem) from error


def decode_step(image: SourceImage, file: FileContent) -> Pixels:
    """Decode what was read."""
    try:
        return decode_image(file.content)
    except ImageError as error:
        raise unusable(image.source, error.problem) from error


READING = (Step("read", read_step), Step("decode", decode_step))


def tiles_of(image: SourceImage, pixels: Pixels, task: Task) -> Pixels:
    """Return the whole image and its candidate crops as tiles, uint8 [1 + crops, tile, tile, 3]."""
    height, width = pixels.shape[:2]
    boxes = whole_and_crops(image, width, height, task)
    return np.stack([tile_pixels(pixels, box, task.tile_size, "area") for box in boxes])


class OurDecoding(Implementation):
    """Files are read, decoded once and cut into tiles on a pool of threads."""

    name = "ours"

    def __init__(self, task: Task) -> None:
        self.arithmetic = f"OpenCV {cv2.__version__}"
        self._threads = task.threads
        self._steps = (*READING, Step("preprocess", partial(tiles_of, task=task)))

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`."""
        with ThreadPoolExecutor(self._threads, "decode") as executor:
            work = partial(run_steps, self._steps)
            return {"tiles": np.stack(list(ordered_map(executor, work, images, 4 * self._threads)))}

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`."""
        return as_stages(self._steps, images)[0]

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class Job:
    """A mosaic to compose: its class, its tiles row by row, and the image of each tile."""

    class_name: str
    mosaic: Mosaic
    images: tuple[SourceImage, ...]


class Composing(Implementation):
    """One way to compose the mosaics of a plan; they are written into a folder that closing removes.

    Args:
        task: how many threads or processes.
        plan: the mosaics.
    """

    def __init__(self, task: Task, plan: Plan) -> None:
        self._plan, self._settings = plan, plan.settings
        self._threads = task.threads
        self._temporary = TemporaryDirectory()
        self._folder = Path(self._temporary.name)

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Implementation.run`; all mosaics are made, and the images hold all of theirs."""
        files = self._compose(self._jobs(images))
        with ThreadPoolExecutor(self._threads, "read") as executor:
            mosaics = list(executor.map(lambda file: read_image(file).pixels, files))
        return {"mosaics": np.stack(mosaics)}

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Implementation.stages`; one call makes one mosaic."""
        return as_stages(self._steps(), self._jobs(images), images=self._settings.factor**2)[0]

    def close(self) -> None:
        """See `Implementation.close`."""
        self._temporary.cleanup()

    @abc.abstractmethod
    def _compose(self, jobs: Sequence[Job]) -> Sequence[Path]:
        """Write all mosaics and return their files, in the order of the jobs."""

    @abc.abstractmethod
    def _steps(self) -> Sequence[Step]:
        """Return the steps from a `Job` to its file."""

    def _jobs(self, images: Sequence[SourceImage]) -> list[Job]:
        by_source = {image.source: image for image in images}
        wanted = {tile.source for _, mosaic in self._plan.mosaics for tile in mosaic.tiles}
        if missing := wanted - by_source.keys():
            raise SettingsError(f"The mosaics take images that are not given, such as {min(missing)}")
        return [
            Job(name, mosaic, tuple(by_source[tile.source] for tile in mosaic.tiles))
            for name, mosaic in self._plan.mosaics
        ]


class OurMosaics(Composing):
    """A pool of threads composes."""

    name = "ours"
    arithmetic = "OpenCV"

    def _compose(self, jobs: Sequence[Job]) -> Sequence[Path]:
        paths = {image.source: image.path for job in jobs for image in job.images}
        written = write_mosaics(self._plan, paths, self._folder, threads=self._threads)
        return [self._folder / file for file, _, _ in written]

    def _steps(self) -> Sequence[Step]:
        return (
            Step("read", lambda job, _: list(map(read_step, job.images))),
            Step("decode", lambda job, contents: list(map(decode_step, job.images, contents))),
            Step("preprocess", self._tiles),
            Step("compose", lambda _, tiles: compose(tiles, self._settings.factor)),
            Step("write", self._write),
        )

    def _tiles(self, job: Job, pictures: Sequence[Pixels]) -> list[Pixels]:
        tiles = zip(pictures, job.mosaic.tiles, strict=True)
        return [tile_pixels(pixels, tile.box, self._settings.tile_size, "area") for pixels, tile in tiles]

    def _write(self, job: Job, pixels: Pixels) -> Path:
        content = encode(pixels, self._settings.format)
        index = job.mosaic.index
        return self._folder / write_image(self._folder, job.class_name, index, content, self._settings.format)
