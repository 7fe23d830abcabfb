"""What a figure was measured on, and what the machine could do at the most."""

__all__ = ["ceilings", "child", "environment", "operations", "processes", "resources"]
