"""Grounded SAM 2 in PyTorch along the path `foreground`."""

__all__ = ["random_grounded", "random_networks", "subject", "ways"]
