"""What the export of a teacher needs of a classifier, wherever it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fgdd_engines.bundle.bundle import Preprocessing

if TYPE_CHECKING:
    import onnx

Images = NDArray[np.uint8]

UNKNOWN_LICENCE = "NOASSERTION"  # as SPDX says it


@dataclass(frozen=True)
class Graph:
    """A classifier in ONNX.

    Attributes:
        model: takes `images` uint8 [batch, height, width, 3] and gives `logits` float32 [batch, classes].
        making: what making it took, for the bundle's `source`.
    """

    model: onnx.ModelProto
    making: Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A classifier that is to become a teacher.

    Attributes:
        outputs: how many classes it tells apart.
        classes: their names, where its checkpoint has them.
        preprocessing: what the graph does to its input.
        source: where it comes from.
        licence: SPDX identifier of its weights' licence, `NOASSERTION` where it is not known.
        reference: the network as published: logits float [n, classes] of images uint8 [n, height, width, 3].
        export: makes the graph.
    """

    outputs: int
    classes: tuple[str, ...] | None
    preprocessing: Preprocessing
    source: Mapping[str, Any]
    licence: str
    reference: Callable[[Images], NDArray[Any]]
    export: Callable[[], Graph]
