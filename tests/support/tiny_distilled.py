"""A miniature distilled data set, and labels for it, of noise and without any model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.files import file_sha256
from fgdd_fast.images.crops import Box
from fgdd_fast.labels.compression import Compression, costs, mean_cost
from fgdd_fast.labels.index import IMAGE_FILE, LabelIndex, LabelledViews, LabelSubject, epoch_file
from fgdd_fast.labels.tensors import pack_views
from fgdd_fast.labels.training_views import ViewRecipe, draw_epoch
from fgdd_fast.labels.writing import open_writer
from fgdd_fast.output.distilled import DistilledSet, open_distilled
from fgdd_fast.output.folder import write_image
from fgdd_fast.output.manifest import DistilledImage, Manifest, Model, write
from fgdd_fast.output.mosaic import Format, encode
from fgdd_fast.selection.records import Tile

TEACHER = Model("teacher", "b" * 64)
ODD_CLASSES = ("St. Bernard", os.fsdecode(b'caf\xe9 "au lait"'), "犬 | 🐕")


def write_distilled(
    out: Path,
    classes: Sequence[str] = ("cat", "dog"),
    *,
    ipc: int = 2,
    factor: int = 2,
    size: int = 16,
    format: Format = "png",
    seed: int = 0,
) -> DistilledSet:
    """Write a distilled data set of noise, and open it."""
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    images = []
    for name in classes:
        for index in range(ipc):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            file = write_image(out, name, index, encode(pixels, format), format)
            tiles = [
                Tile(f"{name}/{index}-{place}.jpg", "c" * 64, Box(1, 2, 30, 40), "crop", 0.25, 0.5, 1.5)
                for place in range(factor**2)
            ]
            images.append(DistilledImage(file, name, tuple(tiles)))
    manifest = Manifest(
        tool={"fgdd-fast": "1.2.3"},
        classes=tuple(classes),
        image_count=40,
        settings={"ipc": ipc, "factor": factor, "size": size, "format": format},
        prompts={},
        models={"foreground": Model("saliency", "a" * 64), "teacher": TEACHER},
        thresholds=dict.fromkeys(classes, 0.5),
        further_crops={},
        nothing_found={},
        images=tuple(images),
        skipped=(),
    )
    write(manifest, out)
    return open_distilled(out)


def write_labels(distilled: DistilledSet, recipe: ViewRecipe | None = None, epochs: int = 0) -> None:
    """Store labels: of mosaics and tiles, and of the views of some epochs."""
    classes = distilled.manifest.classes
    subject = LabelSubject(
        manifest=file_sha256(distilled.folder / "manifest.json"),
        images=distilled.hashes(),
        classes=classes,
        teacher=TEACHER,
        other_teacher=False,
        runtime={},
        tile_view="resize",
    )
    compression = Compression("float16")
    views = None if recipe is None else LabelledViews(recipe, "resize", compression)
    with open_writer(distilled.folder, LabelIndex(subject, views, epochs), overwrite=True) as writer:
        mosaics = noise(len(distilled), len(classes)).astype(np.float16)
        tiles = noise(len(distilled), distilled.factor**2, len(classes)).astype(np.float16)
        free = mean_cost(costs(mosaics.astype(np.float32), mosaics.astype(np.float32)))
        writer.add(IMAGE_FILE, {"mosaics": mosaics, "tiles": tiles}, free)
        for epoch in range(epochs):
            assert recipe is not None
            drawn = draw_epoch(recipe, len(distilled), distilled.size, epoch)
            logits = noise(len(distilled), len(classes), seed=epoch)
            arrays = {**compression.pack(logits), **pack_views(drawn, recipe, distilled.size)}
            writer.add(epoch_file(epoch), arrays, free)


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Logits that float16 holds exactly."""
    return np.random.default_rng(seed).integers(-64, 65, shape).astype(np.float32) / 8
