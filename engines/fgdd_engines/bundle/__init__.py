"""Bundles: an ONNX file with a sidecar that says what it is, its files and their hashes."""

__all__ = ["bundle", "files", "schema", "sidecar"]
