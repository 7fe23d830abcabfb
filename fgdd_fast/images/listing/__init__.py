"""Which files make up a data set: folders that are walked, and lists that are read."""

__all__ = ["folder_search", "lists"]
