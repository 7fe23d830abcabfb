"""A result as Markdown and as a page."""

__all__ = ["page", "report"]
