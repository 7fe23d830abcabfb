"""A teacher's graph that takes tiles and computes only where a tile shows."""

__all__ = ["bundle"]
