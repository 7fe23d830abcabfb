"""Distilled data sets of noise with the record of their run, for report pages; no model is run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tiny_distilled import write_distilled

from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import Skipped
from fgdd_fast.output.distilled import open_distilled
from fgdd_fast.output.manifest import DistilledImage, Manifest, write
from fgdd_fast.output.run_record import ClassRecord, RunRecord, SourceRecord, write_run_record
from fgdd_fast.selection.records import Tile

WIDTH, HEIGHT = 60, 40
THRESHOLD = 0.5
RECORD = RunRecord(
    begun="2026-01-02T03:04:05+00:00",
    processor="Abacus",
    threads=2,
    seconds={"measuring": 2.0, "writing": 0.5},
    measured=40,
    mean_full_loss=0.5,
    warnings=("The beads are loose.",),
)
OUTLINE = "m100 100 800 0-400 700z"


def write_reported(
    out: Path,
    classes: Sequence[str] = ("cat", "dog"),
    *,
    ipc: int = 2,
    file: str = "{}.png",
    data: bool = False,
) -> Manifest:
    """Write a distilled data set whose tiles are whole images and crops by turns, and its record.

    Tile `n` of a class has rank `n + 1`, occupancy 0.9 or 0.1 less `n` hundredths, and loss `n` tenths.

    Args:
        out: its folder; the sources are written to `data` beside it, if they are to be there.
        classes: their names.
        ipc: mosaics per class, of 2 x 2 tiles.
        file: a source's name within its class; `{}` is its number.
        data: whether there are sources.
    """
    manifest = write_distilled(out, classes, ipc=ipc).manifest
    sha256 = {name: _write_sources(out.parent / "data" / name, 4 * ipc + 2, file, data) for name in classes}
    images, sources = [], {}
    for place, image in enumerate(manifest.images):
        tiles = []
        for cell, _ in enumerate(image.tiles):
            number = cell * ipc + place % ipc
            source = f"{image.class_name}/{file.format(number)}"
            tiles.append(_tile(source, sha256[image.class_name][number], number))
            sources[source] = _record(tiles[-1])
        images.append(DistilledImage(image.file, image.class_name, tuple(tiles)))
    records = {}
    for name in classes:
        near = [f"{name}/{file.format(4 * ipc + side)}" for side in range(2)]
        for side, source in enumerate(near):
            occupancy = (0.48, 0.52)[side]
            known = sha256[name][4 * ipc + side]
            sources[source] = SourceRecord(known, (WIDTH, HEIGHT), occupancy, 0.7, OUTLINE)
        known_occupancies = [sources[source].occupancy for source in sources if source.startswith(f"{name}/")]
        records[name] = ClassRecord(tuple(sorted(known_occupancies)), (near[0],), (near[1],))
    settings = {**manifest.settings, "rule": "quantile:0.3", "ranking": "loss", "crops": 5, "seed": 0}
    manifest = replace(
        manifest,
        images=tuple(images),
        settings=settings,
        thresholds=dict.fromkeys(classes, THRESHOLD),
        skipped=(Skipped(f"{classes[0]}/broken.jpg", "truncated"),),
    )
    write(manifest, out)
    record = replace(RECORD, classes=records, sources=sources)
    write_run_record(record, out)
    return open_distilled(out).manifest


def _tile(source: str, sha256: str, number: int) -> Tile:
    whole = number % 2 == 0
    return Tile(
        source=source,
        sha256=sha256,
        box=Box(0, 0, WIDTH, HEIGHT) if whole else Box(10, 5, 30, 30),
        kind="full" if whole else "crop",
        occupancy=(0.9 if whole else 0.1) - number % 40 / 100 * (1 if whole else 0.1),
        threshold=THRESHOLD,
        loss=number / 10,
    )


def _record(tile: Tile) -> SourceRecord:
    return SourceRecord(tile.sha256, (WIDTH, HEIGHT), tile.occupancy, tile.loss, OUTLINE)


def _write_sources(folder: Path, count: int, file: str, data: bool) -> list[str]:
    """The hash of each source of a class."""
    if not data:
        return ["c" * 64] * count
    hashes = []
    for number in range(count):
        path = folder / file.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((HEIGHT, WIDTH, 3), (number * 20 % 256, 90, 200), np.uint8)
        content = cv2.imencode(".png", pixels)[1].tobytes()
        path.write_bytes(content)
        hashes.append(hashlib.sha256(content).hexdigest())
    return hashes
