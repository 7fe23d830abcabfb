"""What is compared, on which images, in which turns, and whether the answers agree."""

__all__ = ["implementation", "opening", "parity", "result", "session", "subject"]
