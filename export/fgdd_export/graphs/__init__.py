"""Building blocks: ONNX graphs made by hand or from PyTorch, and bundles that are published whole."""

__all__ = ["graph", "late_onnx", "network_bundle", "parity", "torch_export"]
