"""How a bundle runs on this machine: which runtime and precision, and whether decisions agree."""
