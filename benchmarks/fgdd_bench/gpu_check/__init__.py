"""Check all that the GPU code claims, within a budget of time: on a machine without a network, from a kit."""

__all__ = ["kit", "running"]
