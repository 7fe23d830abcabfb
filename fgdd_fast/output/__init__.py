"""What distilling writes, and reading it back: mosaics, manifest, folder, contact sheet."""

__all__ = ["distilled", "folder", "manifest", "manifest_reading", "mosaic", "report", "writing"]
