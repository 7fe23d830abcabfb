"""What every recipe of the catalogue gives: a model, ready to be written as a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fgdd_engines.bundle.bundle import Preprocessing, Role
from fgdd_fast.errors import BundleError


@dataclass(frozen=True)
class Prepared:
    """A model made from its source, with the parity that was measured.

    Attributes:
        model: the serialised ONNX graph.
        role: what it is for.
        preprocessing: what the graph does to its input.
        parity: the differences from the source network.
    """

    model: bytes
    role: Role
    preprocessing: Preprocessing
    parity: Mapping[str, float]


def check_parity(name: str, parity: Mapping[str, float], tolerances: Mapping[str, float]) -> None:
    """Refuse a model that differs from the network that it was made from.

    Raises:
        BundleError: a difference is above its tolerance, or is not a number.
    """
    for measure, tolerance in tolerances.items():
        if not parity[measure] <= tolerance:
            raise BundleError(
                f"The model {name} differs from its source: {measure.replace('_', ' ')} is "
                f"{parity[measure]:.3g}, above {tolerance:.3g}",
                "Nothing was written. Try the versions of onnx, onnxslim and onnxruntime in constraints.txt.",
            )
