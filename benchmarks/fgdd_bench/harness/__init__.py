"""What is compared, on which images, in which turns, and whether the answers agree."""

__all__ = ["bench", "implementation", "opening", "parity", "result", "session", "subject", "timing"]
