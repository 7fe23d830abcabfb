"""PyTorch along the same paths: as published, and as a good engineer would write it."""

__all__ = ["fair", "fair_workers", "grounded", "mosaics", "published", "whole"]
