"""Composing given mosaics without this project: Pillow, tile after tile; OpenCV in processes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
from PIL import Image

from fgdd_bench.harness.implementation import Implementation, Name
from fgdd_bench.harness.subject import Task
from fgdd_bench.machine.processes import worker_context
from fgdd_bench.ours.mosaics import Composing, Job, Library
from fgdd_bench.references.pictures import cut_tile, decode_opencv, decode_pillow, read_content
from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_fast.errors import OutputError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.resize import Pixels
from fgdd_fast.output.folder import writing
from fgdd_fast.planning import Plan

# JPEG as this project writes it; PNG as each library does by default.
_PILLOW_OPTIONS: dict[str, dict[str, Any]] = {"png": {}, "jpg": {"quality": 95, "subsampling": 0}}
_SAMPLING = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_OPENCV_OPTIONS = {"png": [], "jpg": [cv2.IMWRITE_JPEG_QUALITY, 95, *_SAMPLING]}


def _cut(picture: Image.Image, box: Box, side: int) -> Image.Image:
    corners = (box.x, box.y, box.x + box.width, box.y + box.height)
    return picture.crop(corners).resize((side, side), Image.Resampling.BILINEAR)


def _paste(tiles: Sequence[Image.Image], factor: int) -> Image.Image:
    width, height = tiles[0].size
    canvas = Image.new("RGB", (factor * width, factor * height))
    for place, tile in enumerate(tiles):
        row, column = divmod(place, factor)
        canvas.paste(tile, (column * width, row * height))
    return canvas


def _save(canvas: Image.Image, folder: Path, job: Job, form: str) -> Path:
    file = _file(folder, job, form)
    with writing(file):
        canvas.save(file, **_PILLOW_OPTIONS[form])
    return file


def _join(tiles: Sequence[Pixels], factor: int) -> Pixels:
    rows = [np.hstack(tiles[start : start + factor]) for start in range(0, factor**2, factor)]
    return np.vstack(rows)


def _write(canvas: Pixels, folder: Path, job: Job, form: str) -> Path:
    file = _file(folder, job, form)
    pixels = np.asarray(cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR), np.uint8)
    if not cv2.imwrite(str(file), pixels, _OPENCV_OPTIONS[form]):
        raise OutputError(f"OpenCV cannot write {file}", "Free some space.")
    return file


def _file(folder: Path, job: Job, form: str) -> Path:
    file = folder / job.class_name / f"{job.mosaic.index:05d}.{form}"
    with writing(file):
        file.parent.mkdir(exist_ok=True)
    return file


PILLOW = Library(read_content, decode_pillow, _cut, _paste, _save)
OPENCV = Library(read_content, decode_opencv, cut_tile, _join, _write)


def open_mosaics(name: Name, task: Task, plan: Plan) -> Implementation:
    """Open a reference along `compose`.

    Args:
        name: `published`: each tile is opened, cropped, resized and pasted with Pillow, one after the other;
            `fair`, or `compiled`, which is the same: each mosaic is made with OpenCV in one of a pool of
            processes, which stay.
        task: how many processes.
        plan: the mosaics.

    Raises:
        EngineError: the processes cannot be started.
    """
    if name == "published":
        return Composing(name, f"Pillow {PIL.__version__}", task, plan, PILLOW)
    pool = ProcessPoolExecutor(task.threads, worker_context(), cv2.setNumThreads, (1,))
    arithmetic = f"OpenCV {cv2.__version__}, {task.threads} processes"
    composing = Composing(name, arithmetic, task, plan, OPENCV, pool.map)
    composing.opened.callback(pool.shutdown, cancel_futures=True)
    try:
        with wrapped_as_engine_error(f"{arithmetic} failed"):
            pool.submit(int).result()  # starts them
    except BaseException:
        composing.close()
        raise
    return composing
