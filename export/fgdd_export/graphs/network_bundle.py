"""Export one PyTorch network and write it as a bundle, with what making it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from fgdd_engines.bundle.bundle import Bundle, Preprocessing, Role, write_bundle
from fgdd_export.graphs.graph import serialise, tensor_specs
from fgdd_export.graphs.torch_export import Network, export_network


@dataclass(frozen=True)
class Origin:
    """Where a bundle's weights come from.

    Attributes:
        source: checkpoints and the like; see `Bundle.source`.
        licence: SPDX identifier.
    """

    source: Mapping[str, Any]
    licence: str


def write_network(
    onnx: Path,
    role: Role,
    network: Network,
    example: Sequence[Tensor],
    *,
    preprocessing: Preprocessing,
    origin: Origin,
    prompting: Mapping[str, Any] | None = None,
    parts: Mapping[str, Bundle] | None = None,
    files: Mapping[str, str] | None = None,
    parity: Mapping[str, Any] | None = None,
) -> Bundle:
    """Export a network and write its bundle.

    Args:
        onnx: where the ONNX file goes; the sidecar goes beside it.
        role, preprocessing, prompting, parity: see `Bundle`.
        network, example: see `export_network`.
        origin: where the weights come from; how long the export took is added.
        parts: bundles that lie beside it already, by name.
        files: SHA-256 of files that lie beside it already.

    Raises:
        BundleError: the network cannot be exported as it is declared.
    """
    exported = export_network(network, example)
    graph = exported.model.graph
    making = {
        "seconds": round(exported.seconds, 1),
        "nodes_before_slimming": exported.nodes_before,
        "nodes": exported.nodes,
        "with": {name: version(name) for name in ("torch", "transformers", "onnx", "onnxslim")},
    }
    return write_bundle(
        Bundle(
            onnx=onnx,
            name=onnx.stem,
            role=role,
            sha256="",
            inputs=tensor_specs(graph.input),
            outputs=tensor_specs(graph.output),
            preprocessing=preprocessing,
            classes=None,
            source={**origin.source, "export": making},
            licence=origin.licence,
            parity=parity or {},
            prompting=prompting,
            parts={name: part.sha256 for name, part in (parts or {}).items()},
            files=files or {},
        ),
        serialise(exported.model),
    )


def normalisation(mean: Sequence[float], std: Sequence[float]) -> str:
    """What a graph does to its pixels, in words."""
    return f"(value / 255 - {_listed(mean)}) / {_listed(std)}, each channel for itself"


def _listed(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
