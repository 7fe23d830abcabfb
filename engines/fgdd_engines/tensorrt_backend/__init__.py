"""Build TensorRT engines of a bundle on this device, and run them."""

__all__ = ["api", "build", "cuda_device", "engine", "plans"]
