"""`python -m benchmarks.studies.effort`."""

from benchmarks.studies.effort import main

main()
