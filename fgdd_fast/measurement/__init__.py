"""Measure each image once, and keep what was measured by content."""

__all__ = ["coverage", "features", "measurer", "missing", "store", "store_format"]
