"""How logits are kept on disk, and what that costs.

`float16` keeps every logit. `int8` keeps, for each view, its lowest logit and a step, and every logit in 256
steps. `top:K` keeps the K greatest; the others share one value, chosen so that at the temperature of
distillation the K keep their probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.base import Array
from fgdd_fast.errors import SettingsError, TeacherError
from fgdd_fast.labels.tensors import smallest_unsigned

TEMPERATURE = 20.0  # at which students learn in RDED's recipe
COMPRESSIONS_HELP = "float16, int8 (one byte a logit), or top:K (the K greatest, the others alike)"
STEPS = 255
LARGEST = float(np.finfo(np.float16).max)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Compression:
    """A way to keep logits.

    Attributes:
        kind: see the module.
        count: K of `top:K`; 0 otherwise.
    """

    kind: Literal["float16", "int8", "top"]
    count: int = 0

    def __str__(self) -> str:
        return f"top:{self.count}" if self.kind == "top" else self.kind

    def check(self, classes: int) -> None:
        """Refuse a K that leaves nothing out.

        Raises:
            SettingsError: there are K classes or fewer.
        """
        if self.kind == "top" and self.count >= classes:
            raise SettingsError(
                f"The compression {self} keeps all logits of {classes} classes",
                "Use float16, or a smaller K.",
            )

    def pack(self, logits: Floats) -> dict[str, Array]:
        """The arrays that stand for logits [n, classes] on disk.

        Raises:
            TeacherError: a logit is not finite, or beyond float16.
        """
        if not (np.abs(logits) <= LARGEST).all():
            raise TeacherError(
                f"The teacher gave a logit that is not finite or beyond {LARGEST:.0f}",
                "Run it in another precision: --precision fp32",
            )
        if self.kind == "int8":
            return _pack_int8(logits)
        return _pack_top(logits, self.count) if self.kind == "top" else {"logits": logits.astype(np.float16)}

    def unpack(self, arrays: Mapping[str, Array], classes: int) -> Floats:
        """Logits float32 [n, classes] from the arrays on disk.

        Raises:
            ValueError, KeyError, IndexError: the arrays are not of this compression, or for other classes.
        """
        if self.kind == "top":
            return _unpack_top(arrays, classes)
        logits = arrays["logits"].astype(np.float32)
        if self.kind == "int8":
            lowest, step = arrays["scale"].astype(np.float32).T[:, :, None]
            logits = lowest + logits * step
        if logits.ndim != 2 or logits.shape[1] != classes:
            raise ValueError(f"logits of the shape {list(logits.shape)} for {classes} classes")
        return logits


FLOAT16 = Compression("float16")


def parse_compression(text: str) -> Compression:
    """Parse `float16`, `int8` or `top:K`.

    Raises:
        SettingsError: it is none of these.
    """
    if text == "float16":
        return FLOAT16
    if text == "int8":
        return Compression("int8")
    kind, _, count = text.partition(":")
    if kind == "top" and count.isdecimal() and int(count) > 0:
        return Compression("top", int(count))
    raise SettingsError(f"There is no compression '{text}'", f"Choose one of: {COMPRESSIONS_HELP}.")


@dataclass(frozen=True)
class Cost:
    """How far kept logits are from those that the teacher gave.

    Attributes:
        divergence: mean Kullback-Leibler divergence in nats at the temperature 20, of the kept ones from the
            teacher's.
        information: the same, of uniform labels from the teacher's: what there is to lose.
        agreement: share of views with the same greatest logit.
    """

    divergence: float
    information: float
    agreement: float


def costs(teacher: Floats, kept: Floats) -> NDArray[np.float64]:
    """Compare logits as kept with those that the teacher gave, both [n, classes]; see `Cost`.

    Returns:
        [n, 3]: divergence, information and agreement of each row.
    """
    wanted, got = _log_softmax(teacher), _log_softmax(kept)
    shares = np.exp(wanted)
    divergence = (shares * (wanted - got)).sum(axis=1)
    information = (shares * (wanted + math.log(teacher.shape[1]))).sum(axis=1)
    return np.stack([divergence, information, teacher.argmax(axis=1) == kept.argmax(axis=1)], axis=1)


def mean_cost(rows: NDArray[np.float64]) -> Cost:
    """Return the means of `costs`, [n, 3]."""
    divergence, information, agreement = (float(column.copy().mean()) for column in rows.T)
    return Cost(max(divergence, 0.0), max(information, 0.0), agreement)


class KeptLogits:
    """Logits [n, classes] as they are kept on disk, gathered some rows at a time.

    Args:
        compression: how they are kept.
        count: rows there will be.

    Attributes:
        arrays: what stands for them on disk.
        costs: [n, 3]; see `costs`.
        predicted: the class with the greatest logit, int64 [n].
    """

    def __init__(self, compression: Compression, count: int) -> None:
        self.arrays: dict[str, Array] = {}
        self.costs = np.empty((count, 3))
        self.predicted = np.empty(count, np.int64)
        self._compression = compression
        self._rows = 0

    def add(self, logits: Floats) -> None:
        """Take the next rows.

        Raises:
            TeacherError: a logit is not finite, or beyond float16.
        """
        packed = self._compression.pack(logits)
        kept = self._compression.unpack(packed, logits.shape[1])
        rows = slice(self._rows, self._rows + len(logits))
        for name, values in packed.items():
            if name not in self.arrays:
                self.arrays[name] = np.empty((len(self.costs), *values.shape[1:]), values.dtype)
            self.arrays[name][rows] = values
        self.costs[rows] = costs(logits, kept)
        self.predicted[rows] = logits.argmax(axis=1)
        self._rows = rows.stop


def _log_softmax(logits: Floats) -> NDArray[np.float64]:
    scaled = logits.astype(np.float64) / TEMPERATURE
    scaled -= scaled.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def _pack_int8(logits: Floats) -> dict[str, Array]:
    lowest, greatest = logits.min(axis=1), logits.max(axis=1)
    # What is stored is what counts from: the rounded lowest logit and step.
    scale = np.stack([lowest, (greatest - lowest) / STEPS], axis=1).astype(np.float16)
    low, step = scale.astype(np.float32).T[:, :, None]
    steps = np.rint((logits - low) / np.where(step > 0, step, 1))
    return {"logits": np.clip(steps, 0, STEPS).astype(np.uint8), "scale": scale}


def _pack_top(logits: Floats, count: int) -> dict[str, Array]:
    order = np.argsort(-logits, axis=1, kind="stable")
    kept, rest = order[:, :count], order[:, count:]
    others = np.take_along_axis(logits, rest, axis=1).astype(np.float64) / TEMPERATURE
    shared = TEMPERATURE * (np.logaddexp.reduce(others, axis=1) - math.log(rest.shape[1]))
    return {
        "logits": np.take_along_axis(logits, kept, axis=1).astype(np.float16),
        "classes": smallest_unsigned(kept, logits.shape[1] - 1),
        "rest": shared.astype(np.float16),
    }


def _unpack_top(arrays: Mapping[str, Array], classes: int) -> Floats:
    kept, rest = arrays["logits"], arrays["rest"]
    logits = np.repeat(rest.astype(np.float32)[:, None], classes, axis=1)
    np.put_along_axis(logits, arrays["classes"].astype(np.intp), kept.astype(np.float32), axis=1)
    return logits
