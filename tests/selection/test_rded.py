"""The rule `always-patch` is RDED: the same tiles in the same order as an independent rendering of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rded_reference import Synthesis, synthesise

from fgdd_fast.images.crops import Box, candidate_boxes
from fgdd_fast.images.tiles import teacher_view, tile_pixels
from fgdd_fast.output.mosaic import arrange, compose
from fgdd_fast.selection.records import ImageRecord, View
from fgdd_fast.selection.select import select
from fgdd_fast.selection.thresholds import parse_rule

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing" / "train"
CLASSES = 5
CROPS = 5
# The normalisation of EfficientNet-lite, which takes a whole pixel value to zero: there padding is exact.
MEAN, STD, PAD_VALUE = (127 / 255,) * 3, (128 / 255,) * 3, (127,) * 3


class TinyTeacher:
    """A convolution (8 x 8, stride 4), ReLU, average pooling to 2 x 2 and a linear layer, all random."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.filters = generator.normal(0, 0.2, (3 * 8 * 8, 24)).astype(np.float32)
        self.head = generator.normal(0, 0.3, (4 * 24, CLASSES)).astype(np.float32)

    def __call__(self, images: NDArray[np.floating]) -> NDArray[np.floating]:
        """Logits [count, classes] of normalised images [count, 3, side, side], in the images' precision."""
        filters, head = self.filters.astype(images.dtype), self.head.astype(images.dtype)
        windows = np.lib.stride_tricks.sliding_window_view(images, (8, 8), axis=(2, 3))[:, :, ::4, ::4]
        count, _, rows, columns = windows.shape[:4]
        maps = windows.transpose(0, 2, 3, 1, 4, 5).reshape(count, rows, columns, -1) @ filters
        maps = np.maximum(maps, 0)
        top, left = rows // 2, columns // 2
        pooled = [maps[:, a, b].mean(axis=(1, 2)) for a in np.s_[:top, top:] for b in np.s_[:left, left:]]
        return np.concatenate(pooled, axis=1) @ head


def draw_image(generator: np.random.Generator) -> Image.Image:
    """Shapes on a coarse texture; sides of 80 to 220 pixels."""
    width, height = (int(side) for side in generator.integers(80, 220, 2))
    texture = generator.integers(0, 256, (9, 9, 3), np.uint8)
    image = Image.fromarray(texture).resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = (int(value) for value in (generator.integers(0, width), generator.integers(0, height)))
        reach = int(generator.integers(5, 60))
        draw.ellipse(
            (x - reach, y - reach, x + reach, y + reach), fill=tuple(map(int, generator.integers(0, 256, 3)))
        )
    return image


def measure(
    source: str,
    image: Image.Image,
    label: int,
    teacher: TinyTeacher,
    *,
    tile_size: int,
    input_size: int,
    seed: int,
) -> ImageRecord:
    """A record made by the product's own crops and views; the network takes their uint8, in float32."""
    pixels = np.asarray(image)

    def view(box: Box) -> View:
        tile = tile_pixels(pixels, box, tile_size, "pil")
        shown = teacher_view(tile, "pad", input_size, PAD_VALUE)
        normalised = (shown.astype(np.float32) - 127) / 128
        logits = teacher(normalised.transpose(2, 0, 1)[np.newaxis])[0]
        return View(box, float(np.logaddexp.reduce(logits) - logits[label]))

    return ImageRecord(
        source=source,
        sha256=hashlib.sha256(image.tobytes()).hexdigest(),
        class_name=source.partition("/")[0],
        occupancy=1.0,  # always-patch must not care
        full=view(Box(0, 0, *image.size)),
        crops=tuple(view(box) for box in candidate_boxes(source, *image.size, count=CROPS, seed=seed)),
    )


def assert_same(
    images: list[Image.Image], *, ipc: int, factor: int, size: int, input_size: int, seed: int
) -> None:
    """Hold the product against the reference: the same tiles, cells and pixels, and no thanks to luck."""
    teacher = TinyTeacher(seed)
    label = seed % CLASSES
    sources = [f"class/{place:03}.png" for place in range(len(images))]
    records = [
        measure(*(source, image, label, teacher), tile_size=size // factor, input_size=input_size, seed=seed)
        for source, image in zip(sources, images, strict=True)
    ]
    expected = synthesise(
        images,
        [[crop.box for crop in record.crops] for record in records],
        label,
        teacher,
        ipc=ipc,
        factor=factor,
        size=size,
        input_size=input_size,
        mean=MEAN,
        std=STD,
    )
    selection = select(records[::-1], parse_rule("always-patch"), ipc * factor**2, seed)
    mosaics = arrange(selection.tiles, ipc, factor)

    def named(cells: list[tuple[int, int]]) -> list[tuple[str, Box]]:
        return [(sources[i], records[i].crops[j].box) for i, j in cells]

    assert [(tile.source, tile.box) for tile in selection.tiles] == named(expected.ranking)
    for mosaic, cells, pixels in zip(mosaics, expected.mosaics, expected.pixels, strict=True):
        assert [(tile.source, tile.box) for tile in mosaic.tiles] == named(cells)
        originals = [np.asarray(images[sources.index(tile.source)]) for tile in mosaic.tiles]
        composed = compose(
            [
                tile_pixels(original, tile.box, size // factor, "pil")
                for original, tile in zip(originals, mosaic.tiles, strict=True)
            ],
            factor,
        )
        assert np.abs(composed.astype(int) - pixels).max() <= 1
    losses = np.array([[crop.loss for crop in record.crops] for record in records])
    difference, margin = np.abs(losses - expected.losses).max(), expected.smallest_margin()
    print(f"losses differ by up to {difference:.1e}; the nearest tie is {margin:.1e} apart")
    assert difference < margin / 2, "near-ties: the outcome could have been another by rounding alone"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("factor", "size", "input_size"),
    [(2, 64, 64), (1, 32, 32), (3, 63, 64)],
    ids=["factor 2", "factor 1", "factor 3, odd border"],
)
def test_the_tiles_and_their_order_are_rded_s(seed: int, factor: int, size: int, input_size: int) -> None:
    generator = np.random.default_rng(seed)
    images = [draw_image(generator) for _ in range(24)]
    assert_same(images, ipc=2, factor=factor, size=size, input_size=input_size, seed=seed)


def test_the_reference_itself_on_an_example_by_hand() -> None:
    grey = [Image.new("RGB", (4, 4), (value,) * 3) for value in (0, 51, 102, 153, 204, 255)]
    boxes = [[(0, 0, 4, 4), (0, 0, 2, 2)]] * 6

    def teacher(images: NDArray[np.floating]) -> NDArray[np.floating]:
        mean = images.mean(axis=(1, 2, 3))  # the brighter, the more likely class 1
        return np.stack([np.zeros_like(mean), mean], axis=1)

    result: Synthesis = synthesise(
        grey, boxes, 1, teacher, ipc=1, factor=2, size=4, input_size=4, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    assert result.ranking == [(5, 0), (4, 0), (3, 0), (2, 0)]
    # A white patch of 2 x 2 in an input of 4 x 4 zeros has the mean 1/4.
    assert result.losses[5, 0] == pytest.approx(np.log(1 + np.exp(-0.25)))
    assert result.mosaics == [[(5, 0), (4, 0), (3, 0), (2, 0)]]
    assert result.pixels[0, ::2, ::2, 0].tolist() == [[255, 204], [153, 102]]


@pytest.mark.parametrize("seed", range(4))
def test_on_real_photographs(seed: int) -> None:
    if not CLOTHING.is_dir():
        pytest.skip(f"no photographs at {CLOTHING}")
    folder = sorted(CLOTHING.iterdir())[seed]
    images = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))[:16]]
    assert_same(images, ipc=3, factor=2, size=128, input_size=128, seed=seed)
