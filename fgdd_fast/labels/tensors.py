"""Named arrays in one file, in the safetensors format, which libraries in many languages read.

The file is 8 bytes (little-endian length of the header), the header (JSON: dtype, shape and place of each
array), and the arrays one after the other, little-endian, in C order. Equal arrays give equal bytes.

The views of an epoch are kept as arrays of unsigned integers, in as few bytes as their ranges need:

    image    [n]           the image that each view is of
    tiles    [n, factor²]  the tile in each cell of the shuffled mosaic, row by row
    box      [n, 4]        x, y, width, height of the crop, in the mosaic's pixels
    flip     [n]           0 or 1
    partner  [n]           place within the epoch of the view that is pasted in; only with CutMix
    patch    [batches, 4]  x, y, width, height of what is pasted into every view of a batch; only with CutMix

Source: the format's description in the public repository huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping

import numpy as np

from fgdd_engines.base import Array
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe

_DTYPES = {"U8": "|u1", "U16": "<u2", "U32": "<u4", "F16": "<f2", "F32": "<f4"}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_LENGTH = struct.Struct("<Q")


def pack(arrays: Mapping[str, Array]) -> bytes:
    """Return the bytes of a file with these arrays: uint8, uint16, uint32, float16 or float32."""
    # The largest items first, as the format's own library does it, so that each array is aligned.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, object] = {}
    parts: list[bytes] = []
    end = 0
    for name in names:
        array = arrays[name]
        content = array.astype(array.dtype.newbyteorder("<"), order="C").tobytes()
        begin, end = end, end + len(content)
        parts.append(content)
        header[name] = {
            "dtype": _NAMES[array.dtype.newbyteorder("<")],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return b"".join([_LENGTH.pack(len(text)), text, *parts])


def unpack(content: bytes) -> dict[str, Array]:
    """Return the arrays of a file, in their own memory order; they cannot be written to.

    Raises:
        ValueError: it is no such file, or has arrays of other dtypes.
    """
    try:
        (length,) = _LENGTH.unpack_from(content)
        start = _LENGTH.size + length
        header = json.loads(content[_LENGTH.size : start])
        return {name: _array(content, start, row) for name, row in header.items() if name != "__metadata__"}
    except (struct.error, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"no safetensors file: {error!r}") from error


def _array(content: bytes, start: int, row: Mapping[str, object]) -> Array:
    dtype, shape, offsets = np.dtype(_DTYPES[str(row["dtype"])]), row["shape"], row["data_offsets"]
    if not isinstance(shape, list) or not isinstance(offsets, list):
        raise TypeError("a shape or an offset is no list")
    count = math.prod(shape)
    if offsets[1] - offsets[0] != count * dtype.itemsize:
        raise ValueError("an array's length contradicts its shape")
    return np.frombuffer(content, dtype, count, start + offsets[0]).reshape(shape)


def smallest_unsigned(array: Array, greatest: int) -> Array:
    """Return the array in the narrowest unsigned integers that hold the values from 0 to `greatest`."""
    return array.astype(np.min_scalar_type(greatest))


def pack_views(views: EpochViews, recipe: ViewRecipe, mosaic_size: int) -> dict[str, Array]:
    """Return the arrays that stand for an epoch's views on disk, unsigned integers.

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
    """Return an epoch's views from the arrays on disk.

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
