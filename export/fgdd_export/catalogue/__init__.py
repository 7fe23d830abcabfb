"""The catalogue's models: made from their published sources."""

__all__ = ["prepare", "u2netp"]
