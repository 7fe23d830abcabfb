"""Composing given mosaics: what every way of it shares, and the product's."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fgdd_bench.harness.steps import Step, as_stages
from fgdd_bench.harness.subject import Subject, composition_of
from fgdd_bench.harness.ways import Answer, Stage, Task, Way
from fgdd_fast.errors import SettingsError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.images.decode import decode_image, read_file, read_image
from fgdd_fast.images.resize import Pixels
from fgdd_fast.images.tiles import tile_pixels
from fgdd_fast.output.folder import write_image
from fgdd_fast.output.mosaic import Mosaic, compose, encode
from fgdd_fast.output.writing import write_mosaics


@dataclass(frozen=True)
class Job:
    """A mosaic to compose.

    Attributes:
        class_name: its class.
        mosaic: its tiles, row by row.
        images: the image of each tile.
    """

    class_name: str
    mosaic: Mosaic
    images: tuple[SourceImage, ...]


class ComposingWay(Way):
    """One way to compose the subject's mosaics; they are written into a folder that closing removes.

    Args:
        task: how many threads or processes.
        subject: with the mosaics.
    """

    def __init__(self, task: Task, subject: Subject) -> None:
        composition = composition_of(subject)
        self._plan, self._settings = composition.plan, composition.settings
        self._threads = task.threads
        self._temporary = TemporaryDirectory()
        self._folder = Path(self._temporary.name)

    def run(self, images: Sequence[SourceImage]) -> Answer:
        """See `Way.run`; the mosaics are all those of the subject, and the images hold all of theirs."""
        files = self._compose(self._jobs(images))
        with ThreadPoolExecutor(self._threads, "read") as executor:
            mosaics = list(executor.map(lambda file: read_image(file).pixels, files))
        return {"mosaics": np.stack(mosaics)}

    def stages(self, images: Sequence[SourceImage]) -> Sequence[Stage]:
        """See `Way.stages`; one call makes one mosaic."""
        return as_stages(self._steps(), self._jobs(images), images=self._settings.factor**2)[0]

    def close(self) -> None:
        """See `Way.close`."""
        self._temporary.cleanup()

    @abc.abstractmethod
    def _compose(self, jobs: Sequence[Job]) -> Sequence[Path]:
        """Write all mosaics and return their files, in the order of the jobs."""

    @abc.abstractmethod
    def _steps(self) -> Sequence[Step]:
        """From a `Job` to its file."""

    def _jobs(self, images: Sequence[SourceImage]) -> list[Job]:
        by_source = {image.source: image for image in images}
        missing = {
            tile.source for _, mosaic in self._plan.mosaics for tile in mosaic.tiles
        } - by_source.keys()
        if missing:
            raise SettingsError(f"The mosaics take images that are not given, such as {min(missing)}")
        return [
            Job(name, mosaic, tuple(by_source[tile.source] for tile in mosaic.tiles))
            for name, mosaic in self._plan.mosaics
        ]


class ProductMosaics(ComposingWay):
    """The product: a pool of threads."""

    column = "product"

    def __init__(self, task: Task, subject: Subject) -> None:
        super().__init__(task, subject)
        self.arithmetic = "OpenCV"

    def _compose(self, jobs: Sequence[Job]) -> Sequence[Path]:
        paths = {image.source: image.path for job in jobs for image in job.images}
        written = write_mosaics(self._plan, paths, self._folder, threads=self._threads)
        return [self._folder / file for file, _, _ in written]

    def _steps(self) -> Sequence[Step]:
        return (
            Step("read", lambda job, _: [read_file(image.path).content for image in job.images]),
            Step("decode", lambda _, contents: [decode_image(content) for content in contents]),
            Step("preprocess", self._tiles),
            Step("compose", lambda _, tiles: compose(tiles, self._settings.factor)),
            Step("write", self._write),
        )

    def _tiles(self, job: Job, pictures: Sequence[Pixels]) -> list[Pixels]:
        size, method = self._settings.tile_size, self._settings.resize
        tiles = zip(pictures, job.mosaic.tiles, strict=True)
        return [tile_pixels(pixels, tile.box, size, method) for pixels, tile in tiles]

    def _write(self, job: Job, pixels: Pixels) -> Path:
        content = encode(pixels, self._settings.format)
        index = job.mosaic.index
        return self._folder / write_image(self._folder, job.class_name, index, content, self._settings.format)
