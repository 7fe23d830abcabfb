"""What is compared, on which images, in which turns, and whether the answers agree."""

__all__ = [
    "absent_models",
    "bench",
    "opening",
    "originals",
    "parity",
    "result",
    "sources",
    "steps",
    "subject",
    "ways",
]
