"""The study of streams, held to the batch tool: see `streams`."""

from benchmarks.studies.streams.streams import main

__all__ = ["main"]
