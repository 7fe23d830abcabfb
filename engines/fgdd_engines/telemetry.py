"""Import the runtimes without their telemetry.

Both report to their makers' analytics services by default and leave an identifier in the home folder: recent
wheels of ONNX Runtime on their own, OpenVINO through its conversion tools, which `import openvino` imports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from fgdd_engines.optional_imports import import_optional

_TELEMETRY = "openvino_telemetry"


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime; its own switch, read once, turns its telemetry off whole.

    Raises:
        MissingExtraError: the package is not installed.
    """
    disable_onnxruntime_telemetry()
    return import_optional("onnxruntime", "cpu")


def disable_onnxruntime_telemetry() -> None:
    """Turn ONNX Runtime's telemetry off before another package imports it."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def import_openvino() -> ModuleType:
    """Import OpenVINO; its tools go on in silence where they do not find the package `openvino_telemetry`.

    Raises:
        MissingExtraError: the package is not installed.
    """
    if "openvino" in sys.modules:
        return import_optional("openvino", "cpu")
    telemetry = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # the import system's way to say: not there
    try:
        return import_optional("openvino", "cpu")
    finally:
        del sys.modules[_TELEMETRY]
        if telemetry is not None:
            sys.modules[_TELEMETRY] = telemetry


def openvino_core() -> Any:
    """OpenVINO's `Core`: the same one for the whole process, never freed.

    A `Core` registers an alternate signal stack at its first use and, at its end, what stood there before.
    When two end in the order in which they began, a freed stack stays registered, and the next signal (an
    interrupt, the end of a child process) is handled on whatever lies there by then.

    Raises:
        MissingExtraError: the package is not installed.
    """
    return _only(import_openvino().Core)


@cache
def _only(core: Callable[[], Any]) -> Any:
    return core()
