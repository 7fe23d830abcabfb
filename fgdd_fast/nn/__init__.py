"""Networks in PyTorch, shared by students and exporters."""

__all__ = ["convnet", "mobilenet", "resnet", "vision_transformer"]
