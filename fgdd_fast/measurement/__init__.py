"""Measure each image once, and keep what was measured by content."""
