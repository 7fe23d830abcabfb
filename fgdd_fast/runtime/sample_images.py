"""Images on which a network is compared with the one that it was made from, or runs in place of.

With them, what a network is shown of each: a teacher the whole image and candidate crops.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from fgdd_engines.base import Array
from fgdd_engines.bundle.bundle import Bundle
from fgdd_fast.class_names import ByClassName
from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.dataset import DataSet, SourceImage, pool, scan
from fgdd_fast.images.decode import read_image
from fgdd_fast.images.resize import resize
from fgdd_fast.images.tiles import ScoreView, tile_pixels
from fgdd_fast.models.foreground import Pixels
from fgdd_fast.models.network import Images, Runtime, Teacher
from fgdd_fast.seeding import seeded_hash
from fgdd_fast.synthetic import CLASSES, draw
from fgdd_fast.synthetic.scenes import absent_name, draw_scene

CROPS = 5  # of each image, that a teacher is shown
FEWEST, LARGEST = 2, 2_000_000  # images of a sample, and pixels of one of them
SIZES = ((480, 640), (640, 480), (512, 512), (320, 640), (600, 450))  # height and width of drawn images


@dataclass(frozen=True)
class SampleImage:
    """An image, and what to look for in it.

    Attributes:
        pixels: uint8 [height, width, 3], RGB.
        image: its place in a data set; the class is what to look for.
    """

    pixels: Pixels
    image: SourceImage


def check_images(
    data: Path | None, count: int, prompts: Mapping[str, tuple[str, ...]], *, named: bool = True
) -> tuple[SampleImage, ...]:
    """Photographs of a data set, taken from its classes in turn; drawn images where none is named.

    Args:
        data: a folder with one folder of images for each class.
        count: how many images, at most.
        prompts: what to look for in images of a class, where its name says it badly; the first phrase is
            taken.
        named: which images to draw; see `drawn_sample_images`.

    Raises:
        DataError: the folder is missing or holds no image that can be read.
    """
    if data is None:
        return drawn_sample_images(count, named=named)
    renamed = (_renamed(image, prompts) for image in in_turn(pool(scan(data), count, seed=0)))
    images = tuple(islice(_readable(renamed), count))
    if not images:
        raise DataError(f"No image in {data} can be read", "Name another folder with --check.")
    return images


def separate_samples(
    data: DataSet, count: int, *, without: Collection[str] = ()
) -> tuple[tuple[SampleImage, ...], tuple[SampleImage, ...]]:
    """Photographs to compare a network on, and others to make it with: each from the classes in turn.

    Args:
        data: the data set.
        count: how many of either, at most; half of what there is where that is less.
        without: `source` of images that are in neither.

    Raises:
        DataError: fewer than two images can be read.
    """
    free = (image for image in data.images if image.source not in without)
    drawn = sorted(free, key=lambda image: seeded_hash("fgdd samples", 0, image.source).digest())
    read = islice(_readable(in_turn(tuple(drawn))), 2 * count)
    found = tuple(replace(image, pixels=_reduced(image.pixels)) for image in read)
    if len(found) < FEWEST:
        raise DataError(f"{len(found)} images of {data.root} can be read, and {FEWEST} are needed at least")
    return found[: len(found) // 2], found[len(found) // 2 :]


def _reduced(pixels: Pixels) -> Pixels:
    """An image of at most `LARGEST` pixels, so that many of a camera's fit into a small memory."""
    height, width = pixels.shape[:2]
    scale = min((LARGEST / (height * width)) ** 0.5, 1.0)
    return (
        pixels if scale == 1 else resize(pixels, (int(width * scale) or 1, int(height * scale) or 1), "area")
    )


def drawn_sample_images(count: int, *, named: bool) -> tuple[SampleImage, ...]:
    """Images that need no photographs, always the same.

    Args:
        count: how many.
        named: scenes of several things and the name of one, for a model that is asked by name; else pictures
            of one object each, from small to large.
    """
    return tuple(_scene(index) if named else _picture(index, count) for index in range(count))


def _picture(index: int, count: int) -> SampleImage:
    name = CLASSES[index % len(CLASSES)]
    drawn = draw(name, 0.1 + 0.7 * index / count, SIZES[index % len(SIZES)], seed=index)
    return SampleImage(drawn.pixels, SourceImage(f"{name}/{index}.png", name, Path()))


def _scene(index: int) -> SampleImage:
    """A drawn scene, and the name of something in it; in every third scene, of something that is not."""
    scene = draw_scene(index, SIZES[index % len(SIZES)])
    name = absent_name(scene, index) if index % 3 == 2 else scene.objects[0].name
    return SampleImage(scene.pixels, SourceImage(f"{name}/{index}.png", name, Path()))


def _renamed(image: SourceImage, prompts: Mapping[str, tuple[str, ...]]) -> SourceImage:
    phrases = prompts.get(image.class_name)
    return image if phrases is None else replace(image, class_name=phrases[0])


def in_turn(images: tuple[SourceImage, ...]) -> Iterator[SourceImage]:
    """One image of each class, then a second of each, and so on."""
    classes: dict[str, list[SourceImage]] = {}
    for image in images:
        classes.setdefault(image.class_name, []).append(image)
    for row in zip_longest(*classes.values()):
        yield from (image for image in row if image is not None)


def _readable(images: Iterator[SourceImage]) -> Iterator[SampleImage]:
    for image in images:
        try:
            yield SampleImage(read_image(image.location).pixels, image)
        except (ImageError, OSError):
            continue


def sample_feeds(bundle: Bundle, images: Sequence[SampleImage]) -> list[dict[str, Array]]:
    """Return what a graph is fed for images, as in a comparison: one sample each, with a batch axis.

    A teacher is fed the whole image and each crop. Not for models that are asked for a class by its name.
    """
    if bundle.role != "teacher":
        size = (bundle.preprocessing.width, bundle.preprocessing.height)
        feeds = [{"images": resize(image.pixels, size, "area")[None]} for image in images]
        if bundle.classes is None:
            return feeds
        places = ByClassName.places(bundle.classes)
        labels = [places[each.image.class_name] for each in of_known_classes(bundle, images)]
        return [
            {**feed, "labels": np.array([label], np.int32)} for feed, label in zip(feeds, labels, strict=True)
        ]
    with closing(open_for_comparison(bundle, Runtime("cpu", "fp32", threads=1), 1)) as teacher:
        label = np.zeros(1, np.int32)
        return [
            {"images": view[None], "labels": label} for image in images for view in views_of(image, teacher)
        ]


def of_known_classes(bundle: Bundle, images: Sequence[SampleImage]) -> Sequence[SampleImage]:
    """Give the bundle's own classes in turn to images of classes that it does not know, where it has any."""
    classes = bundle.classes
    if classes is None:
        return images
    known = ByClassName.places(classes)
    return [
        image
        if image.image.class_name in known
        else replace(image, image=replace(image.image, class_name=classes[place % len(classes)]))
        for place, image in enumerate(images)
    ]


def open_for_comparison(bundle: Bundle, runtime: Runtime, batch: int) -> Teacher:
    """A teacher that is shown tiles of half its input's side: padded, where it has a value to pad with."""
    preprocessing = bundle.preprocessing
    if bundle.tile_of is not None:
        return Teacher(bundle, runtime, view="pad", tile_size=preprocessing.width, batch=batch)
    view: ScoreView = "resize" if preprocessing.pad_value is None else "pad"
    return Teacher(bundle, runtime, view=view, tile_size=max(preprocessing.width // 2, 1), batch=batch)


def views_of(image: SampleImage, teacher: Teacher) -> Iterator[Images]:
    """The whole image, then candidate crops of it, as the teacher is shown them."""
    height, width = image.pixels.shape[:2]
    crops = candidate_boxes(image.image.source, width, height, count=CROPS, seed=0)
    for box in (Box(0, 0, width, height), *crops):
        yield teacher.show(tile_pixels(image.pixels, box, teacher.tile_size, "area"))
