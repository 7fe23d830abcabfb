"""Soft labels of a distilled data set: made by a teacher through its engine, stored, and read back."""

__all__ = ["compression", "index", "labeller", "making", "stored", "teacher", "training_views", "writing"]
