"""What students are trained on and judged by."""

__all__ = ["labelled_images", "opening", "training_set"]
