"""From files to pixels: the data set, decoding, resizing, crops, tiles and what a teacher is shown."""

__all__ = [
    "crops",
    "dataset",
    "decode",
    "depth",
    "file_kinds",
    "groups",
    "headers",
    "near_duplicates",
    "place",
    "resize",
    "tiles",
]
