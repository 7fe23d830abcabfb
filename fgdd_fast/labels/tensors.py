"""Named arrays in one file, in the safetensors format, which libraries in many languages read.

The file is 8 bytes (little-endian length of the header), the header (JSON: dtype, shape and place of each
array), and the arrays one after the other, little-endian, in C order. Equal arrays give equal bytes.

Source: the format's description in the public repository huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping

import numpy as np

from fgdd_engines.base import Array

_DTYPES = {"U8": "|u1", "U16": "<u2", "U32": "<u4", "F16": "<f2", "F32": "<f4"}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_LENGTH = struct.Struct("<Q")


def pack(arrays: Mapping[str, Array]) -> bytes:
    """The bytes of a file with these arrays: uint8, uint16, uint32, float16 or float32."""
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
    """The arrays of a file, in their own memory order; they cannot be written to.

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
    """The array in the narrowest unsigned integers that hold the values from 0 to `greatest`."""
    return array.astype(np.min_scalar_type(greatest))
