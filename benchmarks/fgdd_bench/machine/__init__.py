"""What a figure was measured on, and what the machine could do at the most."""

__all__ = ["ceilings", "environment", "operations", "processes", "resources"]
