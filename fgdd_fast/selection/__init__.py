"""Decisions over what was measured: pure functions that see no pixel and no model."""

__all__ = [
    "coresets",
    "images_per_class",
    "ranking",
    "records",
    "sampling",
    "select",
    "thresholds",
    "undecided",
]
