"""The three networks within an exported Grounded SAM 2, each as a graph of its own, to be timed alone.

The product runs detector, image encoder and mask decoder as one graph, or as two in the split form. That very
graph is cut where the image encoder ends, so that each of its nodes is in exactly one of the three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fgdd_engines.base import Device, Engine, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Role, write_bundle
from fgdd_engines.factory import open_engine
from fgdd_engines.optional_imports import import_optional
from fgdd_engines.tensorrt_backend.api import Flavour, import_tensorrt
from fgdd_engines.tensorrt_backend.build import Profile, build_plan
from fgdd_engines.tensorrt_backend.engine import TensorRtEngine
from fgdd_export.graphs.graph import cut_model, serialise, tensor_specs
from fgdd_fast.errors import BundleError
from fgdd_fast.models.grounded_tensors import BOXES, DETECTOR_OUTPUTS, SCORES, SEGMENTER_OUTPUTS
from fgdd_fast.models.network import Runtime

_ENCODER = "/image_encoder/"  # in the names of its nodes: that of the module which was traced
_FLAVOURS: Mapping[Device, Flavour] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx"}


@dataclass(frozen=True)
class GroundedParts:
    """The networks of a Grounded SAM 2, open.

    Attributes:
        detector: from a canvas and a prompt's features to boxes and scores.
        encoder: from images to what the decoder takes of them.
        decoder: from that, boxes and scores to occupancy and mask.
    """

    detector: Engine
    encoder: Engine
    decoder: Engine

    def close(self) -> None:
        """Free the runtimes' memory."""
        for engine in (self.detector, self.encoder, self.decoder):
            engine.close()


def open_parts(bundle: Bundle, runtime: Runtime, batch: int, folder: Path) -> GroundedParts:
    """Cut a bundle's graphs, or the variants that run in their place, and open the parts as it is opened.

    TensorRT builds plans of the parts, which takes as long as those of the bundle did.

    Args:
        bundle: a Grounded SAM 2, in either form.
        runtime: how its engines are opened.
        batch: images an inference.
        folder: where the cut graphs are put; not needed once this returns.

    Raises:
        BundleError: the bundle's graph has no image encoder to be cut off.
        EngineError: the runtime cannot load a part.
    """
    joint = runtime.variants.get(bundle.sha256, bundle)
    segmenter = joint
    if "segmenter" in bundle.parts:
        part = bundle.part("segmenter")
        segmenter = runtime.variants.get(part.sha256, part)
    detector = joint
    if segmenter is joint:
        detector = _Cutter(joint, folder).cut("detector", _names(DETECTOR_OUTPUTS))
    cutter = _Cutter(segmenter, folder)
    between = cutter.boundary(_ENCODER)
    encoder = cutter.cut("image-encoder", between)
    decoder = cutter.cut("mask-decoder", _names(SEGMENTER_OUTPUTS), given=(*between, BOXES.name, SCORES.name))
    with ExitStack() as opened:
        engines = [opened.enter_context(_open(part, runtime, batch)) for part in (detector, encoder, decoder)]
        opened.pop_all()
    return GroundedParts(*engines)


class _Cutter:
    """Cuts pieces out of a graph.

    Args:
        bundle: the graph.
        folder: where the pieces are put.
    """

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        onnx: Any = import_optional("onnx", "models")
        self._bundle = bundle
        self._folder = folder
        self._model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(bundle.graph()))
        self._extractor = onnx.utils.Extractor(self._model)

    def boundary(self, mark: str) -> tuple[str, ...]:
        """The tensors that leave the part of the graph which the nodes with a mark in their names end.

        Raises:
            BundleError: there is no such node.
        """
        ends = [name for node in self._model.graph.node if mark in node.name for name in node.output]
        if not ends:
            raise BundleError(
                f"The graph {self._bundle.onnx} has no node with '{mark}' in its name to be cut at"
            )
        nodes, _ = cut_model(self._model, ends)
        inside = {name for node in nodes for name in node.output}
        taken = {
            name for node in self._model.graph.node if inside.isdisjoint(node.output) for name in node.input
        }
        return tuple(sorted(inside & taken))

    def cut(self, role: Role, outputs: Sequence[str], given: Sequence[str] | None = None) -> Bundle:
        """The part of the graph that makes some tensors, as a bundle.

        Args:
            role: of the bundle.
            outputs: the tensors wanted.
            given: the tensors that it is made from; the graph's inputs, as far as they are needed, when None.
        """
        if given is None:
            nodes, _ = cut_model(self._model, outputs)
            needed = {name for node in nodes for name in node.input}
            given = [value.name for value in self._model.graph.input if value.name in needed]
        model = self._extractor.extract_model(list(given), list(outputs))
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"  # where inference has lost its name
        piece = replace(
            self._bundle,
            onnx=self._folder / f"{role}.onnx",
            name=f"{self._bundle.name}, {role}",
            role=role,
            inputs=tensor_specs(model.graph.input),
            outputs=tensor_specs(model.graph.output),
            prompting=None,
            parts={},
            files={},
        )
        return write_bundle(piece, serialise(model))


def _open(part: Bundle, runtime: Runtime, batch: int) -> Engine:
    axes = {"batch": batch}
    if flavour := _FLAVOURS.get(runtime.device):
        tensorrt = import_tensorrt(flavour)
        built = build_plan(tensorrt, part, Profile(batch, batch, batch), axes={})
        return TensorRtEngine(tensorrt, part, built.plan, axes)
    return open_engine(
        part, device=runtime.device, precision=runtime.precision, axes=axes, threads=runtime.threads
    )


def _names(specs: Sequence[TensorSpec]) -> tuple[str, ...]:
    return tuple(spec.name for spec in specs)
