"""What is odd about a folder of images, found before the long work: checks and their findings."""

__all__ = ["check", "findings", "opening", "registry"]
