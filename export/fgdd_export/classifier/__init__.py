"""Teachers: any image classifier, or a backbone with a fitted head, as a bundle."""

__all__ = ["bundle", "candidate", "class_activation", "network", "teacher"]
