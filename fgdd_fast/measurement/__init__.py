"""Measure each image once, and keep what was measured by content."""

__all__ = [
    "coverage",
    "effort",
    "features",
    "forecast",
    "image_measurer",
    "looks",
    "measurer",
    "missing",
    "store",
    "store_format",
    "store_tables",
    "whole",
]
