"""Read PyTorch checkpoints of every kind without executing what they hold."""
