"""One run of `host_ceiling`, in a process of its own: it measures photographs, and prints what that took.

    python runs/host.py WAY DATA FOREGROUND TEACHER < SOURCES

WAY is `whole`; `interpreter`, with all that releases Python's interpreter lock left out; or `pixels`, which
only reads, decodes and resizes. Versions before the null device are run with the same, as defined here; so
this imports nothing but what 0.1.0's successors share.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import cv2
import numpy as np

from fgdd_engines import backends
from fgdd_engines.base import Engine
from fgdd_engines.bundle.bundle import Bundle, Preprocessing, load_bundle
from fgdd_fast.images import decode, resize
from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.dataset import DataSet, SourceImage, scan
from fgdd_fast.images.tiles import tile_pixels
from fgdd_fast.measurement import image_measurer, store_format
from fgdd_fast.measurement.measurer import Measurer
from fgdd_fast.measurement.missing import MeasureSettings
from fgdd_fast.measurement.store import Store
from fgdd_fast.models.factory import choose_as_exported, open_foreground
from fgdd_fast.models.network import VIEWS_PER_INFERENCE, Runtime, open_teacher
from fgdd_fast.runtime.choose import available_processors

batches: Any = None
with suppress(ImportError):  # an earlier version
    from fgdd_fast.runtime import batches

CROPS = 5
WARM_UP = 40  # images, or a quarter where there are few


class OldNull(Engine):
    """The null device for versions that have none."""

    def __init__(self, bundle: Any, axes: Any, threads: int, precision: str = "auto") -> None:  # noqa: ARG002
        self.inputs, self.outputs = (
            tuple(replace(spec, shape=tuple(axes.get(axis, axis) for axis in spec.shape)) for spec in specs)
            for specs in (bundle.inputs, bundle.outputs)
        )
        self.streams, self.arithmetic = 2, "null"
        self._answers = dict[str, Any]()
        for spec in self.outputs:
            shape = tuple(int(length) for length in spec.shape)
            answer = self._answers[spec.name] = np.full(shape, 0.5).astype(spec.dtype)
            if spec.dtype == "uint8":
                rows, columns = (np.linspace(-1, 1, length) for length in shape[1:])
                answer[:] = np.where(np.hypot(rows[:, None], columns) < 0.8, 255, 0)

    def _run(self, feeds: Any, outputs: Sequence[str]) -> Any:
        for feed in feeds.values():
            feed.copy()
        return {name: self._answers[name].copy() for name in outputs}

    def close(self) -> None:
        """Nothing is held."""


def main(way: str, data: str, foreground: str, teacher: str) -> None:
    """Measure the images named on standard input, and print what each took."""
    sources = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").split("\n")
    dataset = scan(Path(data))
    known = {image.source: image for image in dataset.images}
    images = [known[source] for source in sources]
    bundles = load_bundle(Path(foreground)), load_bundle(Path(teacher))
    cv2.setNumThreads(1)
    if way == "pixels":
        report(images, partial(pixels, bundles[0].preprocessing, bundles[1].preprocessing))
        return
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
        measuring = open_measurer(dataset, store, *bundles)
        if way == "interpreter":
            leave_out()
        report(images, measuring.measure)


def report(images: Sequence[SourceImage], work: Any) -> None:
    """Warm up, then work on the other images, and print what each took."""
    first = min(WARM_UP, len(images) // 4)
    work(images[:first])
    rest = images[first:]
    begin = time.perf_counter(), time.process_time(), time.thread_time()
    work(rest)
    end = time.perf_counter(), time.process_time(), time.thread_time()
    seconds, processor, driving = (1000 * (b - a) / len(rest) for a, b in zip(begin, end, strict=True))
    found = {"images_a_second": 1000 / seconds, "processor_ms": processor, "driving_thread_ms": driving}
    json.dump(found, sys.stdout)


def pixels(canvas: Preprocessing, view: Preprocessing, images: Sequence[SourceImage]) -> None:
    """Read, decode and resize, as measuring does, and nothing else."""
    for image in images:
        decoded = decode.decode_image(decode.read_file(image.path).content)
        height, width = decoded.shape[:2]
        resize.resize(decoded, (canvas.width, canvas.height), "area")
        boxes = candidate_boxes(image.source, width, height, count=CROPS, seed=0)
        for box in (Box(0, 0, width, height), *boxes):
            tile_pixels(decoded, box, view.width // 2, "area")


def open_measurer(dataset: DataSet, store: Store, foreground: Bundle, teacher: Bundle) -> Measurer:
    """Open the models on the null device, at the batches of a GPU, or of a version that has one for all."""
    images, scored, threads = 1, 1, available_processors()
    if batches is None:
        mock.patch.dict(backends.BUILT_IN, {"null": f"{__name__}:OLD"}).start()
    else:
        images, scored = batches.GPU.images, batches.GPU.scored
    runtime = Runtime("null", "fp32", threads)
    model = open_foreground(
        choose_as_exported(foreground, dataset.classes),
        runtime=lambda _: runtime,
        batch=images,
        resize="area",
        threads=threads,
    )
    judge = open_teacher(
        teacher,
        runtime=lambda _: runtime,
        view="pad",
        tile_size=teacher.preprocessing.width // 2,
        batch=scored * VIEWS_PER_INFERENCE,
    )
    settings = MeasureSettings(CROPS, 0, "area", max(images, scored), threads, shares=True)
    return Measurer(model, judge, settings, store, dataset.classes)


def leave_out() -> None:
    """Replace what releases the interpreter lock by answers made beforehand."""
    picture = np.zeros((533, 400, 3), np.uint8)
    kept: dict[Any, Any] = {}

    def averaged(_: Any, size: tuple[int, int]) -> Any:
        return kept.setdefault(size, np.zeros((size[1], size[0], 3), np.uint8))

    def joined(samples: Sequence[Any]) -> Any:
        shape = len(samples), *samples[0].shape
        return kept.setdefault(shape, np.zeros(shape, samples[0].dtype))

    mask = store_format.encode_mask(np.zeros((320, 320), np.uint8))
    for module, name, answer in (
        (decode, "read_pixels", lambda *_: picture),
        (decode, "hashlib", SimpleNamespace(sha256=lambda content: sha256(content[-1024:]))),
        (resize, "_average", averaged),
        (image_measurer, "encode_mask", lambda _: mask),
        (image_measurer, "kept_shares", lambda _, boxes, *__: [1.0] * len(boxes)),
    ):
        mock.patch.object(module, name, answer).start()
    for module_name in ("network", "saliency"):
        mock.patch(f"fgdd_fast.models.{module_name}.stacked", joined).start()
    mock.patch(
        "fgdd_engines.null_backend.backend.NullEngine._run",
        lambda self, _, outputs: {name: self._answers[name] for name in outputs},
    ).start()


if __name__ == "__main__":
    OLD = backends.Backend(open=OldNull, probe=lambda: "null", on_processor=False)
    main(*sys.argv[1:])
