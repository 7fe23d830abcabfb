"""Decisions over what was measured: pure functions that see no pixel and no model."""

__all__ = ["coresets", "ranking", "records", "sampling", "select", "thresholds", "undecided"]
