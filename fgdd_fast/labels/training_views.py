"""The views of a distilled data set that students are trained on and teachers label: RDED's recipe.

In every epoch each image gives one view: the rows and the columns of its tiles are shuffled, a
RandomResizedCrop is taken, and it may be flipped. The views are shuffled into batches, and CutMix pastes into
each view of a batch the same box of another one. Views are drawn as numbers first and rendered afterwards, so
what a teacher labelled once is what every student sees.

Sources: Sun et al., "On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation
Paradigm" (CVPR 2024) and the order of operations of its public repository LINs-lab/RDED; torchvision,
`RandomResizedCrop.get_params`; Yun et al., "CutMix" (ICCV 2019), `rand_bbox`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import SettingsError
from fgdd_fast.images.resize import Pixels, resize


class Images(Protocol):
    """Images by their indices, each uint8 [mosaic, mosaic, 3]."""

    def __getitem__(self, index: int, /) -> Pixels: ...


Words = NDArray[np.uint64]
Integers = NDArray[np.int64]

RATIO = (3 / 4, 4 / 3)  # width over height of a crop: torchvision's default
TRIES = 10
# RDED's batch by images per class, for fewer than 100 classes; twice that from 100 classes on.
BATCHES = {1: 10, 10: 50, 50: 100}
MANY_CLASSES = 100
LARGEST_FACTOR = 16  # tiles are numbered by a byte
LARGEST_SIDE = 2**15 - 1  # boxes are stored in 16 bits


@dataclass(frozen=True)
class ViewRecipe:
    """How views are drawn.

    Attributes:
        size: side of a view in pixels: what the student sees.
        factor: tiles along a mosaic's side; a crop covers at least 1 / factor of the mosaic's area.
        batch: views mixed together; the last batch of an epoch may be smaller.
        seed: of every draw, at least 0.
        cutmix: whether views are mixed.

    Raises:
        SettingsError: a value is out of its range.
    """

    size: int
    factor: int
    batch: int
    seed: int
    cutmix: bool = True

    def __post_init__(self) -> None:
        ranges = {
            "size": (self.size, 1, LARGEST_SIDE),
            "factor": (self.factor, 1, LARGEST_FACTOR),
            "batch": (self.batch, 1, 2**31 - 1),
            "seed": (self.seed, 0, 2**63 - 1),
        }
        for name, (value, least, greatest) in ranges.items():
            if not least <= value <= greatest:
                raise SettingsError(
                    f"The {name} of training views is {value}", f"Choose one from {least} to {greatest}."
                )


@dataclass(frozen=True)
class EpochViews:
    """The views of one epoch, in the epoch's order; each image gives one.

    Attributes:
        image: int32 [n]: the image that each view is of.
        tiles: uint8 [n, factor**2]: cell j of the shuffled mosaic, row by row, shows the image's tile
            `tiles[:, j]`.
        box: int16 [n, 4]: x, y, width, height of the crop in the shuffled mosaic, in its pixels.
        flip: bool [n]: whether the crop is mirrored from left to right.
        partner: int32 [n]: place within the epoch of the view that is pasted in; of the same batch.
        patch: int16 [n, 4]: x, y, width, height of what is pasted, in the view's pixels; width or height is 0
            where nothing is.
    """

    image: NDArray[np.int32]
    tiles: NDArray[np.uint8]
    box: NDArray[np.int16]
    flip: NDArray[np.bool_]
    partner: NDArray[np.int32]
    patch: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.image)


def default_batch(classes: int, ipc: int) -> int:
    """RDED's batch: 10, 50 and 100 at 1, 10 and 50 images per class, twice that from 100 classes on.

    Between these numbers of images it is interpolated; it never exceeds the number of images.
    """
    batch = round(float(np.interp(ipc, list(BATCHES), list(BATCHES.values()))))
    return min(batch * (2 if classes >= MANY_CLASSES else 1), classes * ipc)


def draw_epoch(recipe: ViewRecipe, images: int, mosaic_size: int, epoch: int) -> EpochViews:
    """Draw the views of one epoch; they depend on the arguments alone.

    The random bits are those of PCG64, whose stream NumPy keeps from version to version, and are turned into
    numbers here.

    Args:
        recipe: how views are drawn.
        images: number of images, which is the number of views.
        mosaic_size: side of an image in pixels; a multiple of the recipe's factor.
        epoch: from 0; any epoch can be drawn alone.

    Raises:
        SettingsError: the images cannot be cut into tiles, or are too large.
    """
    if mosaic_size % recipe.factor or not 0 < mosaic_size <= LARGEST_SIDE:
        raise SettingsError(
            f"Images of {mosaic_size} pixels cannot be cut into {recipe.factor} equal tiles a side",
            f"They need a side of at most {LARGEST_SIDE} pixels that is a multiple of the factor.",
        )
    bits = np.random.PCG64(np.random.SeedSequence((recipe.seed, epoch)))
    image = _permutation(_words(bits, images))
    tiles = _shuffle_tiles(_words(bits, images, 2, recipe.factor))
    box = _crop_boxes(_words(bits, images, TRIES, 4), mosaic_size, 1 / recipe.factor)
    flip = _below(_words(bits, images), 2) == 1
    starts = range(0, images, recipe.batch)
    mixing = _words(bits, len(starts), 3)
    partner_words = _words(bits, images)
    partner = np.arange(images)
    patch = np.zeros((images, 4), np.int64)
    if recipe.cutmix:
        patches = _cutmix_boxes(mixing, recipe.size)
        for batch, start in enumerate(starts):
            members = slice(start, start + recipe.batch)
            partner[members] = start + _permutation(partner_words[members])
            patch[members] = patches[batch]
    return EpochViews(
        image=image.astype(np.int32),
        tiles=tiles.astype(np.uint8),
        box=box.astype(np.int16),
        flip=flip,
        partner=partner.astype(np.int32),
        patch=patch.astype(np.int16),
    )


def render(
    images: Images, views: EpochViews, recipe: ViewRecipe, places: slice | Sequence[int] = slice(None)
) -> Pixels:
    """Make the pixels of views.

    Several views of one batch in one call are rendered once each; alone, a view needs its partner as well.

    Args:
        images: all images, uint8 [images, mosaic, mosaic, 3], RGB, or what gives each by its index.
        views: the epoch's views.
        recipe: the one that they were drawn with.
        places: which views of the epoch; by default all, in its order.

    Returns:
        uint8 [k, size, size, 3]; the caller's own.
    """
    wanted = np.arange(len(views))[places]
    x, y, width, height = views.patch[wanted].T.astype(np.int64)
    mixed = (width > 0) & (height > 0) & (views.partner[wanted] != wanted)
    needed = np.union1d(wanted, views.partner[wanted][mixed])
    plain = np.empty((len(needed), recipe.size, recipe.size, 3), np.uint8)
    for row, place in enumerate(needed.tolist()):
        plain[row] = _plain_view(images, views, recipe, place)
    result = plain[np.searchsorted(needed, wanted)]
    sources = np.searchsorted(needed, views.partner[wanted])
    for row in np.flatnonzero(mixed).tolist():
        rows, columns = slice(y[row], y[row] + height[row]), slice(x[row], x[row] + width[row])
        result[row, rows, columns] = plain[sources[row], rows, columns]
    return result


def _plain_view(images: Images, views: EpochViews, recipe: ViewRecipe, place: int) -> Pixels:
    """A view before mixing, uint8 [size, size, 3]."""
    mosaic = _rearrange(images[views.image[place]], views.tiles[place].tolist(), recipe.factor)
    x, y, width, height = views.box[place].tolist()
    view = resize(mosaic[y : y + height, x : x + width], (recipe.size, recipe.size), "area")
    return np.asarray(cv2.flip(view, 1), np.uint8) if views.flip[place] else view


def _rearrange(mosaic: Pixels, order: list[int], factor: int) -> Pixels:
    """The mosaic with its tiles in another order."""
    if order == list(range(factor**2)):
        return mosaic
    side = mosaic.shape[0] // factor
    result = np.empty_like(mosaic)
    for cell, tile in enumerate(order):
        row, column = divmod(cell, factor)
        source_row, source_column = divmod(tile, factor)
        result[row * side : (row + 1) * side, column * side : (column + 1) * side] = mosaic[
            source_row * side : (source_row + 1) * side, source_column * side : (source_column + 1) * side
        ]
    return result


def _shuffle_tiles(words: Words) -> Integers:
    """Orders of tiles [n, factor**2]: RDED's ShufflePatches permutes whole columns, then whole rows."""
    columns, rows = _permutation(words[:, 0]), _permutation(words[:, 1])
    factor = words.shape[2]
    orders: Integers = rows[:, :, None] * factor + columns[:, None, :]
    return orders.reshape(len(words), factor**2)


def _crop_boxes(words: Words, side: int, least_share: float) -> Integers:
    """Boxes [n, 4] as RandomResizedCrop draws them in a square, of at least `least_share` of its area.

    With a share of 1 only the whole square fits: other shapes of its area stick out, and the fallback is the
    whole square too.
    """
    share = least_share + _fraction(words[..., 0]) * (1 - least_share)
    log_ratio = math.log(RATIO[0]) + _fraction(words[..., 1]) * (math.log(RATIO[1]) - math.log(RATIO[0]))
    area, ratio = side**2 * share, np.exp(log_ratio)
    width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (width > 0) & (width <= side) & (height > 0) & (height <= side)
    # Of those that do not fit only the shape is used, and only if no other does: then it is the whole square.
    x = _below(words[..., 2], np.maximum(side - width + 1, 1))
    y = _below(words[..., 3], np.maximum(side - height + 1, 1))
    drawn = np.stack([x, y, width, height], axis=-1)
    first = drawn[np.arange(len(words)), fits.argmax(axis=1)]
    return np.where(fits.any(axis=1, keepdims=True), first, np.array([0, 0, side, side]))


def _cutmix_boxes(words: Words, side: int) -> Integers:
    """CutMix boxes [n, 4] for lambda ~ Beta(1, 1), which is uniform: squares anywhere, clipped."""
    cut = (side * np.sqrt(1 - _fraction(words[:, 0]))).astype(np.int64)
    centre = np.stack([_below(words[:, 1], side), _below(words[:, 2], side)], axis=1)
    half = cut[:, None] // 2
    low, high = np.clip(centre - half, 0, side), np.clip(centre + half, 0, side)
    return np.concatenate([low, high - low], axis=1)


def _words(bits: np.random.PCG64, *shape: int) -> Words:
    """64 random bits for each element."""
    words: Words = bits.random_raw(math.prod(shape))
    return words.reshape(shape)


def _permutation(words: Words) -> Integers:
    """A random order of the last axis, as the places of its words by size."""
    order: Integers = np.argsort(words, axis=-1, kind="stable")
    return order


def _fraction(words: Words) -> NDArray[np.float64]:
    """Numbers in [0, 1)."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _below(words: Words, bound: Integers | int) -> Integers:
    """Whole numbers in [0, bound), for a bound below 2**31; their bias is less than bound / 2**32."""
    high = words >> np.uint64(32)
    return ((high * np.asarray(bound).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)
