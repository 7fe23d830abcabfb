"""Decisions over what was measured: pure functions that see no pixel and no model."""
