"""Graphs without their weights, so that many fit into little, and filled again byte by byte.

A skeleton is an ONNX file from which the content of its large tensors is cut out. Each is kept once, however
many graphs hold it, as it is or in half precision; or it is drawn anew from a seed. To fill a skeleton takes
NumPy alone, and the bundle's hash tells whether that worked.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.base import Array
from fgdd_engines.optional_imports import import_optional
from fgdd_fast.errors import BundleError

LEAST = 1024  # bytes of a tensor that is cut out
LEAST_DRAWN = 1 << 16  # bytes of one that is drawn anew
# Weights hardly pack. Tables of positions and masks do, and have to stay what they are.
_PACKED = 0.85
_FORMS = ("float32", "float16", "bfloat16")  # in which a tensor of float32 may be
_WEIGHTS, _RECIPES = "weights.bin", "weights.json"


@dataclass
class Packer:
    """Takes graphs apart into an existing folder.

    Attributes:
        sources: of each content its position and packed bytes among what is kept; or how many weights are
            drawn in its place, their mean and deviation.
        recipes: of each skeleton the position, source and form of what was cut out.
    """

    folder: Path
    sources: list[tuple[str | float, ...]] = field(default_factory=list)
    recipes: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)
    _known: dict[bytes, tuple[int, str]] = field(default_factory=dict)

    def cut(self, name: str, graph: bytes, *, drawn: bool) -> None:
        """Write an ONNX file's skeleton under a name; `drawn` gives up large weights of float32."""
        onnx: Any = import_optional("onnx", "models")
        recipe = self.recipes[name] = []
        (self.folder / _WEIGHTS).touch()
        skeleton, done = bytearray(), 0
        for tensor in onnx.load_from_string(graph).graph.initializer:
            content = tensor.raw_data
            if len(content) >= LEAST and (place := graph.find(content, done)) >= 0:
                skeleton += graph[done:place]
                floats = tensor.data_type == onnx.TensorProto.FLOAT
                recipe.append((len(skeleton), *self._source(content, floats, drawn)))
                done = place + len(content)
        (self.folder / name).write_bytes(bytes(skeleton) + graph[done:])
        (self.folder / _RECIPES).write_text(json.dumps([self.sources, self.recipes]), encoding="utf-8")

    def _source(self, content: bytes, floats: bool, drawn: bool) -> tuple[int, str]:
        digest = hashlib.sha256(content).digest()
        if digest in self._known:
            return self._known[digest]
        values = np.frombuffer(content, np.float32 if floats else np.uint8)
        packed = zlib.compress(content, 1)
        random = len(content) >= LEAST_DRAWN and len(packed) > _PACKED * len(content)
        if drawn and floats and random:
            self.sources.append(("drawn", len(values), float(values.mean()), float(values.std())))
        else:
            with (self.folder / _WEIGHTS).open("ab") as kept:
                self.sources.append(("kept", kept.tell(), len(packed)))
                kept.write(packed)
        for form in _FORMS if floats else ("raw",):
            made = hashlib.sha256(_formed(values, form)).digest()
            self._known.setdefault(made, (len(self.sources) - 1, form))
        return self._known[digest]


def fill(folder: Path, name: str) -> bytes:
    """Return the graph of a skeleton, weights in their places; a BundleError where it is damaged."""
    try:
        sources, recipes = json.loads((folder / _RECIPES).read_text(encoding="utf-8"))
        return b"".join(_pieces(folder, (folder / name).read_bytes(), sources, recipes[name]))
    except (OSError, ValueError, TypeError, LookupError, zlib.error) as error:
        raise BundleError(f"The graph {folder / name} cannot be filled: {error}") from error


def _pieces(folder: Path, skeleton: bytes, sources: Any, recipe: Any) -> Iterator[bytes]:
    done = 0
    with (folder / _WEIGHTS).open("rb") as kept:
        for place, number, form in recipe:
            yield skeleton[done:place]
            kind, *rest = sources[number]
            if kind == "drawn":
                yield _formed(_draw(number, *rest), form)
            else:
                kept.seek(rest[0])
                content = zlib.decompress(kept.read(rest[1]))
                yield _formed(np.frombuffer(content, np.uint8 if form == "raw" else np.float32), form)
            done = place
    yield skeleton[done:]


def _draw(seed: int, count: int, mean: float, deviation: float) -> NDArray[np.float32]:
    """Weights of a mean and deviation, evenly spread, by the bits of PCG64, which are the same everywhere."""
    bits = np.random.PCG64(seed).random_raw(count) >> np.uint64(40)
    drawn = bits.astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return drawn * np.float32(deviation * 3**0.5) + np.float32(mean)


def _formed(values: Array, form: str) -> bytes:
    """The content of a tensor of these values, rounded to the nearest of its type."""
    if form == "float16":
        with np.errstate(over="ignore"):
            values = values.astype(np.float16)
    elif form == "bfloat16":
        bits = values.view(np.uint32)
        values = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return values.tobytes()
