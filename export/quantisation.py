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
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fgdd_fast.engines.failures import told_as_engine_error
from fgdd_fast.engines.runtimes import quieten_onnxruntime
from fgdd_fast.errors import BundleError, SettingsError
from fgdd_fast.export.graph import IR_VERSION, Array, check_model, serialise
from fgdd_fast.export.quantisation_errors import signal_to_noise
from fgdd_fast.export.quantisation_nodes import CONNECTING, WEIGHTED, choose_nodes, unknown_nodes
from fgdd_fast.extras import import_extra

if TYPE_CHECKING:
    import onnx

Form = Literal["int8", "int8-u8"]  # `fgdd_fast.engines.bundle.Variant` says what each is
FORMS: tuple[Form, ...] = get_args(Form)
Samples = Sequence[Mapping[str, Array]]

PROBES = 4  # samples on which the error of each node alone is measured
# Least signal-to-noise ratio of a node alone. In U2-Netp one node has -5, as it adds small differences to a
# channel that is constantly 226; all others, and all of EfficientNet-lite0, have 22 or more.
MIN_DECIBELS = 12.0


@dataclass(frozen=True)
class Calibration:
    """What a graph's activations are on the samples; serves both forms.

    Attributes:
        ranges: the least and the greatest value of each tensor that may be quantised.
        alone: for each form, the signal-to-noise ratio in decibels of each node with weights, were it alone
            in int8.
    """

    ranges: Mapping[str, tuple[float, float]]
    alone: Mapping[Form, Mapping[str, float]]


@dataclass(frozen=True)
class Quantised:
    """A graph in int8.

    Attributes:
        model: takes and gives the same tensors as the fp32 graph.
        quantised: names of the nodes that compute in int8, in the graph's order.
        kept: why each other convolution or product stays in fp32, by its name.
    """

    model: onnx.ModelProto
    quantised: tuple[str, ...]
    kept: Mapping[str, str]


def quantise(model: onnx.ModelProto, samples: Samples, form: Form, keep: Collection[str] = ()) -> Quantised:
    """Calibrate, then quantise; see `calibrate` and `quantise_calibrated`."""
    return quantise_calibrated(model, calibrate(model, samples), form, keep)


def calibrate(model: onnx.ModelProto, samples: Samples) -> Calibration:
    """Find what may be quantised: each tensor's least and greatest value, and which nodes int8 would harm.

    Args:
        model: an fp32 graph whose nodes have names.
        samples: feeds of the graph, of any batch: images like those that it will see.

    Raises:
        SettingsError: there are no samples.
        EngineError: ONNX Runtime cannot run the graph on them.
        BundleError: a tensor is not finite.
    """
    if not samples:
        raise SettingsError(
            "Without images nothing can be calibrated", "Name a folder with --calibrate DATA."
        )
    quieten_onnxruntime()
    calibration: Any = import_extra("onnxruntime.quantization.calibrate", "cpu")
    with (
        tempfile.TemporaryDirectory() as folder,
        told_as_engine_error("ONNX Runtime cannot calibrate the model"),
    ):
        path = Path(folder) / "model.onnx"
        path.write_bytes(serialise(model))
        calibrator = calibration.create_calibrator(
            path,
            [*WEIGHTED, *CONNECTING],
            augmented_model_path=str(Path(folder) / "calibrated.onnx"),
            calibrate_method=calibration.CalibrationMethod.MinMax,
        )
        calibrator.collect_data(_Reader(samples))
        found = calibrator.compute_data()
    ranges = {name: _limits(found[name].range_value) for name in sorted(found.keys())}
    for name, limits in ranges.items():
        if not all(math.isfinite(limit) for limit in limits):
            raise BundleError(f"The tensor '{name}' of the graph '{model.graph.name}' is not finite")
    probes = samples[:PROBES]
    return Calibration(
        ranges, {form: signal_to_noise(model, ranges, probes, unsigned=_unsigned(form)) for form in FORMS}
    )


def quantise_calibrated(
    model: onnx.ModelProto, calibration: Calibration, form: Form, keep: Collection[str] = ()
) -> Quantised:
    """Put a graph's convolutions, products and what lies between them into int8.

    Nodes that lose more than `MIN_DECIBELS` allow stay in fp32.

    Args:
        model: the graph that was calibrated.
        calibration: its ranges.
        form: of the activations.
        keep: names of nodes that stay in fp32 as well.

    Raises:
        SettingsError: `keep` names a node that the graph does not have.
        BundleError: nothing can be quantised, or the result is not valid.
    """
    unknown = unknown_nodes(model, keep)
    if unknown:
        raise SettingsError(f"The graph '{model.graph.name}' has no nodes {unknown} to keep in fp32")
    noisy = {
        name: f"int8 in it alone would leave {decibels:.0f} dB of signal over noise"
        for name, decibels in calibration.alone[form].items()
        if decibels < MIN_DECIBELS
    }
    choice = choose_nodes(model, {**dict.fromkeys(keep, "asked for"), **noisy})
    if not choice.quantised:
        raise BundleError(f"Nothing in the graph '{model.graph.name}' can be quantised")
    quantised = _insert(model, calibration, choice.quantised, unsigned=_unsigned(form))
    check_model(quantised)
    return Quantised(quantised, choice.quantised, choice.kept)


def _unsigned(form: Form) -> bool:
    return form == "int8-u8"


class _Reader:
    """The samples as ONNX Runtime's `CalibrationDataReader` hands them out."""

    def __init__(self, samples: Samples) -> None:
        self._samples: Iterator[Mapping[str, Array]] = iter(samples)

    def get_next(self) -> dict[str, Array] | None:
        feeds = next(self._samples, None)
        return None if feeds is None else dict(feeds)


def _limits(found: tuple[Array, Array]) -> tuple[float, float]:
    return float(np.min(found[0])), float(np.max(found[1]))


def _insert(
    model: onnx.ModelProto, calibration: Calibration, nodes: Sequence[str], *, unsigned: bool
) -> onnx.ModelProto:
    """Put QuantizeLinear and DequantizeLinear around nodes."""
    quieten_onnxruntime()
    tools: Any = import_extra("onnxruntime.quantization", "cpu")
    ranges: Any = import_extra("onnxruntime.quantization.calibrate", "cpu")
    quantiser: Any = import_extra("onnxruntime.quantization.qdq_quantizer", "cpu")
    onnx_: Any = import_extra("onnx", "models")
    limits = {
        name: tuple(np.float32(limit) for limit in limits) for name, limits in calibration.ranges.items()
    }
    with _silent():
        work = quantiser.QDQQuantizer(
            onnx_.shape_inference.infer_shapes(model),
            per_channel=True,
            reduce_range=False,
            weight_qType=tools.QuantType.QInt8,
            activation_qType=tools.QuantType.QUInt8 if unsigned else tools.QuantType.QInt8,
            tensors_range=ranges.TensorsData(ranges.CalibrationMethod.MinMax, limits),
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
    """Without the quantiser's advice, which goes through Python's root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
