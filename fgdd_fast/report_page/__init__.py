"""One HTML page that shows what was distilled, and why; needs nothing but a browser."""

__all__ = ["comparison_page", "report"]
