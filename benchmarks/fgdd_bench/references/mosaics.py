"""Composing given mosaics without this project: Pillow, tile after tile; OpenCV in processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
from PIL import Image

from fgdd_bench.harness.implementation import Name, Step, run_steps
from fgdd_bench.harness.subject import Task
from fgdd_bench.machine.processes import worker_context
from fgdd_bench.ours.mosaics import Composing, Job
from fgdd_bench.references.pictures import cut_tile, decode_opencv, decode_pillow, read_content
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_fast.errors import OutputError
from fgdd_fast.images.resize import Pixels
from fgdd_fast.output.folder import writing
from fgdd_fast.planning import MosaicSettings, Plan

# JPEG as this project writes it; PNG as each library does by default.
_PILLOW_OPTIONS: dict[str, dict[str, Any]] = {"png": {}, "jpg": {"quality": 95, "subsampling": 0}}
_OPENCV_OPTIONS = {
    "png": [],
    "jpg": [
        cv2.IMWRITE_JPEG_QUALITY,
        95,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ],
}


class PublishedMosaics(Composing):
    """Each tile is opened, cropped, resized and pasted with Pillow, one after the other."""

    name = "published"

    def __init__(self, task: Task, plan: Plan) -> None:
        super().__init__(task, plan)
        self.arithmetic = f"Pillow {PIL.__version__}"

    def _compose(self, jobs: Sequence[Job]) -> Sequence[Path]:
        steps = self._steps()
        return [run_steps(steps, job) for job in jobs]

    def _steps(self) -> Sequence[Step]:
        return (
            Step("read", _contents),
            Step("decode", lambda job, contents: list(map(decode_pillow, job.images, contents))),
            Step("preprocess", self._resized),
            Step("compose", self._pasted),
            Step("write", self._saved),
        )

    def _resized(self, job: Job, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        side = self._settings.tile_size
        return [
            picture.crop((x, y, x + width, y + height)).resize((side, side), Image.Resampling.BILINEAR)
            for picture, (x, y, width, height) in zip(
                pictures, (tile.box for tile in job.mosaic.tiles), strict=True
            )
        ]

    def _pasted(self, job: Job, tiles: Sequence[Image.Image]) -> Image.Image:  # noqa: ARG002 - tiles alone
        canvas = Image.new("RGB", (self._settings.size, self._settings.size))
        for place, tile in enumerate(tiles):
            row, column = divmod(place, self._settings.factor)
            canvas.paste(tile, (column * tile.width, row * tile.height))
        return canvas

    def _saved(self, job: Job, canvas: Image.Image) -> Path:
        file = _file(self._folder, job, self._settings)
        with writing(file):
            canvas.save(file, **_PILLOW_OPTIONS[self._settings.format])
        return file


class FairMosaics(Composing):
    """Each mosaic is made with OpenCV in one of a pool of processes, which stay.

    Args:
        name: `fair`, or `compiled`, which is the same: nothing here can be compiled.
    """

    def __init__(self, task: Task, plan: Plan, *, name: Name) -> None:
        super().__init__(task, plan)
        self.name = name
        self.arithmetic = f"OpenCV {cv2.__version__}, {task.threads} processes"
        self._pool = ProcessPoolExecutor(task.threads, worker_context(), cv2.setNumThreads, (1,))
        self._problem = "The processes that compose mosaics failed"
        try:
            with wrapped_as_engine_error(self._problem):
                self._pool.submit(int).result()  # starts them
        except BaseException:
            self.close()
            raise

    def _compose(self, jobs: Sequence[Job]) -> Sequence[Path]:
        with wrapped_as_engine_error(self._problem):
            return list(self._pool.map(partial(run_steps, self._steps()), jobs))

    def _steps(self) -> Sequence[Step]:
        return (
            Step("read", _contents),
            Step("decode", _decoded),
            Step("preprocess", partial(_tiles, self._settings)),
            Step("compose", partial(_joined, self._settings.factor)),
            Step("write", partial(_written, self._settings, self._folder)),
        )

    def close(self) -> None:
        """See `Implementation.close`."""
        self._pool.shutdown(cancel_futures=True)
        super().close()


# What the processes do; they are sent these functions by their names.


def _contents(job: Job, _: None) -> list[bytes]:
    return [read_content(image) for image in job.images]


def _decoded(job: Job, contents: Sequence[bytes]) -> list[Pixels]:
    return list(map(decode_opencv, job.images, contents))


def _tiles(settings: MosaicSettings, job: Job, pictures: Sequence[Pixels]) -> list[Pixels]:
    tiles = zip(pictures, job.mosaic.tiles, strict=True)
    return [cut_tile(pixels, tile.box, settings.tile_size) for pixels, tile in tiles]


def _joined(factor: int, _: Job, tiles: Sequence[Pixels]) -> Pixels:
    rows = [np.hstack(tiles[start : start + factor]) for start in range(0, factor**2, factor)]
    return np.vstack(rows)


def _written(settings: MosaicSettings, folder: Path, job: Job, pixels: Pixels) -> Path:
    file = _file(folder, job, settings)
    pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)
    if not cv2.imwrite(str(file), pixels, _OPENCV_OPTIONS[settings.format]):
        raise OutputError(f"OpenCV cannot write {file}", "Free some space.")
    return file


def _file(folder: Path, job: Job, settings: MosaicSettings) -> Path:
    file = folder / job.class_name / f"{job.mosaic.index:05d}.{settings.format}"
    with writing(file):
        file.parent.mkdir(exist_ok=True)
    return file
