"""The networks of a Grounded SAM 2 one by one, to be timed alone.

This project runs detector, image encoder and mask decoder as one graph, or as two in the split form. That
very graph is cut where the image encoder ends, so that each of its nodes is in exactly one of the three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fgdd_bench.harness.implementation import Stage, StageName, Step, as_stages
from fgdd_bench.harness.subject import Subject
from fgdd_bench.machine.operations import IMAGE_ENCODER
from fgdd_engines.backends import split_device
from fgdd_engines.base import Array, Engine, TensorSpec
from fgdd_engines.bundle.bundle import Bundle, Role, write_bundle
from fgdd_engines.factory import open_engine
from fgdd_engines.optional_imports import import_optional
from fgdd_engines.tensorrt_backend.api import PACKAGES, import_tensorrt
from fgdd_engines.tensorrt_backend.build import Profile, build_plan
from fgdd_engines.tensorrt_backend.engine import TensorRtEngine
from fgdd_export.graphs.graph import cut_model, serialise, tensor_specs
from fgdd_fast.errors import BundleError
from fgdd_fast.images.dataset import SourceImage
from fgdd_fast.models.foreground import Inputs
from fgdd_fast.models.grounded_sam2 import GroundedSam2, TextEncoder
from fgdd_fast.models.grounded_tensors import BOXES, DETECTOR_OUTPUTS, SCORES, SEGMENTER_OUTPUTS
from fgdd_fast.models.network import Runtime

NETWORKS: tuple[StageName, ...] = ("detector", "mask encoder", "mask decoder")

_Tensors = dict[str, Array]


class Apart:
    """The networks one by one, as stages run them, opened as the pipeline does; `opened` closes them."""

    def __init__(self, subject: Subject, model: GroundedSam2) -> None:
        self._model = model
        bundle = subject.foreground_bundle(grounded=True)
        runtime = subject.runtime(bundle)
        with ExitStack() as opened, TemporaryDirectory() as folder:
            engines = [
                opened.enter_context(_open(part, runtime, subject.batch))
                for part in cut_parts(bundle, runtime, Path(folder))
            ]
            self._text = opened.enter_context(closing(TextEncoder(bundle.part("text"), runtime)))
            self.opened = opened.pop_all()
        self._steps = [
            Step(name, partial(_run, engine)) for name, engine in zip(NETWORKS, engines, strict=True)
        ]

    def stages(
        self, images: Sequence[SourceImage], prepared: Sequence[Inputs], batches: Sequence[Sequence[int]]
    ) -> list[Stage]:
        """Return the stages of the networks, for images that the model has prepared, in batches of a size."""
        texts = {name: self._encode(name) for name in dict.fromkeys(image.class_name for image in images)}
        inputs = [
            _stacked([{**prepared[index], **texts[images[index].class_name]} for index in batch])
            for batch in batches
        ]
        networks, _ = as_stages(self._steps, batches, inputs=inputs, images=len(batches[0]))
        return [text_stage(images, self._encode), *networks]

    def _encode(self, class_name: str) -> Inputs:
        """Return what the detector takes of a class's prompt, which is encoded now."""
        return self._text.encode(self._model.tokens[self._model.prompt(class_name)])


def text_stage(images: Sequence[SourceImage], encode: Callable[[str], Any], threads: int = 1) -> Stage:
    """Return the stage that encodes the prompt of each class once: a call covers the images of a class."""
    classes = list(dict.fromkeys(image.class_name for image in images))
    covered = -(-len(images) // len(classes))
    return Stage("text encoder", lambda index: encode(classes[index]), len(classes), covered, threads)


def cut_parts(bundle: Bundle, runtime: Runtime, folder: Path) -> tuple[Bundle, Bundle, Bundle]:
    """Cut detector, image encoder and mask decoder out of a bundle's graphs, or of variants in their place.

    They are put into a folder, which is not needed once they are open.

    Raises:
        BundleError: the bundle's graph has no image encoder to be cut off.
    """
    detector = runtime.variants.get(bundle.sha256, bundle)
    if "segmenter" in bundle.parts:
        part = bundle.part("segmenter")
        cutter = _Cutter(runtime.variants.get(part.sha256, part), folder)
    else:
        cutter = _Cutter(detector, folder)
        detector = cutter.cut("detector", _names(DETECTOR_OUTPUTS))
    between = cutter.boundary()
    encoder = cutter.cut("image-encoder", between)
    given = (*between, BOXES.name, SCORES.name)
    return detector, encoder, cutter.cut("mask-decoder", _names(SEGMENTER_OUTPUTS), given)


class _Cutter:
    """Cuts pieces out of a bundle's graph, and puts them into a folder."""

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        onnx: Any = import_optional("onnx", "models")
        self._bundle = bundle
        self._folder = folder
        self._model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(bundle.graph()))
        self._extractor = onnx.utils.Extractor(self._model)

    def boundary(self) -> tuple[str, ...]:
        """Return the tensors that leave the part of the graph which the image encoder ends."""
        graph = self._model.graph
        ends = [name for node in graph.node if IMAGE_ENCODER in node.name for name in node.output]
        if not ends:
            raise BundleError(f"The graph {self._bundle.onnx} has no node with '{IMAGE_ENCODER}' in its name")
        nodes, _ = cut_model(self._model, ends)
        inside = {name for node in nodes for name in node.output}
        taken = {name for node in graph.node if inside.isdisjoint(node.output) for name in node.input}
        return tuple(sorted(inside & taken))

    def cut(self, role: Role, outputs: Sequence[str], given: Sequence[str] | None = None) -> Bundle:
        """Return the part of the graph that makes some tensors, of the graph's inputs or of tensors given."""
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
    """Open a part; TensorRT builds a plan of it, which takes as long as that of the bundle did."""
    axes = {"batch": batch}
    name, gpu = split_device(runtime.device)
    for flavour in PACKAGES:
        if flavour == name:
            tensorrt = import_tensorrt(flavour)
            tf32 = runtime.precision == "tf32"
            built = build_plan(tensorrt, part, Profile(batch, batch, batch), axes={}, tf32=tf32, gpu=gpu)
            return TensorRtEngine(tensorrt, part, built.plan, axes, gpu=gpu)
    device, precision, threads = runtime.device, runtime.precision, runtime.threads
    return open_engine(part, device=device, precision=precision, axes=axes, threads=threads)


def _names(specs: Sequence[TensorSpec]) -> tuple[str, ...]:
    return tuple(spec.name for spec in specs)


def _run(engine: Engine, _: Sequence[int], tensors: Mapping[str, Array]) -> _Tensors:
    """Return the tensors of a batch, with those that an engine makes of them."""
    feeds = {spec.name: tensors[spec.name] for spec in engine.inputs}
    return {**tensors, **engine.run(feeds)}


def _stacked(samples: Sequence[Inputs]) -> _Tensors:
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
