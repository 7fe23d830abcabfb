"""Read PyTorch checkpoints of every kind without executing what they hold."""

__all__ = ["checkpoint", "pretrained", "sam2_checkpoint"]
