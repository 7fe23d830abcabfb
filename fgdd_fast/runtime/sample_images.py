"""Images on which a network is compared with the one that it was made from, or runs in place of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path

from fgdd_fast.errors import DataError, ImageError
from fgdd_fast.images.dataset import SourceImage, pool, scan
from fgdd_fast.images.decode import read_image
from fgdd_fast.models.foreground import Pixels
from fgdd_fast.synthetic import CLASSES, draw
from fgdd_fast.synthetic.scenes import absent_name, draw_scene

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
            yield SampleImage(read_image(image.path).pixels, image)
        except (ImageError, OSError):
            continue
