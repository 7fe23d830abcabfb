"""Engines: run an ONNX model on whatever runtime the device has, behind one interface."""

__all__ = [
    "backends",
    "base",
    "bundle",
    "child_python",
    "errors",
    "factory",
    "file_lock",
    "onnxruntime_backend",
    "optional_imports",
    "paths",
    "plugins",
    "probing",
    "progress",
    "tensorrt_backend",
]
