"""Building blocks: ONNX graphs made by hand or from PyTorch, and bundles that are published whole."""
