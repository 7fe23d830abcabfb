"""Variants of a bundle in lower precision, kept only where decisions agree."""

__all__ = ["conversion", "tuning"]
