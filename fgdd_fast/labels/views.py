"""The views of an epoch as they are kept on disk: each number in as few bytes as its range needs.

image    [n]           the image that each view is of
tiles    [n, factor²]  the tile in each cell of the shuffled mosaic, row by row
box      [n, 4]        x, y, width, height of the crop, in the mosaic's pixels
flip     [n]           0 or 1
partner  [n]           place within the epoch of the view that is pasted in; only with CutMix
patch    [batches, 4]  x, y, width, height of what is pasted into every view of a batch; only with CutMix
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fgdd_engines.base import Array
from fgdd_fast.labels.tensors import smallest_unsigned
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe


def pack_views(views: EpochViews, recipe: ViewRecipe, mosaic_size: int) -> dict[str, Array]:
    """The arrays that stand for an epoch's views on disk, unsigned integers.

    Args:
        views: as `draw_epoch` gives them: the views of a batch share their patch.
        recipe: the one that they were drawn with.
        mosaic_size: side of an image in pixels.
    """
    last = len(views) - 1
    arrays = {
        "image": smallest_unsigned(views.image, last),
        "tiles": views.tiles,
        "box": smallest_unsigned(views.box, mosaic_size),
        "flip": views.flip.astype(np.uint8),
    }
    if recipe.cutmix:
        arrays["partner"] = smallest_unsigned(views.partner, last)
        arrays["patch"] = smallest_unsigned(views.patch[:: recipe.batch], recipe.size)
    return arrays


def unpack_views(arrays: Mapping[str, Array], recipe: ViewRecipe, images: int) -> EpochViews:
    """An epoch's views from the arrays on disk.

    Args:
        arrays: by name; others than those of the views are passed over.
        recipe: the one that they were drawn with.
        images: how many images, and so views, there are.

    Raises:
        KeyError, ValueError: an array is missing or has another shape.
    """
    batches = -(-images // recipe.batch)
    if recipe.cutmix:
        partner = _shaped(arrays, "partner", images)
        patch = np.repeat(_shaped(arrays, "patch", batches, 4), recipe.batch, axis=0)[:images]
    else:
        partner, patch = np.arange(images), np.zeros((images, 4))
    return EpochViews(
        image=_shaped(arrays, "image", images).astype(np.int32),
        tiles=_shaped(arrays, "tiles", images, recipe.factor**2).astype(np.uint8),
        box=_shaped(arrays, "box", images, 4).astype(np.int16),
        flip=_shaped(arrays, "flip", images).astype(np.bool_),
        partner=partner.astype(np.int32),
        patch=patch.astype(np.int16),
    )


def _shaped(arrays: Mapping[str, Array], name: str, *shape: int) -> Array:
    array = arrays[name]
    if array.shape != shape:
        raise ValueError(f"'{name}' has the shape {list(array.shape)} instead of {list(shape)}")
    return array
