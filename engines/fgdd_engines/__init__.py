"""Engines: run an ONNX model on whatever runtime the device has, behind one interface."""

__all__ = [
    "backends",
    "base",
    "bundle",
    "child_python",
    "errors",
    "factory",
    "file_lock",
    "optional_imports",
    "paths",
    "plugins",
    "probing",
    "progress",
    "tensorrt_backend",
]
