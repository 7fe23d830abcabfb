"""`python -m benchmarks.studies.simulated`."""

from benchmarks.studies.simulated import main

if __name__ == "__main__":
    main()
