"""Packages that no command needs for its help."""

from __future__ import annotations

HEAVY = [
    "PIL",
    "cuda",
    "datasets",
    "jinja2",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxslim",
    "openvino",
    "pandas",
    "pyarrow",
    "ray",
    "safetensors",
    "sklearn",
    "tensorrt",
    "tensorrt_rtx",
    "tokenizers",
    "torch",
    "transformers",
    "webdataset",
]
