"""`python -m benchmarks.studies.effort`."""

from benchmarks.studies.effort import main

if __name__ == "__main__":
    main()
