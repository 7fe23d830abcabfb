"""Grey TIFFs with transparency, whose alpha OpenCV's reader drops.

The two samples of a pixel lie side by side, so the file read as one of single samples and twice the width has
grey and alpha in turn. Only the directory is changed for that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_fast.errors import ImageError
from fgdd_fast.images.resize import Pixels

_WIDTH, _BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 258, 262, 274, 277
_PLANAR, _PREDICTOR, _TILE_WIDTH, _EXTRA = 284, 317, 322, 338
_PRIVATE = 65000  # a tag that nobody reads
_SHORT = 3
_BLACK_IS_ZERO, _SIDE_BY_SIDE, _DIFFERENCES, _MULTIPLIED = 1, 1, 2, 1


@dataclass(frozen=True)
class GreyAlpha:
    """A grey picture with its transparency.

    Attributes:
        grey, alpha: uint8 [height, width], as they lie in the file.
        multiplied: whether the grey was multiplied by alpha already.
    """

    grey: Pixels
    alpha: Pixels
    multiplied: bool


def read_grey_alpha(content: bytes, decode: Callable[[bytes], NDArray[Any] | None]) -> GreyAlpha:
    """Decode a TIFF of two samples of 8 bits a pixel, in the orientation in which it lies in the file.

    Args:
        content: the file.
        decode: decodes a grey TIFF to uint8 [height, width], or gives None.

    Raises:
        ImageError: it has a form that cannot be read, or is damaged.
    """
    patched = bytearray(content)
    order = "<" if content[:1] == b"I" else ">"
    (start,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, start)
    values: dict[int, int] = {}
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", content, at)
        layout = order + ("H2x" if kind == _SHORT else "I")
        (value,) = struct.unpack_from(layout, content, at + 8)
        values.setdefault(tag, value)
        if tag in (_WIDTH, _TILE_WIDTH):
            struct.pack_into(layout, patched, at + 8, 2 * value)
        elif tag in (_SAMPLES, _PREDICTOR, _ORIENTATION):
            struct.pack_into(layout, patched, at + 8, 1)
        elif tag == _BITS and length == 2:
            struct.pack_into(order + "HHIHH", patched, at, _BITS, _SHORT, 1, 8, 0)
        elif tag == _EXTRA:
            struct.pack_into(order + "H", patched, at, _PRIVATE)
    predictor = values.get(_PREDICTOR, 1)
    as_expected = (values.get(_PHOTOMETRIC), values.get(_PLANAR, 1), values.get(_SAMPLES)) == (1, 1, 2)
    if not as_expected or predictor not in (1, _DIFFERENCES):
        raise ImageError("grey TIFF with transparency in a form that cannot be read")
    pixels = decode(bytes(patched))
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] % 2:
        raise ImageError("damaged TIFF")
    grey, alpha = pixels[:, 0::2], pixels[:, 1::2]
    if predictor == _DIFFERENCES:
        grey, alpha = (np.cumsum(each, axis=1, dtype=np.uint8) for each in (grey, alpha))
    return GreyAlpha(np.asarray(grey), np.asarray(alpha), values.get(_EXTRA) == _MULTIPLIED)
