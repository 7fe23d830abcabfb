"""A small network in the form in which U2-Netp is published, for tests."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def saliency_source(side: int = 64, bias: float = 0.0, gain: float = 1.0) -> bytes:
    """A serialised opset 11 model of a fixed size, with two outputs and a Resize to a computed size.

    Args:
        side: pixels of the input's sides.
        bias: added before the sigmoid; strongly negative, and nothing is found.
        gain: multiplies what is put into the sigmoid; 0 makes the map flat.
    """
    rng = np.random.default_rng(3)
    constants = {
        "filters": rng.normal(0, 0.5, (4, 3, 3, 3)).astype(np.float32),
        "merge": (gain * rng.normal(0, 1, (1, 4, 1, 1))).astype(np.float32),
        "bias": np.array([bias], np.float32),
        "two": np.array([2], np.int64),
        "four": np.array([4], np.int64),
        "zero": np.array([0], np.int64),
        "none": np.array([], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input.1", "filters"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["active"]),
        helper.make_node("MaxPool", ["active"], ["small"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("Shape", ["active"], ["shape"]),
        helper.make_node("Slice", ["shape", "two", "four", "zero"], ["sides"]),
        helper.make_node("Shape", ["small"], ["small_shape"]),
        helper.make_node("Slice", ["small_shape", "zero", "two", "zero"], ["planes"]),
        helper.make_node("Concat", ["planes", "sides"], ["target"], axis=0),
        helper.make_node(
            "Resize",
            ["small", "none", "none", "target"],
            ["large"],
            mode="linear",
            coordinate_transformation_mode="pytorch_half_pixel",
        ),
        helper.make_node("Conv", ["large", "merge", "bias"], ["fused"]),
        helper.make_node("Sigmoid", ["fused"], ["d0"]),
        helper.make_node("Sigmoid", ["maps"], ["d1"]),
    ]
    graph = helper.make_graph(
        nodes,
        "source",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, side, side])],
        [
            helper.make_tensor_value_info("d0", TensorProto.FLOAT, [1, 1, side, side]),
            helper.make_tensor_value_info("d1", TensorProto.FLOAT, [1, 4, side, side]),
        ],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
