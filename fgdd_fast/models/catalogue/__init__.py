"""The models that can be pulled by name: what each is, and where it comes from."""

__all__ = ["catalogue", "download"]
