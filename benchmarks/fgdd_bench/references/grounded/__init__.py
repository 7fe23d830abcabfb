"""Grounded SAM 2 in PyTorch along the path `foreground`."""
