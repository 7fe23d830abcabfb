"""The package `onnx`, imported when something of it is used: to look at the catalogue takes no extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgdd_engines.optional_imports import import_optional

if TYPE_CHECKING:
    import onnx
else:

    class _Onnx:
        def __getattr__(self, name):
            return getattr(import_optional("onnx", "models"), name)

    onnx = _Onnx()

__all__ = ["onnx"]
