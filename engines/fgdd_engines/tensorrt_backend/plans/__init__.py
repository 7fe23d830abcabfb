"""TensorRT plans: on what each depends, where it is kept, and whether it is of use here."""

__all__ = ["choice", "key", "sidecar", "store", "usability"]
