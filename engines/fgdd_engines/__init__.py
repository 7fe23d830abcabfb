"""Engines: run an ONNX model on whatever runtime the device has, behind one interface."""

__all__ = [
    "backends",
    "base",
    "bundle",
    "child_python",
    "errors",
    "factory",
    "failures",
    "file_lock",
    "optional_imports",
    "paths",
    "plugins",
    "probing",
    "progress",
    "telemetry",
    "tensorrt_backend",
]
