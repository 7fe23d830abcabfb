"""Foregrounds from COCO's instance annotations: one JSON file for all images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgdd_engines.bundle.schema import (
    Check,
    SchemaError,
    array,
    either,
    number,
    or_null,
    read_json,
    record,
    string,
    whole,
)
from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.decode import MAX_PIXELS, read_file
from fgdd_fast.models.given.annotated import Annotated, AnnotatedForeground
from fgdd_fast.models.given.given import GivenFamily
from fgdd_fast.models.given.regions import Region, box_ring


def _numbers(*kinds: type) -> Check:
    """A list of numbers: of millions of them, so that their types are looked at together."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or not set(map(type, value)) <= set(kinds):
            raise SchemaError(f"{where} must be a list of numbers")

    return check


_FARTHEST = 2.0**31  # pixels from an image's edge at which nothing can be
_AT = number(-_FARTHEST, _FARTHEST)
_ID = either(string(), whole())
_SIDE = or_null(whole(1, MAX_PIXELS))
_RUNS = record({"size": array(whole(1), shortest=2, longest=2), "counts": either(_numbers(int), string())})
_SEGMENTATION = either(or_null(array(_numbers(int, float))), _RUNS)
_FILE = record(
    {
        "images": array(record({"id": _ID, "file_name": string()}, {"width": _SIDE, "height": _SIDE})),
        "annotations": array(
            record(
                {"image_id": _ID, "category_id": _ID},
                {
                    "segmentation": _SEGMENTATION,
                    "bbox": or_null(either(array(_AT, shortest=4, longest=4), array(_AT, longest=0))),
                },
            )
        ),
        "categories": array(record({"id": _ID, "name": string()})),
    }
)


def read_coco(file: Path, classes: Sequence[str], streams: int) -> AnnotatedForeground:
    """Read instance annotations.

    Args:
        file: the JSON file, as COCO's `instances_val2017.json` is.
        classes: those of the images.
        streams: see `ForegroundModel`.

    Raises:
        DataError: the file cannot be read, or is not such a file.
    """
    try:
        content = read_file(file).content
        data = read_json(content, _FILE)
        annotated = _annotated(data)
    except (ImageError, SchemaError) as error:
        problem = error.problem if isinstance(error, ImageError) else str(error)
        raise DataError(
            f"The annotations {file} cannot be used: {problem}",
            "Give COCO's instance annotations: a JSON file with images, annotations and categories.",
        ) from error
    names = {category["name"] for category in data["categories"]}
    sha256 = hashlib.sha256(content).hexdigest()
    return AnnotatedForeground("coco", annotated, names, sha256, classes, streams, suffixes=True)


def _annotated(data: Any) -> dict[str, Annotated]:
    """The objects of each image, by the path that the file gives it."""
    names = {category["id"]: category["name"] for category in data["categories"]}
    regions: dict[Any, list[Region]] = {image["id"]: [] for image in data["images"]}
    sizes = {image["id"]: _size(image) for image in data["images"]}
    if len(regions) < len(data["images"]):
        raise SchemaError("two images have the same id")
    for place, annotation in enumerate(data["annotations"]):
        where = f"annotations[{place}]"
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in regions:
            raise SchemaError(f"{where}.image_id is of no image: {image}")
        if category not in names:
            raise SchemaError(f"{where}.category_id is of no category: {category}")
        regions[image].append(_region(annotation, names[category], sizes[image], where))
    found: dict[str, Annotated] = {}
    for image in data["images"]:
        path = image["file_name"].replace("\\", "/").removeprefix("./")
        if path in found:
            raise SchemaError(f"two images have the name {path!r}")
        found[path] = Annotated(regions[image["id"]], sizes[image["id"]])
    return found


def _size(image: Any) -> tuple[int, int]:
    height, width = image.get("height"), image.get("width")
    if height is None or width is None:
        raise SchemaError(f"the image {image['file_name']!r} has no width and height")
    if height * width > MAX_PIXELS:
        raise SchemaError(f"the image {image['file_name']!r} is too large: {width} x {height} pixels")
    return height, width


def _region(annotation: Any, name: str, size: tuple[int, int], where: str) -> Region:
    segmentation, box = annotation.get("segmentation"), annotation.get("bbox")
    if isinstance(segmentation, dict):
        if tuple(segmentation["size"]) != size:
            raise SchemaError(f"{where}.segmentation.size is not its image's {list(size)}")
        return Region(name, runs=segmentation["counts"])
    if segmentation:
        for ring in segmentation:
            if len(ring) % 2 or not ring or not -_FARTHEST <= min(ring) <= max(ring) <= _FARTHEST:
                raise SchemaError(f"{where}.segmentation has a polygon that is no list of x and y in turn")
        return Region(name, rings=[np.array(ring, np.float64) for ring in segmentation])
    if not box:
        raise SchemaError(f"{where} has neither a segmentation nor a bbox")
    return Region(name, rings=[box_ring(*box)])


class _Coco(GivenFamily):
    name, spelling = "coco", "coco:FILE"

    def model(self, path: Path, classes: Sequence[str], streams: int) -> AnnotatedForeground:
        return read_coco(path, classes, streams)


COCO = _Coco()
