"""Distil a stream: a camera, a video or a folder that grows, in bounded memory and on bounded disk."""

__all__ = ["bounds", "budgets", "candidates", "checkpoint", "labels", "merging", "run", "stream"]
