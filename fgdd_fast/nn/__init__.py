"""Networks in PyTorch, shared by students and exporters."""
