"""Networks that are ONNX files already, made into bundles without PyTorch."""

__all__ = ["bundle", "network"]
