"""Grounded SAM 2: detector and segmenter joined to one bundle, compared with the published networks."""

__all__ = ["bundle", "occupancy", "pytorch_reference"]
