"""The study of data sets as large as ImageNet, without their pictures: see `simulated`."""

from benchmarks.studies.simulated.simulated import main

__all__ = ["main"]
