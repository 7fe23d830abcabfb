"""Grounding DINO: the network restated so that it exports, and its bundle."""

__all__ = ["bundle", "network"]
