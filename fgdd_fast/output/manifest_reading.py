"""Reading a manifest back, with every part checked.

Each function checks one part, and names the place of what is wrong with a ValueError.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast, get_args

from fgdd_fast.errors import DataError
from fgdd_fast.images.crops import Box
from fgdd_fast.images.dataset import Skipped
from fgdd_fast.output.folder import IMAGES, MANIFEST
from fgdd_fast.output.manifest import FORMAT, DistilledImage, Manifest, Model, Setting
from fgdd_fast.output.mosaic import Format
from fgdd_fast.selection.records import Tile, TileKind

T = TypeVar("T")
LARGEST_SIDE = 16_384  # pixels of a mosaic; memory is asked for by it
_SUFFIXES = tuple(f".{name}" for name in get_args(Format))
_LARGEST_BOX = 2**31  # pixels of a source


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Args:
        path: the file, or the folder of the distilled data set.

    Raises:
        DataError: the file is missing, damaged, of another format, or contradicts itself.
    """
    if path.is_dir():
        path = path / MANIFEST
    try:
        data = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        return _manifest(data)
    except FileNotFoundError as error:
        raise DataError(
            f"There is no manifest {path}", "Give the folder that 'fgdd-fast distill' wrote."
        ) from error
    except OSError as error:
        raise DataError(f"The manifest {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no manifest of format {FORMAT}: {error}", "Distil again.") from error


def _manifest(data: Any) -> Manifest:
    if _get(data, "format", int, "manifest") != FORMAT:
        raise ValueError(f"it says format {_get(data, 'format', int, 'manifest')}")
    dataset = _get(data, "dataset", dict, "manifest")
    classes = _get(dataset, "classes", list, "dataset")
    _require(all(isinstance(name, str) for name in classes), "dataset.classes must be names")
    _require(len(set(classes)) == len(classes), "dataset.classes names a class twice")
    models = _get(data, "models", dict, "manifest")
    counts = {
        name: _counts({"nothing_found": {}, "looked_at": {}, **data}, name, classes)
        for name in ("further_crops", "nothing_found", "looked_at")
    }
    thresholds = _get(data, "thresholds", dict, "manifest")
    _require(thresholds.keys() == set(classes), "thresholds must name each class once")
    skipped = _get(data, "skipped", list, "manifest")
    tool = _get(data, "tool", dict, "manifest")
    prompts = _get({"prompts": {}, **data}, "prompts", dict, "manifest")
    _require(not prompts or prompts.keys() == set(classes), "prompts must name each class once")
    image_count = _get(dataset, "images", int, "dataset")
    _require(image_count >= 0, "dataset.images must be a number from 0 on")
    return Manifest(
        tool={name: _get(tool, name, str, "tool") for name in tool},
        classes=tuple(classes),
        image_count=image_count,
        settings=_settings(_get(data, "settings", dict, "manifest")),
        prompts={name: _phrases(prompts, name) for name in prompts},
        models={
            role: _model(models, role)
            for role in ("foreground", "teacher", *(["quick"] if "quick" in models else []))
        },
        thresholds={name: _share(thresholds, name, "thresholds") for name in thresholds},
        **counts,
        images=tuple(
            _image(image, f"images[{place}]", thresholds)
            for place, image in enumerate(_get(data, "images", list, "manifest"))
        ),
        skipped=tuple(_skipped(entry, f"skipped[{place}]") for place, entry in enumerate(skipped)),
    )


def _counts(data: dict[str, Any], name: str, classes: list[str]) -> dict[str, int]:
    """Return a number for each of some classes."""
    counts = _get(data, name, dict, "manifest")
    _require(counts.keys() <= set(classes), f"{name} names an unknown class")
    found = {each: _get(counts, each, int, name) for each in counts}
    _require(all(count >= 0 for count in found.values()), f"{name} must be numbers from 0 on")
    return found


def _settings(data: dict[str, Any]) -> dict[str, Setting]:
    for name, value in data.items():
        _require(
            value is None or isinstance(value, str | bool) or _is_finite(value),
            f"settings.{name} must be a plain value",
        )
    for name in ("size", "factor"):
        if isinstance(data.get(name), int):
            _require(data[name] <= LARGEST_SIDE, f"settings.{name} must be at most {LARGEST_SIDE}")
    if "box_threshold" in data:
        _share(data, "box_threshold", "settings")
    return data


def _phrases(prompts: dict[str, Any], name: str) -> tuple[str, ...]:
    phrases = _get(prompts, name, list, "prompts")
    _require(
        bool(phrases) and all(isinstance(phrase, str) for phrase in phrases),
        f"prompts.{name} must be phrases",
    )
    return tuple(phrases)


def _model(models: dict[str, Any], role: str) -> Model:
    data = _get(models, role, dict, "models")
    where = f"models.{role}"
    plugin = _get(data, "plug-in", str, where) if "plug-in" in data else None
    return Model(_get(data, "name", str, where), _sha256(data, where), plugin)


def _image(data: object, where: str, thresholds: Mapping[str, float]) -> DistilledImage:
    file, class_name = _get(data, "file", str, where), _get(data, "class", str, where)
    _require(class_name in thresholds, f"{where}.class is not among the classes")
    parts = PurePosixPath(file).parts
    _require("\0" not in file, f"{where}.file is no path")
    _require(parts[:-1] == (IMAGES, class_name), f"{where}.file must lie in {IMAGES}/{class_name}/")
    _require(PurePosixPath(file).suffix in _SUFFIXES, f"{where}.file must be a PNG or a JPEG")
    tiles = _get(data, "tiles", list, where)
    factor = math.isqrt(len(tiles))
    _require(factor >= 1 and factor**2 == len(tiles), f"{where}.tiles must fill a square")
    return DistilledImage(
        file,
        class_name,
        tuple(
            _tile(tile, f"{where}.tiles[{place}]", divmod(place, factor)) for place, tile in enumerate(tiles)
        ),
    )


def _tile(data: object, where: str, cell: tuple[int, int]) -> Tile:
    path = _get(data, "path", str, where)
    _require(path in get_args(TileKind), f"{where}.path must be 'full' or 'crop'")
    box = _integers(data, "box", 4, where)
    x, y, width, height = box
    _require(x >= 0 and y >= 0 and width >= 1 and height >= 1, f"{where}.box lies outside its image")
    _require(tuple(_integers(data, "cell", 2, where)) == cell, f"{where}.cell must be {list(cell)}")
    return Tile(
        source=_source(data, where),
        sha256=_sha256(data, where),
        box=Box(x, y, width, height),
        kind=cast(TileKind, path),
        occupancy=_share(data, "occupancy", where),
        threshold=_share(data, "threshold", where),
        loss=_number(data, "loss", where),
    )


def _skipped(data: object, where: str) -> Skipped:
    return Skipped(_source(data, where), _get(data, "reason", str, where))


def _source(data: object, where: str) -> str:
    source = _get(data, "source", str, where)
    path = PurePosixPath(source)
    _require(
        bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in source,
        f"{where}.source must be a path within the data set",
    )
    return source


def _sha256(data: object, where: str) -> str:
    value = _get(data, "sha256", str, where)
    _require(len(value) == 64 and set(value) <= set("0123456789abcdef"), f"{where}.sha256 is no SHA-256")
    return value


def _share(data: object, key: str, where: str) -> float:
    value = _number(data, key, where)
    _require(0 <= value <= 1, f"{where}.{key} must lie within 0 to 1")
    return value


def _number(data: object, key: str, where: str) -> float:
    value: Any = _get(data, key, object, where)
    _require(_is_finite(value), f"{where}.{key} must be a finite number")
    return float(value)


def _is_finite(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # not so for NaN, nor for integers beyond any float


def _integers(data: object, key: str, count: int, where: str) -> list[int]:
    values = _get(data, key, list, where)
    _require(
        len(values) == count and all(type(value) is int and abs(value) < _LARGEST_BOX for value in values),
        f"{where}.{key} must be {count} whole numbers",
    )
    return values


def _get(data: object, key: str, kind: type[T], where: str) -> T:
    if not isinstance(data, dict) or key not in data:
        raise ValueError(f"{where} lacks '{key}'")
    value = data[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where}.{key} must be of the type {kind.__name__}")
    return value


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")
