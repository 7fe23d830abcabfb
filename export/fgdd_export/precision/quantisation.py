"""fp32 graphs -> graphs in int8: static quantisation in ONNX's QDQ format, with ONNX Runtime's quantiser.

Weights are s8 with a scale for each output channel. Activations are s8 without a zero point, which is what
TensorRT takes, or u8 with one, which is what CPUs compute fastest: one bit more for what a ReLU leaves.
What is not a convolution or a product, and does not lie between two such, stays in fp32: so do the uint8
input's normalisation and all that follows the last layer.

Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", arXiv 1806.08342; Wu et
al., "Integer quantization for deep learning inference", arXiv 2004.09602.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

import numpy as np

from fgdd_engines.errors import wrapped_as_engine_error
from fgdd_engines.optional_imports import disable_onnxruntime_telemetry, import_optional
from fgdd_export.graphs.graph import IR_VERSION, Array, check_model, serialise
from fgdd_export.graphs.late_onnx import onnx
from fgdd_export.precision.quantisation_nodes import (
    CONNECTING,
    WEIGHTED,
    Harm,
    Ranges,
    choose_nodes,
    measure_harm,
)
from fgdd_fast.errors import BundleError, SettingsError

Form = Literal["int8", "int8-u8"]  # `fgdd_engines.bundle.bundle.Variant` says what each is
FORMS: tuple[Form, ...] = get_args(Form)
Samples = Sequence[Mapping[str, Array]]

PROBES = 16  # samples on which each node alone is compared with itself in fp32
# Least signal-to-noise ratio of a node alone. In U2-Netp one node has -5, as it adds small differences to a
# channel that is constantly 226; all others, and all of EfficientNet-lite0, have 22 or more.
MIN_DECIBELS = 12.0


@dataclass(frozen=True)
class Calibration:
    """What was measured of a graph on samples.

    Attributes:
        ranges: the least and the greatest value of each tensor that may be quantised.
        harm: for each form, what it does to each node with weights.
    """

    ranges: Ranges
    harm: Mapping[Form, Mapping[str, Harm]]


@dataclass(frozen=True)
class Quantised:
    """A graph in int8."""

    model: onnx.ModelProto  # takes and gives the same tensors as the fp32 graph
    quantised: tuple[str, ...]  # names of the nodes that compute in int8, in the graph's order
    kept: Mapping[str, str]  # why each other convolution or product stays in fp32, by its name


def calibrate(model: onnx.ModelProto, samples: Samples, forms: Collection[Form] = FORMS) -> Calibration:
    """Find each tensor's least and greatest value, and what int8 does to each node.

    Args:
        model: an fp32 graph whose nodes have names.
        samples: feeds of the graph, of any batch: images like those that it will see.
        forms: for which the graph is to be quantised.

    Raises:
        SettingsError: there are no samples.
        EngineError: ONNX Runtime cannot run the graph on them.
        BundleError: a tensor is not finite.
    """
    if not samples:
        raise SettingsError(
            "Without images nothing can be calibrated", "Name a folder with --calibrate DATA."
        )
    disable_onnxruntime_telemetry()
    calibration: Any = import_optional("onnxruntime.quantization.calibrate", "cpu")
    with (
        tempfile.TemporaryDirectory() as folder,
        wrapped_as_engine_error("ONNX Runtime cannot calibrate the model"),
    ):
        path = Path(folder) / "model.onnx"
        path.write_bytes(serialise(model))
        calibrator = calibration.create_calibrator(
            path,
            [*WEIGHTED, *CONNECTING],
            augmented_model_path=str(Path(folder) / "calibrated.onnx"),
            calibrate_method=calibration.CalibrationMethod.MinMax,
        )
        feeds = map(dict, samples)
        calibrator.collect_data(SimpleNamespace(get_next=lambda: next(feeds, None)))
        found = calibrator.compute_data()
    lows_and_highs = {name: found[name].range_value for name in sorted(found.keys())}
    ranges = {name: (float(np.min(low)), float(np.max(high))) for name, (low, high) in lows_and_highs.items()}
    for name, limits in ranges.items():
        if not all(math.isfinite(limit) for limit in limits):
            raise BundleError(f"The tensor '{name}' of the graph '{model.graph.name}' is not finite")
    return Calibration(
        ranges,
        {form: measure_harm(model, ranges, samples[:PROBES], unsigned=form == "int8-u8") for form in forms},
    )


def quantise_calibrated(
    model: onnx.ModelProto, calibration: Calibration, form: Form, keep: Collection[str] = ()
) -> Quantised:
    """Put a calibrated graph's convolutions, products and what lies between them into int8.

    Nodes that lose more than `MIN_DECIBELS` allow stay in fp32, and so do those named in `keep`. Raises
    SettingsError where the graph has no such node; BundleError where nothing can be quantised, or the result
    is not valid.
    """
    if unknown := sorted(set(keep) - {node.name for node in model.graph.node}):
        raise SettingsError(f"The graph '{model.graph.name}' has no nodes {unknown} to keep in fp32")
    harm = calibration.harm[form]
    noisy = {
        name: f"int8 in it alone would leave {of_node.decibels:.0f} dB of signal over noise"
        for name, of_node in harm.items()
        if of_node.decibels < MIN_DECIBELS
    }
    chosen, kept = choose_nodes(model, {**dict.fromkeys(keep, "asked for"), **noisy})
    if not chosen:
        raise BundleError(f"Nothing in the graph '{model.graph.name}' can be quantised")
    unbiased = _correct_biases(model, {name: harm[name].shift for name in chosen if name in harm})
    quantised = _insert(unbiased, calibration.ranges, chosen, unsigned=form == "int8-u8")
    check_model(quantised)
    return Quantised(quantised, chosen, kept)


def _correct_biases(model: onnx.ModelProto, shifts: Mapping[str, Array]) -> onnx.ModelProto:
    """Add to the biases of nodes what int8 takes from their outputs on average.

    Nagel et al., "Data-free quantization through weight equalization and bias correction", arXiv 1906.04721,
    section 4.2. What is alike all over an image, such as its padding, is rounded alike all over it, and
    averaging does not help there. A bias that several nodes share stays.
    """
    corrected = deepcopy(model)
    biases = {constant.name: constant for constant in corrected.graph.initializer}
    uses = Counter(tensor for node in model.graph.node for tensor in node.input)
    for node in corrected.graph.node:
        bias = biases.get(node.input[2]) if node.name in shifts and len(node.input) > 2 else None
        if bias is not None and uses[bias.name] == 1 and list(bias.dims) == list(shifts[node.name].shape):
            values = onnx.numpy_helper.to_array(bias) + shifts[node.name]
            bias.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), bias.name))
    return corrected


def _insert(
    model: onnx.ModelProto, ranges: Ranges, nodes: Sequence[str], *, unsigned: bool
) -> onnx.ModelProto:
    """Put QuantizeLinear and DequantizeLinear around nodes."""
    disable_onnxruntime_telemetry()
    tools: Any = import_optional("onnxruntime.quantization", "cpu")
    calibration: Any = import_optional("onnxruntime.quantization.calibrate", "cpu")
    quantiser: Any = import_optional("onnxruntime.quantization.qdq_quantizer", "cpu")
    with _silent():
        work = quantiser.QDQQuantizer(
            onnx.shape_inference.infer_shapes(model),
            per_channel=True,
            reduce_range=False,
            weight_qType=tools.QuantType.QInt8,
            activation_qType=tools.QuantType.QUInt8 if unsigned else tools.QuantType.QInt8,
            tensors_range=calibration.TensorsData(
                calibration.CalibrationMethod.MinMax,
                {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()},
            ),
            nodes_to_quantize=list(nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=[*WEIGHTED, *CONNECTING],
            extra_options={
                "ActivationSymmetric": not unsigned,
                # What a convolution gives is rounded once, after its ReLU, where the next node takes it.
                "OpTypesToExcludeOutputQuantization": [*WEIGHTED, "Add"],
                "QDQKeepRemovableActivations": True,
                "ForceQuantizeNoInputCheck": True,
                # ONNX Runtime fuses a convolution only with an integer bias; TensorRT takes none.
                "QuantizeBias": unsigned,
            },
        )
        work.quantize_model()
        work.model.topological_sort()
    quantised: onnx.ModelProto = work.model.model
    del quantised.graph.value_info[:]
    quantised.ir_version = IR_VERSION
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    return quantised


@contextmanager
def _silent() -> Iterator[None]:
    """Without the quantiser's advice, which goes through Python's root logger and would set that up."""
    before, root, nowhere = logging.root.manager.disable, logging.getLogger(), logging.NullHandler()
    logging.disable(logging.WARNING)
    root.addHandler(nowhere)
    try:
        yield
    finally:
        root.removeHandler(nowhere)
        logging.disable(before)
