"""Drawn pictures whose foreground is known exactly: for the demo, and for checks where no photographs are."""

from fgdd_fast.synthetic.pictures import CLASSES, DrawnImage, DrawnSource, draw, write_drawn_dataset

__all__ = [
    "CLASSES",
    "DrawnImage",
    "DrawnSource",
    "draw",
    "pictures",
    "scenes",
    "tools",
    "write_drawn_dataset",
]
