"""Measure this project, and PyTorch beside it, in turns on the same images."""
