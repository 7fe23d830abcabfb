"""Grounded SAM 2 in PyTorch: as published, as a good engineer would run it, and with random weights."""

__all__ = ["fair", "published", "random_grounded", "random_networks"]
