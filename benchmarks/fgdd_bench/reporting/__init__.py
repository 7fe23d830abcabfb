"""A result as Markdown and as a page."""
