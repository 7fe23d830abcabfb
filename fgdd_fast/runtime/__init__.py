"""How a bundle runs on this machine: which runtime and precision, and whether decisions agree."""

__all__ = [
    "batches",
    "cached",
    "choose",
    "doctor",
    "engine_building",
    "engine_checking",
    "machine",
    "parity",
    "sample_images",
    "tolerances",
    "trials",
    "variants",
]
