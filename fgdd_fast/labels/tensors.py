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
from typing import Any

import numpy as np

from fgdd_engines.base import Array
from fgdd_engines.bundle.schema import array, one_of, read_json, record, string, table, whole
from fgdd_fast.labels.training_views import EpochViews, ViewRecipe

_DTYPES = {"U8": "|u1", "U16": "<u2", "U32": "<u4", "F16": "<f2", "F32": "<f4"}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_LENGTH = struct.Struct("<Q")
_ARRAY = record(
    {
        "dtype": one_of(*_DTYPES),
        "shape": array(whole(), longest=8),
        "data_offsets": array(whole(), shortest=2, longest=2),
    }
)
_HEADER = record({}, {"__metadata__": table(string())}, rest=_ARRAY)


def pack(arrays: Mapping[str, Array]) -> list[bytes | memoryview]:
    """Return the parts of a file with these arrays: uint8, uint16, uint32, float16 or float32."""
    # The largest items first, as the format's own library does it, so that each array is aligned.
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, object] = {}
    parts: list[memoryview] = []
    end = 0
    for name in names:
        values = arrays[name]
        little = values.astype(values.dtype.newbyteorder("<"), order="C", copy=False)
        begin, end = end, end + little.nbytes
        parts.append(little.reshape(-1).view(np.uint8).data)
        header[name] = {
            "dtype": _NAMES[values.dtype.newbyteorder("<")],
            "shape": list(values.shape),
            "data_offsets": [begin, end],
        }
    line = json.dumps(header, separators=(",", ":")).encode("ascii")
    line += b" " * (-len(line) % 8)
    return [_LENGTH.pack(len(line)), line, *parts]


def unpack(content: bytes) -> dict[str, Array]:
    """Return the arrays of a file, in their own memory order; they cannot be written to.

    Raises:
        ValueError: it is no such file, or has arrays of other dtypes.
    """
    if len(content) < _LENGTH.size:
        raise ValueError("no safetensors file: it is too short")
    (length,) = _LENGTH.unpack_from(content)
    start = _LENGTH.size + length
    header = read_json(content[_LENGTH.size : start], _HEADER)
    return {name: _array(content, start, row) for name, row in header.items() if name != "__metadata__"}


def _array(content: bytes, start: int, row: Mapping[str, Any]) -> Array:
    dtype, shape, (begin, end) = np.dtype(_DTYPES[row["dtype"]]), row["shape"], row["data_offsets"]
    count = math.prod(shape)
    if end - begin != count * dtype.itemsize or start + end > len(content):
        raise ValueError("an array's length contradicts its shape, or the file's length")
    return np.frombuffer(content, dtype, count, start + begin).reshape(shape)


def smallest_unsigned(values: Array, greatest: int) -> Array:
    """Return an array in the narrowest unsigned integers that hold the values from 0 to `greatest`."""
    return values.astype(np.min_scalar_type(greatest))


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
        KeyError, ValueError: an array is missing, has another shape, or numbers that name nothing.
    """
    batches, cells = -(-images // recipe.batch), recipe.factor**2
    if recipe.cutmix:
        partner = _places(arrays, "partner", images, images)
        patch = np.repeat(_shaped(arrays, "patch", batches, 4), recipe.batch, axis=0)[:images]
    else:
        partner, patch = np.arange(images), np.zeros((images, 4))
    return EpochViews(
        image=_places(arrays, "image", images, images).astype(np.int32),
        tiles=_places(arrays, "tiles", cells, images, cells).astype(np.uint8),
        box=_shaped(arrays, "box", images, 4).astype(np.int16),
        flip=_shaped(arrays, "flip", images).astype(np.bool_),
        partner=partner.astype(np.int32),
        patch=patch.astype(np.int16),
    )


def _shaped(arrays: Mapping[str, Array], name: str, *shape: int) -> Array:
    found = arrays[name]
    if found.shape != shape:
        raise ValueError(f"'{name}' has the shape {list(found.shape)} instead of {list(shape)}")
    return found


def _places(arrays: Mapping[str, Array], name: str, count: int, *shape: int) -> Array:
    """An array of places in something that has so many."""
    found = _shaped(arrays, name, *shape)
    if (found >= count).any():
        raise ValueError(f"'{name}' goes beyond {count}")
    return found
