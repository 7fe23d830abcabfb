"""A small network in the form in which U2-Netp is published, for tests."""

from __future__ import annotations

from functools import partial

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
    node, floats = helper.make_node, partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    linear = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}
    nodes = [
        node("Conv", ["input.1", "filters"], ["maps"], pads=[1, 1, 1, 1]),
        node("Relu", ["maps"], ["active"]),
        node("MaxPool", ["active"], ["small"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Shape", ["active"], ["shape"]),
        node("Slice", ["shape", "two", "four", "zero"], ["sides"]),
        node("Shape", ["small"], ["small_shape"]),
        node("Slice", ["small_shape", "zero", "two", "zero"], ["planes"]),
        node("Concat", ["planes", "sides"], ["target"], axis=0),
        node("Resize", ["small", "none", "none", "target"], ["large"], **linear),
        node("Conv", ["large", "merge", "bias"], ["fused"]),
        node("Sigmoid", ["fused"], ["d0"]),
        node("Sigmoid", ["maps"], ["d1"]),
    ]
    inputs = [floats("input.1", shape=[1, 3, side, side])]
    outputs = [floats("d0", shape=[1, 1, side, side]), floats("d1", shape=[1, 4, side, side])]
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "source", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
