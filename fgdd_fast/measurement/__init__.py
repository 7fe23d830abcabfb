"""Measure each image once, and keep what was measured by content."""

__all__ = ["measurer", "missing", "store"]
