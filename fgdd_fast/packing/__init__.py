"""A distilled data set for other libraries: WebDataset shards, and a folder for `datasets`."""

__all__ = ["pack"]
