"""PyTorch along the same paths: as published, and as a good engineer would write it."""
