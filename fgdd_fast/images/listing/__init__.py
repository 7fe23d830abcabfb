"""Which images make up a data set: folders that are walked, lists that are read, shards and addresses."""

__all__ = ["addresses", "folder_search", "lists", "members", "parquet", "shards", "tars"]
