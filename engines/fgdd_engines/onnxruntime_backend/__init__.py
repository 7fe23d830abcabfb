"""Run a bundle in ONNX Runtime, on the CPU or on an NVIDIA GPU."""

__all__ = ["cpu", "cuda", "session"]
