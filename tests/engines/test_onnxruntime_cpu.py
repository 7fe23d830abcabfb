"""What ONNX Runtime's CPU provider makes of a bundle's variants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_models import tiny_bundle, tiny_feeds

from fgdd_engines.base import Array
from fgdd_engines.bundle.bundle import Bundle, Variant, write_bundle
from fgdd_engines.onnxruntime_backend.cpu import OnnxRuntimeEngine
from fgdd_fast.errors import EngineError

quantization = pytest.importorskip("onnxruntime.quantization")
BATCH = 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


def cast(bundle: Bundle, dtype: int) -> bytes:
    """The graph with its convolution in another floating-point type."""
    model = onnx.load_model(bundle.onnx)
    (place,) = (place for place, node in enumerate(model.graph.node) if node.op_type == "Conv")
    convolution = model.graph.node[place]
    casts = [helper.make_node("Cast", [name], [f"{name}_cast"], to=dtype) for name in convolution.input]
    after = helper.make_node("Cast", ["maps_cast"], list(convolution.output), to=TensorProto.FLOAT)
    convolution.input[:] = [node.output[0] for node in casts]
    convolution.output[:] = ["maps_cast"]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], *casts, nodes[place], after, *nodes[place + 1 :]])
    return bytes(model.SerializeToString())


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    """A batch of drawn images."""

    def __init__(self) -> None:
        self.batches: Iterator[dict[str, Array]] = iter([tiny_feeds(BATCH, seed=9)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.batches, None)


def quantised(bundle: Bundle, activations: object, folder: Path) -> bytes:
    """The graph with its convolution and its matrix product in 8 bits."""
    path = folder / "quantised.onnx"
    quantization.quantize_static(
        str(bundle.onnx),
        str(path),
        Calibration(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=activations,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["Conv", "MatMul"],
    )
    return path.read_bytes()


def written(bundle: Bundle, variant: Variant, folder: Path) -> Bundle:
    if variant in ("fp16", "bf16"):
        model = cast(bundle, TensorProto.FLOAT16 if variant == "fp16" else TensorProto.BFLOAT16)
    else:
        kinds = quantization.QuantType
        model = quantised(bundle, kinds.QUInt8 if variant == "int8-u8" else kinds.QInt8, folder)
    description = replace(
        bundle, onnx=folder / f"tiny.{variant}.onnx", variant=variant, variant_of=bundle.sha256
    )
    return write_bundle(description, model)


@pytest.mark.parametrize(
    ("variant", "arithmetic", "tolerance"),
    [
        ("fp16", "CPU, fp16, or fp32 where it has no kernel", 5e-3),
        ("int8", "CPU, int8", 0.1),
        ("int8-u8", "CPU, int8", 0.1),
    ],
)
def test_a_variant_runs_and_is_named(
    bundle: Bundle, tmp_path: Path, variant: Variant, arithmetic: str, tolerance: float
) -> None:
    feeds = tiny_feeds(BATCH)
    with OnnxRuntimeEngine(bundle, {"batch": BATCH}, 1) as engine:
        assert engine.arithmetic.endswith("CPU, fp32")
        expected = engine.run(feeds)["logits"]
    with OnnxRuntimeEngine(written(bundle, variant, tmp_path), {"batch": BATCH}, 1) as engine:
        assert engine.arithmetic.endswith(arithmetic)
        found = engine.run(feeds)["logits"]
    assert 0 < np.abs(found - expected).max() < tolerance


def test_bf16_does_not_load(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot load 'tiny': .*bfloat16"):
        OnnxRuntimeEngine(written(bundle, "bf16", tmp_path), {"batch": BATCH}, 1)
