"""What students are trained on and judged by."""

__all__ = ["labelled_images", "online_labels", "opening", "training_set", "validation"]
