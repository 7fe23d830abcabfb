"""A device that computes nothing, so that what the host does beside one can be measured anywhere."""

__all__ = ["backend"]
