"""SAM 2.1: an image encoder and a box-prompted mask decoder, and their bundle."""

__all__ = ["bundle", "network"]
