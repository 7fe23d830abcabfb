"""A data set that is made up: links to one picture, models that find nothing, and a store of drawn values."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.dataset import SourceImage, pool, scan
from fgdd_fast.images.place import file_signature
from fgdd_fast.images.tiles import ScoreView
from fgdd_fast.measurement.missing import Found, MeasureSettings, StoreLookup
from fgdd_fast.measurement.store import Store
from fgdd_fast.measurement.store_format import KnownFile, encode_mask
from fgdd_fast.models.foreground import Foreground, ForegroundChoice
from fgdd_fast.options import MeasureOptions
from fgdd_fast.parallel import batched
from fgdd_fast.pipeline import Pipeline
from fgdd_fast.runtime.choose import RuntimeOptions

WIDTH, HEIGHT = 500, 375  # pixels of the picture: ImageNet's most frequent size
_LINKS = 60_000  # to one file; file systems allow 65,000
_KEPT = 256  # images a transaction: eight batches of a GPU


@dataclass(frozen=True)
class Made:
    """A data set that is made up.

    Attributes:
        folder: holds its files and its store.
        classes: how many there are.
        images: of each class.
        pool: images considered of each class; None for all.
        ipc: mosaics of a class.
    """

    folder: Path
    classes: int
    images: int
    pool: int | None = None
    ipc: int = 50

    @cached_property
    def names(self) -> list[str]:
        """The classes' names, in ImageNet's style."""
        return [f"n{number:08d}" for number in range(self.classes)]

    @property
    def data(self) -> Path:
        """The folder of images."""
        return self.folder / "data"

    def sources(self, name: str) -> list[str]:
        """The images of a class, in ImageNet's style."""
        return [f"{name}/{name}_{number}.JPEG" for number in range(self.images)]

    def make_files(self) -> dict[str, Any]:
        """Make all files: links to copies of a picture."""
        for place, name in enumerate(self.names):
            folder = self.data / name
            folder.mkdir(parents=True)
            for number, source in enumerate(self.sources(name), place * self.images):
                copy = self.folder / f"{number // _LINKS}.jpg"
                if not copy.exists():
                    copy.write_bytes(picture())
                os.link(copy, self.data / source)
        return {"files": self.classes * self.images}

    def fill_store(self) -> dict[str, Any]:
        """Keep made-up measurements of all images, as a run would."""
        count, known = 0, None
        masks = [encode_mask(mask) for mask in _masks()]
        with Store(self.folder / "store") as store:
            lookup = StoreLookup(foreground(), teacher(self.names), _settings(), store, self.names)
            for some in batched(self._found(masks), _KEPT):
                store.add(lookup.measurements(some))
                count += len(some)
        known = (self.folder / "store" / "measurements.sqlite3").stat().st_size
        return {"images": count, "store_bytes": known, "mask_bytes": float(np.mean([*map(len, masks)]))}

    def _found(self, masks: list[bytes]) -> Iterator[Found]:
        for place, name in enumerate(self.names):
            drawn = np.random.default_rng(place).random((self.images, 12))
            for number, (source, values) in enumerate(zip(self.sources(name), drawn.tolist(), strict=True)):
                image = SourceImage(source, name, self.data)
                crops = candidate_boxes(source, WIDTH, HEIGHT, count=5, seed=0)
                losses = dict(zip((Box(0, 0, WIDTH, HEIGHT), *crops), values[1:7], strict=True))
                shares = dict(zip(crops, values[7:], strict=True))
                sha256 = hashlib.sha256(source.encode()).hexdigest()
                known, mask = KnownFile(sha256, WIDTH, HEIGHT), masks[number % len(masks)]
                yield Found(
                    *(image, file_signature(image.path), known, Foreground(values[0])),
                    *(losses, shares, None, mask),
                )

    def open(self, store: Store) -> Pipeline:
        """Scan the files, and open a pipeline over them whose models compute nothing."""
        dataset = scan(self.data)
        options = MeasureOptions(teacher="made", foreground="made", pool=self.pool, store=self.folder)
        images, choice = pool(dataset, self.pool, 0), ForegroundChoice("made", dataset.classes)
        models = foreground(), teacher(dataset.classes)
        return Pipeline(options, RuntimeOptions(threads=2), dataset, images, choice, *models, store)


def foreground() -> Any:
    """A foreground model that has a name and finds nothing."""
    return SimpleNamespace(
        name="made",
        sha256="0" * 64,
        description="made up",
        streams=1,
        fingerprint=lambda _: {"model": "made"},
    )


def teacher(classes: list[str] | tuple[str, ...]) -> Any:
    """A teacher that knows all classes, and sees nothing."""
    places = {name: place for place, name in enumerate(classes)}
    view: ScoreView = "resize"
    bundle = SimpleNamespace(
        name="made",
        sha256="0" * 64,
        classes=tuple(classes),
        tile_of=None,
        preprocessing=SimpleNamespace(width=224),
    )
    facts: Mapping[str, Any] = {"view": view, "tile_size": 112, "streams": 1, "batch": 6, "bundle": bundle}
    engine = SimpleNamespace(arithmetic="made up")
    return SimpleNamespace(**facts, engine=engine, fingerprint={"model": "made"}, label=places.__getitem__)


def _settings() -> MeasureSettings:
    return MeasureSettings(crops=5, seed=0, resize="area", batch=32, threads=2, shares=True)


def picture() -> bytes:
    """A JPEG file about as large as one of ImageNet's, of smooth noise."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 3, WIDTH // 3, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(noise, (WIDTH, HEIGHT)))[1].tobytes()


def _masks() -> Iterator[Any]:
    """Masks of 320 pixels whose outlines wave, at least as rough as those that networks find."""
    rows, columns = (np.mgrid[-1:1:320j, -1:1:320j]).astype(np.float32)
    angle, distance = np.arctan2(rows, columns), np.hypot(rows, columns)
    for seed in range(64):
        waves = np.random.default_rng(seed).normal(0, 1, (24, 2)) / np.arange(1, 25)[:, None]
        edge = sum(a * np.sin(k * angle) + b * np.cos(k * angle) for k, (a, b) in enumerate(waves, 1))
        yield np.where(distance < 0.5 + 0.15 * edge, 255, 0).astype(np.uint8)
