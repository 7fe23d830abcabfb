"""The study of quick and closer looks: see `effort`."""

from benchmarks.studies.effort.effort import main

__all__ = ["main"]
