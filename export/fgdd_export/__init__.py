"""Export: turn published networks into bundles that run without the framework they came from."""

__all__ = [
    "catalogue",
    "checkpoints",
    "classifier",
    "graphs",
    "grounded_sam2",
    "grounding_dino",
    "imported",
    "precision",
    "sam2",
    "tile",
]
