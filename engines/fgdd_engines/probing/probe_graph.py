"""The smallest graph worth running, which every backend's probe runs: does it compute, and rightly?"""

from __future__ import annotations

from typing import Any

import numpy as np

from fgdd_engines.errors import EngineError

# An ONNX model, serialised: y = Add(x, x) on float32 [1, 4]; opset 17, IR version 8.
GRAPH = (
    b'\x08\x08:B\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x06doubleZ\x13\n\x01x\x12\x0e\n\x0c\x08\x01'
    b"\x12\x08\n\x02\x08\x01\n\x02\x08\x04b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x01\n\x02"
    b"\x08\x04B\x04\n\x00\x10\x11"
)
INPUT = np.array([[1, -2, 0.5, 3]], dtype=np.float32)


def check_output(name: str, output: Any) -> None:
    """Raise EngineError unless what `name` made of `INPUT`, float32 [1, 4], is twice the input."""
    if not np.array_equal(output, 2 * INPUT):
        raise EngineError(
            f"{name} computes wrongly: twice {INPUT.tolist()} gave {np.asarray(output).tolist()}"
        )
