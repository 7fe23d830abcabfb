"""`python -m benchmarks.studies.streams`."""

from benchmarks.studies.streams import main

if __name__ == "__main__":
    main()
