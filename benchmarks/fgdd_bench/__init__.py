"""Measure this project, and PyTorch beside it, in turns on the same images."""

__all__ = ["gpu_check", "harness", "machine", "references", "reporting"]
