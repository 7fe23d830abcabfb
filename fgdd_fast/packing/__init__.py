"""What travels: a distilled data set for other libraries, as shards or for `datasets`; models for a board."""

__all__ = ["board", "pack"]
