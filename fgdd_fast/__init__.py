"""Foreground-aware dataset distillation: a folder of labelled images becomes a tiny data set.

Importing this package imports no runtime, no PyTorch and no model: each is loaded by what needs it.
"""

__version__ = "0.1.0"
