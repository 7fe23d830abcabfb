"""The manifest of a distilled data set: where each tile comes from, and why.

`OUT/manifest.json` is UTF-8 JSON (pure ASCII) of format 1:

    {"format": 1,
     "tool": {"fgdd-fast", "numpy", "opencv", "runtime": versions},
     "dataset": {"classes": [names], "images": images considered},
     "settings": {every setting that the result depends on},
     "prompts": {class: [phrases by which the foreground model is asked for it]; only for such a model},
     "models": {"foreground": {"name", "sha256", "plug-in": package and version, only of such a model},
                "teacher": {"name", "sha256"}, "quick": as "foreground", only where it looked first},
     "thresholds": {class: occupancy from which an image is kept whole},
     "further_crops": {class: tiles taken from images that had given one before; only classes with any},
     "looked_at": {class: images at which the foreground model looked, those of all tiles among them; only
                   where the quick model looked at the others},
     "nothing_found": {class: images in which no foreground was found; only where there are any},
     "images": [{"file": path within OUT, "class",
                 "tiles": [{"source": path within DATA, "sha256": of the source file,
                            "box": [x, y, width, height] in source pixels after EXIF orientation,
                            "path": "full" | "crop", "occupancy", "threshold",
                            "loss": the teacher's cross-entropy in nats, "cell": [row, column]}]}],
     "skipped": [{"source", "reason"}]}

Paths are POSIX; bytes that are no UTF-8 stand as lone surrogates (Python's surrogateescape). It holds no time
of day and no path of the machine, so that the same input, settings and models give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import fgdd_fast
from fgdd_fast.images.dataset import Skipped
from fgdd_fast.output.folder import MANIFEST, writing
from fgdd_fast.selection.records import Tile
from fgdd_fast.selection.select import Selection

FORMAT = 1
_NO_IMAGES = b'"images": []'
Setting = str | int | float | bool | None


@dataclass(frozen=True)
class Model:
    """Which model was used.

    Attributes:
        name: the bundle's name; `masks` for given masks.
        sha256: hexadecimal hash of its ONNX file, or of the masks given in its place.
        plugin: the installed package that its family comes from, with its version; None for this project's.
    """

    name: str
    sha256: str
    plugin: str | None = None


@dataclass(frozen=True)
class DistilledImage:
    """One mosaic as written.

    Attributes:
        file: its POSIX path within OUT.
        class_name: its class.
        tiles: its tiles, row by row; their number is a square.
    """

    file: str
    class_name: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Manifest:
    """What a distilled data set is made of; the fields mirror the JSON keys.

    Attributes:
        tool: version by program.
        classes: the classes in the order of their labels.
        image_count: images of DATA that were considered, the skipped ones included.
        settings: every setting that the result depends on.
        prompts: the phrases by which the foreground model is asked for each class; empty for a model that is
            not asked.
        models: the model of each role.
        thresholds: each class's occupancy threshold, in [0, 1].
        further_crops: for each class with too few images, how many tiles are further crops.
        nothing_found: for each class with images in which no foreground was found, how many they are.
        images: the mosaics, class by class.
        skipped: the images left out, sorted by their paths.
        looked_at: for each class, at how many images the foreground model itself looked, all tiles' among
            them; empty where there is no quick one.
    """

    tool: Mapping[str, str]
    classes: tuple[str, ...]
    image_count: int
    settings: Mapping[str, Setting]
    prompts: Mapping[str, tuple[str, ...]]
    models: Mapping[str, Model]
    thresholds: Mapping[str, float]
    further_crops: Mapping[str, int]
    nothing_found: Mapping[str, int]
    images: tuple[DistilledImage, ...]
    skipped: tuple[Skipped, ...]
    looked_at: Mapping[str, int] = field(default_factory=dict)

    @property
    def box_threshold(self) -> float | None:
        """Score above which the foreground model took a box; None for a model that finds none."""
        value = self.settings.get("box_threshold")
        return None if value is None else float(value)


def build(
    *,
    image_count: int,
    settings: Mapping[str, Setting],
    prompts: Mapping[str, tuple[str, ...]],
    models: Mapping[str, Model],
    selections: Mapping[str, Selection],
    images: Sequence[DistilledImage],
    skipped: Iterable[Skipped],
    runtime: str,
    looked_at: Mapping[str, int] | None = None,
) -> Manifest:
    """Gather a manifest.

    Args:
        image_count: images of DATA that were considered, the skipped ones included.
        settings: every setting that the result depends on; no paths, threads or other facts of the machine.
        prompts: phrases of each class, where the foreground model is asked for classes; else empty.
        models: the models by role, `foreground` and `teacher`.
        selections: what was selected of each class, in the order of the labels.
        images: the mosaics as written, class by class.
        skipped: the images left out, those that a selection drops included.
        runtime: name, version and precision of what ran the models.
        looked_at: see `Manifest`.
    """
    return Manifest(
        tool={
            "fgdd-fast": fgdd_fast.__version__,
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "runtime": runtime,
        },
        classes=tuple(selections),
        image_count=image_count,
        settings=dict(settings),
        prompts=dict(prompts),
        models=dict(models),
        thresholds={name: selection.threshold for name, selection in selections.items()},
        further_crops={
            name: selection.further for name, selection in selections.items() if selection.further
        },
        nothing_found={
            name: selection.nothing_found for name, selection in selections.items() if selection.nothing_found
        },
        images=tuple(images),
        skipped=tuple(sorted(skipped, key=lambda entry: (entry.source, entry.reason))),
        looked_at=dict(looked_at or {}),
    )


def write(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.json` into a folder.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / MANIFEST
    with writing(path), path.open("wb") as file:
        file.writelines(_parts(manifest))


def serialise(manifest: Manifest) -> bytes:
    """The manifest's JSON; equal manifests give equal bytes."""
    return b"".join(_parts(manifest))


def _parts(manifest: Manifest) -> Iterator[bytes]:
    """The manifest's JSON, an image at a time: all at once takes ten times the memory of its text."""
    data = {
        "format": FORMAT,
        "tool": dict(manifest.tool),
        "dataset": {"classes": list(manifest.classes), "images": manifest.image_count},
        "settings": dict(manifest.settings),
        **({"prompts": dict(manifest.prompts)} if manifest.prompts else {}),
        "models": {
            role: {
                "name": model.name,
                "sha256": model.sha256,
                **({} if model.plugin is None else {"plug-in": model.plugin}),
            }
            for role, model in manifest.models.items()
        },
        "thresholds": dict(manifest.thresholds),
        "further_crops": dict(manifest.further_crops),
        **({"looked_at": dict(manifest.looked_at)} if manifest.looked_at else {}),
        **({"nothing_found": dict(manifest.nothing_found)} if manifest.nothing_found else {}),
        "images": [],
        "skipped": [{"source": entry.source, "reason": entry.reason} for entry in manifest.skipped],
    }
    before, found, after = _json(data).partition(_NO_IMAGES)  # no text within it has bare quotation marks
    yield before
    for place, image in enumerate(manifest.images):
        yield b",\n  " if place else found[:-1] + b"\n  "
        yield _json(_image_data(image)).replace(b"\n", b"\n  ")
    yield (b"\n ]" if manifest.images else found) + after + b"\n"


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, indent=1, ensure_ascii=True, allow_nan=False).encode("ascii")


def _image_data(image: DistilledImage) -> dict[str, Any]:
    factor = math.isqrt(len(image.tiles))
    return {
        "file": image.file,
        "class": image.class_name,
        "tiles": [
            {
                "source": tile.source,
                "sha256": tile.sha256,
                "box": list(tile.box),
                "path": tile.kind,
                "occupancy": tile.occupancy,
                "threshold": tile.threshold,
                "loss": tile.loss,
                "cell": list(divmod(place, factor)),
            }
            for place, tile in enumerate(image.tiles)
        ],
    }
