"""The networks that look at images: foreground models, teachers, and how they are asked."""

__all__ = [
    "catalogue",
    "class_activation",
    "factory",
    "fitting",
    "foreground",
    "given",
    "grounded_sam2",
    "grounded_tensors",
    "linear_head",
    "network",
    "prompts",
]
