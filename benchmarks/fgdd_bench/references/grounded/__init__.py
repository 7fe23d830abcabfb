"""Grounded SAM 2 in PyTorch along the path `foreground`."""

__all__ = ["miniature_networks", "random_grounded", "random_networks", "subject", "ways"]
