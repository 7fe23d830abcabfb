"""Work on several machines: workers of a Ray cluster, to which functions are sent."""

__all__ = ["cluster", "connecting"]
